//! metadata: what clients may say in it, what only the server says, and what has to hold.

mod validate;

use std::collections::HashSet;

use serde_json::{Map, Value, json};

pub(super) use self::validate::{FOREGROUND, ORPHAN, late_finalizers, odd_finalizers, validate};
use super::Part;
use crate::api::status::ApiError;
use crate::resource::{ResourceType, now};

/// Characters of a generated name before the random ones (C132).
const MAX_PREFIX: usize = 58;

/// Characters that generated names end with: no vowels, so that no words come about.
const NAME_CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const RANDOM_CHARACTERS: usize = 5;

/// Fields that only the server sets, once.
const IMMUTABLE: [&str; 5] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

type Fields = Map<String, Value>;

/// Returns a field of the metadata that is text; empty if there is none.
pub(super) fn text<'a>(object: &'a Fields, field: &str) -> &'a str {
    get(object, field).and_then(Value::as_str).unwrap_or_default()
}

/// Returns a field of the metadata.
pub(super) fn get<'a>(object: &'a Fields, field: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(field)
}

/// Sets a field of the metadata, or removes it.
pub(super) fn set(object: &mut Fields, field: &str, value: impl Into<Option<Value>>) {
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        match value.into() {
            Some(value) => metadata.insert(field.to_owned(), value),
            None => metadata.remove(field),
        };
    }
}

/// Checks kind and version, or sets them where they are missing (C129).
pub(super) fn check_type(resource: &ResourceType, object: &mut Fields) -> Result<(), ApiError> {
    let expected = [("apiVersion", resource.api_version()), ("kind", resource.kind.to_owned())];
    let sent = expected.each_ref().map(|(field, expected)| match object.get(*field) {
        None | Some(Value::Null) => Some(expected.clone()),
        Some(Value::String(sent)) if sent.is_empty() => Some(expected.clone()),
        Some(Value::String(sent)) => Some(sent.clone()),
        Some(_) => None,
    });
    match sent {
        [Some(version), Some(kind)] if [&version, &kind] == [&expected[0].1, &expected[1].1] => {}
        [Some(version), Some(kind)] => {
            let [(_, expected_version), (_, expected_kind)] = &expected;
            return Err(ApiError::bad_request(format!(
                "the object in the body is of {version}, Kind={kind}; expected is {expected_version}, \
                 Kind={expected_kind}"
            )));
        }
        _ => return Err(ApiError::bad_request("apiVersion and kind of the object have to be text")),
    }
    for (field, value) in expected {
        object.insert(field.to_owned(), value.into());
    }
    match object.get_mut("metadata") {
        None => {
            object.insert("metadata".to_owned(), json!({}));
        }
        Some(metadata @ Value::Null) => *metadata = json!({}),
        Some(Value::Object(_)) => {}
        Some(_) => return Err(ApiError::bad_request("metadata is not an object")),
    }
    Ok(())
}

/// Removes what is there and empty: in metadata that is the same as not to be there.
pub(super) fn remove_empty(object: &mut Fields) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| match value {
            Value::Object(fields) => !fields.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::String(text) => !text.is_empty(),
            _ => true,
        });
    }
}

/// Checks the namespace, or sets it where it is missing (C128).
pub(super) fn check_namespace(object: &mut Fields, namespace: &str) -> Result<(), ApiError> {
    match text(object, "namespace") {
        sent if sent == namespace => {}
        "" => set(object, "namespace", Value::from(namespace)),
        _ => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Checks that an object is the one on the URL (C145).
pub(super) fn check_name(object: &Fields, name: &str) -> Result<(), ApiError> {
    match text(object, "name") {
        sent if sent == name => Ok(()),
        "" => Err(ApiError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        sent => Err(ApiError::bad_request(format!(
            "the name of the object ({sent}) does not match the name on the URL ({name})"
        ))),
    }
}

/// Gives a new object what only the server gives (C125, C126).
pub(super) fn begin(object: &mut Fields) {
    remove_server_fields(object);
    set(object, "uid", Value::from(uuid::Uuid::new_v4().to_string()));
    set(object, "creationTimestamp", json!(now()));
    set(object, "generation", Value::from(1));
}

/// Removes what a client may say but not set.
pub(super) fn remove_server_fields(object: &mut Fields) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| {
            !IMMUTABLE.contains(&&**field) && field != "selfLink" && field != "resourceVersion"
        });
    }
}

