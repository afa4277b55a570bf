//! The one place that names pipeline, stores, controller and API together: builds, spawns, drains.

mod catalog;
mod show;

use std::process::ExitCode;

use anyhow::Context;

use crate::args::{Cli, Command};
use crate::{telemetry, tls};

/// Runs a command to its end and returns the exit code: 0 when it did what it was asked, 1 when not.
pub fn run(cli: Cli) -> ExitCode {
    match try_run(cli) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli {
        command,
        log_level,
        log_format,
    } = cli;
    telemetry::init(log_format, &log_level).context("--log-level")?;
    tls::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Render(args) => catalog::render(args).await,
            Command::Validate(args) => catalog::validate(args).await,
            Command::Up(_) => anyhow::bail!("tmp"),
        }
    })
}
