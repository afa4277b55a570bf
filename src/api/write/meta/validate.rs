//! What has to hold of metadata (C131, C134, C135).

use serde_json::{Map, Value};

use super::{finalizers, get, is_deleting, text};
use crate::resource::{FieldError, fits_label, is_dns_label, is_dns_subdomain, is_qualified_name};

/// Bytes of all annotations of an object.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// The finalizers that the garbage collector acts on. They have no domain.
pub(in super::super) const FOREGROUND: &str = "foregroundDeletion";
pub(in super::super) const ORPHAN: &str = "orphan";

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                         '.', and must start and end with an alphanumeric character (e.g. 'example.com')";

const LABEL: &str = "a lowercase RFC 1123 label must consist of at most 63 lower case alphanumeric characters or '-', and \
                     must start and end with an alphanumeric character";

const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and \
                              end with an alphanumeric character, with an optional DNS subdomain prefix and '/' (e.g. \
                              'example.com/MyName')";

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                           '.', and must start and end with an alphanumeric character";

/// What cannot own anything: there are too many of them, and they do not last.
const EVENT: (&str, &str) = ("v1", "Event");

type Fields = Map<String, Value>;

/// Returns every fault of the metadata. What a name was made of is of interest when it is made.
pub(in super::super) fn validate(object: &Fields, is_new: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if is_new {
        validate_prefix(object, &mut errors);
    }
    validate_name(object, &mut errors);
    validate_labels(object, &mut errors);
    validate_annotations(object, &mut errors);
    validate_owners(object, &mut errors);
    validate_finalizers(object, &mut errors);
    errors
}

fn validate_prefix(object: &Fields, errors: &mut Vec<FieldError>) {
    let prefix = text(object, "generateName");
    // The end of a prefix is not the end of a name.
    if !prefix.is_empty() && !is_dns_subdomain(&format!("{}a", prefix.trim_end_matches(['-', '.']))) {
        errors.push(FieldError::invalid("metadata.generateName", prefix, SUBDOMAIN));
    }
}

fn validate_name(object: &Fields, errors: &mut Vec<FieldError>) {
    match text(object, "name") {
        "" => errors.push(FieldError::required("metadata.name", "name or generateName is required")),
        name if !is_dns_subdomain(name) => {
            errors.push(FieldError::invalid("metadata.name", name, SUBDOMAIN));
        }
        _ => {}
    }
    let namespace = text(object, "namespace");
    if !is_dns_label(namespace) {
        errors.push(FieldError::invalid("metadata.namespace", namespace, LABEL));
    }
}

fn validate_labels(object: &Fields, errors: &mut Vec<FieldError>) {
    let field = "metadata.labels";
    for (key, value) in map(object, "labels") {
        if !is_qualified_name(key) {
            errors.push(FieldError::invalid(field, key.as_str(), QUALIFIED_NAME));
        }
        if value.as_str().is_some_and(|value| !value.is_empty() && !fits_label(value)) {
            errors.push(FieldError::invalid(field, value.clone(), LABEL_VALUE));
        }
    }
}

fn validate_annotations(object: &Fields, errors: &mut Vec<FieldError>) {
    let field = "metadata.annotations";
    let mut size = 0;
    for (key, value) in map(object, "annotations") {
        size += key.len() + value.as_str().map_or(0, str::len);
        if !is_qualified_name(&key.to_lowercase()) {
            errors.push(FieldError::invalid(field, key.as_str(), QUALIFIED_NAME));
        }
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(field, &format!("may not be more than {MAX_ANNOTATIONS} bytes")));
    }
}

fn validate_owners(object: &Fields, errors: &mut Vec<FieldError>) {
    let field = "metadata.ownerReferences";
    let mut controller = "";
    for owner in list(object, "ownerReferences") {
        let text = |name: &str| owner[name].as_str().unwrap_or_default();
        for name in ["apiVersion", "kind", "name", "uid"] {
            if text(name).is_empty() {
                let message =
                    if name == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                errors.push(FieldError::invalid(format!("{field}.{name}"), "", message));
            }
        }
        if (text("apiVersion"), text("kind")) == EVENT {
            let message = format!("/{}, Kind={} is disallowed from being an owner", EVENT.0, EVENT.1);
            errors.push(FieldError::invalid(field, owner.clone(), &message));
        }
        let version = text("apiVersion");
        if version.split('/').count() > 2 || (!version.is_empty() && version.ends_with('/')) {
            let message = "must be a version, or a group and a version with '/' between them";
            errors.push(FieldError::invalid(format!("{field}.apiVersion"), version, message));
        }
        if owner["controller"] == true {
            if controller.is_empty() {
                controller = text("name");
            } else {
                let message = format!(
                    "only one reference can have controller set to true; it is for {controller:?} and {:?}",
                    text("name")
                );
                errors.push(FieldError::invalid(field, text("name"), &message));
            }
        }
    }
}

fn validate_finalizers(object: &Fields, errors: &mut Vec<FieldError>) {
    let field = "metadata.finalizers";
    let all = finalizers(object);
    for finalizer in all.iter().filter_map(Value::as_str) {
        if !is_qualified_name(finalizer) {
            errors.push(FieldError::invalid(field, finalizer, QUALIFIED_NAME));
        }
    }
    if [FOREGROUND, ORPHAN].iter().all(|policy| all.iter().any(|finalizer| finalizer == policy)) {
        let message = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(FieldError::invalid(field, all, &message));
    }
}

/// Returns what is wrong with new finalizers on an object that is being deleted (C153).
pub(in super::super) fn late_finalizers(old: &Fields, new: &Fields) -> Option<FieldError> {
    let added = added_finalizers(Some(old), new);
    (is_deleting(old) && !added.is_empty()).then(|| {
        let message = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers {}",
            Value::from(added)
        );
        FieldError::forbidden("metadata.finalizers", &message)
    })
}

/// Returns the new finalizers that somebody else may come to use too, because they have no domain.
pub(in super::super) fn odd_finalizers(old: Option<&Fields>, new: &Fields) -> Vec<String> {
    let is_odd = |name: &String| !name.contains('/') && name != FOREGROUND && name != ORPHAN;
    added_finalizers(old, new).into_iter().filter(is_odd).collect()
}

fn added_finalizers(old: Option<&Fields>, new: &Fields) -> Vec<String> {
    let before = old.map(finalizers).unwrap_or_default();
    let added = finalizers(new).into_iter().filter(|finalizer| !before.contains(finalizer));
    added.filter_map(|finalizer| finalizer.as_str().map(str::to_owned)).collect()
}

fn map<'a>(object: &'a Fields, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    get(object, field).and_then(Value::as_object).into_iter().flatten()
}

fn list<'a>(object: &'a Fields, field: &str) -> &'a [Value] {
    get(object, field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
