//! Work is shared out by locks: of all processes one has a CatalogSource, and only that one writes in its name.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as latest;
use tokio_util::sync::CancellationToken;

use super::Controller;
use super::metrics::OneMore;
use super::worker::Worker;
use crate::model::CatalogSource;
use crate::store::{FencedStore, Key, Lock};

/// Pause after a lock could not be asked for.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Works on a CatalogSource whenever its lock is held here, until there is nothing left to do or the process ends.
///
/// The worker's writes are fenced: once the lock is lost, none of them is committed, also those that are under way. When
/// that is noticed here, the worker is dropped where it stands, and waits in line again.
pub(super) async fn work(
    controller: Arc<Controller>,
    key: Key,
    news: latest::Receiver<Option<Arc<CatalogSource>>>,
    stop: CancellationToken,
) {
    loop {
        let Some(lock) = stop.run_until_cancelled(acquire(&controller, &key)).await else { return };
        let store = Arc::new(FencedStore::new(Arc::clone(&controller.store), lock.fence().clone()));
        let fenced = Arc::new(Controller { store, ..(*controller).clone() });
        let worker = Worker::new(fenced, key.clone(), news.clone(), stop.clone());
        let _held = OneMore::of(&controller.metrics.held);
        let is_done = lock.lost().run_until_cancelled(worker.run()).await.is_some();
        if is_done {
            // Others can go on at once.
            return lock.release().await;
        }
        tracing::warn!(source = %key, "the lock was lost; whoever has it now goes on");
    }
}

/// Waits for the lock of a CatalogSource.
async fn acquire(controller: &Controller, key: &Key) -> Lock {
    loop {
        match controller.locks.acquire(key.as_str()).await {
            Ok(lock) => return lock,
            Err(error) => tracing::warn!(source = %key, %error, "cannot ask for the lock"),
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}
