//! The seam: what the writing half (pipeline, controller) and the reading half (API) know of each other.
//!
//! A [`Store`] is a log of events and the state that is its fold. Writers [`append`](Store::append) batches;
//! readers [`list`](Store::list) the state and [`watch`](Store::watch) the log. Everything else — encodings,
//! transactions, files — is behind the trait, in [`crate::sink`].
//!
//! # Revisions and resource versions
//!
//! One batch is one transaction and gets one [`Revision`]. Its events get one [`ResourceVersion`] each:
//! revision × 1000 + position in the batch, counted from 1. So every event can be resumed from, also one in
//! the middle of a batch, and a list taken at revision R is labelled R × 1000 + 999.

mod batch;
mod dictionary;
mod envelope;
mod error;
mod fenced;
mod hash;
mod key;
mod lock;
mod object;
mod pager;
mod past;
mod version;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures::Stream;

pub use self::batch::{Batch, Expect, MAX_BATCH_OPERATIONS, Operation, Write};
pub(crate) use self::dictionary::complete_all;
pub use self::dictionary::{DICTIONARIES, Dictionary, DictionaryId};
pub use self::envelope::{Envelope, EnvelopeError, FORMAT_VERSION};
pub use self::error::{Outcome, StoreError};
pub use self::fenced::FencedStore;
pub use self::hash::ContentHash;
pub use self::key::{InvalidKey, Key, Range};
pub use self::lock::{Fence, Lock, Locks};
pub use self::object::{Object, ObjectError, Tail};
pub use self::pager::Pager;
pub(crate) use self::past::Past;
pub use self::version::{ResourceVersion, Revision};

/// An object as the store holds it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Where it is.
    pub key: Key,
    /// The event that last wrote it.
    pub version: ResourceVersion,
    /// What was written.
    pub object: Object,
}

/// One event of the log, with the state on both sides of it.
#[derive(Clone, Debug)]
pub struct Change {
    /// What changed.
    pub key: Key,
    /// The event's own place in the log.
    pub version: ResourceVersion,
    /// The object before, absent when the event created it.
    pub before: Option<Object>,
    /// The object after, absent when the event deleted it.
    pub after: Option<Object>,
}

/// What a watch delivers.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// An event. Events come in the order of their versions, each once.
    Change(Arc<Change>),
    /// Everything up to this version has been delivered, and nothing at or below it will follow.
    Progress(ResourceVersion),
}

/// A stream of events; see [`Store::watch`].
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchItem, StoreError>> + Send>>;

/// Which state a list is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The state after every append that was answered before the call.
    Latest,
    /// The state right after this event: later events of the same batch are not in it.
    Exactly(ResourceVersion),
}

/// What to list.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// The keys that are wanted.
    pub range: Range,
    /// The state they are taken from.
    pub at: At,
    /// Only keys after this one, for the pages after the first.
    pub after: Option<Key>,
    /// The most objects a page holds, at least 1.
    pub limit: usize,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// The state it was taken from. A later page of the same list asks for [`At::Exactly`] this.
    pub version: ResourceVersion,
    /// The objects, sorted by key.
    pub items: Vec<Stored>,
    /// How many objects of the range follow in the same state.
    pub remaining: u64,
}

/// An event log with a readable state. See the module for what revisions and versions mean.
///
/// Every implementation passes the same contract suite (`tests/it/store_contract.rs`); the promises below are
/// what it checks. All methods may be called from any task, at any time, concurrently.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits a batch: all of it, in one transaction with a revision of its own, or nothing.
    ///
    /// Before: the batch is not empty, holds at most [`MAX_BATCH_OPERATIONS`] operations — a store may be set up to
    /// take fewer — and names each key once. After: the operation at position *i* (from 0) is the event
    /// (revision, *i* + 1); lists and watches that start after the answer see it. Each operation's [`Expect`], and
    /// the batch's [`Fence`] if it has one, held at the moment of the commit.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] when an expectation did not hold, naming the first key where it did not;
    /// [`StoreError::Deposed`] when the fence did not.
    /// [`StoreError::outcome`] tells "did not happen" from "may have happened"; after the latter, read the keys
    /// to find out: expectations make a second append of the same batch fail instead of doubling it.
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError>;

    /// Returns the current objects under `keys`, in the order of the keys, all from one state.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but [`StoreError::Conflict`]; nothing is changed by a read.
    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError>;

    /// Returns one page of the objects in a range, in one state.
    ///
    /// # Errors
    ///
    /// [`StoreError::Compacted`] when [`At::Exactly`] names a state that history no longer holds,
    /// [`StoreError::Future`] when it names one that does not exist yet.
    async fn list(&self, request: ListRequest) -> Result<Page, StoreError>;

    /// Delivers every event of a range whose version is greater than `after`, in order, each once, and goes on
    /// with those to come. Events are never held back for the end of their batch, and
    /// [`WatchItem::Progress`] tells when the reader has caught up; it never overtakes an event. For whatever
    /// [`Store::current`] returns, every watch that began before it soon delivers a progress that is not older, also
    /// where nothing in its range has changed. An `after` that lies in the future is waited for.
    ///
    /// A reader that does not read costs nothing but its own delay: the stream is pulled, not pushed. A store may
    /// end the stream of a reader that has fallen too far behind. Recovery: watch again, after the last version
    /// that was delivered.
    ///
    /// # Errors
    ///
    /// [`StoreError::Compacted`], at once or as the last item, when events after `after` are no longer
    /// held. Recovery: list again and watch from that list's version. Every error ends the stream.
    async fn watch(&self, range: Range, after: ResourceVersion) -> Result<WatchStream, StoreError>;

    /// Forgets the history before `revision`: states and events older than it can no longer be read. The state
    /// after `revision` and everything that follows stay; the states within it may go or stay.
    ///
    /// # Errors
    ///
    /// [`StoreError::Future`] for a revision that does not exist yet. Compacting twice is not an error.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// Returns the newest version: that of a list taken now.
    ///
    /// # Errors
    ///
    /// As [`Store::read`].
    async fn current(&self) -> Result<ResourceVersion, StoreError> {
        let nothing = Range::single(&Key::new("none", "none", "none"));
        Ok(self.list(ListRequest { range: nothing, at: At::Latest, after: None, limit: 1 }).await?.version)
    }

    /// Returns the current object under `key`.
    ///
    /// # Errors
    ///
    /// As [`Store::read`].
    async fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        let mut found = self.read(std::slice::from_ref(key)).await?;
        Ok(found.pop().flatten())
    }

    /// Returns an object with its tail, for one that was delivered without ([`Tail::Deferred`]) or needs a dictionary
    /// ([`Tail::Referring`]).
    ///
    /// # Errors
    ///
    /// As [`Store::list`]; [`StoreError::Compacted`] when the object has been replaced since, so long ago that it
    /// is gone.
    async fn complete(&self, stored: &Stored) -> Result<Object, StoreError> {
        let mut objects = self.complete_all(std::slice::from_ref(stored)).await?;
        objects.pop().ok_or_else(|| StoreError::Unavailable("nothing was completed".to_owned()))
    }

    /// As [`Store::complete`], for many objects: what they need is fetched together. A store that defers tails has to
    /// have its own.
    ///
    /// # Errors
    ///
    /// As [`Store::complete`].
    async fn complete_all(&self, stored: &[Stored]) -> Result<Vec<Object>, StoreError> {
        dictionary::complete_all(self, |_| None, stored).await
    }
}
