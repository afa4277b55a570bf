//! From a judged catalog to what is sent to etcd: events, batches of them, and their values.

use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use criterion::{Criterion, Throughput};
use futures::stream;
use packageserver::pipeline::limits::Limits;
use packageserver::pipeline::progress::Progress;
use packageserver::pipeline::reconcile::{Before, Catalog, Collector, Known, Reconciler};
use packageserver::pipeline::submit::{BatchLimits, submit};
use packageserver::sink::transaction;
use packageserver::store::{
    Batch, Envelope, Key, ListRequest, Page, Range, ResourceVersion, Revision, Store, StoreError, Stored,
    WatchStream, Write,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{Files, read};

/// Where the catalog belongs.
pub(super) fn catalog() -> Catalog {
    Catalog {
        namespace: "bench".to_owned(),
        name: "catalog".to_owned(),
        uid: "0b0c4bd5-6b4e-4d57-8f2e-000000000001".to_owned(),
        ..Catalog::default()
    }
}

/// Reads files, and does something with what a store that holds nothing lacks of them.
pub(super) fn with_reconciler<T>(
    files: &Files,
    store: &dyn Store,
    work: impl FnOnce(&Reconciler<'_>) -> T,
) -> T {
    let (packages, limits, presentation) = (Default::default(), Limits::default(), Default::default());
    let before = Before { catalog_source: "bench", packages: &packages, presentation, skips_files: false };
    let collector = Collector::new(before, &limits);
    read(files, &collector);
    let draft = collector.finish(before).expect("it is spooled").expect("it is whole");
    let judged = draft.judge(&limits).expect("it is a catalog");
    work(&Reconciler::new(&catalog(), store, judged, Arc::default()))
}

/// Appends everything that a store lacks.
pub(super) async fn append(reconciler: &Reconciler<'_>, store: &dyn Store) {
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let submitted = submit(reconciler, store, BatchLimits::default(), None, &progress, &stop).await;
    let refused = submitted.expect("the store takes everything").refused;
    assert!(refused.is_empty(), "refused: {refused:?}");
}

/// A store that commits at once, and remembers what it was last given.
#[derive(Default)]
struct Taker {
    batches: Mutex<Vec<Batch>>,
}

impl Taker {
    fn take(&self) -> Vec<Batch> {
        std::mem::take(&mut *self.batches.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Store for Taker {
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError> {
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.push(batch);
        Ok(Revision::new(batches.len() as u64))
    }

    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
        Ok(vec![None; keys.len()])
    }

    async fn list(&self, _: ListRequest) -> Result<Page, StoreError> {
        Ok(Page { version: ResourceVersion::default(), items: Vec::new(), remaining: 0 })
    }

    async fn watch(&self, _: Range, _: ResourceVersion) -> Result<WatchStream, StoreError> {
        Ok(Box::pin(stream::pending()))
    }

    async fn compact(&self, _: Revision) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Measures it, in bytes of the catalog; values and the transactions they stand in, in bytes of the values.
pub(super) fn bench(criterion: &mut Criterion, files: &Files) {
    let runtime = Runtime::new().expect("threads can be started");
    let store = Taker::default();
    let bytes = files.iter().map(|(_, content)| content.len() as u64).sum();
    let mut group = criterion.benchmark_group("writing");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    with_reconciler(files, &store, |reconciler| {
        group.bench_function("events", |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let mut operations = 0;
                    for plan in reconciler.plans() {
                        let events = reconciler.events(&plan, Known::Assumed).await;
                        operations += events.expect("the spool can be read").operations.len();
                    }
                    operations
                })
            });
        });
        group.bench_function("events and batches", |bencher| {
            bencher.iter(|| {
                runtime.block_on(append(reconciler, &store));
                store.take()
            });
        });
        runtime.block_on(append(reconciler, &store));
    });
    let batches = store.take();
    let values = || {
        let operations = batches.iter().flat_map(|batch| batch.operations.iter().enumerate());
        let value = |(index, operation): (usize, &packageserver::store::Operation)| match &operation.write {
            Write::Put(object) => Envelope::encode_put(index as u16 + 1, object).len(),
            Write::Delete => 0,
        };
        operations.map(value).sum::<usize>()
    };
    group.throughput(Throughput::Bytes(values() as u64));
    group.bench_function("values of transactions", |bencher| bencher.iter(values));
    group.bench_function("transactions", |bencher| {
        bencher.iter(|| {
            for batch in &batches {
                black_box(transaction("/registry/core.rukpak.io", batch));
            }
        });
    });
    group.finish();
}
