//! Schemas compiled for checking: which fields there are, of which type, and how lists are merged.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::REFERENCE;
use crate::resource::FieldError;

/// What a value has to look like.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) enum Structure {
    /// An object with declared fields.
    Object {
        fields: BTreeMap<String, Structure>,
        required: Vec<String>,
        /// Whether it has one owner as a whole (`x-kubernetes-map-type: atomic`).
        is_atomic: bool,
    },
    /// An object with any fields, all of one structure.
    Map { values: Box<Structure>, is_atomic: bool },
    /// A list.
    List { items: Box<Structure>, kind: ListKind },
    /// Text.
    String,
    /// A time, as RFC 3339 text.
    Time,
    /// A whole number of at most so many bits.
    Integer { bits: u32 },
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// Anything.
    Any { is_atomic: bool },
}

/// How lists of several owners are merged (C190).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) enum ListKind {
    /// They are not: a list has one owner.
    Atomic,
    /// As a set of plain values.
    Set,
    /// By the items that have the same values under these keys.
    Map(Vec<String>),
}

/// What was found when an object was checked.
#[derive(Debug, Default, PartialEq)]
pub(in crate::api) struct Checked {
    /// The paths of fields that are not declared. They were removed.
    pub(in crate::api) unknown: Vec<String>,
    /// Values of another type, values that are missing, and items that are twice in a list.
    pub(in crate::api) errors: Vec<FieldError>,
}

/// Up to here every whole number can be written as a float.
const MAX_WHOLE: f64 = (1_u64 << 53) as f64;

/// Paths of unknown fields that are kept for telling about them.
const MAX_UNKNOWN: usize = 100;

impl Structure {
    /// Compiles a schema. Schemas come from types, which do not contain themselves.
    pub(in crate::api) fn compile(schema: &Value, definitions: &BTreeMap<String, Value>) -> Structure {
        if let Some(reference) = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str()) {
            let name = reference.strip_prefix(REFERENCE).unwrap_or(reference);
            return Structure::compile(definitions.get(name).unwrap_or(&Value::Null), definitions);
        }
        let is_atomic = schema["x-kubernetes-map-type"] == "atomic";
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            return Structure::Any { is_atomic };
        }
        let inner = |schema: &Value| Box::new(Structure::compile(schema, definitions));
        match schema["type"].as_str() {
            Some("object") => match (schema["properties"].as_object(), &schema["additionalProperties"]) {
                (None, values @ Value::Object(_)) => Structure::Map { values: inner(values), is_atomic },
                (fields, _) => Structure::Object {
                    fields: fields
                        .into_iter()
                        .flatten()
                        .map(|(name, schema)| (name.clone(), *inner(schema)))
                        .collect(),
                    required: texts(&schema["required"]),
                    is_atomic,
                },
            },
            Some("array") => Structure::List {
                items: inner(&schema["items"]),
                kind: match schema["x-kubernetes-list-type"].as_str() {
                    Some("set") => ListKind::Set,
                    Some("map") => ListKind::Map(texts(&schema["x-kubernetes-list-map-keys"])),
                    _ => ListKind::Atomic,
                },
            },
            Some("string") if schema["format"] == "date-time" => Structure::Time,
            Some("string") => Structure::String,
            Some("integer") => Structure::Integer { bits: if schema["format"] == "int32" { 32 } else { 64 } },
            Some("number") => Structure::Number,
            Some("boolean") => Structure::Boolean,
            _ => Structure::Any { is_atomic },
        }
    }

    /// Returns the structure of a field, if there may be one of the name.
    pub(in crate::api) fn field(&self, name: &str) -> Option<&Structure> {
        match self {
            Structure::Object { fields, .. } => fields.get(name),
            Structure::Map { values, .. } => Some(values),
            Structure::Any { .. } => Some(self),
            _ => None,
        }
    }

    /// Returns whether a field is declared by its name, so that it says nothing to own it without its content.
    pub(in crate::api) fn declares(&self, name: &str) -> bool {
        matches!(self, Structure::Object { fields, .. } if fields.contains_key(name))
    }

    /// Checks an object and removes what is not declared, and `null`, which is another way of leaving a field out.
    pub(in crate::api) fn check(&self, object: &mut Map<String, Value>) -> Checked {
        let mut checked = Checked::default();
        self.check_fields(object, "", &mut checked);
        checked
    }

    fn check_fields(&self, object: &mut Map<String, Value>, path: &str, checked: &mut Checked) {
        object.retain(|name, value| {
            if value.is_null() {
                return false;
            }
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match self.field(name) {
                Some(structure) => {
                    structure.check_value(value, &path, checked);
                    true
                }
                None => {
                    if checked.unknown.len() < MAX_UNKNOWN {
                        checked.unknown.push(path);
                    }
                    false
                }
            }
        });
        if let Structure::Object { required, .. } = self {
            for name in required.iter().filter(|name| !object.contains_key(*name)) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                checked.errors.push(FieldError::required(path, ""));
            }
        }
    }

    fn check_value(&self, value: &mut Value, path: &str, checked: &mut Checked) {
        let fits = match (self, &mut *value) {
            (Structure::Any { .. }, _)
            | (Structure::String, Value::String(_))
            | (Structure::Number, Value::Number(_))
            | (Structure::Boolean, Value::Bool(_)) => true,
            (Structure::Time, Value::String(text)) => text.parse::<Timestamp>().is_ok(),
            (Structure::Integer { bits }, Value::Number(number)) => {
                // Some programs write whole numbers with a point.
                let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < MAX_WHOLE);
                if let (None, Some(whole)) = (number.as_i64(), whole) {
                    *number = Number::from(whole as i64);
                }
                number.as_i64().is_some_and(|number| *bits == 64 || i32::try_from(number).is_ok())
            }
            (Structure::Object { .. } | Structure::Map { .. }, Value::Object(object)) => {
                self.check_fields(object, path, checked);
                true
            }
            (Structure::List { items, kind }, Value::Array(list)) => {
                for (index, item) in list.iter_mut().enumerate() {
                    items.check_value(item, &format!("{path}[{index}]"), checked);
                }
                // What Kubernetes declares of its own metadata is how it is merged, not what is valid (C136).
                if !path.starts_with("metadata.") {
                    checked.errors.extend(kind.duplicates(list, path));
                }
                true
            }
            _ => false,
        };
        if !fits {
            checked.errors.push(FieldError::wrong_type(path, self.type_name(), value));
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Structure::Object { .. } | Structure::Map { .. } => "object",
            Structure::List { .. } => "array",
            Structure::String => "string",
            Structure::Time => "date-time",
            Structure::Integer { bits: 32 } => "integer of 32 bits",
            Structure::Integer { .. } => "integer",
            Structure::Number => "number",
            Structure::Boolean => "boolean",
            Structure::Any { .. } => "anything",
        }
    }
}

