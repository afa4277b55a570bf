//! Watching: each watcher reads the log at its own pace and sleeps when it has reached the end.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use futures::stream;
use redb::{Database, ReadableDatabase};
use tokio::sync::watch as notify;

use super::handle::Handle;
use super::read::{object_before, stored_at};
use super::tables::{EVENTS, State, VERSIONS, parse_key, unavailable};
use crate::store::{Change, Range, ResourceVersion, Revision, StoreError, WatchItem, WatchStream};

/// Events read at once: bounds what a watcher holds to this many objects.
const EVENTS_PER_READ: usize = 64;

/// A watcher between two items.
struct Watcher {
    /// Does not keep the store open.
    handle: Weak<Handle>,
    latest: notify::Receiver<Revision>,
    range: Range,
    /// Everything up to here was read from the log.
    cursor: ResourceVersion,
    /// Read, and not delivered yet.
    ready: VecDeque<WatchItem>,
}

pub(super) fn open(handle: &Arc<Handle>, range: Range, after: ResourceVersion) -> WatchStream {
    let latest = handle.subscribe();
    let watcher =
        Watcher { handle: Arc::downgrade(handle), latest, range, cursor: after, ready: VecDeque::new() };
    // After an error the watcher is gone, and with it the stream.
    Box::pin(stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(Some(item)) => Some((Ok(item), Some(watcher))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }))
}

pub(super) fn check(database: &Database, after: ResourceVersion) -> Result<(), StoreError> {
    State::read(&database.begin_read().map_err(unavailable)?)?.check_readable_after(after)
}

impl Watcher {
    async fn next(&mut self) -> Result<Option<WatchItem>, StoreError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let latest = ResourceVersion::end_of(*self.latest.borrow_and_update());
            let is_gone = match self.cursor < latest {
                true => match self.handle.upgrade() {
                    Some(handle) => {
                        self.read_on(handle).await?;
                        false
                    }
                    None => true,
                },
                false => self.latest.changed().await.is_err(),
            };
            if is_gone {
                return Ok(None); // The store is closed.
            }
        }
    }

    async fn read_on(&mut self, handle: Arc<Handle>) -> Result<(), StoreError> {
        let (range, cursor) = (self.range.clone(), self.cursor);
        let read = tokio::task::spawn_blocking(move || {
            handle.read(|database| read_events(database, &range, cursor))
        });
        let (items, cursor) = read.await.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        self.ready = items;
        self.cursor = cursor;
        Ok(())
    }
}

/// Reads the next events in one snapshot, and how far that got. Behind the last event, progress follows.
fn read_events(
    database: &Database,
    range: &Range,
    after: ResourceVersion,
) -> Result<(VecDeque<WatchItem>, ResourceVersion), StoreError> {
    let transaction = database.begin_read().map_err(unavailable)?;
    let state = State::read(&transaction)?;
    state.check_readable_after(after)?;
    let events = transaction.open_table(EVENTS).map_err(unavailable)?;
    let versions = transaction.open_table(VERSIONS).map_err(unavailable)?;

    let mut items = VecDeque::new();
    let mut cursor = after;
    let mut log = events.range((after.revision().get(), after.index() + 1)..).map_err(unavailable)?;
    for _ in 0..EVENTS_PER_READ {
        let Some((position, key)) = log.next().transpose().map_err(unavailable)? else {
            cursor = state.version().max(cursor);
            items.push_back(WatchItem::Progress(cursor));
            break;
        };
        let (revision, index) = position.value();
        cursor = ResourceVersion::new(Revision::new(revision), index);
        let key = parse_key(key.value())?;
        if range.contains(&key) {
            let change = Change {
                before: object_before(&versions, &key, cursor)?,
                after: stored_at(&versions, &key, cursor)?.map(|stored| stored.object),
                key,
                version: cursor,
            };
            items.push_back(WatchItem::Change(Arc::new(change)));
        }
    }
    Ok((items, cursor))
}
