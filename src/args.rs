//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::model::SourceReference;
use crate::sink::OutputFormat;
use crate::telemetry::LogFormat;

/// Serves the content of operator catalogs as native Kubernetes objects.
///
/// Operators are published in catalogs: File-Based Catalogs in container images. packageserver reads such images and
/// serves their packages and bundles as Kubernetes API objects, so that `kubectl get packages` simply works.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// What to log: error, warn, info, debug, trace, or directives such as info,packageserver=debug.
    #[arg(
        long,
        global = true,
        default_value = "info",
        env = "PACKAGESERVER_LOG",
        value_name = "LEVEL"
    )]
    pub log_level: String,

    /// The form of log lines, which go to standard error.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs everything in one process: ingests catalogs, and serves them to kubectl.
    ///
    /// State is kept in a directory: the database, a certificate authority of its own, and a kubeconfig to use it
    /// with. Stop it with Ctrl-C; the next start goes on where it was.
    Up(UpArgs),
    /// Reads a catalog and prints its objects, without a server.
    Render(RenderArgs),
    /// Reads a catalog and prints every problem in it; exits with 1 if there are any.
    Validate(ValidateArgs),
}

/// Arguments of `up`.
#[derive(Args, Debug)]
pub struct UpArgs {
    /// Manifests of CatalogSources to apply at the start: a file, or a directory of .yaml, .yml and .json files.
    /// Can be given several times.
    #[arg(short, long = "filename", value_name = "FILE|DIR")]
    pub filename: Vec<PathBuf>,

    /// Where to keep the database, certificates and kubeconfig.
    #[arg(long, default_value = ".packageserver", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// The address to serve on. Port 0 takes any that is free; the kubeconfig has it.
    #[arg(long, default_value = "127.0.0.1:7443", value_name = "ADDR")]
    pub listen: SocketAddr,

    /// Lets CatalogSources name sources under this directory: oci:PATH, oci-archive:PATH, fbc:PATH. Relative paths
    /// start there.
    #[arg(long, value_name = "DIR")]
    pub allow_local_sources: Option<PathBuf>,

    /// How long events are kept, so that watches can be resumed.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = parse_duration)]
    pub history: std::time::Duration,
}

/// Arguments of `render`.
#[derive(Args, Debug)]
pub struct RenderArgs {
    /// The catalog: an image reference, oci:PATH, oci-archive:PATH or fbc:PATH.
    pub source: SourceReference,

    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Arguments of `validate`.
#[derive(Args, Debug)]
pub struct ValidateArgs {
    /// The catalog: an image reference, oci:PATH, oci-archive:PATH or fbc:PATH.
    pub source: SourceReference,
}

fn parse_duration(text: &str) -> Result<std::time::Duration, crate::model::InvalidDuration> {
    crate::model::parse_duration(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
