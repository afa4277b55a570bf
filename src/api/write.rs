//! create, update, patch, apply, delete (C125–C215): from what a client sends to what is stored.
//!
//! Whatever the verb, an object passes the same stations: [decoded](Target::admit), brought into the shape of its type,
//! given what only the server gives, [checked](Target::check), [owned](managed), [committed](Target::commit).

mod apply;
mod collection;
mod create;
mod delete;
mod fields;
mod managed;
mod merge;
mod meta;
mod options;
mod ownership;
mod patch;
#[cfg(test)]
mod samples;
mod update;
mod warnings;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value};

pub(super) use self::apply::{Applied, Creator, apply};
pub(super) use self::collection::delete_collection;
pub(super) use self::create::create;
pub(super) use self::delete::{DeleteOptions, Deleted, delete};
use self::managed::Author;
use self::options::FieldValidation;
pub(super) use self::options::{OptionsOf, WriteOptions};
pub use self::ownership::StatusOwnership;
pub(super) use self::patch::{Patch, patch};
pub(super) use self::update::update;
use self::warnings::Warnings;
use super::body::Decoded;
use super::schema::Structure;
use super::status::ApiError;
use crate::resource::{Access, FieldError, FieldErrorReason, ResourceType};
use crate::store::{
    Batch, Expect, Key, Object, Operation, ResourceVersion, Store, StoreError, Stored, Write,
};

/// What of an object a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything but the status.
    Main,
    /// The status only.
    Status,
}

impl Part {
    /// Returns the subresource that stands for the part.
    fn subresource(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Status => "status",
        }
    }
}

/// Where objects are.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) resource: &'static ResourceType,
    pub(super) namespace: &'a str,
}

/// Where an object is to be written, and how.
pub(super) struct Target<'a> {
    pub(super) place: Place<'a>,
    pub(super) structure: &'a Structure,
    pub(super) options: WriteOptions,
    /// What the client is to be told beside the result.
    pub(super) warnings: Warnings,
}

type Fields = Map<String, Value>;

impl Place<'_> {
    fn key(&self, name: &str) -> Key {
        Key::new(self.resource.plural, self.namespace, name)
    }

    /// Commits one operation; a dry run only finds out whether it could be. A new object of a dry run has no version.
    async fn commit(&self, operation: Operation, is_dry_run: bool) -> Result<ResourceVersion, StoreError> {
        if !is_dry_run {
            let revision = self.store.append(Batch::of(operation)).await?;
            return Ok(ResourceVersion::new(revision, 1));
        }
        match (operation.expect, self.store.get(&operation.key).await?) {
            (Expect::Absent, None) => Ok(ResourceVersion::default()),
            (Expect::Version(version), Some(stored)) if stored.version == version => Ok(version),
            _ => Err(StoreError::Conflict { key: operation.key }),
        }
    }
}

