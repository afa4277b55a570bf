//! The two halves of a server: what ingests and what serves. `up` is both in one process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use prometheus::Registry;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::FIELD_MANAGER;
use super::audit;
use super::backend::Backend;
use super::front::Front;
use super::machine;
use super::references::ManifestReferences;
use super::sources::sources;
use crate::api::serve::serve;
use crate::api::{Api, ApiConfig, ApiOptions, StatusOwnership};
use crate::args::{AuditArgs, IngestArgs, ReadArgs, RoomArgs};
use crate::cluster;
use crate::cluster::events::EventAnnouncer;
use crate::cluster::references::ClusterReferences;
use crate::controller::{
    Announcer, Controller, ControllerConfig, IngestMetrics, References, Unannounced, compact,
};
use crate::model::{CATALOG_SOURCE, RESOURCES};
use crate::pipeline::discover::{LocalSources, Sources};
use crate::pipeline::limits::Limits;
use crate::telemetry::metrics::Metrics;
use crate::tls::days_left;
use crate::tls::server::{self, ServingCertificate};

/// How long the end of the audit log may take to be written.
const AUDIT_END: Duration = Duration::from_secs(5);

/// What ends a process, in this order: it is no longer ready and takes on nothing new; then watches end.
#[derive(Clone, Default)]
pub(super) struct Ending {
    pub(super) stopping: CancellationToken,
    pub(super) draining: CancellationToken,
}

/// The half that serves, before it does.
pub(super) struct ServingHalf {
    router: Router,
    certificate: Arc<ServingCertificate>,
    max_connections: usize,
    metrics: Arc<Metrics>,
    compacting: JoinHandle<()>,
    auditing: Option<JoinHandle<()>>,
    ending: Ending,
}

impl ServingHalf {
    /// Puts it together: the API on the store, and the care for the history that it serves watches from.
    pub(super) async fn new(
        backend: &Backend,
        front: &Front,
        history: Duration,
        audit: &AuditArgs,
        room: RoomArgs,
        metrics: Arc<Metrics>,
        ending: &Ending,
    ) -> anyhow::Result<Self> {
        let (audit, auditing) = audit::begin(audit).await?;
        let options = ApiOptions { audit, metrics: Arc::clone(&metrics), ..options(room) };
        let api = Api::new(ApiConfig {
            store: backend.served(),
            resources: RESOURCES,
            authenticator: Arc::clone(&front.authenticator),
            authorizer: Arc::clone(&front.authorizer),
            namespaces: Arc::clone(&front.namespaces),
            stopping: ending.stopping.clone(),
            draining: ending.draining.clone(),
            options,
        });
        let (store, locks) = (Arc::clone(&backend.store), Arc::clone(&backend.locks));
        let stopping = ending.stopping.clone();
        let compacting = tokio::spawn(async move { compact(&*store, &*locks, history, stopping).await });
        let certificate = Arc::clone(&front.certificate);
        days_left::register(metrics.registry(), Arc::clone(&certificate))?;
        Ok(ServingHalf {
            router: api.router(),
            certificate,
            max_connections: room.max_connections.unwrap_or_else(machine::connections),
            metrics,
            compacting,
            auditing,
            ending: ending.clone(),
        })
    }

    /// Returns the API, for requests from within the process.
    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    /// Serves until it is to end, and has answered and noted what was asked.
    pub(super) async fn run(self, listener: TcpListener) -> anyhow::Result<()> {
        let config = server::config(self.certificate)?;
        serve(listener, config, self.router, self.max_connections, self.metrics, self.ending.draining)
            .await?;
        self.compacting.await?;
        if let Some(auditing) = self.auditing
            && tokio::time::timeout(AUDIT_END, auditing).await.is_err()
        {
            tracing::warn!("the end of the audit log was not written");
        }
        Ok(())
    }
}

/// Returns the options of an API with so much room.
fn options(room: RoomArgs) -> ApiOptions {
    let RoomArgs {
        max_connections: _,
        max_requests_inflight,
        max_mutating_requests_inflight,
        max_watches,
        max_watches_per_user,
    } = room;
    ApiOptions {
        max_requests_inflight,
        max_mutating_requests_inflight,
        max_watches,
        max_watches_per_user,
        ..ApiOptions::default()
    }
}

