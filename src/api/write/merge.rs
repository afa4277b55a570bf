//! Values of several owners: laid over each other, compared, and taken apart, as their [`Structure`] says.
//!
//! The rules are those of structured merge: the fields of an object and the items of a list that have an identity each
//! have an owner of their own; anything else (a plain value, a list without identities, an object that says so) is owned
//! as a whole.

mod compare;
mod owned;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::{Map, Value};

pub(super) use self::compare::compare;
pub(super) use self::owned::{owned, remove};
use super::fields::Element;
use crate::api::schema::{ListKind, Structure};

/// The structure of what no schema describes.
static ANYTHING: Structure = Structure::Any { is_atomic: false };

/// The parts of a value that have owners of their own.
enum Parts<'a> {
    /// There are none: the value is owned as a whole.
    Whole,
    /// The fields of an object.
    Fields(&'a Map<String, Value>),
    /// The items of a list, each with what identifies it. There may be several of one identity.
    Items(Vec<(Element, &'a Value)>),
}

impl<'a> Parts<'a> {
    /// Returns the fields and the items; there are none of what the value does not have.
    fn split(self) -> (BTreeMap<&'a str, &'a Value>, Vec<(Element, &'a Value)>) {
        match self {
            Parts::Whole => (BTreeMap::new(), Vec::new()),
            Parts::Fields(fields) => {
                (fields.iter().map(|(name, value)| (&**name, value)).collect(), Vec::new())
            }
            Parts::Items(items) => (BTreeMap::new(), items),
        }
    }
}

/// Returns the parts of a value. A value that is not of its structure has none.
fn parts<'a>(structure: &Structure, value: &'a Value) -> Parts<'a> {
    match (structure, value) {
        (
            Structure::Object { is_atomic: false, .. }
            | Structure::Map { is_atomic: false, .. }
            | Structure::Any { is_atomic: false },
            Value::Object(fields),
        ) => Parts::Fields(fields),
        (Structure::List { kind, .. }, Value::Array(list)) if *kind != ListKind::Atomic => {
            let item = |item| Some((identify(kind, item)?, item));
            list.iter().map(item).collect::<Option<_>>().map_or(Parts::Whole, Parts::Items)
        }
        _ => Parts::Whole,
    }
}

fn identify(kind: &ListKind, item: &Value) -> Option<Element> {
    let identity = kind.identity(item)?;
    Some(match kind {
        ListKind::Map(_) => Element::key(identity),
        _ => Element::value(identity),
    })
}

/// Returns the structure of a field.
fn field<'a>(structure: &'a Structure, name: &str) -> &'a Structure {
    structure.field(name).unwrap_or(&ANYTHING)
}

/// Returns the structure of the items of a list.
fn items(structure: &Structure) -> &Structure {
    match structure {
        Structure::List { items, .. } => items,
        _ => &ANYTHING,
    }
}

/// Lays a configuration over what is there: what it says holds, and what it does not speak of stays.
pub(super) fn merge(structure: &Structure, live: &Value, config: &Value) -> Value {
    match (parts(structure, live), parts(structure, config)) {
        (Parts::Fields(live), Parts::Fields(config)) => {
            let mut merged = live.clone();
            for (name, theirs) in config {
                let value = match live.get(name) {
                    Some(ours) => merge(field(structure, name), ours, theirs),
                    None => theirs.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Parts::Items(live), Parts::Items(config)) => {
            Value::Array(merge_items(items(structure), &live, &config))
        }
        _ => config.clone(),
    }
}

/// Merges lists. Items that are in both stand in the order of the configuration, the others about where they stood.
fn merge_items(
    structure: &Structure,
    live: &[(Element, &Value)],
    config: &[(Element, &Value)],
) -> Vec<Value> {
    let mut by_identity: HashMap<&Element, Option<&Value>> = HashMap::new();
    for (element, item) in live {
        // Of several with one identity, none is the one that is meant.
        by_identity.entry(element).and_modify(|item| *item = None).or_insert(Some(item));
    }
    let wanted: HashSet<&Element> = config.iter().map(|(element, _)| element).collect();
    let mut shared: VecDeque<&Element> = config
        .iter()
        .map(|(element, _)| element)
        .filter(|element| by_identity.contains_key(element))
        .collect();
    let mut merged = Vec::with_capacity(live.len().max(config.len()));
    let mut done = HashSet::new();
    let (mut live, mut config) = (live.iter().peekable(), config.iter().peekable());
    loop {
        let is_same = match (live.peek(), config.peek()) {
            (None, None) => return merged,
            // Only in what is there: it stays where it is.
            (Some((ours, item)), _) if !wanted.contains(ours) => {
                merged.push((*item).clone());
                live.next();
                continue;
            }
            // In both, and its turn comes later.
            (Some((ours, _)), Some((theirs, _)))
                if ours != theirs && shared.front().is_some_and(|next| *next != ours) =>
            {
                live.next();
                continue;
            }
            (Some((ours, _)), theirs) => {
                theirs.is_none_or(|(theirs, _)| ours == theirs) || done.contains(ours)
            }
            (None, Some(_)) => false,
        };
        if is_same {
            live.next();
        }
        if let Some((theirs, item)) = config.next() {
            merged.push(match by_identity.get(theirs) {
                Some(Some(ours)) => merge(structure, ours, item),
                _ => (*item).clone(),
            });
            done.insert(theirs);
            if shared.front() == Some(&theirs) {
                shared.pop_front();
            }
        }
    }
}

/// Returns what keeps a configuration from being merged: items of lists that cannot be told from each other.
pub(super) fn ambiguities(structure: &Structure, config: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    find_ambiguities(structure, config, "", &mut faults);
    faults
}

fn find_ambiguities(structure: &Structure, value: &Value, path: &str, faults: &mut Vec<String>) {
    if let (Structure::List { kind, .. }, Value::Array(list)) = (structure, value)
        && *kind != ListKind::Atomic
        && let Some(index) = list.iter().position(|item| identify(kind, item).is_none())
    {
        let needed = match kind {
            ListKind::Map(keys) => keys.join(" and "),
            _ => "a value".to_owned(),
        };
        faults.push(format!("{path}: item {index} is told from others by {needed}, which it does not have"));
    }
    match parts(structure, value) {
        Parts::Whole => {}
        Parts::Fields(fields) => {
            for (name, value) in fields {
                find_ambiguities(field(structure, name), value, &format!("{path}.{name}"), faults);
            }
        }
        Parts::Items(list) => {
            let mut seen = HashSet::new();
            for (element, item) in &list {
                if !seen.insert(element) {
                    faults.push(format!("{path}: duplicate entries for key {element}"));
                }
                find_ambiguities(items(structure), item, &format!("{path}{element}"), faults);
            }
        }
    }
}
