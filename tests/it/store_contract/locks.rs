//! Locks and fences: one holder, and nobody else writes in its name.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::join_all;
use packageserver::store::{
    Batch, FencedStore, Operation, Outcome, Range, ResourceVersion, Store, StoreError,
};

use super::Fixture;
use super::model::{Model, Reader, key, latest, object};

pub async fn a_lock_has_one_holder_at_a_time(fixture: &Fixture) {
    let holders = Arc::new(AtomicUsize::new(0));
    let takers = (0..5).map(|_| {
        let (locks, holders) = (Arc::clone(&fixture.locks), Arc::clone(&holders));
        tokio::spawn(async move {
            for _ in 0..3 {
                let lock = locks.acquire("door").await.unwrap();
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                assert_eq!(holders.fetch_sub(1, Ordering::SeqCst), 1);
                assert!(!lock.lost().is_cancelled());
                lock.release().await;
            }
        })
    });
    join_all(takers).await.into_iter().for_each(|taker| taker.unwrap());
    // Locks of other names are independent, and one that is dropped is free.
    let door = fixture.locks.acquire("door").await.unwrap();
    let window = fixture.locks.acquire("window").await.unwrap();
    drop((door, window));
    fixture.locks.acquire("door").await.unwrap();
}

pub async fn a_writer_whose_lock_is_gone_cannot_write(fixture: &Fixture) {
    let mut model = Model::default();
    let create = |name: &str| Batch::of(Operation::create(key(name), object(name)));
    let lock = fixture.locks.acquire("writer").await.unwrap();
    let fenced = FencedStore::new(Arc::clone(&fixture.store), lock.fence().clone());
    model.append(&fenced, create("held")).await;
    // A conflict is a conflict also behind a fence.
    let conflict = fenced.append(create("held")).await;
    assert!(matches!(conflict, Err(StoreError::Conflict { .. })), "{conflict:?}");
    let before = lock.fence().clone();
    lock.release().await;
    let is_deposed = |result: Result<_, StoreError>| match result {
        Err(error @ StoreError::Deposed { .. }) => {
            assert_eq!(error.outcome(), Outcome::DidNotHappen);
            assert!(error.to_string().contains("writer"), "{error}");
        }
        other => panic!("{other:?}"),
    };
    is_deposed(fenced.append(create("free")).await);
    let next = fixture.locks.acquire("writer").await.unwrap();
    assert_ne!(*next.fence(), before);
    is_deposed(fenced.append(create("taken")).await);
    // Not even where its expectation fails too: it has no business here.
    is_deposed(fenced.append(create("held")).await);
    let successor = FencedStore::new(Arc::clone(&fixture.store), next.fence().clone());
    model.append(&successor, create("next")).await;
    // Who has no fence is not bound by it.
    model.append(&*fixture.store, create("unfenced")).await;
    assert_eq!(latest(&*fixture.store, Range::everything()).await, model.latest());
}

pub async fn locks_disturb_no_reader(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = store.current().await.unwrap();
    let mut reader = Reader::open(store, Range::everything(), start).await.unwrap();
    let held = fixture.locks.acquire("held").await.unwrap();
    let waiting = fixture.locks.acquire("held");
    tokio::pin!(waiting);
    assert!((&mut waiting).now_or_never().is_none());
    let mut model = Model::default();
    let fenced = FencedStore::new(Arc::clone(&fixture.store), held.fence().clone());
    let creates = ["a", "b"].map(|name| Operation::create(key(name), object(name)));
    let revision = model.append(&fenced, Batch::new(creates.into())).await;
    let deletes = [2_u16, 1].map(|index| {
        let version = ResourceVersion::new(revision, index);
        Operation::delete(key(["a", "b"][index as usize - 1]), version)
    });
    model.append(&fenced, Batch::new(deletes.into())).await;
    held.release().await;
    waiting.await.unwrap().release().await;
    assert_eq!(latest(store, Range::everything()).await, model.latest());
    let found = reader.read_until(store.current().await.unwrap()).await.unwrap();
    assert_eq!(found, model.events);
}
