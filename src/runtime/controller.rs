//! `controller`: the half that ingests, on etcd.

use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::net::TcpListener;

use super::backend::Backend;
use super::halves::{Ending, IngestOptions, Surroundings, ingesting_half, told_to_stop};
use super::manifests;
use super::references::ManifestReferences;
use crate::args::{BindAddress, ControllerArgs};
use crate::telemetry::endpoint::{self, Endpoint};
use crate::telemetry::metrics;

pub(super) async fn controller(args: ControllerArgs) -> anyhow::Result<()> {
    let ControllerArgs {
        standalone,
        kubeconfig,
        allow_local_sources,
        filename,
        metrics_bind_address,
        ingest,
        read,
        etcd,
    } = args;
    let mut objects = manifests::read(&filename)?;
    let surroundings = match standalone {
        true => Surroundings::standalone(ManifestReferences::take(&mut objects)?),
        false => Surroundings::of_cluster(kubeconfig.as_deref()).await?,
    };
    if let Some((file, object)) = objects.first() {
        let kind = object["kind"].as_str().unwrap_or("object");
        bail!("`{}`: a {kind} is not taken here; apply it with kubectl", file.display());
    }
    let ingesting = IngestOptions::new(ingest, &read, allow_local_sources, surroundings)?;
    let registry = metrics::registry();
    let backend = Backend::etcd(&etcd)?.measured(&registry)?;
    let controller = ingesting_half(&backend, ingesting, &registry)?;
    let ending = Ending::default();
    if let BindAddress(Some(address)) = metrics_bind_address {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("--metrics-bind-address: cannot listen on {address}"))?;
        let followed = Arc::clone(&controller);
        let endpoint = Endpoint {
            registry,
            is_ready: Box::new(move || followed.is_following()),
            stopping: ending.stopping.clone(),
        };
        tokio::spawn(endpoint::serve(listener, endpoint.router()));
    }
    let ingesting = tokio::spawn(controller.run(ending.stopping.clone()));
    tracing::info!(etcd = etcd.etcd_servers.join(","), "following the CatalogSources");

    told_to_stop().await?;
    ending.stopping.cancel();
    Ok(ingesting.await?)
}
