//! A store around a store that answers readers from memory.
//!
//! ```text
//! inner store ── one watch of everything ──▶ memory: objects, and a window of events ──▶ lists, reads
//!      ▲                                        │ bell                                  ──▶ many watches
//!      └──── current? ── barrier ───────────────┘
//! ```
//!
//! What comes in: one watch. What goes out: lists at the latest state, which the inner store is asked for the version of; lists
//! of the past and watches from the past, as far back as the window goes, and from the inner store beyond. Of resources
//! whose tails are large, those are held that there is room for: readers who want the others get them from the inner store.
//!
//! While the inner store is away, reads go on with the last state that is known.

mod barrier;
mod complete;
mod follow;
mod log;
mod memory;
mod reader;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::barrier::{Barrier, Reached};
use self::follow::Follower;
use self::log::Window;
pub use self::memory::CachedResource;
use self::memory::Memory;
use crate::store::{
    At, Batch, Key, ListRequest, Object, Page, Range, ResourceVersion, Revision, Store, StoreError, Stored,
    WatchStream,
};

/// What is remembered of each resource beside its objects. The bytes are bounds: most events share their objects with the
/// state.
const WINDOW: Window = Window { events: 10_000, bytes: 16 << 20, tail_bytes: 4 << 20 };

/// Watches that are read from the inner store at the same time, because they begin before the window.
const OLDER_WATCHES: usize = 64;

/// Caches resources of an inner store. What is not cached, and what spans resources, is the inner store's.
pub struct CachedStore {
    inner: Arc<dyn Store>,
    memory: Arc<Memory>,
    barrier: Arc<Barrier>,
    /// Set when somebody asked how far things are, so that watches are told soon.
    asked: Arc<AtomicBool>,
    older: Arc<Semaphore>,
    /// Ends the tasks with the store.
    _tasks: DropGuard,
}

impl CachedStore {
    /// Wraps a store, and begins to read it. Until everything is in memory, the inner store is read.
    pub fn new(inner: Arc<dyn Store>, resources: &[CachedResource]) -> Self {
        Self::with_window(inner, resources, WINDOW)
    }

    fn with_window(inner: Arc<dyn Store>, resources: &[CachedResource], window: Window) -> Self {
        let memory = Arc::new(Memory::new(resources, window));
        let barrier = Barrier::new();
        let asked = Arc::new(AtomicBool::new(false));
        let follower =
            Follower { inner: Arc::clone(&inner), memory: Arc::clone(&memory), asked: Arc::clone(&asked) };
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(follower.run()));
        let asking = Arc::clone(&barrier).run(Arc::clone(&inner));
        tokio::spawn(stop.clone().run_until_cancelled_owned(asking));
        let older = Arc::new(Semaphore::new(OLDER_WATCHES));
        CachedStore { inner, memory, barrier, asked, older, _tasks: stop.drop_guard() }
    }

    /// Returns whether memory holds everything, so that it can be read without the inner store.
    fn is_filled(&self) -> bool {
        self.memory.progress().borrow().is_some()
    }

    /// Returns whether memory can be read at the latest state now.
    async fn is_latest(&self) -> bool {
        self.is_filled() && self.barrier.pass(&self.memory).await != Reached::Behind
    }

    /// Returns a page from memory; none where the inner store has to be read.
    async fn page(&self, request: &ListRequest) -> Result<Option<Page>, StoreError> {
        let Some(resource) = self.memory.resource_of(&request.range) else { return Ok(None) };
        let at = match request.at {
            At::Latest if self.is_latest().await => None,
            At::Latest => return Ok(None),
            At::Exactly(version) => {
                // A version that is not known yet may be one of another reader of the inner store.
                if version > self.memory.read().complete() && !self.is_latest().await {
                    return Ok(None);
                }
                Some(version)
            }
        };
        let content = self.memory.read();
        let Some(log) = content.log(resource.name) else { return Ok(None) };
        let at = at.unwrap_or(content.complete());
        if at > content.complete() {
            return Err(StoreError::Future { requested: at, current: content.complete() });
        }
        Ok((log.start() <= at).then(|| log.page(request, at)))
    }

    /// Returns objects from memory; none where the inner store has to be read.
    fn held(&self, keys: &[Key]) -> Option<Vec<Option<Stored>>> {
        let content = self.memory.read();
        let at = content.complete();
        keys.iter().map(|key| Some(content.log(key.resource())?.get(key, at))).collect()
    }
}

#[async_trait]
impl Store for CachedStore {
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.inner.append(batch).await
    }

    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
        if !self.memory.holds_all(keys) || !self.is_filled() {
            return self.inner.read(keys).await;
        }
        let keeps_tails = |key: &Key| {
            self.memory.resource(key.resource()).is_some_and(|resource| resource.tail_bytes == usize::MAX)
        };
        if keys.iter().all(keeps_tails) {
            return match self.is_latest().await {
                true => self.held(keys).map_or_else(|| Ok(vec![None; keys.len()]), Ok),
                false => self.inner.read(keys).await,
            };
        }
        // One question instead of two, for whoever reads single objects wants them whole.
        match self.inner.read(keys).await {
            Err(error) if is_away(&error) => self.held(keys).ok_or(error),
            read => read,
        }
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        match self.page(&request).await? {
            Some(page) => Ok(page),
            None => self.inner.list(request).await,
        }
    }

    async fn watch(&self, range: Range, after: ResourceVersion) -> Result<WatchStream, StoreError> {
        let Some(resource) = self.memory.resource_of(&range) else {
            return self.inner.watch(range, after).await;
        };
        if let Some(stream) = reader::open(&self.memory, resource, range.clone(), after) {
            return Ok(stream);
        }
        let Ok(permit) = Arc::clone(&self.older).try_acquire_owned() else {
            let oldest = self.memory.read().log(resource.name).map_or(after, log::Log::start);
            return Err(StoreError::Compacted { requested: after, oldest });
        };
        let older = self.inner.watch(range.clone(), after).await?;
        Ok(reader::open_older(&self.memory, resource, range, after, (older, permit)))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await?;
        self.memory.forget(ResourceVersion::end_of(revision));
        Ok(())
    }

    /// Waits until everything is in memory, the first time.
    async fn current(&self) -> Result<ResourceVersion, StoreError> {
        let filled = self.memory.progress().wait_for(Option::is_some).await.map(drop);
        filled.map_err(|_| StoreError::Unavailable("the store was closed".to_owned()))?;
        self.asked.store(true, Ordering::Relaxed);
        match self.barrier.pass(&self.memory).await {
            Reached::Latest | Reached::LastKnown => Ok(self.memory.read().complete()),
            Reached::Behind => self.inner.current().await,
        }
    }

    async fn complete_all(&self, stored: &[Stored]) -> Result<Vec<Object>, StoreError> {
        match stored.iter().any(|stored| !stored.object.tail().is_here()) {
            true => complete::complete(&*self.inner, &self.memory, stored).await,
            false => Ok(stored.iter().map(|stored| stored.object.clone()).collect()),
        }
    }
}

/// Returns whether a read failed because the inner store is not there.
fn is_away(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Unavailable(_) | StoreError::Unknown(_) | StoreError::NoLeader(_) | StoreError::Denied(_)
    )
}
