//! Reads and lists: sorted, in pages, each from one state, also from those of the past.

use std::collections::BTreeSet;

use packageserver::store::{
    At, Batch, Key, ListRequest, Operation, Pager, Range, ResourceVersion, Store, StoreError,
};

use super::Fixture;
use super::model::{Model, cut_object, key, latest, list, object};

pub async fn an_empty_store_has_a_version_and_no_objects(fixture: &Fixture) {
    let request = ListRequest { range: Range::everything(), at: At::Latest, after: None, limit: 10 };
    let page = fixture.store.list(request).await.unwrap();
    assert!(page.items.is_empty() && page.remaining == 0);
    assert!(page.version > ResourceVersion::default());
    assert_eq!(page.version, fixture.store.current().await.unwrap());
    assert!(fixture.store.get(&key("none")).await.unwrap().is_none());
}

pub async fn objects_are_read_in_the_order_of_the_keys_that_were_asked_for(fixture: &Fixture) {
    let creates = ["a", "b", "c"].map(|name| Operation::create(key(name), cut_object(name, 4000)));
    fixture.store.append(Batch::new(creates.into())).await.unwrap();
    let asked = [key("c"), key("none"), key("a"), key("b"), key("bb")];
    let found = fixture.store.read(&asked).await.unwrap();
    let found: Vec<_> = found.iter().map(|stored| stored.as_ref().map(|stored| stored.key.name())).collect();
    assert_eq!(found, [Some("c"), None, Some("a"), Some("b"), None]);
    assert!(fixture.store.read(&[]).await.unwrap().is_empty());
}

