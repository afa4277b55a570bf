//! The places of a value, and the value without some of them.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Parts, field, items, parts};
use crate::api::schema::Structure;
use crate::api::write::fields::{Element, FieldSet, Node};

/// Returns the places that a configuration says something about: whoever applies it owns them.
pub(in super::super) fn owned(structure: &Structure, value: &Value) -> FieldSet {
    node(structure, value).below
}

fn node(structure: &Structure, value: &Value) -> Node {
    let mut below = FieldSet::default();
    match parts(structure, value) {
        Parts::Whole => return Node { is_member: true, below },
        Parts::Fields(fields) => {
            for (name, value) in fields {
                let mut node = node(field(structure, name), value);
                // To have a field at all says something where its name is not declared, or where nothing is in it.
                let is_empty = value.as_object().is_some_and(Map::is_empty);
                node.is_member |= value.is_null() || is_empty || !structure.declares(name);
                below.put(Element::field(name), node);
            }
        }
        Parts::Items(list) => {
            let mut times: HashMap<_, usize> = HashMap::new();
            list.iter().for_each(|(element, _)| *times.entry(element).or_default() += 1);
            for (element, item) in &list {
                let mut node = match times[element] {
                    1 => node(items(structure), item),
                    _ => Node::default(),
                };
                node.is_member = true;
                below.put(element.clone(), node);
            }
        }
    }
    Node { is_member: false, below }
}

/// Returns a value without some places. What is emptied by that goes too; there may be nothing left.
///
/// An item of a list, and an entry of a map, goes with all that is in it. A declared field goes when nothing is in it: to
/// have been the one who brought it does not make what others have put there one's own.
pub(in super::super) fn remove(structure: &Structure, value: &Value, set: &FieldSet) -> Option<Value> {
    let (left, is_emptied) = match parts(structure, value) {
        Parts::Whole => return Some(value.clone()),
        Parts::Fields(fields) => {
            let left = fields.iter().filter_map(|(name, value)| {
                let (inner, is_declared) = (field(structure, name), structure.declares(name));
                let value = without(inner, value, set.get(&Element::field(name)), is_declared)?;
                Some((name.clone(), value))
            });
            let left: Map<_, _> = left.collect();
            let is_emptied = left.is_empty() && !fields.is_empty();
            (Value::Object(left), is_emptied)
        }
        Parts::Items(list) => {
            let inner = items(structure);
            let left =
                list.iter().filter_map(|(element, item)| without(inner, item, set.get(element), false));
            let left: Vec<_> = left.collect();
            let is_emptied = left.is_empty() && !list.is_empty();
            (Value::Array(left), is_emptied)
        }
    };
    (!is_emptied).then_some(left)
}

fn without(structure: &Structure, value: &Value, node: Option<&Node>, is_declared: bool) -> Option<Value> {
    let Some(node) = node else { return Some(value.clone()) };
    let has_parts = match parts(structure, value) {
        Parts::Whole => false,
        Parts::Fields(fields) => !fields.is_empty(),
        Parts::Items(items) => !items.is_empty(),
    };
    match node.is_member && !(is_declared && has_parts) {
        true => None,
        false => remove(structure, value, &node.below),
    }
}
