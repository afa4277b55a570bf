//! A store around a store that writes only while a lock is held.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Batch, Fence, Key, ListRequest, Object, Page, Range, ResourceVersion, Revision, Store, StoreError,
    Stored, WatchStream,
};

/// Adds a fence to every batch; everything else is the inner store's.
pub struct FencedStore {
    inner: Arc<dyn Store>,
    fence: Fence,
}

impl FencedStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Store>, fence: Fence) -> Self {
        FencedStore { inner, fence }
    }
}

#[async_trait]
impl Store for FencedStore {
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.inner.append(batch.fenced(self.fence.clone())).await
    }

    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
        self.inner.read(keys).await
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        self.inner.list(request).await
    }

    async fn watch(&self, range: Range, after: ResourceVersion) -> Result<WatchStream, StoreError> {
        self.inner.watch(range, after).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn current(&self) -> Result<ResourceVersion, StoreError> {
        self.inner.current().await
    }

    async fn complete(&self, stored: &Stored) -> Result<Object, StoreError> {
        self.inner.complete(stored).await
    }

    async fn complete_all(&self, stored: &[Stored]) -> Result<Vec<Object>, StoreError> {
        self.inner.complete_all(stored).await
    }
}
