//! One manager of an object, as an entry of `metadata.managedFields` (C183).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, Time};
use serde_json::{Value, json};

use crate::api::write::fields::{FieldSet, InvalidFields};
use crate::api::write::options::check_manager;

/// The only form of sets of fields that there is.
const FIELDS_TYPE: &str = "FieldsV1";

/// Bytes of the name of a subresource.
const MAX_SUBRESOURCE: usize = 256;

/// What tells managers from each other (C184). There is one version of a type, so that it does not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Manager {
    /// How it came to own its fields.
    pub(in super::super) operation: Operation,
    /// The name, as it was given or taken from the User-Agent.
    pub(in super::super) name: String,
    /// The subresource it writes to, empty for the object itself.
    pub(in super::super) subresource: String,
}

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Operation {
    /// It said that it wants them so.
    Apply,
    /// It changed them.
    Update,
}

/// What a manager owns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry {
    /// The fields.
    pub(super) fields: FieldSet,
    /// When that last changed.
    pub(super) time: Option<Time>,
}

/// An entry that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidEntry {
    /// It is not an entry.
    #[error("not an entry of managedFields: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A field of it has no valid value.
    #[error("an entry of managedFields without a valid {0}")]
    Invalid(&'static str),
    /// What it says is owned cannot be read.
    #[error("an entry of managedFields without valid fields: {0}")]
    Fields(#[from] InvalidFields),
}

impl Entry {
    /// Reads an entry; none if it is of another version, whose fields say nothing here.
    pub(super) fn read(item: &Value, api_version: &str) -> Result<Option<(Manager, Entry)>, InvalidEntry> {
        let entry: ManagedFieldsEntry = serde_json::from_value(item.clone())?;
        let operation = match entry.operation.as_deref() {
            Some("Apply") => Operation::Apply,
            Some("Update") => Operation::Update,
            _ => return Err(InvalidEntry::Invalid("operation")),
        };
        if entry.fields_type.as_deref() != Some(FIELDS_TYPE) {
            return Err(InvalidEntry::Invalid("fieldsType"));
        }
        let name = entry.manager.unwrap_or_default();
        if check_manager(&name).is_some() {
            return Err(InvalidEntry::Invalid("manager"));
        }
        let subresource = entry.subresource.unwrap_or_default();
        if subresource.len() > MAX_SUBRESOURCE {
            return Err(InvalidEntry::Invalid("subresource"));
        }
        let fields = entry.fields_v1.map_or_else(|| json!({}), |FieldsV1(fields)| fields);
        let fields = FieldSet::decode(&fields)?;
        match entry.api_version.as_deref() {
            None | Some("") => Err(InvalidEntry::Invalid("apiVersion")),
            Some(version) if version == api_version => {
                Ok(Some((Manager { operation, name, subresource }, Entry { fields, time: entry.time })))
            }
            Some(_) => Ok(None),
        }
    }

    /// Returns the entry of a manager.
    pub(super) fn write(&self, manager: &Manager, api_version: &str) -> Value {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        json!(ManagedFieldsEntry {
            api_version: text(api_version),
            fields_type: text(FIELDS_TYPE),
            fields_v1: Some(FieldsV1(self.fields.encode())),
            manager: text(&manager.name),
            operation: text(match manager.operation {
                Operation::Apply => "Apply",
                Operation::Update => "Update",
            }),
            subresource: text(&manager.subresource),
            time: self.time.clone(),
        })
    }

    /// Returns the time in seconds, which is how entries are sorted.
    pub(super) fn seconds(&self) -> i64 {
        self.time.as_ref().map_or(0, |Time(time)| time.as_second())
    }
}
