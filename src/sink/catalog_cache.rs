//! A store around a store that puts CatalogCaches together when they are read.
//!
//! A CatalogCache lists every bundle of its catalog, which is more than one request to etcd can hold. What is stored is
//! everything but the list; the list comes from the BundleMetadata of the same state.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;

use crate::model::{ApiKey, Operator};
use crate::store::{
    At, Batch, Key, ListRequest, Object, Page, Pager, Range, ResourceVersion, Revision, Store, StoreError,
    Stored, Tail, WatchStream,
};

const CACHES: &str = "catalogcaches";
const BUNDLES: &str = "bundlemetadata";

/// Bundles that are read at once.
const BUNDLES_PER_PAGE: usize = 500;

/// Completes CatalogCaches; everything else is the inner store's.
pub struct CatalogCacheStore {
    inner: Arc<dyn Store>,
}

/// What a CatalogCache says of a bundle.
#[derive(Deserialize)]
struct Bundle {
    metadata: BundleName,
    spec: BundleSpec,
}

#[derive(Deserialize)]
struct BundleName {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BundleSpec {
    catalog_source: String,
    package: String,
    version: String,
    #[serde(default)]
    image: String,
    #[serde(default, rename = "providedAPIs")]
    provided_apis: Vec<ApiKey>,
    #[serde(default, rename = "requiredAPIs")]
    required_apis: Vec<ApiKey>,
}

impl CatalogCacheStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        CatalogCacheStore { inner }
    }

    /// Returns the end of a CatalogCache as its catalog was at a version.
    async fn operators(&self, key: &Key, at: At) -> Result<Bytes, StoreError> {
        let range = Range::namespace(BUNDLES, key.namespace());
        let mut pager = Pager::new(&*self.inner, range, at, BUNDLES_PER_PAGE);
        let mut operators = Vec::new();
        while let Some(page) = pager.next().await? {
            for stored in &page.items {
                let bundle: Bundle = serde_json::from_slice(&stored.object.summary())
                    .map_err(|error| StoreError::Unavailable(format!("`{}`: {error}", stored.key)))?;
                if bundle.spec.catalog_source == key.name() {
                    operators.push(Operator {
                        name: bundle.metadata.name,
                        package: bundle.spec.package,
                        version: bundle.spec.version,
                        providedapis: bundle.spec.provided_apis,
                        requiredapis: bundle.spec.required_apis,
                        bundlepath: bundle.spec.image,
                    });
                }
            }
        }
        let mut text = b"\"operators\":".to_vec();
        serde_json::to_writer(&mut text, &operators).expect("plain data can be written");
        text.extend_from_slice(b"}}");
        Ok(text.into())
    }
}

#[async_trait]
impl Store for CatalogCacheStore {
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.inner.append(batch).await
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

    async fn complete_all(&self, stored: &[Stored]) -> Result<Vec<Object>, StoreError> {
        if stored.iter().all(|stored| stored.key.resource() != CACHES) {
            return self.inner.complete_all(stored).await;
        }
        let mut objects = Vec::with_capacity(stored.len());
        for stored in stored {
            objects.push(self.complete(stored).await?);
        }
        Ok(objects)
    }

    async fn complete(&self, stored: &Stored) -> Result<Object, StoreError> {
        if stored.key.resource() != CACHES {
            return self.inner.complete(stored).await;
        }
        // The object is written when an ingest is complete, so the state it was written in is the right one. Once
        // that is compacted, nothing but a later ingest can have changed the bundles.
        let tail = match self.operators(&stored.key, At::Exactly(stored.version)).await {
            Err(StoreError::Compacted { .. }) => self.operators(&stored.key, At::Latest).await?,
            operators => operators?,
        };
        Ok(Object::cut(stored.object.head().clone(), Tail::Plain(tail)))
    }
}
