//! Bodies of requests: bytes in, JSON values out, with what decoders usually keep to themselves: keys given twice.

use std::collections::HashSet;
use std::fmt;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::status::ApiError;

/// Bytes of a body (C224).
pub(super) const MAX_BODY: usize = 3 << 20;

/// Levels of a body. serde_json, which reads what is stored, stops at 128; what is noted about the owners of the deepest
/// field lies some levels deeper than that field.
pub(super) const MAX_DEPTH: usize = 112;

/// Keys given twice that are remembered; a body may hold more of them than anybody wants to read.
const MAX_DUPLICATES: usize = 100;

/// A body that was read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decoded {
    /// What it says. Of a key that is given twice, the last value counts.
    pub(super) value: Value,
    /// The paths of keys that are given more than once.
    pub(super) duplicates: Vec<String>,
}

/// Reads a body whole.
///
/// # Errors
///
/// 413 when it is longer than [`MAX_BODY`], 400 when it breaks off.
pub(super) async fn read(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::too_large(format!("Request entity too large: limit is {MAX_BODY}")))
        }
        Err(error) => Err(ApiError::bad_request(format!("error reading the body: {error}"))),
    }
}

/// Returns the media type of a body, without parameters; JSON where none is given (C49, C157).
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match value.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        media_type => media_type,
    }
}

/// Decodes a body that is an object or options (C49, C130).
///
/// # Errors
///
/// 415 for a media type that is not read, 400 for what does not parse.
pub(super) fn decode(media_type: &str, body: &[u8]) -> Result<Decoded, ApiError> {
    match media_type {
        "application/json" => from_json(body),
        "application/yaml" => from_yaml(body),
        _ => Err(ApiError::unsupported_media_type(&["application/json", "application/yaml"])),
    }
}

/// Decodes JSON.
///
/// # Errors
///
/// 400 for what does not parse.
pub(super) fn from_json(body: &[u8]) -> Result<Decoded, ApiError> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let seed = Node { path: &Path::Root, duplicates: &mut duplicates, depth: 0 };
    let decoded = seed.deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    let value = decoded
        .map_err(|error| ApiError::bad_request(format!("error decoding the body as JSON: {error}")))?;
    Ok(Decoded { value, duplicates })
}

/// Decodes YAML of one document. JSON is YAML too, and is read as what it is: kubectl applies in JSON, and
/// JSON has escapes that YAML does not know.
///
/// # Errors
///
/// 400 for what does not parse.
pub(super) fn from_yaml(body: &[u8]) -> Result<Decoded, ApiError> {
    let wrong =
        |error: &dyn fmt::Display| ApiError::bad_request(format!("error decoding the body as YAML: {error}"));
    if body.trim_ascii_start().first() == Some(&b'{')
        && let Ok(decoded) = from_json(body)
    {
        return Ok(decoded);
    }
    let text = std::str::from_utf8(body).map_err(|error| wrong(&error))?;
    let mut duplicates = Vec::new();
    let options =
        serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough };
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        Node { path: &Path::Root, duplicates: &mut duplicates, depth: 0 }.deserialize(deserializer)
    });
    let value = value.map_err(|error| wrong(&error.without_snippet()))?;
    Ok(Decoded { value, duplicates })
}

