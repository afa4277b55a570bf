//! Compaction: what is gone is an error of its own, and never a gap.

use packageserver::store::{At, Batch, Operation, Range, ResourceVersion, Revision, StoreError};

use super::Fixture;
use super::lists::some_history;
use super::model::{Model, Reader, events, key, latest, list, object};

pub async fn what_is_compacted_is_gone_and_what_follows_stays(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = store.current().await.unwrap();
    let model = some_history(store).await;
    let compacted = model.events[model.events.len() / 2].version.revision();
    store.compact(compacted).await.unwrap();
    let everything = Range::everything;
    for version in model.events.iter().map(|event| event.version).chain([start]) {
        let (state, rest) = (
            list(store, everything(), At::Exactly(version), 100).await,
            events(store, everything(), version).await,
        );
        if version.revision() < compacted {
            assert!(matches!(state, Err(StoreError::Compacted { .. })), "{version}: {state:?}");
            match rest {
                Err(StoreError::Compacted { requested, oldest }) => {
                    assert!(requested <= oldest && oldest <= ResourceVersion::end_of(compacted));
                    // The oldest that is named is one that can be had.
                    events(store, everything(), oldest).await.unwrap();
                }
                other => panic!("{version}: {other:?}"),
            }
        } else if version.revision() > compacted {
            assert_eq!(state.unwrap().1, model.state(version));
            assert_eq!(rest.unwrap(), model.after(&everything(), version));
        }
    }
    let boundary = ResourceVersion::end_of(compacted);
    model.check_state(store, &everything(), boundary, 3).await;
    assert_eq!(events(store, everything(), boundary).await.unwrap(), model.after(&everything(), boundary));
    assert_eq!(latest(store, everything()).await, model.latest());
}

pub async fn compacting_twice_is_no_error_and_the_future_cannot_be_compacted(fixture: &Fixture) {
    let store = &*fixture.store;
    let model = some_history(store).await;
    let current = store.current().await.unwrap();
    let refused = store.compact(Revision::new(current.revision().get() + 10)).await;
    assert!(matches!(refused, Err(StoreError::Future { .. })), "{refused:?}");
    let middle = model.events[model.events.len() / 2].version.revision();
    for revision in [middle, middle, middle.previous(), current.revision(), current.revision(), middle] {
        store.compact(revision).await.unwrap();
    }
    assert_eq!(latest(store, Range::everything()).await, model.latest());
    model.check_state(store, &Range::everything(), current, 2).await;
    assert_eq!(events(store, Range::everything(), current).await.unwrap(), []);
}

pub async fn deleted_objects_do_not_come_back_after_compaction(fixture: &Fixture) {
    let store = &*fixture.store;
    let mut model = Model::default();
    let creates = ["a", "b"].map(|name| Operation::create(key(name), object(name)));
    let created = model.append(store, Batch::new(creates.into())).await;
    let delete = Operation::delete(key("a"), ResourceVersion::new(created, 1));
    let deleted = model.append(store, Batch::of(delete)).await;
    for revision in [created, deleted] {
        store.compact(revision).await.unwrap();
        assert_eq!(latest(store, Range::everything()).await, model.latest());
        let found = events(store, Range::everything(), ResourceVersion::end_of(revision)).await.unwrap();
        assert_eq!(found, model.after(&Range::everything(), ResourceVersion::end_of(revision)));
    }
    // Absent is absent.
    model.append(store, Batch::of(Operation::create(key("a"), object("again")))).await;
    assert_eq!(latest(store, Range::everything()).await, model.latest());
}

pub async fn compaction_under_running_watches_leaves_no_gap(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = store.current().await.unwrap();
    let mut follower = Reader::open(store, Range::everything(), start).await.unwrap();
    let mut sleeper = Reader::open(store, Range::everything(), start).await.unwrap();
    let mut model = Model::default();
    let mut found = Vec::new();
    for round in 0..20 {
        let names = (0..10).map(|number| format!("k{round:02}-{number}"));
        let creates = names.map(|name| Operation::create(key(&name), object("x"))).collect();
        let revision = model.append(store, Batch::new(creates)).await;
        let deletes = model.events[model.events.len() - 10..]
            .iter()
            .map(|event| Operation::delete(event.key.clone(), event.version))
            .take(5);
        let last = model.append(store, Batch::new(deletes.collect())).await;
        found.extend(follower.read_until(ResourceVersion::new(last, 5)).await.unwrap());
        store.compact(revision).await.unwrap();
    }
    assert_eq!(found, model.events, "one that has kept up does not notice");
    let mut expected = model.events.iter();
    loop {
        match sleeper.next().await {
            Ok(Some(event)) => {
                assert_eq!(Some(&event), expected.next());
                if expected.as_slice().is_empty() {
                    break;
                }
            }
            Ok(None) => {}
            Err(StoreError::Compacted { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
}
