//! Everything that is cached, behind one lock, and the signals that wake those who wait for it.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::log::{Log, Window};
use crate::store::{Key, Range, ResourceVersion, Stored, Tail, WatchItem};

/// A resource that is cached.
#[derive(Clone, Copy, Debug)]
pub struct CachedResource {
    /// Its name, as in keys.
    pub name: &'static str,
    /// Bytes of the tails of its objects that are held at most, as they are stored; those that there is no room for are
    /// fetched when somebody asks for them. [`usize::MAX`] for all of them.
    pub tail_bytes: usize,
}

/// What is held.
pub(super) struct Memory {
    resources: Vec<CachedResource>,
    window: Window,
    content: RwLock<Content>,
    /// Rings when there are events of a resource, or when everybody is to look how far things are.
    bells: BTreeMap<&'static str, watch::Sender<()>>,
    /// What everything has been taken in up to; none before it was filled.
    complete: watch::Sender<Option<ResourceVersion>>,
}

/// The content of the memory.
#[derive(Default)]
pub(super) struct Content {
    logs: BTreeMap<&'static str, Log>,
    /// Everything up to here has been taken in.
    complete: ResourceVersion,
    /// The last event or progress.
    version: ResourceVersion,
}

impl Content {
    /// Returns the log of a resource; none before it was filled.
    pub(super) fn log(&self, resource: &str) -> Option<&Log> {
        self.logs.get(resource)
    }

    /// Returns the version of the state that is complete.
    pub(super) fn complete(&self) -> ResourceVersion {
        self.complete
    }

    /// Returns the last version that was taken in.
    pub(super) fn version(&self) -> ResourceVersion {
        self.version
    }
}

impl Memory {
    pub(super) fn new(resources: &[CachedResource], window: Window) -> Self {
        Memory {
            resources: resources.to_vec(),
            window,
            content: RwLock::default(),
            bells: resources.iter().map(|resource| (resource.name, watch::Sender::new(()))).collect(),
            complete: watch::Sender::new(None),
        }
    }

    /// Returns the resource of a range, if it is cached.
    pub(super) fn resource_of(&self, range: &Range) -> Option<CachedResource> {
        self.resource(range.start().split_once('/')?.0)
    }

    /// Returns a resource by its name, if it is cached.
    pub(super) fn resource(&self, name: &str) -> Option<CachedResource> {
        self.resources.iter().copied().find(|resource| resource.name == name)
    }

    /// Returns the resources that are cached.
    pub(super) fn resources(&self) -> &[CachedResource] {
        &self.resources
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns empty logs that begin after a version.
    pub(super) fn empty_logs(&self, start: ResourceVersion) -> BTreeMap<&'static str, Log> {
        let log = |resource: &CachedResource| Log::new(resource.tail_bytes, self.window, start);
        self.resources.iter().map(|resource| (resource.name, log(resource))).collect()
    }

    /// Puts a state in the place of what there is. Whoever had come to another one cannot go on from it.
    pub(super) fn install(&self, logs: BTreeMap<&'static str, Log>, version: ResourceVersion) {
        *self.write() = Content { logs, complete: version, version };
        self.complete.send_replace(Some(version));
        self.ring_all();
    }

    /// Takes in what a watch delivered.
    pub(super) fn apply(&self, items: impl IntoIterator<Item = WatchItem>) {
        let mut touched = Vec::new();
        let complete = {
            let mut content = self.write();
            for item in items {
                match item {
                    WatchItem::Progress(version) => {
                        content.version = version.max(content.version);
                        content.complete = version.max(content.complete);
                    }
                    WatchItem::Change(change) => {
                        content.version = change.version;
                        if let Some(resource) = self.resource(change.key.resource())
                            && let Some(log) = content.logs.get_mut(resource.name)
                        {
                            log.apply(change);
                            touched.push(resource.name);
                        }
                    }
                }
            }
            content.complete
        };
        self.complete.send_if_modified(|known| {
            let is_newer = known.is_some_and(|known| known < complete);
            if is_newer {
                *known = Some(complete);
            }
            is_newer
        });
        touched.dedup();
        for resource in touched {
            self.ring(resource);
        }
    }

    /// Forgets the events up to a version.
    pub(super) fn forget(&self, version: ResourceVersion) {
        let mut content = self.write();
        let version = version.min(content.complete);
        content.logs.values_mut().for_each(|log| log.forget(version));
    }

    /// Returns what tells how far things are; none before the memory is filled.
    pub(super) fn progress(&self) -> watch::Receiver<Option<ResourceVersion>> {
        self.complete.subscribe()
    }

    /// Returns what tells that there is something new of a resource.
    pub(super) fn bell(&self, resource: &str) -> Option<watch::Receiver<()>> {
        self.bells.get(resource).map(watch::Sender::subscribe)
    }

    fn ring(&self, resource: &str) {
        if let Some(bell) = self.bells.get(resource) {
            bell.send_replace(());
        }
    }

    /// Wakes everybody, so that they see how far things are.
    pub(super) fn ring_all(&self) {
        self.bells.values().for_each(|bell| bell.send_replace(()));
    }

    /// Returns the object under a key as it is known here, if it is held with its tail.
    pub(super) fn held(&self, key: &Key) -> Option<Stored> {
        let content = self.read();
        let found = content.log(key.resource())?.get(key, content.version())?;
        (*found.object.tail() != Tail::Deferred).then_some(found)
    }

    /// Returns whether all keys are of cached resources.
    pub(super) fn holds_all(&self, keys: &[Key]) -> bool {
        keys.iter().all(|key| self.resource(key.resource()).is_some())
    }
}
