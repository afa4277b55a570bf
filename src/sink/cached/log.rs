//! One resource in memory: its objects, and the newest of its events.
//!
//! The objects are those after the newest event. A state of the past is that with the events since undone, which works as
//! far back as the window of events goes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::store::{Change, Key, ListRequest, Object, Page, Range, ResourceVersion, Stored, Tail};

/// How much a log remembers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Events.
    pub(super) events: usize,
    /// Bytes of the objects of these events, without the tails that are not kept.
    pub(super) bytes: usize,
    /// Bytes of the tails that are kept for a short time only: those of the newest events, which watchers are about to
    /// be sent.
    pub(super) tail_bytes: usize,
}

/// An object as it is held.
#[derive(Clone, Debug)]
struct Held {
    version: ResourceVersion,
    object: Object,
}

/// An event as it is held.
struct Event {
    /// As it is kept.
    light: Arc<Change>,
    /// With all tails, while there is room for them.
    full: Option<Arc<Change>>,
    /// The event that wrote the object before.
    before: Option<ResourceVersion>,
}

/// A resource in memory.
pub(super) struct Log {
    window: Window,
    /// Bytes of tails that are held, and may be.
    held_tails: usize,
    most_tails: usize,
    objects: BTreeMap<Key, Held>,
    events: VecDeque<Event>,
    /// Every event after this one is held.
    start: ResourceVersion,
    /// Bytes of all events, and of the tails among them that will be dropped first.
    bytes: usize,
    tail_bytes: usize,
    /// How many events, from the oldest, have no tails any more.
    without_tails: usize,
}

impl Log {
    /// An empty log that begins after a version, and holds so many bytes of tails at most.
    pub(super) fn new(most_tails: usize, window: Window, start: ResourceVersion) -> Self {
        Log {
            window,
            held_tails: 0,
            most_tails,
            objects: BTreeMap::new(),
            events: VecDeque::new(),
            start,
            bytes: 0,
            tail_bytes: 0,
            without_tails: 0,
        }
    }

    /// Returns the version that one may have come to at the earliest to go on from here.
    pub(super) fn start(&self) -> ResourceVersion {
        self.start
    }

    /// Takes in an object of the state that the log begins with.
    pub(super) fn load(&mut self, stored: Stored) {
        let Stored { key, version, object } = stored;
        let object = self.lighten(object);
        self.objects.insert(key, Held { version, object });
    }

    /// Takes in the next event.
    pub(super) fn apply(&mut self, change: Arc<Change>) {
        let Change { key, version, after, .. } = &*change;
        let before = self.objects.remove(key);
        self.held_tails -= before.as_ref().map_or(0, |held| held.object.tail().size());
        let after = after.clone().map(|object| self.lighten(object));
        if let Some(object) = &after {
            self.objects.insert(key.clone(), Held { version: *version, object: object.clone() });
        }
        let (before_version, before) = before.map(|held| (held.version, held.object)).unzip();
        let light = Change { key: key.clone(), version: *version, before, after };
        self.bytes += size(&light);
        let full = Some(change).filter(|full| size(full) > size(&light));
        self.tail_bytes += full.as_deref().map_or(0, size);
        self.events.push_back(Event { light: Arc::new(light), full, before: before_version });
        self.shrink();
    }

    /// Forgets what the window has no room for.
    fn shrink(&mut self) {
        while self.tail_bytes > self.window.tail_bytes
            && let Some(event) = self.events.get_mut(self.without_tails)
        {
            self.tail_bytes -= event.full.take().as_deref().map_or(0, size);
            self.without_tails += 1;
        }
        while self.events.len() > self.window.events
            || self.bytes > self.window.bytes && self.events.len() > 1
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(event) = self.events.pop_front() else { return };
        self.start = event.light.version;
        self.bytes -= size(&event.light);
        self.tail_bytes -= event.full.as_deref().map_or(0, size);
        self.without_tails = self.without_tails.saturating_sub(1);
    }

    /// Forgets the events up to a version.
    pub(super) fn forget(&mut self, version: ResourceVersion) {
        while self.events.front().is_some_and(|event| event.light.version <= version) {
            self.drop_oldest();
        }
        self.start = self.start.max(version);
    }

