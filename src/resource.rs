//! What the API needs to know of a type to serve it: names, verbs, columns, selectable fields, schema, rules.
//!
//! The types themselves are declared in [`crate::model`]; the API is generic over these descriptions.

mod duration;
mod name;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub use self::duration::{InvalidDuration, format_duration, parse_duration};
pub use self::name::{fits_label, is_dns_label, is_dns_subdomain, is_qualified_name};

/// A type of the API, as discovery, routing, tables, selectors and validation see it.
#[derive(Debug)]
pub struct ResourceType {
    /// The API group, such as `core.rukpak.io`.
    pub group: &'static str,
    /// The version, such as `v1beta1`.
    pub version: &'static str,
    /// The kind, such as `Package`.
    pub kind: &'static str,
    /// The plural in URLs and keys, such as `packages`.
    pub plural: &'static str,
    /// The singular that kubectl accepts, such as `package`.
    pub singular: &'static str,
    /// Abbreviations that kubectl accepts.
    pub short_names: &'static [&'static str],
    /// Groups of resources that kubectl accepts, such as `all`.
    pub categories: &'static [&'static str],
    /// What clients may do.
    pub access: Access,
    /// The columns of `kubectl get`, after NAME.
    pub columns: &'static [Column],
    /// Fields beside name and namespace that field selectors may name (C34).
    pub selectable: &'static [SelectableField],
    /// Reads of parts of an object that are not in it.
    pub parts: &'static [Part],
    /// The JSON schema of the type, with doc comments as descriptions.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
}

/// What clients may do with a type.
#[derive(Debug)]
pub enum Access {
    /// get, list, watch.
    ReadOnly,
    /// Everything, with a `/status` subresource.
    ReadWrite {
        /// Checks the spec of an object that is to be stored and returns every fault.
        validate: fn(&Value) -> Vec<FieldError>,
    },
}

/// A subresource that reads bytes which belong to an object and are stored beside it.
#[derive(Debug)]
pub struct Part {
    /// The last segment of the URL, such as `icon`.
    pub name: &'static str,
    /// The resource whose record of the same namespace and name holds the bytes.
    pub stored_as: &'static str,
}

/// A column of a Table (C44).
#[derive(Debug)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// What the cell holds.
    pub kind: ColumnKind,
    /// What the column means.
    pub description: &'static str,
    /// Columns with a priority above 0 are shown by `-o wide` only.
    pub priority: i32,
    /// Reads the cell from the summary of an object. `null` prints as empty.
    pub cell: fn(&Value) -> Value,
}

/// What the cells of a [`Column`] hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A point in time, as RFC 3339 text; shown as the time since then (C45).
    Date,
}

/// A field that field selectors may name.
#[derive(Debug)]
pub struct SelectableField {
    /// Its path, such as `spec.catalogSource`.
    pub path: &'static str,
}

/// A fault of one field, as it is reported in a Status (C5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The machine-readable reason.
    pub reason: FieldErrorReason,
    /// The path of the field, such as `spec.image`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Why a field was refused; the names are those of the causes in a Status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorReason {
    /// The value is malformed.
    Invalid,
    /// The value is missing.
    Required,
    /// The value may not be given here.
    Forbidden,
    /// The value is not one of those known.
    NotSupported,
    /// The value is too long.
    TooLong,
    /// The value has the wrong JSON type.
    TypeInvalid,
    /// The value is there more than once.
    Duplicate,
}

impl FieldErrorReason {
    /// Returns the reason as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            FieldErrorReason::Invalid => "FieldValueInvalid",
            FieldErrorReason::Required => "FieldValueRequired",
            FieldErrorReason::Forbidden => "FieldValueForbidden",
            FieldErrorReason::NotSupported => "FieldValueNotSupported",
            FieldErrorReason::TooLong => "FieldValueTooLong",
            FieldErrorReason::TypeInvalid => "FieldValueTypeInvalid",
            FieldErrorReason::Duplicate => "FieldValueDuplicate",
        }
    }
}

impl FieldError {
    /// A malformed value.
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, message: &str) -> Self {
        FieldError {
            reason: FieldErrorReason::Invalid,
            field: field.into(),
            message: format!("Invalid value: {}: {message}", value.into()),
        }
    }

    /// A missing value.
    pub fn required(field: impl Into<String>, message: &str) -> Self {
        let message = match message {
            "" => "Required value".to_owned(),
            message => format!("Required value: {message}"),
        };
        FieldError { reason: FieldErrorReason::Required, field: field.into(), message }
    }

    /// A value that may not be given.
    pub fn forbidden(field: impl Into<String>, message: &str) -> Self {
        FieldError {
            reason: FieldErrorReason::Forbidden,
            field: field.into(),
            message: format!("Forbidden: {message}"),
        }
    }

    /// A value that is too long.
    pub fn too_long(field: impl Into<String>, message: &str) -> Self {
        FieldError {
            reason: FieldErrorReason::TooLong,
            field: field.into(),
            message: format!("Too long: {message}"),
        }
    }

    /// A value that is there more than once.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        FieldError {
            reason: FieldErrorReason::Duplicate,
            field: field.into(),
            message: format!("Duplicate value: {}", value.into()),
        }
    }

    /// A value of another JSON type.
    pub fn wrong_type(field: impl Into<String>, expected: &str, value: &Value) -> Self {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let field = field.into();
        let message =
            format!("Invalid value: {found:?}: {field} in body must be of type {expected}: {found:?}");
        FieldError { reason: FieldErrorReason::TypeInvalid, field, message }
    }

    /// A value that is none of those known.
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, known: &[&str]) -> Self {
        let known = known.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        FieldError {
            reason: FieldErrorReason::NotSupported,
            field: field.into(),
            message: format!("Unsupported value: {}: supported values: {known}", value.into()),
        }
    }
}

impl ResourceType {
    /// Returns `group/version`.
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// Returns the kind of lists.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// Returns whether clients may write.
    pub fn is_writable(&self) -> bool {
        matches!(self.access, Access::ReadWrite { .. })
    }
}

impl SelectableField {
    /// Returns the value of the field, which is empty when the object does not have it.
    pub fn value<'a>(&self, object: &'a Value) -> &'a str {
        self.path
            .split('.')
            .try_fold(object, |value, name| value.get(name))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// Returns the current time in whole seconds, as Kubernetes writes it.
pub fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
