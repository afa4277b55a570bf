//! The annotation in which kubectl keeps what it applied from the client's side (C193).
//!
//! It says which fields kubectl set when it did not own any. Who applies as `kubectl` takes those over without a conflict,
//! and the annotation is kept up to date, so that one can go back.

use serde_json::{Map, Value};

use super::super::fields::FieldSet;
use super::super::managed::{Author, Conflict};
use super::super::merge::{compare, owned};
use super::super::meta;
use super::Fields;

/// The annotation.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who it is kept for.
const MANAGER: &str = "kubectl";

/// Bytes of all annotations; where the configuration is too long, it is not kept.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Returns the conflicts about fields that were not set by an apply from the client's side.
pub(super) fn conflicts_left(
    author: &Author<'_>,
    old: &Fields,
    live: &Value,
    conflicts: Vec<Conflict>,
) -> Vec<Conflict> {
    let taken_over = match annotation(old) {
        Some(text) if author.name == MANAGER => unchanged(author, text, live).unwrap_or_default(),
        _ => return conflicts,
    };
    conflicts.into_iter().filter(|conflict| !taken_over.contains(&conflict.path)).collect()
}

/// Returns the fields that still are as they were applied.
fn unchanged(author: &Author<'_>, text: &str, live: &Value) -> Option<FieldSet> {
    let mut applied: Map<String, Value> = serde_json::from_str(text).ok()?;
    if applied.get("apiVersion")? != author.api_version {
        return None;
    }
    let checked = author.structure.check(&mut applied);
    if !checked.unknown.is_empty() {
        return None;
    }
    let applied = Value::Object(applied);
    let changes = compare(author.structure, &applied, live);
    let fields = owned(author.structure, &applied);
    Some(fields.difference(&changes.modified).difference(&changes.added).difference(&changes.removed))
}

/// Writes what is applied into the annotation, where there is one.
pub(super) fn keep_in_sync(author: &Author<'_>, object: &mut Fields, config: &Fields) {
    if author.name != MANAGER || annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) =
        config.get_mut("metadata").and_then(|metadata| metadata.get_mut("annotations"))
    {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{}\n", Value::Object(config));
    let Some(annotations) = object
        .get_mut("metadata")
        .and_then(|metadata| metadata.get_mut("annotations"))
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let others = annotations.iter().filter(|(key, _)| *key != ANNOTATION);
    let size: usize = others.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size + ANNOTATION.len() + text.len() > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    } else {
        annotations.insert(ANNOTATION.to_owned(), text.into());
    }
}

fn annotation(object: &Fields) -> Option<&str> {
    meta::get(object, "annotations")?.get(ANNOTATION)?.as_str()
}