    /// Hands out some of the events of a range that follow on a version, and returns the last version that was looked at; none
    /// when there are no events after it.
    pub(super) fn after(
        &self,
        range: &Range,
        version: ResourceVersion,
        most: usize,
        mut take: impl FnMut(Arc<Change>),
    ) -> Option<ResourceVersion> {
        let first = self.events.partition_point(|event| event.light.version <= version);
        let mut taken = 0;
        for event in self.events.range(first..) {
            if range.contains(&event.light.key) {
                take(Arc::clone(event.full.as_ref().unwrap_or(&event.light)));
                taken += 1;
                if taken == most {
                    return Some(event.light.version);
                }
            }
        }
        None
    }

    /// Returns the object under a key in a state; the state has to be one that can be read here.
    pub(super) fn get(&self, key: &Key, at: ResourceVersion) -> Option<Stored> {
        let (version, object) = match self.changed_since(at).find(|event| event.light.key == *key) {
            Some(event) => (event.before?, event.light.before.clone()?),
            None => self.objects.get(key).map(|held| (held.version, held.object.clone()))?,
        };
        Some(Stored { key: key.clone(), version, object })
    }

    /// Returns a page of a list; the state has to be one that can be read here.
    pub(super) fn page(&self, request: &ListRequest, at: ResourceVersion) -> Page {
        let ListRequest { range, after, limit, .. } = request;
        let is_wanted = |key: &Key| range.contains(key) && after.as_ref().is_none_or(|after| key > after);
        // What was under the keys that have changed since.
        let mut undone: BTreeMap<&Key, Option<(ResourceVersion, &Object)>> = BTreeMap::new();
        for event in self.changed_since(at).filter(|event| is_wanted(&event.light.key)) {
            undone.entry(&event.light.key).or_insert_with(|| event.before.zip(event.light.before.as_ref()));
        }
        let start = match after {
            Some(after) if after.as_str() >= range.start() => Bound::Excluded(after.as_str()),
            _ => Bound::Included(range.start()),
        };
        let end = range.end();
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Page { version: at, items: Vec::new(), remaining: 0 };
        if let (Bound::Excluded(start), Bound::Excluded(end)) = (start, end)
            && start >= end
        {
            return page;
        }
        let mut held = self
            .objects
            .range::<str, _>((start, end))
            .filter(|(key, _)| undone.is_empty() || !undone.contains_key(key))
            .map(|(key, held)| (key, held.version, &held.object))
            .peekable();
        let mut before =
            undone.iter().filter_map(|(key, before)| before.map(|(v, object)| (*key, v, object))).peekable();
        while page.items.len() < *limit {
            let next = match (held.peek(), before.peek()) {
                (Some((held_key, ..)), Some((before_key, ..))) if before_key < held_key => before.next(),
                (Some(_), _) => held.next(),
                (None, _) => before.next(),
            };
            let Some((key, version, object)) = next else { return page };
            page.items.push(Stored { key: key.clone(), version, object: object.clone() });
        }
        page.remaining = (held.count() + before.count()) as u64;
        page
    }

    fn changed_since(&self, at: ResourceVersion) -> impl Iterator<Item = &Event> {
        let first = self.events.partition_point(|event| event.light.version <= at);
        self.events.range(first..)
    }

    /// Returns an object as it is held.
    fn lighten(&mut self, object: Object) -> Object {
        let size = object.tail().size();
        if size <= self.most_tails - self.held_tails {
            self.held_tails += size;
            return object;
        }
        // A copy, because the head shares its memory with the tail.
        Object::cut(Bytes::copy_from_slice(object.head()), Tail::Deferred)
    }
}

