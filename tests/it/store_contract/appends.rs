//! Batches: atomic, numbered, and only where their expectations hold.

use packageserver::store::{
    Batch, Expect, Key, MAX_BATCH_OPERATIONS, Object, Operation, Range, ResourceVersion, Revision,
    StoreError, Tail, Write,
};

use super::Fixture;
use super::model::{Model, cut_object, events, key, latest, object, whole};

pub async fn each_batch_has_a_later_revision_than_the_one_before(fixture: &Fixture) {
    let mut last = fixture.store.current().await.unwrap();
    for number in 0..5 {
        let create = Operation::create(key(&format!("k{number}")), object("x"));
        let revision = fixture.store.append(Batch::of(create)).await.unwrap();
        assert!(ResourceVersion::new(revision, 1) > last);
        last = fixture.store.current().await.unwrap();
        assert_eq!(last, ResourceVersion::end_of(revision));
    }
}

pub async fn events_of_a_batch_are_numbered_in_its_order(fixture: &Fixture) {
    let start = fixture.store.current().await.unwrap();
    let mut model = Model::default();
    // Not in the order of the keys, and with resources mixed.
    let creates = ["m", "c", "x", "a"].map(|name| Operation::create(key(name), object(name)));
    let other = Operation::create(Key::new("others", "default", "b"), object("b"));
    let batch = Batch::new(creates.into_iter().chain([other]).collect());
    let revision = model.append(&*fixture.store, batch).await;
    let version = |index| ResourceVersion::new(revision, index);
    let batch = Batch::new(vec![
        Operation::delete(key("x"), version(3)),
        Operation::replace(key("a"), version(4), object("a2")),
        Operation::delete(key("c"), version(2)),
        Operation::create(key("n"), object("n")),
    ]);
    model.append(&*fixture.store, batch).await;
    assert_eq!(events(&*fixture.store, Range::everything(), start).await.unwrap(), model.events);
    assert_eq!(latest(&*fixture.store, Range::everything()).await, model.latest());
    let stored = fixture.store.get(&key("m")).await.unwrap().unwrap();
    assert_eq!((stored.key, stored.version, stored.object), (key("m"), version(1), object("m")));
}

pub async fn a_refused_batch_changes_nothing(fixture: &Fixture) {
    let mut model = Model::default();
    model.append(&*fixture.store, Batch::of(Operation::create(key("taken"), object("first")))).await;
    let before = fixture.store.current().await.unwrap();
    let batch = Batch::new(vec![
        Operation::create(key("free"), object("new")),
        Operation::create(key("taken"), object("second")),
    ]);
    let refused = fixture.store.append(batch).await;
    assert!(
        matches!(&refused, Err(StoreError::Conflict { key: named }) if *named == key("taken")),
        "{refused:?}"
    );
    assert_eq!(latest(&*fixture.store, Range::everything()).await, model.latest());
    assert_eq!(events(&*fixture.store, Range::everything(), before).await.unwrap(), []);
}

pub async fn an_expectation_that_does_not_hold_is_a_conflict_that_names_the_key(fixture: &Fixture) {
    let mut model = Model::default();
    let created = Batch::of(Operation::create(key("k"), object("1")));
    let first = ResourceVersion::new(model.append(&*fixture.store, created).await, 1);
    let replaced = Batch::of(Operation::replace(key("k"), first, object("2")));
    let second = ResourceVersion::new(model.append(&*fixture.store, replaced).await, 1);
    let good = || Operation::create(key("good"), object("good"));
    for bad in [
        Operation::create(key("k"), object("3")),
        Operation::replace(key("k"), first, object("3")),
        Operation::replace(key("k"), ResourceVersion::from_u64(second.get() + 1000), object("3")),
        Operation::replace(key("absent"), second, object("3")),
        Operation::delete(key("k"), first),
        Operation::delete(key("absent"), first),
    ] {
        // With another key whose expectation fails behind it: the first one is named.
        let also_bad = Operation::delete(key("z"), first);
        for batch in [vec![bad.clone(), good(), also_bad.clone()], vec![good(), bad.clone()]] {
            let named = Some(bad.key.clone());
            assert_eq!(model.conflict(&Batch::new(batch.clone())), named);
            match fixture.store.append(Batch::new(batch)).await {
                Err(StoreError::Conflict { key }) => assert_eq!(Some(key), named),
                other => panic!("{bad:?}: {other:?}"),
            }
        }
    }
    model.append(&*fixture.store, Batch::of(Operation::delete(key("k"), second))).await;
    // What was deleted is absent, and can be created anew.
    let stale = fixture.store.append(Batch::of(Operation::replace(key("k"), second, object("4")))).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
    model.append(&*fixture.store, Batch::of(Operation::create(key("k"), object("5")))).await;
    assert_eq!(latest(&*fixture.store, Range::everything()).await, model.latest());
}

