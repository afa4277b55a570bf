//! Where etcd is: flags named as kube-apiserver names them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parse_duration;

/// Where etcd is, and how it is used.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "etcd")]
pub struct EtcdArgs {
    /// The members of the cluster, as URLs with commas between. With https, --etcd-cafile says whom to trust.
    #[arg(long, value_name = "URL", value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub etcd_servers: Vec<String>,

    /// The certificates of the authorities that etcd's certificate may be signed by, as PEM.
    #[arg(long, value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,

    /// The certificate to show etcd, as PEM.
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,

    /// The key of the certificate, as PEM.
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,

    /// The user to log in to etcd as. The password is in --etcd-password-file or PACKAGESERVER_ETCD_PASSWORD.
    #[arg(long, value_name = "NAME", env = "PACKAGESERVER_ETCD_USER")]
    pub etcd_user: Option<String>,

    /// A file with the password of the user.
    #[arg(long, value_name = "FILE", requires = "etcd_user")]
    pub etcd_password_file: Option<PathBuf>,

    /// What all keys in etcd begin with, before the API group.
    #[arg(long, value_name = "PREFIX", default_value = "/registry")]
    pub etcd_prefix: String,

    /// The most operations in a transaction. etcd's own --max-txn-ops has to allow it.
    #[arg(long, value_name = "COUNT", default_value_t = 128, value_parser = clap::value_parser!(u16).range(16..=1000))]
    pub etcd_max_txn_ops: u16,

    /// The most bytes in a request. etcd's own --max-request-bytes has to allow it.
    #[arg(long, value_name = "BYTES", default_value_t = 1_572_864, value_parser = clap::value_parser!(u32).range(65_536..))]
    pub etcd_max_request_bytes: u32,

    /// How long a call to etcd may take, with all attempts.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub etcd_timeout: Duration,

    /// After how long without a sign of life another process takes over what this one was doing.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub lease_duration: Duration,
}
