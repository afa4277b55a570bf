//! When things happened: the log itself tells, because each ingest ends with a status that says when it was complete.

use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;

use crate::model::CatalogSource;
use crate::store::{Change, Key, Object, ResourceVersion};

/// The ends of ingests, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Times {
    ends: Vec<End>,
    last: HashMap<Key, Timestamp>,
}

/// The end of an ingest.
#[derive(Debug)]
struct End {
    version: ResourceVersion,
    source: Key,
    time: Timestamp,
}

impl Times {
    /// Takes in a change of a CatalogSource.
    pub(super) fn note(&mut self, change: &Change) {
        let before = change.before.as_ref().and_then(completed_at);
        let Some(time) = change.after.as_ref().and_then(completed_at) else { return };
        if before != Some(time) && self.last.insert(change.key.clone(), time) != Some(time) {
            self.ends.push(End { version: change.version, source: change.key.clone(), time });
        }
    }

    /// Returns the version after everything that was complete at a time; none when history does not go back that far.
    pub(super) fn version_at(&self, time: Timestamp) -> Option<ResourceVersion> {
        // Clocks of different processes may disagree a little: the last one that is not later counts.
        self.ends.iter().rev().find(|end| end.time <= time).map(|end| end.version)
    }

    /// Returns when the ingest was complete that an event of a CatalogSource belongs to; none while it goes on.
    pub(super) fn time_of(&self, source: &Key, version: ResourceVersion) -> Option<Timestamp> {
        let first = self.ends.partition_point(|end| end.version < version);
        self.ends[first..].iter().find(|end| end.source == *source).map(|end| end.time)
    }
}

fn completed_at(source: &Object) -> Option<Timestamp> {
    let source: CatalogSource = serde_json::from_slice(source.head()).ok()?;
    Some(source.status?.last_ingest?.completed_at.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Revision;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn version(revision: u64) -> ResourceVersion {
        ResourceVersion::new(Revision::new(revision), 1)
    }

    fn source(completed: i64, polled: i64) -> Object {
        let ingest = json!({
            "startedAt": at(0), "completedAt": at(completed), "bytesRead": 0, "added": 0, "modified": 0,
            "deleted": 0, "unchanged": 0, "invalid": 0,
        });
        let source = json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource", "metadata": {"name": "x"},
            "spec": {"image": "quay.io/x/y"}, "status": {"lastIngest": ingest, "latestImagePoll": at(polled)},
        });
        Object::whole(source.to_string())
    }

    #[test]
    fn the_ends_of_ingests_map_times_to_versions_and_back() {
        let [x, y] = ["x", "y"].map(|name| Key::new("catalogsources", "test", name));
        let mut times = Times::default();
        let mut before: HashMap<Key, Object> = HashMap::new();
        let mut note = |key: &Key, revision: u64, object: Object| {
            let before = before.insert(key.clone(), object.clone());
            times.note(&Change { key: key.clone(), version: version(revision), before, after: Some(object) });
        };
        note(&x, 10, source(100, 100));
        note(&y, 20, source(200, 200));
        // A poll is not the end of an ingest.
        note(&x, 25, source(100, 250));
        note(&x, 30, source(300, 300));
        assert_eq!(times.version_at(at(99)), None);
        assert_eq!(times.version_at(at(100)), Some(version(10)));
        assert_eq!(times.version_at(at(299)), Some(version(20)));
        assert_eq!(times.version_at(at(1000)), Some(version(30)));
        assert_eq!(times.time_of(&x, version(5)), Some(at(100)));
        assert_eq!(times.time_of(&x, version(11)), Some(at(300)));
        assert_eq!(times.time_of(&y, version(11)), Some(at(200)));
        assert_eq!(times.time_of(&y, version(21)), None);
    }
}
