//! Locks: which of several processes does what only one may do, and how the others' writes are kept out.

use async_trait::async_trait;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::StoreError;

/// What tells one holding of a lock from every other one, before and after.
///
/// A batch that carries it is committed only while that holding lasts. So a holder that lost its lock without noticing
/// — it was suspended, or cut off — cannot write any more, whatever it believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The name of the lock.
    pub lock: String,
    /// The holding: no two of the same lock share a number.
    pub holding: u64,
}

/// A lock that is held, until this is dropped or it is lost.
#[derive(Debug)]
pub struct Lock {
    fence: Fence,
    lost: CancellationToken,
    /// Tells the store that the lock is not needed any more.
    held: DropGuard,
    /// Cancelled by the store when somebody else can have it.
    released: CancellationToken,
}

/// Where locks are to be had: beside a [`Store`](super::Store), and of the same making.
#[async_trait]
pub trait Locks: Send + Sync + 'static {
    /// Waits until nobody else holds the lock of this name, and takes it.
    ///
    /// After: nobody else holds it until [`Lock::release`], or until this process has not been heard of for the
    /// time that the store grants; [`Lock::lost`] tells. Dropping the future gives up the wait.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] that a read can have.
    async fn acquire(&self, name: &str) -> Result<Lock, StoreError>;
}

impl Lock {
    /// Wraps a lock that was taken. The store is told by `done` when it is not needed any more, tells by `lost` when it is
    /// not held any more, and by `released` when it has let go of it.
    pub fn new(
        fence: Fence,
        lost: CancellationToken,
        done: CancellationToken,
        released: CancellationToken,
    ) -> Self {
        Lock { fence, lost, held: done.drop_guard(), released }
    }

    /// Returns what batches carry while the lock is held.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Returns what is cancelled when the lock is lost. It may be lost for some time before anybody here learns of it:
    /// that is what fences are for.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Lets go of the lock, and returns when somebody else can have it, or will have it when the store forgets this process.
    pub async fn release(self) {
        let Lock { held, released, .. } = self;
        drop(held);
        released.cancelled().await;
    }
}
