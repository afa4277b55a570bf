//! One change of a package, as people and programs read it.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::{Change, Object};

/// One change of a package.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    resource_version: String,
    /// When the ingest that it belongs to was complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    namespace: String,
    pub(super) catalog_source: String,
    package: String,
    /// The name of the object, where it is another than the package's.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    change: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<State>,
}

/// What kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Kind {
    Added,
    Modified,
    Deleted,
}

/// What matters most of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    default_channel: String,
    /// The bundle at the head of the default channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<String>,
}

/// A Package as far as it is of interest here.
#[derive(Deserialize)]
struct Package {
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    catalog_source: String,
    package_name: String,
    default_channel: String,
    channels: Vec<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    name: String,
    head: String,
}

impl Entry {
    /// Reads a change of a Package.
    pub(super) fn of(change: &Change) -> Result<Self, serde_json::Error> {
        let parse = |object: &Option<Object>| -> Result<Option<Spec>, serde_json::Error> {
            let parsed = object.as_ref().map(|object| serde_json::from_slice::<Package>(&object.summary()));
            Ok(parsed.transpose()?.map(|package| package.spec))
        };
        let (before, after) = (parse(&change.before)?, parse(&change.after)?);
        let kind = match (&before, &after) {
            (None, _) => Kind::Added,
            (Some(_), Some(_)) => Kind::Modified,
            (Some(_), None) => Kind::Deleted,
        };
        let named = after.as_ref().or(before.as_ref());
        let package = named.map(|spec| spec.package_name.clone()).unwrap_or_default();
        let name = change.key.name();
        Ok(Entry {
            resource_version: change.version.to_string(),
            time: None,
            namespace: change.key.namespace().to_owned(),
            catalog_source: named.map(|spec| spec.catalog_source.clone()).unwrap_or_default(),
            name: (name != package).then(|| name.to_owned()),
            package,
            change: kind,
            before: before.map(State::of),
            after: after.map(State::of),
        })
    }

    /// Adds when it happened.
    pub(super) fn at(self, time: Option<Timestamp>) -> Self {
        Entry { time, ..self }
    }

    /// Returns the cells of a row.
    pub(super) fn row(&self) -> [String; 8] {
        let of = |part: fn(&State) -> Option<&str>| {
            let [before, after] = [&self.before, &self.after].map(|state| state.as_ref().and_then(part));
            match (before, after) {
                (Some(before), Some(after)) if before == after => after.to_owned(),
                (None, Some(after)) => after.to_owned(),
                (before, after) => format!("{} -> {}", before.unwrap_or("-"), after.unwrap_or("-")),
            }
        };
        [
            self.resource_version.clone(),
            self.time.map_or("-".to_owned(), |time| format!("{time:.0}")),
            self.namespace.clone(),
            self.catalog_source.clone(),
            self.name.as_ref().unwrap_or(&self.package).clone(),
            format!("{:?}", self.change),
            of(|state| Some(&state.default_channel)),
            of(|state| state.head.as_deref()),
        ]
    }
}

impl State {
    fn of(spec: Spec) -> Self {
        let head = spec.channels.into_iter().find(|channel| channel.name == spec.default_channel);
        State { head: head.map(|channel| channel.head), default_channel: spec.default_channel }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{Key, ResourceVersion, Revision};

    fn package(channel: &str, head: &str) -> Object {
        let channels =
            json!([{"name": "old", "head": "x.v1", "entries": []}, {"name": channel, "head": head}]);
        let spec = json!({
            "catalogSource": "catalog", "packageName": "x", "defaultChannel": channel, "channels": channels,
        });
        Object::whole(json!({"metadata": {"name": "x"}, "spec": spec}).to_string())
    }

    fn entry(name: &str, before: Option<Object>, after: Option<Object>) -> Entry {
        let key = Key::new("packages", "test", name);
        let version = ResourceVersion::new(Revision::new(7), 3);
        Entry::of(&Change { key, version, before, after }).unwrap()
    }

    #[test]
    fn a_change_says_what_became_of_head_and_channel() {
        let cells = |entry: &Entry| entry.row()[4..].join(" | ");
        let added = entry("x", None, Some(package("stable", "x.v2")));
        assert_eq!(cells(&added), "x | Added | stable | x.v2");
        let modified = entry("x", Some(package("alpha", "x.v2")), Some(package("stable", "x.v3")));
        assert_eq!(cells(&modified), "x | Modified | alpha -> stable | x.v2 -> x.v3");
        let renamed = entry("x.catalog", Some(package("stable", "x.v3")), Some(package("stable", "x.v4")));
        assert_eq!(cells(&renamed), "x.catalog | Modified | stable | x.v3 -> x.v4");
        let deleted = entry("x", Some(package("stable", "x.v4")), None);
        assert_eq!(cells(&deleted), "x | Deleted | stable -> - | x.v4 -> -");
    }

    #[test]
    fn a_change_is_json_for_programs() {
        let modified = entry("x", Some(package("alpha", "x.v2")), Some(package("stable", "x.v3")));
        let time = Timestamp::from_second(1_800_000_000).unwrap();
        let expected = json!({
            "resourceVersion": "7003", "time": "2027-01-15T08:00:00Z", "namespace": "test",
            "catalogSource": "catalog", "package": "x", "change": "Modified",
            "before": {"defaultChannel": "alpha", "head": "x.v2"},
            "after": {"defaultChannel": "stable", "head": "x.v3"},
        });
        assert_eq!(serde_json::to_value(modified.at(Some(time))).unwrap(), expected);
    }
}