/// What the half that ingests is told: where catalogs are read, what with, and how much at a time.
pub(super) struct IngestOptions {
    args: IngestArgs,
    sources: Sources,
    limits: Limits,
    surroundings: Surroundings,
}

/// Where Secrets and ConfigMaps are, and people are told of what happens.
pub(super) struct Surroundings {
    pub(super) references: Arc<dyn References>,
    pub(super) announcer: Arc<dyn Announcer>,
}

impl Surroundings {
    /// Those of a cluster.
    pub(super) async fn of_cluster(kubeconfig: Option<&Path>) -> anyhow::Result<Self> {
        let client = cluster::connect(kubeconfig).await?;
        Ok(Surroundings {
            references: Arc::new(ClusterReferences::new(client.clone())),
            announcer: Arc::new(EventAnnouncer::start(client)),
        })
    }

    /// Those without one: manifests have to do.
    pub(super) fn standalone(references: ManifestReferences) -> Self {
        Surroundings { references: Arc::new(references), announcer: Arc::new(Unannounced) }
    }
}

impl IngestOptions {
    /// Reads what the arguments name, so that what is wrong with it is said at the start.
    pub(super) fn new(
        args: IngestArgs,
        read: &ReadArgs,
        allow_local_sources: Option<PathBuf>,
        surroundings: Surroundings,
    ) -> anyhow::Result<Self> {
        let local = allow_local_sources.map_or(LocalSources::Denied, LocalSources::Under);
        let (sources, limits) = sources(read, local, true)?;
        Ok(IngestOptions { args, sources, limits, surroundings })
    }
}

/// Puts together the half that ingests.
pub(super) fn ingesting_half(
    backend: &Backend,
    options: IngestOptions,
    registry: &Registry,
) -> anyhow::Result<Arc<Controller>> {
    let IngestOptions { args, sources, limits, surroundings } = options;
    let Surroundings { references, announcer } = surroundings;
    let IngestArgs { concurrent_ingests, ingest_timeout, min_polling_interval } = args;
    // What the controller writes belongs to it, as what comes by the API belongs to who sent it.
    let ownership = StatusOwnership::new(CATALOG_SOURCE, FIELD_MANAGER);
    Ok(Controller::new(ControllerConfig {
        store: Arc::clone(&backend.store),
        locks: Arc::clone(&backend.locks),
        sources,
        references,
        announcer,
        limits,
        batches: backend.batches,
        note_status: Arc::new(move |old: &Value, new: &mut Value| ownership.note(old, new)),
        concurrent_ingests,
        ingest_timeout,
        min_polling_interval,
        metrics: IngestMetrics::new(registry)?,
    }))
}

/// Waits for SIGTERM or Ctrl-C.
pub(super) async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn room(arguments: &[&str]) -> [usize; 4] {
        let cli = Cli::parse_from([&["packageserver", "apiserver"], arguments].concat());
        let Command::Apiserver(args) = cli.command else { unreachable!("it is asked for") };
        all(&options(args.room))
    }

    fn all(options: &ApiOptions) -> [usize; 4] {
        let ApiOptions {
            max_requests_inflight,
            max_mutating_requests_inflight,
            max_watches,
            max_watches_per_user,
            ..
        } = options;
        [*max_requests_inflight, *max_mutating_requests_inflight, *max_watches, *max_watches_per_user]
    }

    #[test]
    fn the_room_is_what_the_flags_say() {
        let etcd = "--etcd-servers=http://127.0.0.1:1";
        assert_eq!(room(&[etcd]), all(&ApiOptions::default()));
        let flags = [
            "--max-requests-inflight=1",
            "--max-mutating-requests-inflight=2",
            "--max-watches=3",
            "--max-watches-per-user=4",
        ];
        assert_eq!(room(&[&[etcd], &flags[..]].concat()), [1, 2, 3, 4]);
    }
}
