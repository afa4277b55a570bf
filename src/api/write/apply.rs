//! Server-side apply: a client says what it wants of an object, and owns that (C171–C193).

mod last_applied;

use std::sync::Arc;

use serde_json::{Value, json};

use super::create::insert_owned;
use super::managed::{Conflict, Managers, message};
use super::update::{Wish, attempt, other_uid};
use super::{Fields, Part, Target, decode, faults, into_object, meta};
use crate::api::auth::{Attributes, Authorizer, Decision, User};
use crate::api::body::Decoded;
use crate::api::status::ApiError;
use crate::resource::{FieldErrorReason, ResourceType, now};
use crate::store::Stored;

/// Who may create what they apply and is not there (C173).
pub(in crate::api) struct Creator<'a> {
    pub(in crate::api) authorizer: &'a Arc<dyn Authorizer>,
    pub(in crate::api) user: &'a User,
    pub(in crate::api) attributes: &'a Attributes,
}

/// What became of an apply.
pub(in crate::api) enum Applied {
    /// The object was not there.
    Created(Stored),
    /// It was, and is as the client wants it.
    Changed(Stored),
}

/// A configuration, ready to be laid over an object.
struct Config {
    /// What it says, without what cannot be owned.
    object: Fields,
    /// The object it is for, if it says.
    uid: String,
    /// The version it is for, if it says.
    resource_version: String,
    /// What it says, to the letter, as kubectl remembers it.
    sent: Fields,
}

/// Applies a configuration.
pub(in crate::api) async fn apply(
    target: &Target<'_>,
    creator: &Creator<'_>,
    name: &str,
    part: Part,
    body: &Decoded,
) -> Result<Applied, ApiError> {
    let config = Config::read(target, name, part, body)?;
    let key = target.place.key(name);
    // Somebody else may be faster any number of times; how long this may take is bounded by who asks.
    loop {
        let outcome = match target.place.store.get(&key).await? {
            Some(stored) => config.change(target, name, part, stored).await?.map(Applied::Changed),
            None if part == Part::Status => return Err(ApiError::not_found(target.place.resource, name)),
            None => {
                creator.check().await?;
                config.create(target, name).await?.map(Applied::Created)
            }
        };
        if let Some(outcome) = outcome {
            return Ok(outcome);
        }
    }
}

impl Creator<'_> {
    async fn check(&self) -> Result<(), ApiError> {
        let attributes = Attributes { verb: "create".to_owned(), ..self.attributes.clone() };
        match self.authorizer.authorize(self.user, &attributes).await {
            Ok(Decision::Allow) => Ok(()),
            Ok(Decision::Deny(reason)) => Err(ApiError::forbidden(self.user, &attributes, &reason)),
            Err(error) => Err(ApiError::internal(error)),
        }
    }
}

impl Config {
    /// Takes a body for a configuration (C176, C177, C182, C190, C191).
    fn read(target: &Target<'_>, name: &str, part: Part, body: &Decoded) -> Result<Self, ApiError> {
        let resource = target.place.resource;
        let mut object = into_object(body.value.clone())?;
        check_type(resource, &object)?;
        if meta::get(&object, "managedFields").is_some_and(|list| !list.is_null()) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let sent = object.clone();
        let namespace = target.place.namespace;
        let refuse = |faults: &[String]| {
            let version = resource.api_version();
            Err(ApiError::bad_request(format!(
                "failed to create typed patch object ({namespace}/{name}; {version}, Kind={}): {}",
                resource.kind,
                faults.join(", ")
            )))
        };
        let checked = target.structure.check(&mut object);
        let unknown = checked.unknown.iter().map(|path| format!(".{path}: field not declared in schema"));
        // What is missing may be there already, or others may say it.
        let wrong = checked.errors.iter().filter(|error| error.reason == FieldErrorReason::TypeInvalid);
        let wrong = wrong.map(|error| format!(".{}: {}", error.field, error.message));
        let faulty: Vec<_> = unknown.chain(wrong).collect();
        if !faulty.is_empty() {
            return refuse(&faulty);
        }
        let ambiguous = super::merge::ambiguities(target.structure, &Value::Object(object.clone()));
        if !ambiguous.is_empty() {
            return refuse(&ambiguous);
        }
        if let Some(text) = target.judge(faults(&[], &body.duplicates)) {
            return Err(ApiError::bad_request(format!("error strict decoding YAML: {text}")));
        }
        meta::check_namespace(&mut object, namespace)?;
        // Which object is meant is on the URL; the body need not repeat it.
        if meta::text(&object, "name").is_empty() {
            meta::set(&mut object, "name", Value::from(name));
        }
        meta::check_name(&object, name)?;
        let text = |field: &str| meta::text(&object, field).to_owned();
        let (uid, resource_version) = (text("uid"), text("resourceVersion"));
        meta::remove_server_fields(&mut object);
        if part == Part::Main {
            object.remove("status");
        }
        Ok(Config { object, uid, resource_version, sent })
    }

