//! What only a cluster has, through its kube-apiserver: who users are and what they may, the front proxy's trust, namespaces,
//! Secrets, Events, and the APIService that leads to this server.
//!
//! Everything here is for the moment of a request or of an ingest: no object that is served comes from here, so a
//! kube-apiserver that is away stops writes by unknown users, not reads of what is known.

pub mod authentication;
pub mod authorization;
pub mod doctor;
pub mod etcd_certificates;
pub mod events;
mod expiring;
#[cfg(test)]
mod fake;
pub mod front_proxy;
pub mod namespaces;
pub mod references;
pub mod serving;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long a connection to the kube-apiserver may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the cluster that a kubeconfig names, or else the environment, as kubectl does.
///
/// # Errors
///
/// As [`connect`].
pub async fn find(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    if kubeconfig.is_some() {
        return connect(kubeconfig).await;
    }
    let config = Config::infer().await.context("no cluster is known; name one with --kubeconfig FILE")?;
    Ok(Client::try_from(config)?)
}

/// Connects to the cluster that a kubeconfig names, or else to the one this process runs in.
///
/// # Errors
///
/// When there is neither, or what it says makes no sense. Nothing is asked of the cluster yet.
pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    crate::tls::install_crypto();
    let mut config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path);
            let kubeconfig = read.with_context(|| format!("cannot read `{}`", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("`{}` names no cluster that can be used", path.display()))?
        }
        None => Config::incluster().context("not in a cluster; name one with --kubeconfig FILE")?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Watches are long, so there is no limit for reading; each call that is no watch has one of its own.
    config.read_timeout = None;
    Ok(Client::try_from(config)?)
}
