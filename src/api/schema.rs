//! What objects look like: the definitions that OpenAPI publishes, and the structures that objects are checked with.
//!
//! Both are made from the Rust types, so that what is published is what holds (C258).

mod definitions;
mod structure;

use std::collections::BTreeMap;

use serde_json::Value;

pub(super) use self::definitions::{REFERENCE, definition_name};
pub(super) use self::structure::{ListKind, Structure};
use crate::resource::ResourceType;

/// The schemas of all types that are served.
pub(super) struct Schemas {
    /// Every definition by its name; each reference in them leads to another of them.
    pub(super) definitions: BTreeMap<String, Value>,
    structures: BTreeMap<&'static str, Structure>,
}

impl Schemas {
    pub(super) fn new(resources: &[&'static ResourceType]) -> Self {
        let definitions = definitions::generate(resources);
        let structures = resources
            .iter()
            .map(|resource| {
                let definition = &definitions[&definition_name(resource, resource.kind)];
                (resource.plural, Structure::compile(definition, &definitions))
            })
            .collect();
        Schemas { definitions, structures }
    }

    /// Returns the structure of the objects of a type.
    pub(super) fn structure(&self, resource: &ResourceType) -> &Structure {
        &self.structures[resource.plural]
    }
}
