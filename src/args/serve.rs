//! Arguments of `apiserver` and `controller`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use super::{AuditArgs, ClusterArgs, EtcdArgs, IngestArgs, ReadArgs, RoomArgs, parse_duration};

/// Arguments of `apiserver`.
#[derive(Args, Debug)]
pub struct ApiserverArgs {
    /// Serves without a cluster: with an authority, certificates and a kubeconfig of its own, in --data-dir.
    #[arg(long)]
    pub standalone: bool,

    /// With --standalone: where certificates and kubeconfig are kept. Servers that share it share the authority.
    #[arg(long, default_value = ".packageserver", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// The address to serve on.
    #[arg(long, default_value = "127.0.0.1", value_name = "IP")]
    pub bind_address: IpAddr,

    /// The port to serve on. 0 takes any that is free; the kubeconfig has it.
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub secure_port: u16,

    /// How long events are kept, so that watches can be resumed.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = parse_duration)]
    pub history: Duration,

    /// The shortest spec.pollingInterval that a CatalogSource may have.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    pub min_polling_interval: Duration,

    /// The audit log.
    #[command(flatten)]
    pub audit: AuditArgs,

    /// How much is served at a time.
    #[command(flatten)]
    pub room: RoomArgs,

    /// Where the objects are.
    #[command(flatten)]
    pub etcd: EtcdArgs,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Arguments of `controller`.
#[derive(Args, Debug)]
pub struct ControllerArgs {
    /// Works without a cluster: CatalogSources are all there is to go by.
    #[arg(long, conflicts_with = "kubeconfig")]
    pub standalone: bool,

    /// How to reach the cluster. Without it, the cluster that the process runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Lets CatalogSources name sources under this directory: oci:PATH, oci-archive:PATH, fbc:PATH. Relative paths
    /// start there.
    #[arg(long, value_name = "DIR")]
    pub allow_local_sources: Option<PathBuf>,

    /// With --standalone: manifests of the Secrets and ConfigMaps that CatalogSources name. A file, or a directory of .yaml, .yml and .json
    /// files. Can be given several times.
    #[arg(short, long = "filename", value_name = "FILE|DIR", requires = "standalone")]
    pub filename: Vec<PathBuf>,

    /// Where /metrics, /healthz, /livez and /readyz are served, as plain HTTP: an address, or 0 for nowhere.
    #[arg(long, value_name = "ADDR|0", default_value = "127.0.0.1:10257")]
    pub metrics_bind_address: BindAddress,

    /// When and how much is ingested.
    #[command(flatten)]
    pub ingest: IngestArgs,

    /// How catalogs are read.
    #[command(flatten)]
    pub read: ReadArgs,

    /// Where the objects are.
    #[command(flatten)]
    pub etcd: EtcdArgs,
}

/// An address to serve on, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress(pub Option<SocketAddr>);

/// A text that is neither an address nor 0.
#[derive(Debug, thiserror::Error)]
#[error("neither 0 nor an address such as 127.0.0.1:10257")]
pub struct InvalidBindAddress;

impl FromStr for BindAddress {
    type Err = InvalidBindAddress;

    fn from_str(text: &str) -> Result<Self, InvalidBindAddress> {
        match text {
            "0" => Ok(BindAddress(None)),
            text => text.parse().map(Some).map(BindAddress).map_err(|_| InvalidBindAddress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_address_is_an_address_or_nothing() {
        assert_eq!("0".parse::<BindAddress>().unwrap(), BindAddress(None));
        for text in ["127.0.0.1:10257", "[::]:0"] {
            assert_eq!(text.parse::<BindAddress>().unwrap().0.unwrap().to_string(), text);
        }
        for text in ["", "10257", "localhost:1", "127.0.0.1"] {
            assert!(text.parse::<BindAddress>().is_err(), "{text}");
        }
    }
}
