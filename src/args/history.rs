//! Arguments of `history`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use k8s_openapi::jiff::Timestamp;

use super::EtcdArgs;
use crate::store::ResourceVersion;

/// Arguments of `history`.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// Where to begin: a resourceVersion, or a time such as 2026-01-31T12:00:00Z. By default, as far back as history
    /// goes.
    #[arg(long, value_name = "VERSION|TIME")]
    pub from: Option<Moment>,

    /// Where to end. By default, now.
    #[arg(long, value_name = "VERSION|TIME")]
    pub to: Option<Moment>,

    /// Only packages of this namespace.
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,

    /// Only packages of this CatalogSource.
    #[arg(long, value_name = "NAME")]
    pub catalog_source: Option<String>,

    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: HistoryFormat,

    /// Reads the database of `up` in this directory instead of etcd. `up` must not be running.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where the objects are.
    #[command(flatten)]
    pub etcd: EtcdArgs,
}

/// How changes are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum HistoryFormat {
    /// One change a line, in columns.
    #[default]
    Table,
    /// One change a line, as JSON.
    Jsonl,
}

/// A point in history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After this event.
    Version(ResourceVersion),
    /// At this time.
    Time(Timestamp),
}

/// A text that is neither a version nor a time.
#[derive(Debug, thiserror::Error)]
#[error("neither a resourceVersion nor a time such as 2026-01-31T12:00:00Z")]
pub struct InvalidMoment;

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        if let Ok(version) = text.parse() {
            return Ok(Moment::Version(version));
        }
        text.parse().map(Moment::Time).map_err(|_| InvalidMoment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_version_or_a_time() {
        assert_eq!("7001".parse::<Moment>().unwrap(), Moment::Version(ResourceVersion::from_u64(7001)));
        let time = "2026-01-31T12:00:00Z".parse::<Moment>().unwrap();
        assert_eq!(time, "2026-01-31T13:00:00+01:00".parse().unwrap());
        for text in ["", "yesterday", "-1", "7001a"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
