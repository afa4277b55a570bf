//! Decides when to ingest, and says in the status how that went.
//!
//! ```text
//! CatalogSources ── list, watch ──▶ Controller ── one worker each ──▶ Pipeline ──▶ events
//!       ▲                                │                               │
//!       └────────────── status ──────────┴───────────────────────────────┘
//! ```
//!
//! CatalogSources are independent: one that hangs or fails delays no other. What a deleted one leaves is removed by
//! its worker, also after a crash in between; no finalizer is used, so that nothing ever waits for this process.
//!
//! Any number of processes may run this on one store: each CatalogSource has a lock, and its worker works in the process
//! that holds it.

mod access;
mod announce;
mod attempt;
mod compact;
mod holding;
mod metrics;
mod schedule;
mod status;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use serde_json::Value;
use tokio::sync::{Semaphore, watch as latest};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::access::References;
pub use self::announce::{Announcement, Announcer, Unannounced};
pub use self::compact::compact;
pub use self::metrics::IngestMetrics;
use crate::event::CHECKPOINTS;
use crate::model::CatalogSource;
use crate::pipeline::discover::Sources;
use crate::pipeline::limits::Limits;
use crate::pipeline::submit::BatchLimits;
use crate::store::{
    At, Change, Key, Locks, Object, Pager, Range, ResourceVersion, Store, StoreError, Stored, WatchItem,
};

/// The resource that says what to ingest.
const CATALOG_SOURCES: &str = "catalogsources";

/// CatalogSources that are read at once.
const PAGE: usize = 500;

/// Registries that are asked at the same time.
const CONCURRENT_POLLS: usize = 32;

/// Pause after the store could not be read.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Notes in an object that its status was changed from that of an old one: who wrote it.
pub type NoteStatus = Arc<dyn Fn(&Value, &mut Value) + Send + Sync>;

/// The controller's configuration and connections, shared by all workers; but for the store, which each worker has behind
/// a fence of its own.
#[derive(Clone)]
pub struct Controller {
    store: Arc<dyn Store>,
    locks: Arc<dyn Locks>,
    sources: Sources,
    references: Arc<dyn References>,
    announcer: Arc<dyn Announcer>,
    limits: Limits,
    batches: BatchLimits,
    note_status: NoteStatus,
    polls: Arc<Semaphore>,
    ingests: Arc<Semaphore>,
    ingest_timeout: Duration,
    min_polling_interval: Duration,
    metrics: Arc<IngestMetrics>,
    is_following: Arc<AtomicBool>,
}

/// What a controller is made of.
pub struct ControllerConfig {
    /// Where CatalogSources are, and what comes of them goes.
    pub store: Arc<dyn Store>,
    /// Which of several controllers works on which CatalogSource.
    pub locks: Arc<dyn Locks>,
    /// Where catalogs are read.
    pub sources: Sources,
    /// Where the Secrets and ConfigMaps are that CatalogSources name.
    pub references: Arc<dyn References>,
    /// Where people are told what happened to a CatalogSource.
    pub announcer: Arc<dyn Announcer>,
    /// What may be read.
    pub limits: Limits,
    /// What may be appended at once.
    pub batches: BatchLimits,
    /// Notes who wrote a status.
    pub note_status: NoteStatus,
    /// Ingests that run at the same time: each has a thread for unpacking, and parsers on all cores.
    pub concurrent_ingests: usize,
    /// How long an ingest may take.
    pub ingest_timeout: Duration,
    /// The shortest time between two polls, whatever a CatalogSource says.
    pub min_polling_interval: Duration,
    /// Where it is counted what is done.
    pub metrics: IngestMetrics,
}

/// What a worker is told: the CatalogSource as it is now, or nothing when it is gone.
type Told = latest::Sender<Option<Arc<CatalogSource>>>;

impl Controller {
    /// Makes a controller.
    pub fn new(config: ControllerConfig) -> Arc<Self> {
        let ControllerConfig {
            store,
            locks,
            sources,
            references,
            announcer,
            limits,
            batches,
            note_status,
            concurrent_ingests,
            ingest_timeout,
            min_polling_interval,
            metrics,
        } = config;
        Arc::new(Controller {
            store,
            locks,
            sources,
            references,
            announcer,
            limits,
            batches,
            note_status,
            polls: Arc::new(Semaphore::new(CONCURRENT_POLLS)),
            ingests: Arc::new(Semaphore::new(concurrent_ingests)),
            ingest_timeout,
            min_polling_interval,
            metrics: Arc::new(metrics),
            is_following: Arc::default(),
        })
    }