    /// Creates the object. Returns none when somebody else was faster.
    async fn create(&self, target: &Target<'_>, name: &str) -> Result<Option<Stored>, ApiError> {
        let resource = target.place.resource;
        if !self.uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                self.uid
            );
            return Err(ApiError::conflict(resource, name, &why));
        }
        if !self.resource_version.is_empty() {
            return Err(ApiError::stale(resource, name));
        }
        let mut object = self.object.clone();
        let (api_version, now) = (resource.api_version(), now());
        let author = target.author(&api_version, Part::Main, &now);
        let config = Value::Object(object.clone());
        let (_, managers) = Managers::default()
            .applied(&author, &json!({}), &config, true)
            .map_err(|conflicts| conflict(resource, &conflicts))?;
        meta::remove_empty(&mut object);
        meta::begin(&mut object);
        meta::set(&mut object, "managedFields", managers.write(&api_version));
        let errors = target.structure.check(&mut object.clone()).errors;
        Ok(insert_owned(target, object, errors).await?.ok())
    }

    /// Changes the object. Returns none when somebody else was faster.
    async fn change(
        &self,
        target: &Target<'_>,
        name: &str,
        part: Part,
        stored: Stored,
    ) -> Result<Option<Stored>, ApiError> {
        let resource = target.place.resource;
        let old = decode(&stored)?;
        let (api_version, now) = (resource.api_version(), now());
        let author = target.author(&api_version, part, &now);
        let live = meta::scope(&old, part);
        let config = meta::scope(&self.object, part);
        let managers = Managers::of(&old, &api_version);
        let is_forced = target.options.is_forced;
        let applied = match managers.clone().applied(&author, &live, &config, is_forced) {
            // What kubectl applied from the client's side it may take over (C193).
            Err(conflicts) => {
                let left = last_applied::conflicts_left(&author, &old, &live, conflicts);
                if left.is_empty() { managers.applied(&author, &live, &config, true) } else { Err(left) }
            }
            applied => applied,
        };
        let (new, managers) = applied.map_err(|conflicts| conflict(resource, &conflicts))?;
        let mut new = into_object(new)?;
        if part == Part::Main {
            last_applied::keep_in_sync(&author, &mut new, &self.sent);
        }
        let mut errors = target.structure.check(&mut new).errors;
        errors.extend(other_uid(&old, &self.sent));
        meta::remove_empty(&mut new);
        if !self.resource_version.is_empty() {
            meta::set(&mut new, "resourceVersion", Value::from(&*self.resource_version));
        }
        let wish = Wish { object: new, errors, managers: Some(managers) };
        attempt(target, name, part, stored, &old, wish).await
    }
}

/// Refuses a configuration that is not of the type; unlike other bodies it has to say what it is (C176).
fn check_type(resource: &ResourceType, object: &Fields) -> Result<(), ApiError> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let expected = resource.api_version();
    if kind != resource.kind {
        let message = format!(
            "invalid object type: {version}, Kind={kind}; expected is {expected}, Kind={}",
            resource.kind
        );
        return Err(ApiError::bad_request(message));
    }
    if version != expected {
        return Err(ApiError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {expected}"
        )));
    }
    Ok(())
}

fn conflict(resource: &ResourceType, conflicts: &[Conflict]) -> ApiError {
    let version = resource.api_version();
    let causes = conflicts
        .iter()
        .map(|conflict| (format!("conflict with {}", conflict.manager.describe(&version)), conflict.field()));
    ApiError::apply_conflict(message(conflicts, &version), causes)
}
