//! Keeps history for a time, and forgets what is older.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::{Locks, Revision, Store};

/// How many points in time are remembered within the time that history is kept.
const MARKS: u32 = 10;

/// The shortest time between two of them.
const SHORTEST: Duration = Duration::from_secs(1);

/// The lock of the one process that compacts.
const LOCK: &str = "compaction";

/// Compacts a store until `stop` is cancelled: events older than `history` are forgotten. Of all processes that do this
/// on one store, one does, and another one when that ends.
///
/// Ages are counted from when this process first saw a revision, so after a start history is kept longer, never shorter.
pub async fn compact(store: &dyn Store, locks: &dyn Locks, history: Duration, stop: CancellationToken) {
    loop {
        match stop.run_until_cancelled(locks.acquire(LOCK)).await {
            None => return,
            Some(Ok(lock)) => {
                let compacting = compact_alone(store, history, stop.clone());
                if lock.lost().run_until_cancelled(compacting).await.is_some() {
                    return lock.release().await;
                }
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot ask for the lock of compaction");
                stop.run_until_cancelled(tokio::time::sleep(SHORTEST)).await;
            }
        }
    }
}

async fn compact_alone(store: &dyn Store, history: Duration, stop: CancellationToken) {
    let mut marks: VecDeque<(Instant, Revision)> = VecDeque::new();
    let pause = (history / MARKS).max(SHORTEST);
    loop {
        match store.current().await {
            Ok(current) => {
                let revision = current.revision();
                if marks.back().is_none_or(|(_, last)| *last < revision) {
                    marks.push_back((Instant::now(), revision));
                }
            }
            Err(error) => tracing::warn!(%error, "cannot read the revision of the store"),
        }
        let mut due = None;
        while let Some((_, revision)) = marks.front().filter(|(seen, _)| seen.elapsed() >= history) {
            due = Some(*revision);
            marks.pop_front();
        }
        if let Some(revision) = due {
            match store.compact(revision).await {
                Ok(()) => tracing::debug!(%revision, "compacted"),
                Err(error) => tracing::warn!(%error, "cannot compact the store"),
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}
