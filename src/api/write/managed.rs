//! Who owns which fields of an object: its managers, as `metadata.managedFields` carries them (C171–C189).
//!
//! In come the managers of an object and a change to it, out come the managers after the change. An update takes what it
//! changes from everybody else; an apply owns what it says, and is refused where that would change what others own.

mod conflict;
mod entry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};

pub(super) use self::conflict::{Conflict, message};
use self::entry::{Entry, InvalidEntry};
pub(super) use self::entry::{Manager, Operation};
use super::fields::{Element, FieldSet};
use super::merge::{compare, merge, owned, remove};
use crate::api::schema::Structure;

/// Managers of updates that an object remembers; of more, the oldest become one (C188).
const MAX_UPDATERS: usize = 10;

/// The manager that the oldest ones become.
const ANCIENT: &str = "ancient-changes";

/// The manager of what was there before anybody's fields were noted.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields that are never noted: the server's own, and those that say which object it is (C185).
static NEVER_NOTED: LazyLock<FieldSet> = LazyLock::new(|| {
    let mut set = FieldSet::default();
    for name in ["apiVersion", "kind", "metadata"] {
        set.insert(&[Element::field(name)]);
    }
    for name in [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ] {
        set.insert(&[Element::field("metadata"), Element::field(name)]);
    }
    set
});

/// Somebody who changes an object now.
#[derive(Clone, Copy)]
pub(super) struct Author<'a> {
    /// What the object looks like.
    pub(super) structure: &'a Structure,
    /// `group/version` of the object.
    pub(super) api_version: &'a str,
    /// The manager's name.
    pub(super) name: &'a str,
    /// The subresource that is written to, empty for the object itself.
    pub(super) subresource: &'a str,
    /// When.
    pub(super) now: &'a Time,
}

/// The managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managers {
    entries: BTreeMap<Manager, Entry>,
}

impl Managers {
    /// Reads the managers of a stored object. Those that cannot be read are as good as none.
    pub(super) fn of(object: &Map<String, Value>, api_version: &str) -> Self {
        Self::read(field_of(object).unwrap_or(&Value::Null), api_version).unwrap_or_default()
    }

    /// Returns the managers that an update begins with. A client may set them, or clear them with one empty entry;
    /// who leaves them out, sends none or garbles them leaves them as they are (C189).
    pub(super) fn before_update(
        live: &Map<String, Value>,
        sent: &Map<String, Value>,
        api_version: &str,
    ) -> Self {
        let list = field_of(sent).unwrap_or(&Value::Null);
        if let Some([only]) = list.as_array().map(Vec::as_slice)
            && only.as_object().is_some_and(Map::is_empty)
        {
            return Managers::default();
        }
        match Self::read(list, api_version) {
            Ok(managers) if !managers.entries.is_empty() => managers,
            _ => Self::of(live, api_version),
        }
    }

    fn read(list: &Value, api_version: &str) -> Result<Self, InvalidEntry> {
        let mut entries = BTreeMap::new();
        for item in list.as_array().into_iter().flatten() {
            entries.extend(Entry::read(item, api_version)?);
        }
        Ok(Managers { entries })
    }

