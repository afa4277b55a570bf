//! What changed between two values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Parts, field, items, parts};
use crate::api::schema::Structure;
use crate::api::write::fields::{Element, FieldSet};

/// The difference between two values, by the places where they differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Comparison {
    /// Places that only the new value has.
    pub(in super::super) added: FieldSet,
    /// Places that hold something else now.
    pub(in super::super) modified: FieldSet,
    /// Places that only the old value had.
    pub(in super::super) removed: FieldSet,
}

/// Compares two values.
pub(in super::super) fn compare(structure: &Structure, old: &Value, new: &Value) -> Comparison {
    let mut walk = Walk { path: Vec::new(), found: Comparison::default() };
    walk.visit(structure, Some(old), Some(new));
    walk.found
}

struct Walk {
    /// Where it is.
    path: Vec<Element>,
    found: Comparison,
}

/// The items of a list under what identifies them.
type Grouped<'a> = BTreeMap<Element, Vec<&'a Value>>;

impl Walk {
    fn visit(&mut self, structure: &Structure, old: Option<&Value>, new: Option<&Value>) {
        if old == new {
            return;
        }
        let parts_of = |value: Option<_>| value.map_or(Parts::Whole, |value| parts(structure, value));
        let (old_parts, new_parts) = (parts_of(old), parts_of(new));
        let is_whole = matches!(old_parts, Parts::Whole) || matches!(new_parts, Parts::Whole);
        let ((old_fields, old_items), (new_fields, new_items)) = (old_parts.split(), new_parts.split());
        self.visit_fields(structure, &old_fields, &new_fields);
        self.visit_items(items(structure), &group(old_items), &group(new_items));
        match (old, new) {
            (None, _) => self.found.added.insert(&self.path),
            (_, None) => self.found.removed.insert(&self.path),
            _ if is_whole => self.found.modified.insert(&self.path),
            _ => {}
        }
    }

    fn step(&mut self, element: Element, structure: &Structure, old: Option<&Value>, new: Option<&Value>) {
        self.path.push(element);
        self.visit(structure, old, new);
        self.path.pop();
    }

    fn visit_fields(
        &mut self,
        structure: &Structure,
        old: &BTreeMap<&str, &Value>,
        new: &BTreeMap<&str, &Value>,
    ) {
        let names: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
        for name in names {
            let (old, new) = (old.get(name).copied(), new.get(name).copied());
            self.step(Element::field(name), field(structure, name), old, new);
        }
    }

    fn visit_items(&mut self, structure: &Structure, old: &Grouped<'_>, new: &Grouped<'_>) {
        let elements: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
        for element in elements {
            let old = old.get(&element).map(Vec::as_slice).unwrap_or_default();
            let new = new.get(&element).map(Vec::as_slice).unwrap_or_default();
            match (old, new) {
                (old @ ([] | [_]), new @ ([] | [_])) => {
                    self.step(element, structure, old.first().copied(), new.first().copied());
                }
                // Items that cannot be told from each other are one place.
                (old @ ([] | [_]), _) => {
                    self.step(element.clone(), structure, old.first().copied(), None);
                    self.note(element, |found| &mut found.added);
                }
                (_, new @ ([] | [_])) => {
                    self.step(element.clone(), structure, None, new.first().copied());
                    self.note(element, |found| &mut found.removed);
                }
                (old, new) if old != new => self.note(element, |found| &mut found.modified),
                _ => {}
            }
        }
    }

    fn note(&mut self, element: Element, set: fn(&mut Comparison) -> &mut FieldSet) {
        self.path.push(element);
        set(&mut self.found).insert(&self.path);
        self.path.pop();
    }
}

fn group(items: Vec<(Element, &Value)>) -> Grouped<'_> {
    let mut grouped = Grouped::new();
    for (element, item) in items {
        grouped.entry(element).or_default().push(item);
    }
    grouped
}