/// Makes a name that begins as asked for (C132).
pub(super) fn generate_name(prefix: &str) -> String {
    let random = uuid::Uuid::new_v4();
    let mut name: String = prefix.chars().take(MAX_PREFIX).collect();
    name.extend(
        random
            .as_bytes()
            .iter()
            .take(RANDOM_CHARACTERS)
            .map(|byte| char::from(NAME_CHARACTERS[usize::from(*byte) % NAME_CHARACTERS.len()])),
    );
    name
}

/// Keeps what a request on this part of an object may not change, and counts generations (C147–C151).
pub(super) fn keep(old: &Fields, new: &mut Fields, part: Part) {
    match part {
        Part::Main => {
            copy(old, new, "status");
            for field in IMMUTABLE.into_iter().chain(["name", "namespace", "resourceVersion"]) {
                set(new, field, get(old, field).cloned());
            }
            set(new, "selfLink", None);
            if content(old) != content(new) {
                set(new, "generation", Value::from(next_generation(old)));
            }
        }
        Part::Status => {
            let status = new.remove("status").filter(|status| !status.is_null());
            *new = old.clone();
            match status {
                Some(status) => new.insert("status".to_owned(), status),
                None => new.remove("status"),
            };
        }
    }
}

/// Returns what clients write of an object: neither metadata nor status.
pub(super) fn content(object: &Fields) -> Vec<(&String, &Value)> {
    object.iter().filter(|(field, _)| *field != "metadata" && *field != "status").collect()
}

/// Returns what of an object a request on this part is about, as far as it can be owned (C186).
pub(super) fn scope(object: &Fields, part: Part) -> Value {
    let mut scope = object.clone();
    match part {
        Part::Main => {
            scope.remove("status");
            for field in ["managedFields", "resourceVersion"] {
                set(&mut scope, field, None);
            }
        }
        Part::Status => scope.retain(|field, _| field == "status"),
    }
    Value::Object(scope)
}

pub(super) fn next_generation(object: &Fields) -> i64 {
    get(object, "generation").and_then(Value::as_i64).unwrap_or(1) + 1
}

fn copy(from: &Fields, to: &mut Fields, field: &str) {
    match from.get(field) {
        Some(value) => to.insert(field.to_owned(), value.clone()),
        None => to.remove(field),
    };
}

/// Returns whether a deletion has nothing left to wait for (C214).
pub(super) fn is_gone(object: &Fields) -> bool {
    is_deleting(object) && finalizers(object).is_empty()
}

/// Returns whether somebody asked for the object to be deleted.
pub(super) fn is_deleting(object: &Fields) -> bool {
    get(object, "deletionTimestamp").is_some_and(|time| !time.is_null())
}

/// Returns what has to be done before the object can go.
pub(super) fn finalizers(object: &Fields) -> Vec<Value> {
    get(object, "finalizers").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Removes owners that are listed twice, and returns their uids (C136).
pub(super) fn dedup_owners(object: &mut Fields) -> Vec<String> {
    let metadata = object.get_mut("metadata").and_then(|metadata| metadata.get_mut("ownerReferences"));
    let Some(Value::Array(owners)) = metadata else { return Vec::new() };
    let mut seen = HashSet::new();
    let mut removed = Vec::new();
    owners.retain(|owner| {
        let is_new = seen.insert(owner.to_string());
        if !is_new {
            removed.push(owner["uid"].as_str().unwrap_or_default().to_owned());
        }
        is_new
    });
    removed
}

/// Returns whether two objects say the same. A field that is `null` is one that is not there, and when the managers last
/// changed their fields says nothing about the object (C148).
pub(super) fn is_same(one: &Fields, other: &Fields) -> bool {
    let timeless = |object: &Fields| {
        let mut object = object.clone();
        let managers = get(&object, "managedFields").cloned();
        set(&mut object, "managedFields", managers.map(super::managed::without_times));
        object
    };
    equal_but_for_nulls(&Value::Object(timeless(one)), &Value::Object(timeless(other)))
}

fn equal_but_for_nulls(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let has = |fields: &Fields, name: &String| fields.get(name).is_some_and(|value| !value.is_null());
            one.iter().all(|(name, value)| match other.get(name) {
                Some(other) => equal_but_for_nulls(value, other),
                None => value.is_null(),
            }) && other.iter().all(|(name, value)| value.is_null() || has(one, name))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| equal_but_for_nulls(one, other))
        }
        (one, other) => one == other,
    }
}