pub async fn a_version_of_another_event_of_the_same_batch_does_not_match(fixture: &Fixture) {
    let mut model = Model::default();
    let creates = ["a", "b", "c"].map(|name| Operation::create(key(name), object(name)));
    let revision = model.append(&*fixture.store, Batch::new(creates.into())).await;
    for index in [0, 1, 3, 4, 998, 999] {
        let version = ResourceVersion::from_u64(ResourceVersion::new(revision, 0).get() + index);
        for operation in
            [Operation::replace(key("b"), version, object("x")), Operation::delete(key("b"), version)]
        {
            let refused = fixture.store.append(Batch::of(operation)).await;
            assert!(matches!(refused, Err(StoreError::Conflict { .. })), "index {index}: {refused:?}");
        }
    }
    let right = ResourceVersion::new(revision, 2);
    model.append(&*fixture.store, Batch::of(Operation::replace(key("b"), right, object("x")))).await;
    assert_eq!(latest(&*fixture.store, Range::everything()).await, model.latest());
}

pub async fn a_batch_sent_twice_is_refused_the_second_time(fixture: &Fixture) {
    let create = Batch::of(Operation::create(key("k"), object("1")));
    let revision = fixture.store.append(create.clone()).await.unwrap();
    let replace = Batch::of(Operation::replace(key("k"), ResourceVersion::new(revision, 1), object("2")));
    fixture.store.append(replace.clone()).await.unwrap();
    for again in [create, replace] {
        let refused = fixture.store.append(again).await;
        assert!(matches!(refused, Err(StoreError::Conflict { .. })), "{refused:?}");
    }
}

pub async fn a_batch_that_breaks_a_rule_is_invalid(fixture: &Fixture) {
    let create = |name: &str| Operation::create(key(name), object("x"));
    let too_many = (0..=MAX_BATCH_OPERATIONS).map(|number| create(&format!("k{number}"))).collect();
    let deletes_nothing = Operation { key: key("k"), expect: Expect::Absent, write: Write::Delete };
    for operations in [vec![], too_many, vec![create("k"), create("k")], vec![deletes_nothing]] {
        let refused = fixture.store.append(Batch::new(operations)).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    assert_eq!(latest(&*fixture.store, Range::everything()).await.len(), 0);
}

pub async fn objects_come_back_as_they_were_put(fixture: &Fixture) {
    let start = fixture.store.current().await.unwrap();
    let long = cut_object("much the same, ", 100_000);
    assert!(matches!(long.tail(), Tail::Zstd { .. }));
    let objects = [
        ("whole", Object::whole(r#"{"kind":"Thing"}"#)),
        ("empty", Object::whole("")),
        ("plain", Object::cut(r#"{"spec":{"a":1"#, Tail::Plain(",\"b\":2}}".into()))),
        ("packed", long),
        ("elsewhere", Object::cut(r#"{"spec":{"#, Tail::Deferred)),
        ("large", Object::whole("x".repeat(1 << 20))),
    ];
    let mut model = Model::default();
    let mut revision = Revision::FIRST;
    for (name, object) in &objects {
        let batch = Batch::of(Operation::create(key(name), object.clone()));
        revision = model.append(&*fixture.store, batch).await;
    }
    for (name, object) in &objects {
        let stored = fixture.store.get(&key(name)).await.unwrap().unwrap();
        let found = whole(&*fixture.store, &stored.key, stored.version, &stored.object).await.unwrap();
        assert_eq!(found, *object);
    }
    model.check_state(&*fixture.store, &Range::everything(), ResourceVersion::end_of(revision), 10).await;
    assert_eq!(events(&*fixture.store, Range::everything(), start).await.unwrap(), model.events);
}