/// Bytes of the objects of an event.
fn size(change: &Change) -> usize {
    [&change.before, &change.after].into_iter().flatten().map(Object::size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{At, Revision};

    const WINDOW: Window = Window { events: 4, bytes: 10_000, tail_bytes: 5_000 };

    fn version(number: u64) -> ResourceVersion {
        ResourceVersion::new(Revision::new(number), 1)
    }

    fn put(log: &mut Log, number: u64, name: &str, tail: usize) {
        let key = Key::new("things", "default", name);
        let object = Object::cut(format!("{number}"), Tail::Plain(vec![b'x'; tail].into()));
        let change = Change { key, version: version(number), before: None, after: Some(object) };
        log.apply(Arc::new(change));
    }

    fn tails(log: &Log, after: u64) -> Vec<usize> {
        let mut tails = Vec::new();
        let take = |change: Arc<Change>| tails.push(change.after.as_ref().unwrap().tail().size());
        log.after(&Range::resource("things"), version(after), usize::MAX, take);
        tails
    }

    #[test]
    fn tails_of_the_newest_events_are_kept_for_a_while() {
        let mut log = Log::new(0, WINDOW, version(0));
        for number in 1..=3 {
            put(&mut log, number, "a", 2000);
        }
        assert_eq!(tails(&log, 0), [0, 2000, 2000]);
        put(&mut log, 4, "b", 5000);
        assert_eq!(tails(&log, 0), [0, 0, 0, 0], "one that is too large goes too");
        put(&mut log, 5, "b", 10);
        assert_eq!(tails(&log, 1), [0, 0, 0, 10]);
        assert_eq!(log.start(), version(1));
        let held = log.get(&Key::new("things", "default", "b"), version(5)).unwrap();
        assert_eq!((held.version, held.object.tail()), (version(5), &Tail::Deferred));
    }

    #[test]
    fn tails_are_held_that_there_is_room_for() {
        let mut log = Log::new(1000, WINDOW, version(0));
        let tail = |log: &Log, name: &str| {
            let held = log.get(&Key::new("things", "default", name), version(9)).unwrap();
            held.object.tail().length()
        };
        for (number, name, size) in [(1, "a", 600), (2, "b", 401), (3, "c", 400)] {
            put(&mut log, number, name, size);
        }
        assert_eq!(["a", "b", "c"].map(|name| tail(&log, name)), [Some(600), None, Some(400)]);
        // What takes the place of another takes its room, and what is removed leaves it.
        put(&mut log, 4, "a", 599);
        put(&mut log, 5, "b", 2);
        assert_eq!(["a", "b", "c"].map(|name| tail(&log, name)), [Some(599), None, Some(400)]);
        let key = Key::new("things", "default", "c");
        log.apply(Arc::new(Change { key, version: version(6), before: None, after: None }));
        put(&mut log, 7, "b", 401);
        assert_eq!(["a", "b"].map(|name| tail(&log, name)), [Some(599), Some(401)]);
        assert_eq!((log.held_tails, log.events.len()), (1000, 4));
    }

    #[test]
    fn a_window_is_bounded_in_events_and_bytes() {
        let mut log = Log::new(usize::MAX, WINDOW, version(0));
        for number in 1..=10 {
            put(&mut log, number, "a", 100);
        }
        assert_eq!((log.events.len(), log.start()), (4, version(6)));
        put(&mut log, 11, "a", 9_900);
        assert_eq!(log.events.len(), 1, "with the object before it, it takes all there is");
        log.forget(version(20));
        assert_eq!((log.events.len(), log.start(), log.bytes), (0, version(20), 0));
    }

    #[test]
    fn a_state_of_the_past_has_what_changed_since_undone() {
        let mut log = Log::new(usize::MAX, WINDOW, version(0));
        for (number, name) in [(1, "b"), (2, "c"), (3, "b"), (4, "a")] {
            put(&mut log, number, name, 0);
        }
        let key = Key::new("things", "default", "c");
        log.apply(Arc::new(Change { key, version: version(5), before: None, after: None }));
        let page = |at, limit| {
            let request =
                ListRequest { range: Range::resource("things"), at: At::Latest, after: None, limit };
            let page = log.page(&request, version(at));
            let names = page.items.iter().map(|stored| format!("{}@{}", stored.key.name(), stored.version));
            (names.collect::<Vec<_>>().join(" "), page.remaining)
        };
        assert_eq!(page(5, 9), ("a@4001 b@3001".to_owned(), 0));
        assert_eq!(page(4, 2), ("a@4001 b@3001".to_owned(), 1));
        assert_eq!(page(2, 9), ("b@1001 c@2001".to_owned(), 0));
        assert_eq!(page(1, 9), ("b@1001".to_owned(), 0));
    }
}
