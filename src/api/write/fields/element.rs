//! One step of the way to a place in an object.

use std::fmt;

use serde_json::{Number, Value};

use super::InvalidFields;

/// A step down: to the field of a name, or to an item of a list.
///
/// It is kept as FieldsV1 spells it, in one spelling only, so that equal elements are equal texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct Element(Box<str>);

/// What the spelling of each kind of element begins with.
const FIELD: &str = "f:";
const KEY: &str = "k:";
const VALUE: &str = "v:";
const INDEX: &str = "i:";

impl Element {
    /// The field of a name.
    pub(in super::super) fn field(name: &str) -> Self {
        Element(format!("{FIELD}{name}").into())
    }

    /// The item of a list that has these values under the keys of the list.
    pub(in super::super) fn key(fields: Value) -> Self {
        Element(format!("{KEY}{}", one_spelling(fields)).into())
    }

    /// The item of a list that is this value.
    pub(in super::super) fn value(value: Value) -> Self {
        Element(format!("{VALUE}{}", one_spelling(value)).into())
    }

    /// Reads an element; none if it is of a kind that is not known.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, InvalidFields> {
        let invalid = || InvalidFields(text.to_owned());
        let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|_| invalid());
        let Some((kind, rest)) = text.split_at_checked(FIELD.len()) else { return Err(invalid()) };
        match kind {
            FIELD => Ok(Some(Self::field(rest))),
            KEY => match json(rest)? {
                fields @ Value::Object(_) => Ok(Some(Self::key(fields))),
                _ => Err(invalid()),
            },
            VALUE => Ok(Some(Self::value(json(rest)?))),
            INDEX => {
                let index: i64 = rest.parse().map_err(|_| invalid())?;
                Ok(Some(Element(format!("{INDEX}{index}").into())))
            }
            _ if kind.ends_with(':') => Ok(None),
            _ => Err(invalid()),
        }
    }

    /// Returns the element as FieldsV1 spells it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Writes numbers that are whole as such, however they were given.
fn one_spelling(mut value: Value) -> Value {
    match &mut value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64()
                && number.is_f64()
                && float.fract() == 0.0
                && float.abs() < (1_u64 << 53) as f64
            {
                *number = Number::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = one_spelling(item.take())),
        Value::Object(fields) => fields.values_mut().for_each(|field| *field = one_spelling(field.take())),
        _ => {}
    }
    value
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, rest) = self.0.split_at(FIELD.len());
        match kind {
            FIELD => write!(f, ".{rest}"),
            VALUE => write!(f, "[={rest}]"),
            KEY => {
                let fields: Value = serde_json::from_str(rest).unwrap_or_default();
                let fields = fields.as_object().into_iter().flatten();
                let shown: Vec<_> = fields.map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", shown.join(","))
            }
            _ => write!(f, "[{rest}]"),
        }
    }
}