impl Target<'_> {
    /// Takes a body for an object of the type: with kind and namespace, without unknown fields. What is wrong with its
    /// values is returned with it; with its metadata, an error at once (C139).
    fn admit(&self, body: Decoded) -> Result<(Fields, Vec<FieldError>), ApiError> {
        let mut object = into_object(body.value)?;
        meta::check_type(self.place.resource, &mut object)?;
        let checked = self.structure.check(&mut object);
        if let Some(fault) = wrong_metadata(&checked.errors) {
            return Err(ApiError::bad_request(fault));
        }
        meta::check_namespace(&mut object, self.place.namespace)?;
        let faults = faults(&checked.unknown, &body.duplicates);
        if let Some(text) = self.judge(faults) {
            return Err(ApiError::strict(self.place.resource, &text));
        }
        self.dedup_owners(&mut object);
        meta::remove_empty(&mut object);
        Ok((object, checked.errors))
    }

    /// Follows what the client wants done about fields that are unknown or given twice. Returns what is wrong where that
    /// is an error (C195–C197).
    fn judge(&self, faults: Vec<String>) -> Option<String> {
        match self.options.field_validation {
            _ if faults.is_empty() => None,
            FieldValidation::Strict => Some(format!("strict decoding error: {}", faults.join(", "))),
            FieldValidation::Warn => {
                faults.into_iter().for_each(|fault| self.warnings.add(fault));
                None
            }
            FieldValidation::Ignore => None,
        }
    }

    fn dedup_owners(&self, object: &mut Fields) {
        let removed = meta::dedup_owners(object);
        if !removed.is_empty() {
            self.warnings.add(format!(
                ".metadata.ownerReferences contains duplicate entries, of which one is kept; duplicate UID(s) observed: \
                 {}",
                removed.join(", ")
            ));
        }
    }

    /// Checks everything about an object, and reports all faults at once. What was there before may break rules that
    /// were made since: only what the request changes has to keep them.
    fn check(
        &self,
        name: &str,
        part: Part,
        old: Option<&Fields>,
        new: &Fields,
        mut errors: Vec<FieldError>,
    ) -> Result<(), ApiError> {
        let is_content_new = old.is_none_or(|old| meta::content(old) != meta::content(new));
        // What the request may not change was kept, and is no fault of the client's.
        errors.retain(|error| match error.field.split('.').next() {
            Some("status") => part == Part::Status,
            // Metadata has rules of its own.
            Some("metadata") => part == Part::Main && error.reason != FieldErrorReason::Required,
            _ => part == Part::Main && is_content_new,
        });
        if part == Part::Main {
            errors.extend(meta::validate(new, old.is_none()));
            errors.extend(old.and_then(|old| meta::late_finalizers(old, new)));
            if let Access::ReadWrite { validate } = self.place.resource.access
                && is_content_new
            {
                errors.extend(validate(&Value::Object(new.clone())));
            }
            for finalizer in meta::odd_finalizers(old, new) {
                self.warnings.add(format!(
                    "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
                ));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(self.place.resource, name, &errors)) }
    }

    /// Commits an object. One that is too large for the store only because of its managers goes without them.
    async fn commit(&self, mut operation: Operation, object: &mut Fields) -> Result<Stored, StoreError> {
        let is_dry_run = self.options.is_dry_run;
        let version = match self.place.commit(operation.clone(), is_dry_run).await {
            Err(StoreError::TooLarge { .. })
                if self.options.of != OptionsOf::Apply && meta::get(object, "managedFields").is_some() =>
            {
                meta::set(object, "managedFields", None);
                operation.write = Write::Put(encode(object));
                self.place.commit(operation.clone(), is_dry_run).await?
            }
            committed => committed?,
        };
        Ok(Stored { key: operation.key, version, object: encode(object) })
    }

    fn author<'a>(&'a self, api_version: &'a str, part: Part, now: &'a Time) -> Author<'a> {
        Author {
            structure: self.structure,
            api_version,
            name: &self.options.manager,
            subresource: part.subresource(),
            now,
        }
    }
}

/// Returns what makes the metadata none at all: values of another type.
fn wrong_metadata(errors: &[FieldError]) -> Option<String> {
    let is_wrong = |error: &&FieldError| {
        error.field.starts_with("metadata.") && error.reason == FieldErrorReason::TypeInvalid
    };
    errors.iter().find(is_wrong).map(|error| format!("{}: {}", error.field, error.message))
}

/// Returns what is wrong with a body, in words.
fn faults(unknown: &[String], duplicates: &[String]) -> Vec<String> {
    let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
    unknown.chain(duplicates.iter().map(|path| format!("duplicate field {path:?}"))).collect()
}

fn into_object(value: Value) -> Result<Fields, ApiError> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(ApiError::bad_request("the body of the request is not an object")),
    }
}

/// Returns the object as clients see it: with its version.
fn decode(stored: &Stored) -> Result<Fields, ApiError> {
    let text = stored.object.json().map_err(ApiError::internal)?;
    let mut object: Fields = serde_json::from_slice(&text).map_err(ApiError::internal)?;
    meta::set(&mut object, "resourceVersion", Value::from(stored.version.to_string()));
    Ok(object)
}

/// Returns the object as it is stored: without a version, which the store gives it.
fn encode(object: &Fields) -> Object {
    let mut object = object.clone();
    meta::set(&mut object, "resourceVersion", None);
    Object::whole(Value::Object(object).to_string())
}
