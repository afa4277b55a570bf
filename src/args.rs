//! The command line.

mod audit;
mod cluster;
mod etcd;
mod history;
mod ingest;
mod read;
mod room;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use self::audit::AuditArgs;
pub use self::cluster::{ClusterArgs, DoctorArgs, EtcdCertificatesArgs, ReportFormat};
pub use self::etcd::EtcdArgs;
pub use self::history::{HistoryArgs, HistoryFormat, InvalidMoment, Moment};
pub use self::ingest::IngestArgs;
pub use self::read::{ByteSize, InvalidByteSize, LimitArgs, ReadArgs, RegistryArgs};
pub use self::room::RoomArgs;
pub use self::serve::{ApiserverArgs, BindAddress, ControllerArgs, InvalidBindAddress};
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
    #[arg(long, global = true, default_value = "info", env = "PACKAGESERVER_LOG", value_name = "LEVEL")]
    pub log_level: String,

    /// The form of log lines, which go to standard error.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Lets the system write the memory of the process to a file when it breaks down. Credentials are in it.
    #[arg(long, global = true)]
    pub allow_core_dumps: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs everything in one process: ingests catalogs, and serves them to kubectl.
    ///
    /// State is kept in a directory: the database, a certificate authority of its own, and a kubeconfig to use it
    /// with. Stop it with Ctrl-C; the next start goes on where it was.
    Up(UpArgs),
    /// Serves what is in etcd to kubectl and every other client of the Kubernetes API.
    ///
    /// Any number of these may run on one etcd, beside any number of `controller`.
    Apiserver(ApiserverArgs),
    /// Ingests catalogs into etcd, as the CatalogSources there say.
    ///
    /// Any number of these may run on one etcd: each CatalogSource is looked after by one of them, and by another one
    /// when that stops.
    Controller(ControllerArgs),
    /// Looks for what is wrong with an installation in a cluster, and says what to do.
    ///
    /// Exits with 0 when all is well, 1 when there are warnings, 2 when something does not work.
    Doctor(DoctorArgs),
    /// Makes and renews the certificates by which the members of an etcd and its clients know each other.
    #[command(name = "etcd-certificates")]
    EtcdCertificates(EtcdCertificatesArgs),
    /// Prints what changed between two points in time: packages, their heads and default channels.
    History(HistoryArgs),
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

    /// Belongs to the cluster that it runs in, or that --kubeconfig names: aggregated behind its kube-apiserver, serving
    /// its users. The small installation.
    #[arg(long)]
    pub in_cluster: bool,

    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,

    /// When and how much is ingested.
    #[command(flatten)]
    pub ingest: IngestArgs,

    /// How catalogs are read.
    #[command(flatten)]
    pub read: ReadArgs,

    /// The audit log.
    #[command(flatten)]
    pub audit: AuditArgs,

    /// How much is served at a time.
    #[command(flatten)]
    pub room: RoomArgs,
}

/// Arguments of `render`.
#[derive(Args, Debug)]
pub struct RenderArgs {
    /// The catalog: an image reference, oci:PATH, oci-archive:PATH or fbc:PATH.
    pub source: SourceReference,

    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,

    /// How it is read.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Arguments of `validate`.
#[derive(Args, Debug)]
pub struct ValidateArgs {
    /// The catalog: an image reference, oci:PATH, oci-archive:PATH or fbc:PATH.
    pub source: SourceReference,

    /// How it is read.
    #[command(flatten)]
    pub read: ReadArgs,
}

fn parse_duration(text: &str) -> Result<std::time::Duration, crate::resource::InvalidDuration> {
    crate::resource::parse_duration(text)
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
