//! The one place that names pipeline, stores, controller and API together: builds, spawns, drains.

mod apiserver;
mod audit;
mod backend;
mod catalog;
mod controller;
mod data_dir;
mod doctor;
mod front;
mod halves;
mod history;
mod machine;
mod manifests;
mod references;
mod show;
mod sources;
mod up;

use std::process::ExitCode;

use anyhow::Context;

use crate::args::{Cli, Command, EtcdCertificatesArgs};
use crate::{cluster, telemetry, tls};

/// Who owns the fields that this program sets.
const FIELD_MANAGER: &str = "packageserver";

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
    let Cli { command, log_level, log_format, allow_core_dumps } = cli;
    telemetry::init(log_format, &log_level).context("--log-level")?;
    if !allow_core_dumps {
        machine::keep_memory();
    }
    tls::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Render(args) => catalog::render(args).await,
            Command::Validate(args) => catalog::validate(args).await,
            Command::Up(args) => up::up(args).await.map(|()| ExitCode::SUCCESS),
            Command::Apiserver(args) => apiserver::apiserver(args).await.map(|()| ExitCode::SUCCESS),
            Command::Doctor(args) => doctor::doctor(args).await,
            Command::EtcdCertificates(args) => etcd_certificates(args).await.map(|()| ExitCode::SUCCESS),
            Command::History(args) => history::history(args).await.map(|()| ExitCode::SUCCESS),
            Command::Controller(args) => controller::controller(args).await.map(|()| ExitCode::SUCCESS),
        }
    })
}

async fn etcd_certificates(args: EtcdCertificatesArgs) -> anyhow::Result<()> {
    let EtcdCertificatesArgs { kubeconfig, namespace, service } = args;
    let client = cluster::connect(kubeconfig.as_deref()).await?;
    cluster::etcd_certificates::ensure(client, &namespace, &service).await
}
