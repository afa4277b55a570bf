//! The cluster that a server belongs to.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parse_duration;

/// The cluster that a server belongs to, and how it shows itself there.
#[derive(Args, Debug)]
#[command(next_help_heading = "cluster")]
pub struct ClusterArgs {
    /// How to reach the cluster. Without it, the cluster that the process runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The namespace of this server.
    #[arg(long, default_value = "packageserver-system", value_name = "NAME")]
    pub namespace: String,

    /// The Service through which the cluster reaches this server.
    #[arg(long, default_value = "packageserver", value_name = "NAME")]
    pub service: String,

    /// The Secret in which the serving certificate is kept. It is made, rotated and made known without anybody's help.
    #[arg(long, default_value = "packageserver-serving", value_name = "NAME")]
    pub serving_secret: String,

    /// A serving certificate that somebody else keeps, as PEM; read anew when it changes. Whoever keeps it also fills in
    /// the APIService's caBundle.
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,

    /// The key of that certificate, as PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,

    /// How long a serving certificate is good; a new one comes when a third of that is left.
    #[arg(long, default_value = "720h", value_name = "DURATION", value_parser = parse_duration)]
    pub serving_certificate_lifetime: Duration,

    /// How long the authority that signs it is good.
    #[arg(long, default_value = "8760h", value_name = "DURATION", value_parser = parse_duration)]
    pub serving_authority_lifetime: Duration,

    /// How long an old and a new authority are trusted side by side.
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = parse_duration)]
    pub serving_rotation_overlap: Duration,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// How to reach the cluster. Without it, KUBECONFIG or ~/.kube/config, or the cluster that the process runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The namespace of the installation.
    #[arg(short, long, default_value = "packageserver-system", value_name = "NAME")]
    pub namespace: String,

    /// The Service of the installation.
    #[arg(long, default_value = "packageserver", value_name = "NAME")]
    pub service: String,

    /// The Secret with the serving certificate.
    #[arg(long, default_value = "packageserver-serving", value_name = "NAME")]
    pub serving_secret: String,

    /// How to print what was found.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: ReportFormat,

    /// Also looks at etcd, where these arguments lead to it.
    #[arg(long)]
    pub etcd: bool,

    /// Where etcd is.
    #[command(flatten)]
    pub etcd_args: super::EtcdArgs,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// For people.
    #[default]
    Text,
    /// As a JSON list.
    Json,
}

/// Arguments of `etcd-certificates`.
#[derive(Args, Debug)]
pub struct EtcdCertificatesArgs {
    /// How to reach the cluster. Without it, the cluster that the process runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The namespace of etcd.
    #[arg(long, default_value = "packageserver-system", value_name = "NAME")]
    pub namespace: String,

    /// The Service of etcd; the Secrets are named after it.
    #[arg(long, default_value = "packageserver-etcd", value_name = "NAME")]
    pub service: String,
}
