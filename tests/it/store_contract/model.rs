//! The model that stores are compared with: a list of events and nothing else. And how stores are read to compare.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use packageserver::store::{
    At, Batch, Expect, Key, Object, Pager, Range, ResourceVersion, Revision, Store, StoreError, Stored, Tail,
    WatchItem, WatchStream, Write,
};

/// How long a store may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// An event, as it was appended or as it was delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub version: ResourceVersion,
    pub key: Key,
    pub before: Option<Object>,
    pub after: Option<Object>,
}

/// The objects of a state, and the events that wrote them.
pub type State = BTreeMap<Key, (ResourceVersion, Object)>;

/// Everything that was ever appended.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub events: Vec<Event>,
}

impl Model {
    /// Returns the state after an event.
    pub fn state(&self, at: ResourceVersion) -> State {
        let mut state = State::new();
        for event in self.events.iter().take_while(|event| event.version <= at) {
            match &event.after {
                Some(object) => state.insert(event.key.clone(), (event.version, object.clone())),
                None => state.remove(&event.key),
            };
        }
        state
    }

    /// Returns the state after everything.
    pub fn latest(&self) -> State {
        self.state(ResourceVersion::from_u64(u64::MAX))
    }

    /// Returns the events of a range after a version.
    pub fn after(&self, range: &Range, after: ResourceVersion) -> Vec<Event> {
        let is_wanted = |event: &&Event| event.version > after && range.contains(&event.key);
        self.events.iter().filter(is_wanted).cloned().collect()
    }

    /// Returns the first key whose expectation does not hold.
    pub fn conflict(&self, batch: &Batch) -> Option<Key> {
        let state = self.latest();
        let fails = |operation: &&packageserver::store::Operation| {
            let found = state.get(&operation.key).map(|(version, _)| *version);
            found
                != match operation.expect {
                    Expect::Absent => None,
                    Expect::Version(version) => Some(version),
                }
        };
        batch.operations.iter().find(fails).map(|operation| operation.key.clone())
    }

    /// Notes what a batch did.
    pub fn commit(&mut self, revision: Revision, batch: &Batch) {
        let before = self.latest();
        for (position, operation) in batch.operations.iter().enumerate() {
            self.events.push(Event {
                version: ResourceVersion::new(revision, position as u16 + 1),
                key: operation.key.clone(),
                before: before.get(&operation.key).map(|(_, object)| object.clone()),
                after: match &operation.write {
                    Write::Put(object) => Some(object.clone()),
                    Write::Delete => None,
                },
            });
        }
    }

    /// Appends a batch that has to succeed, and notes it.
    pub async fn append(&mut self, store: &dyn Store, batch: Batch) -> Revision {
        let revision = store.append(batch.clone()).await.expect("the batch is good");
        self.commit(revision, &batch);
        revision
    }

    /// Checks that a state in the store is the one in the model.
    pub async fn check_state(&self, store: &dyn Store, range: &Range, at: ResourceVersion, page: usize) {
        let mut expected = self.state(at);
        expected.retain(|key, _| range.contains(key));
        let (version, found) =
            list(store, range.clone(), At::Exactly(at), page).await.unwrap_or_else(|error| {
                panic!("the state at {at} cannot be listed: {error}");
            });
        assert_eq!(version, at);
        assert_eq!(found, expected, "{range:?} at {at}, in pages of {page}");
    }
}

/// Returns a key of the resource that most tests use.
pub fn key(name: &str) -> Key {
    Key::new("things", "default", name)
}

/// Returns an object; what is told apart by `text` is in its head.
pub fn object(text: &str) -> Object {
    Object::whole(format!("{{\"text\":{text:?}}}"))
}

/// Returns an object with a tail of some size.
pub fn cut_object(text: &str, tail: usize) -> Object {
    let tail = format!(",\"tail\":\"{}\"}}}}", text.repeat(tail / text.len().max(1)));
    Object::cut(format!("{{\"metadata\":{{}},\"spec\":{{\"text\":{text:?}"), Tail::pack(tail.as_bytes()))
}

