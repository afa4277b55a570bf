//! Locks within one process: nobody else has the file open, so they need not be kept anywhere.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Notify, RwLock, RwLockReadGuard};
use tokio_util::sync::CancellationToken;

use crate::store::{Fence, Lock, StoreError};

/// Who holds what.
#[derive(Default)]
pub(super) struct LockTable {
    holdings: RwLock<Holdings>,
    released: Notify,
}

#[derive(Default)]
pub(super) struct Holdings {
    by_name: HashMap<String, u64>,
    /// The number of the last holding.
    last: u64,
}

impl LockTable {
    pub(super) async fn acquire(self: &Arc<Self>, name: &str) -> Lock {
        loop {
            // Waiting begins before looking, so that no release is missed in between.
            let released = self.released.notified();
            if let Some(holding) = self.take(name).await {
                return self.lock(Fence { lock: name.to_owned(), holding });
            }
            released.await;
        }
    }

    async fn take(&self, name: &str) -> Option<u64> {
        let mut holdings = self.holdings.write().await;
        if holdings.by_name.contains_key(name) {
            return None;
        }
        holdings.last += 1;
        let holding = holdings.last;
        holdings.by_name.insert(name.to_owned(), holding);
        Some(holding)
    }

    fn lock(self: &Arc<Self>, fence: Fence) -> Lock {
        let [lost, done, released] = [(); 3].map(|()| CancellationToken::new());
        let lock = Lock::new(fence.clone(), lost, done.clone(), released.clone());
        let table = Arc::clone(self);
        tokio::spawn(async move {
            done.cancelled().await;
            table.holdings.write().await.by_name.remove(&fence.lock);
            released.cancel();
            table.released.notify_waiters();
        });
        lock
    }

    /// Returns what keeps a lock from being released, when it is held.
    ///
    /// # Errors
    ///
    /// [`StoreError::Deposed`] when it is not.
    pub(super) async fn keep(
        &self,
        fence: Option<&Fence>,
    ) -> Result<Option<RwLockReadGuard<'_, Holdings>>, StoreError> {
        let Some(fence) = fence else { return Ok(None) };
        let holdings = self.holdings.read().await;
        if holdings.by_name.get(&fence.lock) != Some(&fence.holding) {
            return Err(StoreError::Deposed { lock: fence.lock.clone() });
        }
        Ok(Some(holdings))
    }
}
