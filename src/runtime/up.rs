//! `up`: everything in one process on the embedded store.

use anyhow::Context;
use tokio::net::TcpListener;

use super::backend::Backend;
use super::data_dir::DataDir;
use super::front::Front;
use super::halves::{Ending, IngestOptions, ServingHalf, Surroundings, ingesting_half, told_to_stop};
use super::manifests;
use super::references::ManifestReferences;
use crate::args::UpArgs;
use crate::model::set_min_polling_interval;
use crate::telemetry::metrics::Metrics;

pub(super) async fn up(args: UpArgs) -> anyhow::Result<()> {
    let UpArgs {
        filename,
        data_dir,
        listen,
        allow_local_sources,
        history,
        ingest,
        read,
        audit,
        room,
        in_cluster,
        cluster,
    } = args;
    // What is wrong with the arguments is said before anything is begun.
    let mut objects = manifests::read(&filename)?;
    let surroundings = match in_cluster {
        true => Surroundings::of_cluster(cluster.kubeconfig.as_deref()).await?,
        false => Surroundings::standalone(ManifestReferences::take(&mut objects)?),
    };
    set_min_polling_interval(ingest.min_polling_interval);
    let ingesting = IngestOptions::new(ingest, &read, allow_local_sources, surroundings)?;
    let data_dir = DataDir::open(&data_dir)?;
    let backend = Backend::embedded(&data_dir)?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let ending = Ending::default();
    let front = match in_cluster {
        true => Front::of_cluster(&cluster, &ending.stopping).await?,
        false => Front::standalone(&data_dir.identify(listener.local_addr()?)?)?,
    };
    let metrics = Metrics::new();
    let controller = ingesting_half(&backend, ingesting, metrics.registry())?;
    let serving = ServingHalf::new(&backend, &front, history, &audit, room, metrics, &ending).await?;
    for (file, object) in &objects {
        manifests::apply(serving.router(), file, object).await?;
    }
    let ingesting = tokio::spawn(controller.run(ending.stopping.clone()));
    let serving = tokio::spawn(serving.run(listener));

    told_to_stop().await?;
    // In this order: no longer ready, the batch in hand finished, watches ended, requests answered and noted.
    ending.stopping.cancel();
    ingesting.await?;
    ending.draining.cancel();
    serving.await?
}
