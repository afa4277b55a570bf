//! Sets of fields: what of an object somebody owns. In comes FieldsV1, the form in which objects carry it, and out.
//!
//! A set is a tree. Each [`Element`] leads one step down: to a field, or to an item of a list; what lies there is in the
//! set, or something below it is, or both.

mod element;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub(super) use self::element::Element;

/// What says that the place itself is in the set, and not only something below it.
const ITSELF: &str = ".";

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    nodes: BTreeMap<Element, Node>,
}

/// A place in a [`FieldSet`]. It is in the set itself, or has something below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Whether the place itself is in the set.
    pub(super) is_member: bool,
    /// What is in the set below it.
    pub(super) below: FieldSet,
}

/// A text that is no FieldsV1.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not part of a set of fields")]
pub(super) struct InvalidFields(String);

/// The way to a place.
pub(super) type Path = [Element];

impl FieldSet {
    /// Returns whether nothing is in the set.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns a place that is in the set, or has something below it that is.
    pub(super) fn get(&self, element: &Element) -> Option<&Node> {
        self.nodes.get(element)
    }

    /// Puts a place and what is below it in the set; what says nothing is left out.
    pub(super) fn put(&mut self, element: Element, node: Node) {
        if node.is_member || !node.below.is_empty() {
            self.nodes.insert(element, node);
        }
    }

    /// Adds one place.
    pub(super) fn insert(&mut self, path: &Path) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.nodes.entry(first.clone()).or_default();
        match rest {
            [] => node.is_member = true,
            rest => node.below.insert(rest),
        }
    }

    /// Returns whether a place is in the set.
    pub(super) fn contains(&self, path: &Path) -> bool {
        match path {
            [] => false,
            [last] => self.nodes.get(last).is_some_and(|node| node.is_member),
            [first, rest @ ..] => self.nodes.get(first).is_some_and(|node| node.below.contains(rest)),
        }
    }

    /// Returns what is in either set.
    pub(super) fn union(mut self, other: &FieldSet) -> FieldSet {
        for (element, theirs) in &other.nodes {
            let ours = self.nodes.entry(element.clone()).or_default();
            ours.is_member |= theirs.is_member;
            ours.below = std::mem::take(&mut ours.below).union(&theirs.below);
        }
        self
    }

    /// Returns what is in both sets.
    pub(super) fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.combine(|element, ours| match other.nodes.get(element) {
            Some(theirs) => Node {
                is_member: ours.is_member && theirs.is_member,
                below: ours.below.intersection(&theirs.below),
            },
            None => Node::default(),
        })
    }

    /// Returns what is in this set and not in the other.
    pub(super) fn difference(&self, other: &FieldSet) -> FieldSet {
        self.combine(|element, ours| match other.nodes.get(element) {
            Some(theirs) => Node {
                is_member: ours.is_member && !theirs.is_member,
                below: ours.below.difference(&theirs.below),
            },
            None => ours.clone(),
        })
    }

    /// Makes a set of what becomes of each place.
    pub(super) fn combine(&self, mut become_of: impl FnMut(&Element, &Node) -> Node) -> FieldSet {
        let mut set = FieldSet::default();
        for (element, node) in &self.nodes {
            set.put(element.clone(), become_of(element, node));
        }
        set
    }

    /// Returns the ways to all places in the set, those of a level before those below them.
    pub(super) fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>) {
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.is_member) {
            paths.push([&prefix[..], std::slice::from_ref(element)].concat());
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.below.collect(prefix, paths);
            prefix.pop();
        }
    }

    /// Returns the set as FieldsV1.
    pub(super) fn encode(&self) -> Value {
        let nodes = self.nodes.iter().map(|(element, node)| {
            let mut below = node.below.encode();
            if node.is_member && !node.below.is_empty() {
                below[ITSELF] = json!({});
            }
            (element.as_str().to_owned(), below)
        });
        Value::Object(nodes.collect())
    }

    /// Reads FieldsV1. Elements of a kind that is not known are passed over, as they say nothing that could be kept.
    ///
    /// # Errors
    ///
    /// [`InvalidFields`], naming what cannot be read.
    pub(super) fn decode(fields: &Value) -> Result<FieldSet, InvalidFields> {
        let Value::Object(fields) = fields else { return Err(InvalidFields(fields.to_string())) };
        Self::decode_nodes(fields)
    }

    fn decode_nodes(fields: &Map<String, Value>) -> Result<FieldSet, InvalidFields> {
        let mut set = FieldSet::default();
        for (text, value) in fields.iter().filter(|(text, _)| *text != ITSELF) {
            let Value::Object(below) = value else { return Err(InvalidFields(value.to_string())) };
            let Some(element) = Element::parse(text)? else { continue };
            let is_itself = below.contains_key(ITSELF);
            let below = Self::decode_nodes(below)?;
            set.put(element, Node { is_member: is_itself || below.is_empty(), below });
        }
        Ok(set)
    }
}

/// Returns a path as people read it, such as `.status.conditions[type="Ready"].message`.
pub(super) fn display(path: &Path) -> String {
    path.iter().map(Element::to_string).collect()
}