/// Returns an object with its tail.
pub async fn whole(
    store: &dyn Store,
    key: &Key,
    version: ResourceVersion,
    object: &Object,
) -> Result<Object, StoreError> {
    if object.tail().is_here() {
        return Ok(object.clone());
    }
    store.complete(&Stored { key: key.clone(), version, object: object.clone() }).await
}

/// Lists everything in a range, page by page, and checks that the pages agree with each other.
pub async fn list(
    store: &dyn Store,
    range: Range,
    at: At,
    page: usize,
) -> Result<(ResourceVersion, State), StoreError> {
    let mut pager = Pager::new(store, range, at, page);
    let mut state = State::new();
    let mut version = None;
    let mut remaining: Option<u64> = None;
    while let Some(read) = pager.next().await? {
        assert_eq!(*version.get_or_insert(read.version), read.version, "all pages are of one state");
        assert!(read.items.len() <= page);
        if let Some(expected) = remaining {
            assert_eq!(read.items.len() as u64 + read.remaining, expected, "pages agree about what remains");
        }
        if read.remaining > 0 {
            assert_eq!(read.items.len(), page, "a page is full, or the last");
        }
        remaining = Some(read.remaining);
        for stored in read.items {
            let object = whole(store, &stored.key, stored.version, &stored.object).await?;
            if let Some((last, _)) = state.last_key_value() {
                assert!(*last < stored.key, "keys rise");
            }
            state.insert(stored.key, (stored.version, object));
        }
    }
    Ok((version.expect("a list has a page"), state))
}

/// Lists a range of the latest state.
pub async fn latest(store: &dyn Store, range: Range) -> State {
    list(store, range, At::Latest, 100).await.expect("the latest state can be listed").1
}

/// A watch that checks what it is sent, and begins again where the store ends it, as every reader should.
pub struct Reader<'a> {
    store: &'a dyn Store,
    range: Range,
    stream: WatchStream,
    /// The last event or progress: nothing at or below it may follow.
    pub progress: ResourceVersion,
}

impl<'a> Reader<'a> {
    pub async fn open(
        store: &'a dyn Store,
        range: Range,
        after: ResourceVersion,
    ) -> Result<Self, StoreError> {
        let stream = store.watch(range.clone(), after).await?;
        Ok(Reader { store, range, stream, progress: after })
    }

    /// Returns the next event, or nothing for a progress.
    pub async fn next(&mut self) -> Result<Option<Event>, StoreError> {
        let item = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("something comes");
        let Some(item) = item else {
            self.stream = self.store.watch(self.range.clone(), self.progress).await?;
            return Ok(None);
        };
        match item? {
            WatchItem::Change(change) => {
                assert!(change.version > self.progress, "{} after {}", change.version, self.progress);
                self.progress = change.version;
                let (key, version) = (change.key.clone(), change.version);
                let mut event = Event { key, version, before: None, after: None };
                for (object, to) in [(&change.before, &mut event.before), (&change.after, &mut event.after)] {
                    if let Some(object) = object {
                        *to = Some(whole(self.store, &change.key, version, object).await?);
                    }
                }
                Ok(Some(event))
            }
            WatchItem::Progress(version) => {
                assert!(version >= self.progress, "progress {version} after {}", self.progress);
                self.progress = version;
                Ok(None)
            }
        }
    }

    /// Reads until everything up to a version has been delivered.
    pub async fn read_until(&mut self, version: ResourceVersion) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::new();
        while self.progress < version {
            events.extend(self.next().await?);
        }
        Ok(events)
    }
}

/// Reads the events of a range after a version, up to the present.
pub async fn events(
    store: &dyn Store,
    range: Range,
    after: ResourceVersion,
) -> Result<Vec<Event>, StoreError> {
    let current = store.current().await?;
    Reader::open(store, range, after).await?.read_until(current).await
}