    /// Returns the managers as an object carries them, sorted; none where there are none (C184).
    pub(super) fn write(&self, api_version: &str) -> Option<Value> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(manager, entry)| {
            (manager.operation, entry.seconds(), &manager.name, &manager.subresource)
        });
        let list: Vec<_> =
            entries.into_iter().map(|(manager, entry)| entry.write(manager, api_version)).collect();
        (!list.is_empty()).then(|| list.into())
    }

    /// Notes that an author created an object.
    pub(super) fn created(mut self, author: &Author<'_>, new: &Value) -> Self {
        self.update(author, &json!({}), new);
        self
    }

    /// Notes that an author updated an object. Nothing is noted of an object whose managers somebody cleared.
    pub(super) fn updated(mut self, author: &Author<'_>, old: &Value, new: &Value) -> Self {
        if !self.entries.is_empty() {
            self.update(author, old, new);
        }
        self
    }

    fn update(&mut self, author: &Author<'_>, old: &Value, new: &Value) {
        let changes = compare(author.structure, old, new);
        let taken = changes.modified.union(&changes.added);
        for entry in self.entries.values_mut() {
            entry.fields = entry.fields.difference(&taken).difference(&changes.removed);
        }
        self.entries.retain(|_, entry| !entry.fields.is_empty());
        let taken = taken.difference(&NEVER_NOTED);
        if !taken.is_empty() {
            let entry = self.entries.entry(author.manager(Operation::Update)).or_default();
            entry.fields = std::mem::take(&mut entry.fields).union(&taken);
            entry.time = Some(author.now.clone());
        }
        self.merge_oldest();
    }

    /// Makes one manager of the oldest where there are too many.
    fn merge_oldest(&mut self) {
        let mut updaters: Vec<_> =
            self.entries.iter().filter(|(manager, _)| manager.operation == Operation::Update).collect();
        let Some(surplus) = updaters.len().checked_sub(MAX_UPDATERS).filter(|surplus| *surplus > 0) else {
            return;
        };
        updaters.sort_by_key(|(manager, entry)| (entry.seconds(), *manager));
        let name = ANCIENT.to_owned();
        let bucket = Manager { operation: Operation::Update, name, subresource: String::new() };
        // One more than the surplus, because they become one, unless there is that one already.
        let is_there = updaters[surplus + 1..].iter().any(|(manager, _)| **manager == bucket);
        let oldest = &updaters[..surplus + usize::from(!is_there)];
        let oldest: Vec<_> = oldest.iter().map(|(manager, _)| (*manager).clone()).collect();
        let mut ancient = Entry::default();
        for entry in oldest.iter().filter_map(|manager| self.entries.remove(manager)) {
            ancient.fields = ancient.fields.union(&entry.fields);
            ancient.time = entry.time;
        }
        let entry = self.entries.entry(bucket).or_default();
        entry.fields = std::mem::take(&mut entry.fields).union(&ancient.fields);
        entry.time = ancient.time;
    }

    /// Applies a configuration: returns the object after it, and its managers.
    ///
    /// # Errors
    ///
    /// The places where others own another value, unless they are to be taken.
    pub(super) fn applied(
        mut self,
        author: &Author<'_>,
        live: &Value,
        config: &Value,
        is_forced: bool,
    ) -> Result<(Value, Self), Vec<Conflict>> {
        let structure = author.structure;
        if self.entries.is_empty() {
            self.update(&Author { name: BEFORE_FIRST_APPLY, ..*author }, &json!({}), live);
        }
        let me = author.manager(Operation::Apply);
        let last = self.entries.remove(&me);
        let mine = owned(structure, config);
        // What I said before and do not say now goes, if nobody else owns it (C180).
        let claimed = self.entries.values().fold(mine.clone(), |all, entry| all.union(&entry.fields));
        let dropped = last.as_ref().map(|last| last.fields.difference(&claimed)).unwrap_or_default();
        let left = remove(structure, live, &dropped).unwrap_or_else(|| json!({}));
        let new = merge(structure, &left, config);

        let changes = compare(structure, live, &new);
        let taken = changes.modified.union(&changes.added);
        if !is_forced {
            let conflicts = self.conflicts(&taken);
            if !conflicts.is_empty() {
                return Err(conflicts);
            }
        }
        for entry in self.entries.values_mut() {
            entry.fields = entry.fields.difference(&taken).difference(&changes.removed);
        }
        self.entries.retain(|_, entry| !entry.fields.is_empty());
        let fields = mine.difference(&NEVER_NOTED);
        if !fields.is_empty() {
            // Entries are in the order of their times: to say the same again must not change that (C174).
            let unchanged = last.filter(|last| last.fields == fields && new == *live);
            let time = unchanged.and_then(|last| last.time).or_else(|| Some(author.now.clone()));
            self.entries.insert(me, Entry { fields, time });
        }
        Ok((new, self))
    }

    /// Returns what of the fields that change others own.
    fn conflicts(&self, taken: &FieldSet) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for (manager, entry) in &self.entries {
            let paths = entry.fields.intersection(taken).paths();
            conflicts.extend(paths.into_iter().map(|path| Conflict { manager: manager.clone(), path }));
        }
        conflicts
    }
}

impl Author<'_> {
    fn manager(&self, operation: Operation) -> Manager {
        Manager { operation, name: self.name.to_owned(), subresource: self.subresource.to_owned() }
    }
}

fn field_of(object: &Map<String, Value>) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

/// Returns a list of managers without the times.
pub(super) fn without_times(mut list: Value) -> Value {
    for entry in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        entry.remove("time");
    }
    list
}
