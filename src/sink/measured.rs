//! A store around a store that counts the calls to it: how many, how long they took, and why some failed.
//!
//! Names and labels are those under which k8s.io/apiserver counts its calls to etcd. Errors have a kind as well, because
//! a store without space, one without a leader, and one that refuses access are repaired by different people.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures::TryStreamExt;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::store::{
    Batch, Key, ListRequest, Lock, Locks, Object, Page, Range, ResourceVersion, Revision, Store, StoreError,
    Stored, WatchStream,
};
use crate::telemetry::metrics::{names, register};

/// Seconds; as k8s.io/apiserver has them for etcd.
const DURATIONS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// Counts the calls to an inner store, and the locks of it that could not be asked for.
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    locks: Arc<dyn Locks>,
    counts: Counts,
}

#[derive(Clone)]
struct Counts {
    requests: IntCounterVec,
    durations: HistogramVec,
    errors: IntCounterVec,
}

impl Counts {
    fn failed(&self, operation: &str, resource: &str, error: &StoreError) {
        self.errors.with_label_values(&[operation, resource, error.kind()]).inc();
    }
}

impl MeasuredStore {
    /// Wraps a store and its locks. It can be done once for a registry.
    ///
    /// # Errors
    ///
    /// When metrics of these names are registered already.
    pub fn new(
        inner: Arc<dyn Store>,
        locks: Arc<dyn Locks>,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let labels = ["operation", "resource"];
        let requests = Opts::new(names::STORE_REQUESTS, "Calls to etcd.");
        let durations =
            HistogramOpts::new(names::STORE_DURATION, "Seconds until a call to etcd was answered.");
        let errors = Opts::new(names::STORE_ERRORS, "Calls to etcd that failed, by the kind of failure.");
        let counts = Counts {
            requests: register(registry, IntCounterVec::new(requests, &labels))?,
            durations: register(registry, HistogramVec::new(durations.buckets(DURATIONS.to_vec()), &labels))?,
            errors: register(registry, IntCounterVec::new(errors, &["operation", "resource", "error"]))?,
        };
        Ok(MeasuredStore { inner, locks, counts })
    }

    async fn measure<T>(
        &self,
        operation: &str,
        resource: &str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let answer = call.await;
        let Counts { requests, durations, .. } = &self.counts;
        requests.with_label_values(&[operation, resource]).inc();
        durations.with_label_values(&[operation, resource]).observe(start.elapsed().as_secs_f64());
        answer.inspect_err(|error| self.counts.failed(operation, resource, error))
    }
}

/// Returns the resource of the first key: what is read or written at once mostly is of one.
fn resource<'k>(mut keys: impl Iterator<Item = &'k Key>) -> &'k str {
    keys.next().map_or("", Key::resource)
}

#[async_trait]
impl Store for MeasuredStore {
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError> {
        let resource = resource(batch.operations.iter().map(|operation| &operation.key)).to_owned();
        self.measure("append", &resource, self.inner.append(batch)).await
    }

    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
        self.measure("get", resource(keys.iter()), self.inner.read(keys)).await
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        let range = request.range.clone();
        self.measure("list", range.of_resource(), self.inner.list(request)).await
    }

    async fn watch(&self, range: Range, after: ResourceVersion) -> Result<WatchStream, StoreError> {
        let resource = range.of_resource().to_owned();
        let events = self.measure("watch", &resource, self.inner.watch(range, after)).await?;
        let counts = self.counts.clone();
        Ok(Box::pin(events.inspect_err(move |error| counts.failed("watch", &resource, error))))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.measure("compact", "", self.inner.compact(revision)).await
    }

    async fn current(&self) -> Result<ResourceVersion, StoreError> {
        self.measure("current", "", self.inner.current()).await
    }

    async fn complete(&self, stored: &Stored) -> Result<Object, StoreError> {
        self.measure("complete", stored.key.resource(), self.inner.complete(stored)).await
    }

    async fn complete_all(&self, stored: &[Stored]) -> Result<Vec<Object>, StoreError> {
        let resource = resource(stored.iter().map(|stored| &stored.key));
        self.measure("complete", resource, self.inner.complete_all(stored)).await
    }
}

#[async_trait]
impl Locks for MeasuredStore {
    async fn acquire(&self, name: &str) -> Result<Lock, StoreError> {
        // How long one waits in line for a lock says nothing about the store.
        let acquired = self.locks.acquire(name).await;
        acquired.inspect_err(|error| self.counts.failed("lock", "", error))
    }
}
