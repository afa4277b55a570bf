//! The owner of a status that did not come by a request.

use serde_json::Value;

use super::managed::{Author, Managers};
use super::{Part, meta};
use crate::api::schema::Schemas;
use crate::resource::{ResourceType, now};

/// Notes who writes the status of objects of a type, for a program that writes it straight to the store: what came by the
/// API and what did not is then owned alike, and whoever is overruled does not go on as the owner.
pub struct StatusOwnership {
    resource: &'static ResourceType,
    schemas: Schemas,
    manager: &'static str,
}

impl StatusOwnership {
    /// Makes the notes for a type, in the name of a manager.
    pub fn new(resource: &'static ResourceType, manager: &'static str) -> Self {
        StatusOwnership { resource, schemas: Schemas::new(&[resource]), manager }
    }

    /// Notes in an object that its status was changed from an old one.
    pub fn note(&self, old: &Value, new: &mut Value) {
        let (Value::Object(old), Value::Object(new)) = (old, new) else { return };
        let (api_version, now) = (self.resource.api_version(), now());
        let author = Author {
            structure: self.schemas.structure(self.resource),
            api_version: &api_version,
            name: self.manager,
            subresource: Part::Status.subresource(),
            now: &now,
        };
        let part = Part::Status;
        let managers = Managers::of(old, &api_version);
        let managers = managers.updated(&author, &meta::scope(old, part), &meta::scope(new, part));
        meta::set(new, "managedFields", managers.write(&api_version));
    }
}