impl ListKind {
    /// Returns what tells an item of a set or a map from the others; nothing for one that lacks it.
    pub(in crate::api) fn identity(&self, item: &Value) -> Option<Value> {
        match self {
            ListKind::Atomic => None,
            ListKind::Set => Some(item.clone()).filter(|item| !item.is_null()),
            ListKind::Map(keys) => {
                let value = |key: &String| Some((key.clone(), item.get(key)?.clone()));
                keys.iter().map(value).collect::<Option<Map<_, _>>>().map(Value::Object)
            }
        }
    }

    fn duplicates(&self, list: &[Value], path: &str) -> Vec<FieldError> {
        let mut seen = HashSet::new();
        let mut errors = Vec::new();
        for (index, item) in list.iter().enumerate() {
            if let Some(identity) = self.identity(item)
                && !seen.insert(identity.to_string())
            {
                errors.push(FieldError::duplicate(format!("{path}[{index}]"), identity));
            }
        }
        errors
    }
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Schemas;
    use super::*;

    fn check(object: Value) -> (Value, Vec<String>, Vec<String>) {
        let schemas = Schemas::new(crate::model::RESOURCES);
        let sources =
            crate::model::RESOURCES.iter().find(|resource| resource.plural == "catalogsources").unwrap();
        let Value::Object(mut object) = object else { panic!("not an object") };
        let checked = schemas.structure(sources).check(&mut object);
        let errors = checked.errors.iter().map(|error| format!("{}: {}", error.field, error.message));
        (Value::Object(object), checked.unknown, errors.collect())
    }

    #[test]
    fn c197_what_is_not_declared_is_removed_and_named() {
        let object = json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource", "Spec": {},
            "metadata": {"name": "x", "labels": {"any": "thing"}, "foo": 1, "annotations": null},
            "spec": {"image": "i", "priority": 5.0, "publisher": null, "caBundle": {"name": "n", "bar": {"x": 1}}},
        });
        let (object, unknown, errors) = check(object);
        assert_eq!(unknown, ["Spec", "metadata.foo", "spec.caBundle.bar"]);
        assert!(errors.is_empty(), "{errors:?}");
        let expected = json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": "x", "labels": {"any": "thing"}},
            "spec": {"image": "i", "priority": 5, "caBundle": {"name": "n"}},
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn c140_every_wrong_type_is_reported() {
        let object = json!({
            "metadata": {"labels": {"a": 1}, "finalizers": "x"},
            "spec": {"image": 5, "priority": 2_147_483_648_u32, "caBundle": {}},
            "status": {
                "conditions": [{"type": true}, {"type": "a"}, {"type": "a"}], "latestImagePoll": "yesterday",
            },
        });
        let (_, _, errors) = check(object);
        let fields: Vec<_> = errors.iter().map(|error| error.split(": ").next().unwrap()).collect();
        let expected = [
            "metadata.labels.a",
            "metadata.finalizers",
            "spec.image",
            "spec.priority",
            "spec.caBundle.name",
            "status.conditions[0].type",
            "status.conditions[2]",
            "status.latestImagePoll",
        ];
        for field in expected {
            assert!(fields.contains(&field), "{field} in {errors:?}");
        }
        let (_, _, errors) = check(json!({}));
        assert_eq!(errors, ["spec: Required value"]);
    }
}
