//! Watches of what is cached: each reader has a place in the log of its resource and looks on from there when the bell
//! rings. There is nothing of a reader that could overflow: one that does not read falls out of the window, and ends.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::memory::{CachedResource, Memory};
use crate::store::{Range, ResourceVersion, StoreError, WatchItem, WatchStream};

/// Events that a reader takes at once.
const EVENTS_PER_LOOK: usize = 16;

/// A reader between two items.
struct Reader {
    memory: Arc<Memory>,
    bell: watch::Receiver<()>,
    resource: CachedResource,
    range: Range,
    /// Everything up to here has been looked at.
    cursor: ResourceVersion,
    /// The progress that was delivered last.
    told: Option<ResourceVersion>,
    /// Taken, and not delivered yet.
    ready: VecDeque<WatchItem>,
    /// What it reads from until it has come into the window: the inner store's watch, and the right to have one.
    older: Option<(WatchStream, OwnedSemaphorePermit)>,
}

/// Opens a watch of what is held.
///
/// Returns nothing when the window does not go back that far.
pub(super) fn open(
    memory: &Arc<Memory>,
    resource: CachedResource,
    range: Range,
    after: ResourceVersion,
) -> Option<WatchStream> {
    memory.read().log(resource.name).filter(|log| log.start() <= after)?;
    Some(stream_of(memory, resource, range, after, None))
}

/// Opens a watch that is the inner store's until it has come to what is held.
pub(super) fn open_older(
    memory: &Arc<Memory>,
    resource: CachedResource,
    range: Range,
    after: ResourceVersion,
    older: (WatchStream, OwnedSemaphorePermit),
) -> WatchStream {
    stream_of(memory, resource, range, after, Some(older))
}

fn stream_of(
    memory: &Arc<Memory>,
    resource: CachedResource,
    range: Range,
    cursor: ResourceVersion,
    older: Option<(WatchStream, OwnedSemaphorePermit)>,
) -> WatchStream {
    let bell = memory.bell(resource.name).expect("every cached resource has a bell");
    let memory = Arc::clone(memory);
    let reader = Reader { memory, bell, resource, range, cursor, told: None, ready: VecDeque::new(), older };
    Box::pin(stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Some(Ok(item)) => Some((Ok(item), Some(reader))),
            Some(Err(error)) => Some((Err(error), None)),
            None => None,
        }
    }))
}

impl Reader {
    async fn next(&mut self) -> Option<Result<WatchItem, StoreError>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            if let Some((older, _)) = &mut self.older {
                let item = older.next().await?;
                match &item {
                    Ok(WatchItem::Change(change)) => self.cursor = change.version,
                    Ok(WatchItem::Progress(version)) => self.cursor = *version,
                    Err(_) => {}
                }
                self.enter_window();
                return Some(item);
            }
            self.bell.borrow_and_update();
            if !self.look() {
                return None;
            }
            if self.ready.is_empty() && self.bell.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Leaves the inner store's watch when the window goes back far enough.
    fn enter_window(&mut self) {
        let content = self.memory.read();
        if content.log(self.resource.name).is_some_and(|log| log.start() <= self.cursor) {
            self.older = None;
        }
    }

    /// Takes what has happened since; returns whether there is a way to go on.
    fn look(&mut self) -> bool {
        let content = self.memory.read();
        let Some(log) = content.log(self.resource.name).filter(|log| log.start() <= self.cursor) else {
            return false;
        };
        let ready = &mut self.ready;
        let take = |change| ready.push_back(WatchItem::Change(change));
        match log.after(&self.range, self.cursor, EVENTS_PER_LOOK, take) {
            Some(version) => self.cursor = version,
            None => {
                // Caught up. Events may be there already of a batch that is not complete.
                self.cursor = self.cursor.max(content.version());
                let complete = content.complete();
                if complete >= self.cursor && Some(complete) != self.told {
                    self.told = Some(complete);
                    self.ready.push_back(WatchItem::Progress(complete));
                }
            }
        }
        true
    }
}
