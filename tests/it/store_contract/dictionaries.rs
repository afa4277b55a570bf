//! Dictionaries: whoever has an object has what it was packed with, now and as far back as history goes.

use packageserver::store::{
    At, Batch, Dictionary, Key, ListRequest, Object, Operation, Range, Store, StoreError, Stored, Tail,
};

use super::Fixture;
use super::model::{key, whole};
use crate::support::ingest::changes;

/// Returns the text of an object's tail, in a version.
fn text(version: usize) -> String {
    let lines: Vec<_> = (0..100).map(|line| format!("line {line} of {}", line * 7919 % 1000)).collect();
    format!(",\"text\":{:?},\"version\":{version}}}}}", lines.join(" "))
}

fn referring(dictionary: &Dictionary, version: usize) -> Object {
    let tail = dictionary.pack(text(version).as_bytes());
    assert!(matches!(tail, Tail::Referring { .. }));
    Object::cut(format!("{{\"metadata\":{{}},\"spec\":{{\"number\":{version}"), tail)
}

async fn complete(store: &dyn Store, stored: &Stored) -> Result<String, StoreError> {
    let object = store.complete(stored).await?;
    Ok(String::from_utf8(object.tail().unpack().expect("it is complete").to_vec()).unwrap())
}

/// Returns all of an object's text, wherever its parts are.
async fn json(store: &dyn Store, stored: &Stored) -> Vec<u8> {
    let object = whole(store, &stored.key, stored.version, &stored.object).await.unwrap();
    object.json().unwrap().to_vec()
}

async fn put(store: &dyn Store, operations: Vec<Operation>) {
    store.append(Batch::new(operations)).await.unwrap();
}

async fn list(store: &dyn Store, at: At) -> Vec<Stored> {
    let request = ListRequest { range: Range::namespace("things", "default"), at, after: None, limit: 100 };
    store.list(request).await.unwrap().items
}

pub async fn objects_are_completed_with_their_dictionaries(fixture: &Fixture) {
    let store = &*fixture.store;
    let (one, two) = (Dictionary::new("one", text(0).as_bytes()), Dictionary::new("two", text(0).as_bytes()));
    let mut operations: Vec<_> = [&one, &two]
        .iter()
        .map(|dictionary| Operation::create(dictionary.id().key("default"), dictionary.object("{}")))
        .collect();
    for version in 0..6 {
        let dictionary = if version % 2 == 0 { &one } else { &two };
        operations.push(Operation::create(key(&format!("k{version}")), referring(dictionary, version)));
    }
    operations.push(Operation::create(key("k6"), Object::cut("{\"spec\":{", Tail::pack(text(6).as_bytes()))));
    put(store, operations).await;

    let found = list(store, At::Latest).await;
    for (version, stored) in found.iter().enumerate() {
        assert_eq!(complete(store, stored).await.unwrap(), text(version));
    }
    let together = store.complete_all(&found).await.unwrap();
    for (version, object) in together.iter().enumerate() {
        assert_eq!(object.tail().unpack().unwrap(), text(version));
    }
    let read = store.get(&key("k3")).await.unwrap().unwrap();
    assert_eq!(complete(store, &read).await.unwrap(), text(3));
}

pub async fn dictionaries_that_are_gone_are_found_in_history_until_that_is_compacted(fixture: &Fixture) {
    let store = &*fixture.store;
    let start = store.current().await.unwrap();
    let dictionary = Dictionary::new("owner", text(0).as_bytes());
    let at = dictionary.id().key("default");
    let create = Operation::create(key("k"), referring(&dictionary, 1));
    put(store, vec![Operation::create(at.clone(), dictionary.object("{}")), create]).await;
    let first = store.get(&key("k")).await.unwrap().unwrap();
    put(store, vec![Operation::replace(key("k"), first.version, referring(&dictionary, 2))]).await;
    let second = store.get(&key("k")).await.unwrap().unwrap();
    let packed_with = store.get(&at).await.unwrap().unwrap();
    // In the order of their owners: the dictionary goes last, here in the same batch.
    put(store, vec![Operation::delete(key("k"), second.version), Operation::delete(at, packed_with.version)])
        .await;

    for (stored, version) in [(&first, 1), (&second, 2)] {
        let listed = list(store, At::Exactly(stored.version)).await;
        assert_eq!(complete(store, &listed[0]).await.unwrap(), text(version));
        assert_eq!(complete(store, stored).await.unwrap(), text(version));
    }
    let texts: Vec<_> = [1, 2].map(|version| format!("\"number\":{version}{}", text(version))).into();
    let mut seen = Vec::new();
    for change in changes(store, Range::namespace("things", "default"), start).await {
        for object in [&change.before, &change.after].into_iter().flatten() {
            let (key, version) = (change.key.clone(), change.version);
            let json = json(store, &Stored { key, version, object: object.clone() }).await;
            seen.push(String::from_utf8(json).unwrap());
        }
    }
    assert_eq!(seen.len(), 4, "put, replaced and replacing, deleted");
    for (json, text) in seen.iter().zip([&texts[0], &texts[0], &texts[1], &texts[1]]) {
        assert!(json.ends_with(text.as_str()), "{json}");
    }

    let other = Key::new("others", "default", "later");
    for number in 0..2 {
        let name = format!("{}{number}", other.name());
        put(store, vec![Operation::create(Key::new("others", "default", &name), Object::whole("{}"))]).await;
    }
    store.compact(store.current().await.unwrap().revision()).await.unwrap();
    let refused = complete(store, &first).await;
    assert!(refused.is_err(), "{refused:?}");
}

pub async fn a_dictionary_is_found_as_long_as_a_state_with_its_object_can_be_read(fixture: &Fixture) {
    let store = &*fixture.store;
    let dictionary = Dictionary::new("owner", text(0).as_bytes());
    let at = dictionary.id().key("default");
    let create = Operation::create(key("k"), referring(&dictionary, 1));
    put(store, vec![Operation::create(at.clone(), dictionary.object("{}")), create]).await;
    let stored = store.get(&key("k")).await.unwrap().unwrap();
    for number in 0..3 {
        put(store, vec![Operation::create(key(&format!("other{number}")), Object::whole("{}"))]).await;
    }
    // What wrote the object is forgotten, and the object is there.
    store.compact(store.current().await.unwrap().revision()).await.unwrap();
    let start = store.current().await.unwrap();
    put(store, vec![Operation::create(key("other3"), Object::whole("{}"))]).await;
    let packed_with = store.get(&at).await.unwrap().unwrap();
    put(store, vec![Operation::delete(key("k"), stored.version)]).await;
    put(store, vec![Operation::delete(at, packed_with.version)]).await;

    let listed = list(store, At::Exactly(start)).await;
    assert_eq!(complete(store, &listed[0]).await.unwrap(), text(1));
    let removed = changes(store, Range::single(&key("k")), start).await.pop().unwrap();
    let (object, version) = (removed.before.clone().unwrap(), removed.version);
    let before = Stored { key: key("k"), version, object };
    assert!(json(store, &before).await.ends_with(text(1).as_bytes()));
}

pub async fn an_object_whose_dictionary_was_never_there_is_an_error_that_names_both(fixture: &Fixture) {
    let store = &*fixture.store;
    let dictionary = Dictionary::new("owner", text(0).as_bytes());
    put(store, vec![Operation::create(key("k"), referring(&dictionary, 1))]).await;
    let stored = store.get(&key("k")).await.unwrap().unwrap();
    let error = complete(store, &stored).await.unwrap_err().to_string();
    assert!(error.contains("things/default/k") && error.contains(&dictionary.id().to_string()), "{error}");
}