    /// Returns whether it knows all CatalogSources, and hears of it when one changes.
    pub fn is_following(&self) -> bool {
        self.is_following.load(Ordering::Relaxed)
    }

    /// Follows all CatalogSources until `stop` is cancelled; then lets each worker finish the batch in hand.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut workers = Workers { controller: self, told: HashMap::new(), tasks: JoinSet::new(), stop };
        while !workers.stop.is_cancelled() {
            let stop = workers.stop.clone();
            let ended = stop.run_until_cancelled(workers.follow()).await;
            workers.controller.is_following.store(false, Ordering::Relaxed);
            match ended {
                None | Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot follow the CatalogSources; starting over");
                    stop.run_until_cancelled(tokio::time::sleep(STORE_PAUSE)).await;
                }
            }
        }
        workers.told.clear();
        while workers.tasks.join_next().await.is_some() {}
    }
}

/// The workers, by the key of their CatalogSource.
struct Workers {
    controller: Arc<Controller>,
    told: HashMap<Key, Told>,
    tasks: JoinSet<Key>,
    stop: CancellationToken,
}

impl Workers {
    /// Tells the workers the current state, then every change, until the watch ends.
    async fn follow(&mut self) -> Result<(), StoreError> {
        let range = Range::resource(CATALOG_SOURCES);
        let (version, objects) = list(&*self.controller.store, range.clone()).await?;
        let mut gone: BTreeSet<Key> = self.told.keys().cloned().collect();
        for stored in objects {
            gone.remove(&stored.key);
            self.tell(&stored.key, Some(&stored.object));
        }
        gone.extend(self.orphans().await?);
        for key in gone {
            self.tell(&key, None);
        }
        let mut changes = self.controller.store.watch(range, version).await?;
        self.controller.is_following.store(true, Ordering::Relaxed);
        loop {
            tokio::select! {
                item = changes.try_next() => match item? {
                    Some(WatchItem::Change(change)) => {
                        let Change { key, after, .. } = &*change;
                        self.tell(key, after.as_ref());
                    }
                    Some(WatchItem::Progress(_)) => {}
                    None => return Ok(()),
                },
                Some(done) = self.tasks.join_next() => self.ended(done),
            }
        }
    }

    /// Returns where CatalogSources were that left something behind.
    async fn orphans(&self) -> Result<Vec<Key>, StoreError> {
        let (_, checkpoints) = list(&*self.controller.store, Range::resource(CHECKPOINTS)).await?;
        let owner = |stored: Stored| Key::new(CATALOG_SOURCES, stored.key.namespace(), stored.key.name());
        Ok(checkpoints.into_iter().map(owner).filter(|owner| !self.told.contains_key(owner)).collect())
    }

    fn tell(&mut self, key: &Key, object: Option<&Object>) {
        let source = match object.map(decode).transpose() {
            Ok(source) => source.map(Arc::new),
            // The API checks what is written, so this was written by something else. It is left alone.
            Err(error) => return tracing::error!(%key, %error, "a CatalogSource that cannot be read"),
        };
        if let Some(told) = self.told.get(key) {
            told.send_replace(source);
            return;
        }
        self.start(key.clone(), source);
    }

    fn start(&mut self, key: Key, source: Option<Arc<CatalogSource>>) {
        let (told, news) = latest::channel(source);
        self.told.insert(key.clone(), told);
        let work = holding::work(Arc::clone(&self.controller), key.clone(), news, self.stop.clone());
        self.tasks.spawn(async move {
            work.await;
            key
        });
    }

    /// Forgets a worker that has nothing left to do. It ends only when its CatalogSource is gone; where there is one
    /// again since, it gets a new worker.
    fn ended(&mut self, done: Result<Key, tokio::task::JoinError>) {
        match done {
            Ok(key) => {
                let source = self.told.remove(&key).and_then(|told| told.borrow().clone());
                if source.is_some() {
                    self.start(key, source);
                }
            }
            Err(error) => tracing::error!(%error, "a worker failed"),
        }
    }
}

fn decode(object: &Object) -> Result<CatalogSource, serde_json::Error> {
    serde_json::from_slice(object.head())
}

/// Returns everything in a range, and the state it was read in.
async fn list(store: &dyn Store, range: Range) -> Result<(ResourceVersion, Vec<Stored>), StoreError> {
    let mut pager = Pager::new(store, range, At::Latest, PAGE);
    let (mut version, mut items) = (ResourceVersion::default(), Vec::new());
    while let Some(page) = pager.next().await? {
        version = page.version;
        items.extend(page.items);
    }
    Ok((version, items))
}
