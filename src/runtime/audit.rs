//! Writes the audit log to a file, or to standard output.

use std::path::Path;

use anyhow::Context;
use tokio::fs::OpenOptions;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::task::JoinHandle;

use crate::api::audit::{Audit, AuditEvents};
use crate::args::AuditArgs;

/// Begins the audit log that the arguments ask for, and the task that writes it until the API is gone.
pub(super) async fn begin(args: &AuditArgs) -> anyhow::Result<(Option<Audit>, Option<JoinHandle<()>>)> {
    let AuditArgs { audit_log_path, audit_level } = args;
    let Some(path) = audit_log_path else { return Ok((None, None)) };
    let out: Box<dyn AsyncWrite + Send + Unpin> = if path == Path::new("-") {
        Box::new(tokio::io::stdout())
    } else {
        let mut options = OpenOptions::new();
        // Requests tell who does what, and hold what people write: that is for the owner only.
        let file = options.create(true).append(true).mode(0o600).open(path).await;
        Box::new(file.with_context(|| format!("cannot write the audit log `{}`", path.display()))?)
    };
    let (audit, events) = Audit::new(*audit_level);
    Ok((Some(audit), Some(tokio::spawn(write(BufWriter::new(out), events)))))
}

async fn write(mut out: BufWriter<Box<dyn AsyncWrite + Send + Unpin>>, mut events: AuditEvents) {
    let mut has_failed = false;
    while let Some(mut line) = events.next().await {
        line.push('\n');
        let written = async {
            out.write_all(line.as_bytes()).await?;
            // What is there together is written together.
            if events.is_empty() { out.flush().await } else { Ok(()) }
        };
        match written.await {
            Ok(()) => has_failed = false,
            Err(error) if !has_failed => {
                has_failed = true;
                tracing::error!(%error, "cannot write the audit log");
            }
            Err(_) => {}
        }
    }
}
