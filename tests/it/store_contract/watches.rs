//! Watches: every event after a version, in order, each once.

use futures::StreamExt;
use packageserver::store::{Batch, Key, Operation, Range, ResourceVersion, Revision, WatchItem};

use super::Fixture;
use super::lists::some_history;
use super::model::{Model, Reader, events, key, object};

pub async fn a_watch_after_any_version_delivers_exactly_the_rest(fixture: &Fixture) {
    let start = fixture.store.current().await.unwrap();
    let model = some_history(&*fixture.store).await;
    let mut versions = vec![start];
    for event in &model.events {
        let revision = event.version.revision();
        versions.extend([
            event.version,
            ResourceVersion::new(revision, 0),
            ResourceVersion::end_of(revision),
        ]);
    }
    versions.sort();
    versions.dedup();
    for after in versions {
        let found = events(&*fixture.store, Range::everything(), after).await.unwrap();
        assert_eq!(found, model.after(&Range::everything(), after), "after {after}");
    }
}

pub async fn a_watch_of_a_part_delivers_the_same_versions_as_a_watch_of_everything(fixture: &Fixture) {
    let model = some_history(&*fixture.store).await;
    for range in [
        Range::resource("things"),
        Range::resource("others"),
        Range::namespace("things", "default"),
        Range::names("things", "default", "new"),
        Range::single(&key("k2")),
        Range::single(&Key::new("others", "default", "k0")),
        Range::resource("none"),
    ] {
        for after in model.events.iter().map(|event| event.version).step_by(3) {
            let found = events(&*fixture.store, range.clone(), after).await.unwrap();
            assert_eq!(found, model.after(&range, after), "{range:?} after {after}");
        }
    }
}

pub async fn a_running_watch_delivers_what_is_appended(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = store.current().await.unwrap();
    let ranges = [Range::everything(), Range::resource("things"), Range::single(&key("k1"))];
    let mut readers = Vec::new();
    for range in ranges {
        readers.push((range.clone(), Reader::open(store, range, start).await.unwrap()));
    }
    let model = some_history(store).await;
    let last = model.events.last().unwrap().version;
    for (range, mut reader) in readers {
        let found = reader.read_until(last).await.unwrap();
        assert_eq!(found, model.after(&range, start), "{range:?}");
    }
}

pub async fn progress_comes_also_where_nothing_happens_in_the_range(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = store.current().await.unwrap();
    let mut reader = Reader::open(store, Range::resource("quiet"), start).await.unwrap();
    for number in 0..5 {
        let create = Operation::create(key(&format!("k{number}")), object("x"));
        let revision = store.append(Batch::of(create)).await.unwrap();
        let current = store.current().await.unwrap();
        assert!(current >= ResourceVersion::end_of(revision));
        assert_eq!(reader.read_until(current).await.unwrap(), []);
    }
    // Also for one that is opened when everything has happened already.
    let mut late = Reader::open(store, Range::resource("quiet"), start).await.unwrap();
    assert_eq!(late.read_until(store.current().await.unwrap()).await.unwrap(), []);
}

pub async fn progress_never_overtakes_an_event(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = store.current().await.unwrap();
    let write = async {
        let mut model = Model::default();
        for round in 0..40 {
            let names = (0..20).map(|number| format!("k{round}-{number}"));
            let creates = names.map(|name| Operation::create(key(&name), object("x"))).collect();
            model.append(store, Batch::new(creates)).await;
            // Asking for the present makes watches find out how far they are.
            store.current().await.unwrap();
        }
        model
    };
    let read = async {
        let mut reader = Reader::open(store, Range::resource("things"), start).await.unwrap();
        let mut events = Vec::new();
        while events.len() < 800 {
            // The reader checks that nothing comes at or below a progress.
            events.extend(reader.next().await.unwrap());
        }
        events
    };
    let (model, events) = tokio::join!(write, read);
    assert_eq!(events, model.events);
}

pub async fn a_watch_after_a_version_of_the_future_waits_for_it(fixture: &Fixture) {
    let store = &*fixture.store;
    let current = store.current().await.unwrap();
    let ahead = Revision::new(current.revision().get() + 3);
    let mut reader = Reader::open(store, Range::everything(), ResourceVersion::new(ahead, 1)).await.unwrap();
    let mut model = Model::default();
    for round in 0..5 {
        let names = [format!("a{round}"), format!("b{round}")];
        let creates = names.map(|name| Operation::create(key(&name), object("x")));
        model.append(store, Batch::new(creates.into())).await;
    }
    let found = reader.read_until(store.current().await.unwrap()).await.unwrap();
    assert_eq!(found, model.after(&Range::everything(), ResourceVersion::new(ahead, 1)));
    assert_eq!(found.len(), 5);
}

pub async fn a_reader_that_does_not_read_hinders_nobody(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = store.current().await.unwrap();
    let mut idle = store.watch(Range::everything(), start).await.unwrap();
    let mut reader = Reader::open(store, Range::everything(), start).await.unwrap();
    let mut model = Model::default();
    for round in 0..50 {
        let names = (0..10).map(|number| format!("k{round}-{number}"));
        let creates = names.map(|name| Operation::create(key(&name), object(&"x".repeat(1000)))).collect();
        model.append(store, Batch::new(creates)).await;
    }
    let last = model.events.last().unwrap().version;
    assert_eq!(reader.read_until(last).await.unwrap(), model.events);
    // What it reads at last has no gap, wherever it ends.
    let mut expected = model.events.iter();
    let mut progress = start;
    while progress < last {
        match idle.next().await {
            Some(Ok(WatchItem::Change(change))) => {
                progress = change.version;
                assert_eq!(Some(change.version), expected.next().map(|event| event.version));
            }
            Some(Ok(WatchItem::Progress(version))) => {
                assert!(expected.as_slice().first().is_none_or(|event| event.version > version));
                progress = version;
            }
            Some(Err(_)) | None => break,
        }
    }
}
