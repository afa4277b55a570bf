//! Many at once: nothing lost, nothing doubled, nothing seen half.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use packageserver::store::{At, Batch, Object, Operation, Range, ResourceVersion, Store, StoreError};

use super::Fixture;
use super::model::{Reader, key, list, object};

pub async fn of_many_creations_of_one_key_one_succeeds(fixture: &Fixture) {
    for round in 0..5 {
        let created = join_all((0..10).map(|writer| {
            let store = Arc::clone(&fixture.store);
            let create = Operation::create(key(&format!("k{round}")), object(&writer.to_string()));
            tokio::spawn(async move { store.append(Batch::of(create)).await })
        }))
        .await;
        let (won, lost): (Vec<_>, Vec<_>) =
            created.into_iter().map(|created| created.unwrap()).partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        assert!(lost.iter().all(|lost| matches!(lost, Err(StoreError::Conflict { .. }))), "{lost:?}");
    }
}

fn number(object: &Object) -> u64 {
    std::str::from_utf8(object.head()).unwrap().parse().unwrap()
}

/// Adds one to a counter.
async fn increment(store: &dyn Store, name: &str) {
    loop {
        let stored = store.get(&key(name)).await.unwrap().unwrap();
        let next = Object::whole((number(&stored.object) + 1).to_string());
        match store.append(Batch::of(Operation::replace(stored.key, stored.version, next))).await {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub async fn concurrent_changes_are_neither_lost_nor_doubled(fixture: &Fixture) {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 10;
    let store = &*fixture.store;
    let creates = ["a", "b"].map(|name| Operation::create(key(name), Object::whole("0")));
    let start = ResourceVersion::end_of(store.append(Batch::new(creates.into())).await.unwrap());
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&fixture.store);
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                increment(&*store, ["a", "b"][(writer + round) % 2]).await;
            }
        })
    });
    let read = async {
        let mut reader = Reader::open(store, Range::everything(), start).await.unwrap();
        let mut events = Vec::new();
        while events.len() < WRITERS * ROUNDS {
            events.extend(reader.next().await.unwrap());
        }
        events
    };
    let (written, events) = tokio::join!(join_all(writers), read);
    written.into_iter().for_each(|writer| writer.unwrap());
    // Each event begins where the one before it ended.
    let mut counters = BTreeMap::from([(key("a"), 0), (key("b"), 0)]);
    for event in events {
        let counter = counters.get_mut(&event.key).unwrap();
        assert_eq!(number(&event.before.unwrap()), *counter);
        *counter += 1;
        assert_eq!(number(&event.after.unwrap()), *counter);
    }
    assert_eq!(counters.values().sum::<u64>(), (WRITERS * ROUNDS) as u64);
}

pub async fn a_batch_is_seen_whole_or_not_at_all(fixture: &Fixture) {
    let keys: Vec<_> = (0..30).map(|number| key(&format!("k{number:02}"))).collect();
    let creates = keys.iter().map(|key| Operation::create(key.clone(), Object::whole("0"))).collect();
    let first = fixture.store.append(Batch::new(creates)).await.unwrap();
    let writer = {
        let (store, keys) = (Arc::clone(&fixture.store), keys.clone());
        tokio::spawn(async move {
            let mut revision = first;
            for round in 1..30 {
                let replace = |(index, key): (usize, &packageserver::store::Key)| {
                    let version = ResourceVersion::new(revision, index as u16 + 1);
                    Operation::replace(key.clone(), version, Object::whole(round.to_string()))
                };
                let batch = Batch::new(keys.iter().enumerate().map(replace).collect());
                revision = store.append(batch).await.unwrap();
            }
        })
    };
    let mut seen = 0;
    while !writer.is_finished() || seen < 29 {
        let (_, state) = list(&*fixture.store, Range::resource("things"), At::Latest, 7).await.unwrap();
        let numbers: Vec<_> = state.values().map(|(_, object)| number(object)).collect();
        assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
        assert!(numbers[0] >= seen, "time does not run backwards");
        seen = numbers[0];
    }
    writer.await.unwrap();
}