/// Where in a body a value stands.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Decodes one value, and notes keys given twice.
struct Node<'a> {
    path: &'a Path<'a>,
    duplicates: &'a mut Vec<String>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Node<'_> {
    /// Refuses a list or an object that lies too deep.
    fn check_depth<E: de::Error>(&self) -> Result<(), E> {
        match self.depth < MAX_DEPTH {
            true => Ok(()),
            false => Err(E::custom(format_args!("more than {MAX_DEPTH} levels"))),
        }
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number that is not finite"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut list = Vec::new();
        loop {
            let path = Path::Item(self.path, list.len());
            let seed = Node { path: &path, duplicates: &mut *self.duplicates, depth: self.depth + 1 };
            match items.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut object = Map::new();
        let mut noted = HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            let path = Path::Field(self.path, &name);
            if object.contains_key(&name)
                && self.duplicates.len() < MAX_DUPLICATES
                && noted.insert(name.clone())
            {
                self.duplicates.push(path.to_string());
            }
            let seed = Node { path: &path, duplicates: &mut *self.duplicates, depth: self.depth + 1 };
            let value = fields.next_value_seed(seed)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn c130_c191_bodies_decode_and_tell_of_keys_given_twice() {
        let value = json!({"a": {"b": 2, "c": [1, {"d": "z"}]}, "e": null, "f": true, "g": 1.5});
        let expected = Decoded { value, duplicates: vec!["a.b".to_owned(), "a.c[1].d".to_owned()] };
        let body = br#"{"a":{"b":1,"b":0,"b":2,"c":[1,{"d":"w","d":"z"}]},"e":null,"f":true,"g":1.5}"#;
        assert_eq!(decode("application/json", body).unwrap(), expected);
        let body = b"a:\n  b: 1\n  b: 0\n  b: 2\n  c:\n  - 1\n  - {d: w, d: z}\ne: ~\nf: true\ng: 1.5\n";
        assert_eq!(decode("application/yaml", body).unwrap(), expected);
    }

    #[test]
    fn c191_json_is_yaml_with_all_its_escapes() {
        let body = br#" {"a": "\ud83d\ude00 \/ \u003c", "a": "\ud83d\ude00"}"#;
        let expected = Decoded { value: json!({"a": "😀"}), duplicates: vec!["a".to_owned()] };
        assert_eq!(from_yaml(body).unwrap(), expected);
        assert_eq!(from_yaml(b"{a: 1, b: [x]}").unwrap().value, json!({"a": 1, "b": ["x"]}));
    }

    #[test]
    fn yaml_does_not_grow_without_measure() {
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, before) in "bcdefghijk".chars().zip("abcdefghij".chars()) {
            let many = vec![format!("*{before}"); 9].join(", ");
            bomb.push_str(&format!("{name}: &{name} [{many}]\n"));
        }
        assert_eq!(from_yaml(bomb.as_bytes()).unwrap_err().code(), 400);
    }

    #[test]
    fn c130_what_does_not_parse_is_refused() {
        for body in ["", "{", "{} x", "{\"a\":1e999}", "{\"a\" 1}"] {
            assert_eq!(decode("application/json", body.as_bytes()).unwrap_err().code(), 400, "{body}");
        }
        for body in [&b"a: b: c"[..], b"a: [", b"\xff", b"- x\n\ty"] {
            assert_eq!(decode("application/yaml", body).unwrap_err().code(), 400, "{body:?}");
        }
        assert_eq!(decode("application/xml", b"<a/>").unwrap_err().code(), 415);
    }

    #[test]
    fn depth_is_bounded() {
        for (levels, fits) in
            [(MAX_DEPTH - 1, true), (MAX_DEPTH, true), (MAX_DEPTH + 1, false), (100_000, false)]
        {
            let body = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            assert_eq!(from_json(body.as_bytes()).is_ok(), fits, "{levels}");
            assert!(fits || from_yaml(body.as_bytes()).is_err(), "{levels}");
        }
    }

    #[tokio::test]
    async fn c224_a_body_of_the_limit_is_read_and_one_more_is_refused() {
        for (length, fits) in [(MAX_BODY - 1, true), (MAX_BODY, true), (MAX_BODY + 1, false)] {
            let body = read(Body::from(vec![b'x'; length])).await;
            assert_eq!(body.is_ok(), fits, "{length}");
            if let Err(error) = body {
                assert_eq!(error.code(), 413);
                assert!(String::from_utf8(error.to_json()).unwrap().contains("limit is 3145728"));
            }
        }
    }
}
