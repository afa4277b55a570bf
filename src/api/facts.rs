//! What selectors look at in an object, read without the rest of it.

use std::collections::BTreeMap;
use std::fmt;

use memchr::memmem;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::status::ApiError;
use crate::resource::ResourceType;
use crate::store::Object;

/// Labels by their keys.
pub(super) type Labels = BTreeMap<String, String>;

/// What selectors may ask about an object, beside its key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) labels: Labels,
    /// The fields that the type declares, in their order there; empty where the object has none.
    pub(super) fields: Vec<String>,
}

/// Where every object's metadata begins. Objects are written with `apiVersion` and `kind` first, and kinds hold no
/// quotes, so the first occurrence is the object's own.
const METADATA: &[u8] = b"\"metadata\":";

impl Facts {
    /// Reads the facts of an object.
    ///
    /// # Errors
    ///
    /// When the object is damaged.
    pub(super) fn of(resource: &ResourceType, object: &Object) -> Result<Self, ApiError> {
        Ok(Facts { labels: labels_of(object)?, fields: fields_of(resource, object)? })
    }
}

/// Returns the text of an object's metadata, which ends before anything large.
///
/// # Errors
///
/// When the object is damaged.
pub(super) fn metadata_of(object: &Object) -> Result<&str, ApiError> {
    let head = object.head();
    let start = metadata_start(head)?;
    let mut values = serde_json::Deserializer::from_slice(&head[start..]).into_iter::<&RawValue>();
    match values.next() {
        Some(Ok(metadata)) => Ok(metadata.get()),
        Some(Err(error)) => Err(ApiError::internal(error)),
        None => Err(ApiError::internal("an object that ends before its metadata")),
    }
}

/// Returns where the value of an object's metadata begins.
///
/// # Errors
///
/// When the object has none.
pub(super) fn metadata_start(head: &[u8]) -> Result<usize, ApiError> {
    memmem::find(head, METADATA)
        .map(|start| start + METADATA.len())
        .ok_or_else(|| ApiError::internal("an object without metadata"))
}

/// Returns the labels of an object.
///
/// # Errors
///
/// When the object is damaged.
pub(super) fn labels_of(object: &Object) -> Result<Labels, ApiError> {
    #[derive(Deserialize)]
    struct Metadata {
        labels: Option<Labels>,
    }
    let metadata: Metadata = serde_json::from_str(metadata_of(object)?).map_err(ApiError::internal)?;
    Ok(metadata.labels.unwrap_or_default())
}

/// Returns the values of the fields that a type declares as selectable, in their order there.
///
/// # Errors
///
/// When the object is damaged.
pub(super) fn fields_of(resource: &ResourceType, object: &Object) -> Result<Vec<String>, ApiError> {
    let mut found = vec![String::new(); resource.selectable.len()];
    if found.is_empty() {
        return Ok(found);
    }
    let paths: Vec<Vec<_>> =
        resource.selectable.iter().map(|field| field.path.split('.').collect()).collect();
    let wanted = paths.iter().map(Vec::as_slice).enumerate().collect();
    let summary = object.summary();
    let mut text = serde_json::Deserializer::from_slice(&summary);
    Seek { wanted, found: &mut found }.deserialize(&mut text).map_err(ApiError::internal)?;
    Ok(found)
}

/// Walks into the fields on the way to some paths, and passes over all others.
struct Seek<'a> {
    /// What is left of each path that leads here, and which one it is.
    wanted: Vec<(usize, &'a [&'a str])>,
    found: &'a mut [String],
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let here = self.wanted.iter().filter_map(|&(index, path)| match path {
                [first, rest @ ..] if *first == key => Some((index, rest)),
                _ => None,
            });
            let wanted: Vec<_> = here.collect();
            if wanted.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Seek { wanted, found: &mut *self.found })?;
            }
        }
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        for (index, _) in self.wanted.iter().filter(|(_, path)| path.is_empty()) {
            value.clone_into(&mut self.found[*index]);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Tail;

    fn packages() -> &'static ResourceType {
        crate::model::RESOURCES.iter().find(|resource| resource.plural == "packages").unwrap()
    }

    #[test]
    fn facts_are_read_from_the_summary() {
        let head = r#"{"apiVersion":"v","kind":"K","metadata":{"name":"p","labels":{"a":"x\ny"}},"spec":{"packageName":"q","n":[1,{"catalogSource":"no"}],"catalogSource":"c""#;
        let object = Object::cut(head, Tail::Deferred);
        let facts = Facts::of(packages(), &object).unwrap();
        assert_eq!(facts.labels["a"], "x\ny");
        assert_eq!(facts.fields, ["c", "q"]);
        assert_eq!(metadata_of(&object).unwrap(), r#"{"name":"p","labels":{"a":"x\ny"}}"#);
    }

    #[test]
    fn what_is_not_there_or_no_text_is_empty() {
        for text in [
            r#"{"metadata":{"labels":null},"spec":{"catalogSource":1}}"#,
            r#"{"metadata":{},"spec":{"catalogSource":["x"],"packageName":null}}"#,
            r#"{"metadata":{},"spec":"x"}"#,
            r#"{"metadata":{}}"#,
        ] {
            let facts = Facts::of(packages(), &Object::whole(text)).unwrap();
            assert_eq!(facts, Facts { fields: vec![String::new(); 2], ..Facts::default() }, "{text}");
        }
    }

    #[test]
    fn damage_is_an_error() {
        for text in ["", "{}", r#"{"metadata":"#, r#"{"metadata":{"name":"x"#, r#"{"metadata":{}"#] {
            assert!(Facts::of(packages(), &Object::whole(text)).is_err(), "{text}");
        }
    }
}
