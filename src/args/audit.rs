//! Arguments of the audit log.

use std::path::PathBuf;

use clap::Args;

use crate::api::audit::Level;

/// Arguments of the audit log.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// Notes every request and what became of it in a file, as one line of JSON an event; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,

    /// How much is noted of each request.
    #[arg(long, value_enum, default_value_t, requires = "audit_log_path", value_name = "LEVEL")]
    pub audit_level: Level,
}