pub async fn many_objects_are_read_from_one_state(fixture: &Fixture) {
    let store = &*fixture.store;
    // More than a transaction of etcd can read at once, and all written together, again and again.
    let keys: Vec<_> = (0..100).map(|number| key(&format!("k{number:03}"))).collect();
    let creates = keys.iter().map(|key| Operation::create(key.clone(), object("0"))).collect();
    let mut revision = store.append(Batch::new(creates)).await.unwrap();
    let asked: Vec<_> = keys.iter().chain(&keys).chain(&keys).cloned().collect();
    let write = async {
        for round in 1..20 {
            let version = |index| ResourceVersion::new(revision, index as u16 + 1);
            let replace = |(index, key): (usize, &Key)| {
                Operation::replace(key.clone(), version(index), object(&round.to_string()))
            };
            let batch = Batch::new(keys.iter().enumerate().map(replace).collect());
            revision = store.append(batch).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..20 {
            let found = store.read(&asked).await.unwrap();
            let revisions: BTreeSet<_> =
                found.iter().map(|stored| stored.as_ref().unwrap().version.revision()).collect();
            assert_eq!(revisions.len(), 1);
        }
    };
    tokio::join!(write, read);
}

pub async fn a_range_holds_its_objects_and_no_neighbours(fixture: &Fixture) {
    let mut model = Model::default();
    let keys = [
        ("thing", "default", "a"),
        ("things", "default", "a"),
        ("things", "default", "a-1"),
        ("things", "default", "a/1"),
        ("things", "default", "a/2"),
        ("things", "default", "b"),
        ("things", "default-2", "a"),
        ("things", "defaulu", "a"),
        ("things-2", "default", "a"),
    ];
    let creates = keys.iter().rev().map(|(resource, namespace, name)| {
        Operation::create(Key::new(resource, namespace, name), object(name))
    });
    model.append(&*fixture.store, Batch::new(creates.collect())).await;
    for range in [
        Range::everything(),
        Range::resource("things"),
        Range::resource("none"),
        Range::namespace("things", "default"),
        Range::names("things", "default", "a/"),
        Range::names("things", "default", "a"),
        Range::single(&key("a")),
        Range::single(&key("none")),
    ] {
        let mut expected = model.latest();
        expected.retain(|key, _| range.contains(key));
        for page in [1, 2, 100] {
            let (_, found) = list(&*fixture.store, range.clone(), At::Latest, page).await.unwrap();
            assert_eq!(found, expected, "{range:?}");
        }
    }
}

pub async fn pages_are_filled_and_say_how_much_remains(fixture: &Fixture) {
    let creates = (0..25).map(|number| Operation::create(key(&format!("k{number:02}")), object("x")));
    fixture.store.append(Batch::new(creates.collect())).await.unwrap();
    let range = Range::resource("things");
    let mut pager = Pager::new(&*fixture.store, range.clone(), At::Latest, 10);
    let mut pages = Vec::new();
    while let Some(page) = pager.next().await.unwrap() {
        pages.push((page.items.len(), page.remaining));
    }
    assert_eq!(pages, [(10, 15), (10, 5), (5, 0)]);
    // Behind the last one, and behind a key that is not there.
    for (after, count, remaining) in [("k24", 0, 0), ("k1", 10, 5), ("k09x", 10, 5), ("zzz", 0, 0)] {
        let request =
            ListRequest { range: range.clone(), at: At::Latest, after: Some(key(after)), limit: 10 };
        let page = fixture.store.list(request).await.unwrap();
        assert_eq!((page.items.len(), page.remaining), (count, remaining), "after {after}");
    }
}

pub async fn a_list_at_the_latest_shows_every_answered_append(fixture: &Fixture) {
    let mut model = Model::default();
    for number in 0..50 {
        let create = Operation::create(key(&format!("k{number}")), object("x"));
        let revision = model.append(&*fixture.store, Batch::of(create)).await;
        let (version, found) =
            list(&*fixture.store, Range::resource("things"), At::Latest, 100).await.unwrap();
        assert_eq!(found, model.latest());
        assert!(version >= ResourceVersion::end_of(revision));
        assert!(fixture.store.get(&key(&format!("k{number}"))).await.unwrap().is_some());
    }
}

/// Appends some batches in which objects of two resources come, change and go.
pub async fn some_history(store: &dyn Store) -> Model {
    let mut model = Model::default();
    let other = |name: &str| Key::new("others", "default", name);
    let creates = (0..8).flat_map(|number| {
        let name = format!("k{number}");
        [
            Operation::create(key(&name), cut_object(&name, 2000)),
            Operation::create(other(&name), object(&name)),
        ]
    });
    model.append(store, Batch::new(creates.collect())).await;
    let version = |model: &Model, key: &Key| model.latest()[key].0;
    for round in 0..3 {
        let mut operations = Vec::new();
        for name in ["k6", "k1", "k4"] {
            let key = key(name);
            operations.push(Operation::replace(
                key.clone(),
                version(&model, &key),
                cut_object(&format!("{name}-{round}"), 3000),
            ));
        }
        let gone = [key(&format!("k{}", [0, 2, 7][round])), other(&format!("k{round}"))];
        operations.splice(1..1, gone.iter().map(|key| Operation::delete(key.clone(), version(&model, key))));
        operations.push(Operation::create(key(&format!("new{round}")), object("new")));
        model.append(store, Batch::new(operations)).await;
        // What went comes back, some later.
        model.append(store, Batch::of(Operation::create(gone[0].clone(), object("back")))).await;
    }
    model
}

pub async fn a_state_after_each_event_can_be_listed(fixture: &Fixture) {
    let model = some_history(&*fixture.store).await;
    for event in &model.events {
        for range in [Range::everything(), Range::resource("things"), Range::names("things", "default", "k")]
        {
            model.check_state(&*fixture.store, &range, event.version, 100).await;
        }
        // Also before the batch, and after it.
        let revision = event.version.revision();
        for at in [ResourceVersion::new(revision, 0), ResourceVersion::end_of(revision)] {
            model.check_state(&*fixture.store, &Range::everything(), at, 100).await;
        }
    }
}

pub async fn a_state_within_a_batch_can_be_listed_in_pages(fixture: &Fixture) {
    let model = some_history(&*fixture.store).await;
    for event in model.events.iter().step_by(2) {
        for page in [1, 3, 5] {
            model.check_state(&*fixture.store, &Range::resource("things"), event.version, page).await;
        }
    }
}

pub async fn pages_of_one_list_show_one_state_while_others_write(fixture: &Fixture) {
    let mut model = some_history(&*fixture.store).await;
    let expected = model.latest();
    let mut pager = Pager::new(&*fixture.store, Range::everything(), At::Latest, 1);
    let mut found = Vec::new();
    let mut round = 0;
    while let Some(page) = pager.next().await.unwrap() {
        found.extend(page.items.into_iter().map(|stored| (stored.key, stored.version)));
        // Behind the reader's back, what it has not read yet is changed, and what was not there is made.
        let (last, (version, _)) = model.latest().pop_last().unwrap();
        let create = Operation::create(key(&format!("zz{round}")), object("new"));
        let replace = Operation::replace(last, version, object("changed"));
        model.append(&*fixture.store, Batch::new(vec![replace, create])).await;
        round += 1;
    }
    let expected: Vec<_> = expected.into_iter().map(|(key, (version, _))| (key, version)).collect();
    assert_eq!(found, expected);
}

pub async fn a_state_of_the_future_is_refused(fixture: &Fixture) {
    fixture.store.append(Batch::of(Operation::create(key("k"), object("x")))).await.unwrap();
    let current = fixture.store.current().await.unwrap();
    for ahead in [1, 2, 1000, 1_000_000] {
        let at = At::Exactly(ResourceVersion::from_u64(current.get() + ahead));
        let refused = list(&*fixture.store, Range::everything(), at, 10).await;
        assert!(matches!(refused, Err(StoreError::Future { .. })), "{ahead} ahead: {refused:?}");
    }
    assert_eq!(latest(&*fixture.store, Range::everything()).await.len(), 1);
}
