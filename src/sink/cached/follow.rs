//! Fills the memory from the inner store, and keeps it up to date by one watch of everything.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, sleep_until};

use super::memory::Memory;
use crate::store::{At, ListRequest, Range, ResourceVersion, Store, StoreError, WatchItem, WatchStream};

/// Objects that are read at once.
const PAGE: usize = 500;

/// Items of the watch that are taken in at once.
const ITEMS: usize = 1000;

/// The first pause after a failure, and the last: each further one is twice as long.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How often all readers are told how far things are, when somebody asked; and when nobody did.
const TELL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// What follows the inner store.
pub(super) struct Follower {
    pub(super) inner: Arc<dyn Store>,
    pub(super) memory: Arc<Memory>,
    /// Set when somebody asked how far things are.
    pub(super) asked: Arc<std::sync::atomic::AtomicBool>,
}

impl Follower {
    /// Fills the memory, and follows the inner store; never ends.
    pub(super) async fn run(self) {
        let mut pause = PAUSES.0;
        // Where to go on from; nothing when the state has to be read anew.
        let mut reached = None;
        loop {
            let started = Instant::now();
            match self.follow(&mut reached).await {
                Ok(()) => {}
                Err(StoreError::Compacted { .. }) => {
                    tracing::warn!("the history since the last event is gone; reading everything anew");
                    reached = None;
                }
                Err(error) => tracing::warn!(%error, "cannot follow the store; trying again"),
            }
            pause = if started.elapsed() > PAUSES.1 { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
            sleep(pause).await;
        }
    }

    /// Follows the inner store until its watch ends.
    async fn follow(&self, reached: &mut Option<ResourceVersion>) -> Result<(), StoreError> {
        let start = match *reached {
            Some(version) => version,
            None => self.fill().await?,
        };
        *reached = Some(start);
        let mut items = self.inner.watch(Range::everything(), start).await?;
        let mut told = Instant::now();
        loop {
            let tell_at = told + if self.was_asked() { TELL.0 } else { TELL.1 };
            let first = tokio::select! {
                first = items.next() => first,
                () = sleep_until(tell_at) => {
                    self.asked.store(false, std::sync::atomic::Ordering::Relaxed);
                    self.memory.ring_all();
                    told = Instant::now();
                    continue;
                }
                // Somebody asks while nothing happens: the pause is then the shorter one.
                () = sleep(TELL.0), if !self.was_asked() => continue,
            };
            let Some(first) = first else { return Ok(()) };
            let (batch, error) = take_ready(first, &mut items);
            self.memory.apply(batch);
            *reached = Some(self.memory.read().version());
            if let Some(error) = error {
                return Err(error);
            }
        }
    }

    fn was_asked(&self) -> bool {
        self.asked.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Reads the state of all resources at one version.
    async fn fill(&self) -> Result<ResourceVersion, StoreError> {
        let mut at = At::Latest;
        let mut logs = self.memory.empty_logs(ResourceVersion::default());
        let mut version = ResourceVersion::default();
        for resource in self.memory.resources() {
            let mut request =
                ListRequest { range: Range::resource(resource.name), at, after: None, limit: PAGE };
            loop {
                let page = self.inner.list(request.clone()).await?;
                if at == At::Latest {
                    version = page.version;
                    at = At::Exactly(version);
                    logs = self.memory.empty_logs(version);
                }
                request.at = at;
                request.after = page.items.last().map(|stored| stored.key.clone());
                let log = logs.get_mut(resource.name);
                let log = log.expect("there is a log for every cached resource");
                page.items.into_iter().for_each(|stored| log.load(stored));
                if page.remaining == 0 {
                    break;
                }
            }
        }
        self.memory.install(logs, version);
        tracing::debug!(%version, "the state is in memory");
        Ok(version)
    }
}

/// Takes what a watch has ready, so that readers are woken once for all of it.
fn take_ready(
    first: Result<WatchItem, StoreError>,
    items: &mut WatchStream,
) -> (Vec<WatchItem>, Option<StoreError>) {
    let mut batch = Vec::new();
    let mut next = Some(first);
    while let Some(item) = next {
        match item {
            Ok(item) => batch.push(item),
            Err(error) => return (batch, Some(error)),
        }
        if batch.len() == ITEMS {
            break;
        }
        next = items.next().now_or_never().flatten();
    }
    (batch, None)
}
