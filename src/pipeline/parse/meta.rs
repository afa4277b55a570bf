//! The metas of a File-Based Catalog, typed.
//!
//! See <https://olm.operatorframework.io/docs/reference/file-based-catalogs/>.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::bundle::{BundleMeta, RawProperty, read_bundle};
use super::split::Malformed;
use crate::model::RelatedImage;
use crate::pipeline::limits::check;

/// What one meta says.
#[derive(Debug)]
pub enum Meta {
    /// `olm.package`.
    Package(PackageMeta),
    /// `olm.channel`.
    Channel(ChannelMeta),
    /// `olm.bundle`.
    Bundle(BundleMeta),
    /// `olm.deprecations`.
    Deprecations(DeprecationsMeta),
    /// Of a schema that is not served.
    Other,
}

/// A package as its publisher declares it.
#[derive(Debug)]
pub struct PackageMeta {
    /// The name.
    pub name: String,
    /// The channel to install from by default.
    pub default_channel: String,
    /// What it does.
    pub description: String,
    /// Its icon.
    pub icon: Option<IconMeta>,
}

/// An icon, decoded.
#[derive(Debug)]
pub struct IconMeta {
    /// The media type.
    pub mediatype: String,
    /// The bytes.
    pub data: Vec<u8>,
}

/// A channel.
#[derive(Debug, Deserialize, Serialize)]
pub struct ChannelMeta {
    /// The name.
    pub name: String,
    /// The package it belongs to.
    pub package: String,
    /// Its bundles.
    pub entries: Vec<EntryMeta>,
}

/// A bundle in a channel.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryMeta {
    /// The name of the bundle.
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// The bundle it replaces.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub replaces: String,
    /// The bundles it skips.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub skips: Vec<String>,
    /// The versions it skips.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub skip_range: String,
}

/// What a publisher advises against.
#[derive(Debug)]
pub struct DeprecationsMeta {
    /// The package.
    pub package: String,
    /// What is advised against.
    pub entries: Vec<DeprecationMeta>,
}

/// One thing a publisher advises against.
#[derive(Debug, Deserialize)]
pub struct DeprecationMeta {
    /// What.
    pub reference: DeprecationReference,
    /// Why.
    #[serde(default, deserialize_with = "null_as_default")]
    pub message: String,
}

/// What a deprecation is about.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeprecationReference {
    /// The schema: `olm.package`, `olm.channel` or `olm.bundle`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub schema: String,
    /// The name; none for the package itself.
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
}

/// Every field of every schema that is served: one pass over the text fills what is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    schema: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    name: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    package: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    default_channel: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    description: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    image: Cow<'a, str>,
    #[serde(borrow, default)]
    icon: Option<&'a RawValue>,
    #[serde(borrow, default)]
    entries: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "bounded_list")]
    properties: Vec<RawProperty<'a>>,
    #[serde(default, deserialize_with = "bounded_list")]
    related_images: Vec<RelatedImage>,
}

/// Enough to know which package a meta that makes no sense belongs to.
#[derive(Deserialize)]
struct Label<'a> {
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    schema: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    package: Option<&'a RawValue>,
}

/// Enough to know whether a meta that does not parse should have.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow, default)]
    schema: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RawIcon<'a> {
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    base64data: Cow<'a, str>,
    #[serde(default, deserialize_with = "null_as_default")]
    mediatype: String,
}

/// Bytes of a name or a version. Kubernetes has none of more than 253.
pub(super) const MAX_NAME_BYTES: usize = 1024;

/// Things in a list of a meta: in memory they are much larger than `{},`.
const MAX_LISTED: usize = 20_000;

/// Commas in the entries of a channel or of deprecations: there are fewer things in all their lists.
const MAX_ENTRY_COMMAS: usize = 250_000;

/// Characters of a text that are repeated in a message.
const SHOWN: usize = 100;

const PACKAGE: &str = "olm.package";
const CHANNEL: &str = "olm.channel";
const BUNDLE: &str = "olm.bundle";
const DEPRECATIONS: &str = "olm.deprecations";

/// Reads a meta from its JSON text. What it says of a single bundle may still be wrong; see [`BundleMeta::fault`].
///
/// # Errors
///
/// [`Malformed`] when it is no meta, with the offset counted from the start of the text.
pub(super) fn read_meta(text: &[u8]) -> Result<Meta, Malformed> {
    let fields: Fields = match serde_json::from_slice(text) {
        Ok(fields) => fields,
        Err(error) => {
            // Other schemas may use the same names for something else.
            let header: Option<Header> = serde_json::from_slice(text).ok();
            return match header.and_then(|header| header.schema) {
                Some(schema) if !schema.is_empty() && !is_served(&schema) => Ok(Meta::Other),
                _ => Err(locate(text, &error)),
            };
        }
    };
    let fault = |reason: String| Malformed { offset: 0, reason };
    let names = [("name", &fields.name), ("package", &fields.package), ("channel", &fields.default_channel)];
    for (what, name) in names {
        if name.len() > MAX_NAME_BYTES && is_served(&fields.schema) {
            return Err(fault(format!("a {what} of more than {MAX_NAME_BYTES} bytes")));
        }
    }
    match &*fields.schema {
        "" => Err(fault("a meta without a schema".to_owned())),
        PACKAGE if fields.name.is_empty() => Err(fault("a package without a name".to_owned())),
        PACKAGE => Ok(Meta::Package(PackageMeta {
            icon: fields.icon.map(|icon| read_icon(icon, &fields.name)).transpose().map_err(fault)?.flatten(),
            name: fields.name.into_owned(),
            default_channel: fields.default_channel.into_owned(),
            description: fields.description.into_owned(),
        })),
        CHANNEL | BUNDLE | DEPRECATIONS if fields.package.is_empty() => {
            Err(fault(format!("an `{}` without a package", fields.schema)))
        }
        CHANNEL => {
            let entries = read_entries(fields.entries)
                .map_err(|error| fault(format!("entries of channel `{}`: {error}", fields.name)))?;
            Ok(Meta::Channel(ChannelMeta {
                name: fields.name.into_owned(),
                package: fields.package.into_owned(),
                entries,
            }))
        }
        BUNDLE => Ok(Meta::Bundle(read_bundle(
            fields.name.into_owned(),
            fields.package.into_owned(),
            fields.image.into_owned(),
            &fields.properties,
            &fields.related_images,
        ))),
        DEPRECATIONS => {
            let entries = read_entries(fields.entries)
                .map_err(|error| fault(format!("deprecations of package `{}`: {error}", fields.package)))?;
            Ok(Meta::Deprecations(DeprecationsMeta { package: fields.package.into_owned(), entries }))
        }
        _ => Ok(Meta::Other),
    }
}

fn is_served(schema: &str) -> bool {
    matches!(schema, PACKAGE | CHANNEL | BUNDLE | DEPRECATIONS)
}

/// Returns the beginning of a text, for a message.
pub(super) fn shown(text: &str) -> &str {
    text.char_indices().nth(SHOWN).map_or(text, |(end, _)| &text[..end])
}

/// Returns the package that a meta belongs to which makes no sense otherwise, where it is sound enough to tell.
pub(super) fn find_package(text: &[u8]) -> Option<String> {
    let label: Label = serde_json::from_slice(text).ok()?;
    let named = match &*label.schema {
        PACKAGE => label.name,
        CHANNEL | BUNDLE | DEPRECATIONS => label.package,
        _ => None,
    };
    let name: String = serde_json::from_str(named?.get()).ok()?;
    Some(name).filter(|name| !name.is_empty() && name.len() <= MAX_NAME_BYTES)
}

fn read_icon(icon: &RawValue, package: &str) -> Result<Option<IconMeta>, String> {
    let raw: Option<RawIcon> =
        serde_json::from_str(icon.get()).map_err(|error| format!("icon of package `{package}`: {error}"))?;
    let Some(raw) = raw else { return Ok(None) };
    // YAML folds long base64 into lines.
    let text: String = raw.base64data.split_ascii_whitespace().collect();
    let data = STANDARD.decode(text).map_err(|error| format!("icon of package `{package}`: {error}"))?;
    Ok((!data.is_empty()).then_some(IconMeta { mediatype: raw.mediatype, data }))
}

fn read_entries<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<Vec<T>, serde_json::Error> {
    let commas = raw.map_or(0, |raw| memchr::memchr_iter(b',', raw.get().as_bytes()).count());
    check("commas", commas as u64, MAX_ENTRY_COMMAS as u64).map_err(serde_json::Error::custom)?;
    let entries: Option<Vec<T>> = raw.map(|raw| serde_json::from_str(raw.get())).transpose()?.flatten();
    Ok(entries.unwrap_or_default())
}

/// Go writes empty lists as `null`.
pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a list that is not too long; Go writes empty ones as `null`.
fn bounded_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("a sequence")
        }

        fn visit_unit<E: Error>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = sequence.next_element()? {
                items.push(item);
                check("things in a list", items.len() as u64, MAX_LISTED as u64).map_err(A::Error::custom)?;
            }
            Ok(items)
        }
    }
    deserializer.deserialize_any(List(PhantomData))
}

/// Go takes `null` for a text that is not there. What can be borrowed is.
pub(super) fn null_as_empty<'de: 'a, 'a, D>(deserializer: D) -> Result<Cow<'a, str>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0).unwrap_or_default())
}

/// Turns the line and column of an error into an offset.
fn locate(text: &[u8], error: &serde_json::Error) -> Malformed {
    let start = match error.line() {
        0 | 1 => 0,
        line => memchr::memchr_iter(b'\n', text).nth(line - 2).map_or(0, |newline| newline + 1),
    };
    let offset = (start + error.column().saturating_sub(1)).min(text.len()) as u64;
    Malformed { offset, reason: without_line(&error.to_string()) }
}

/// Takes line and column off a message: they count from the start of the meta, which nobody knows. The offset in
/// the file says it better.
pub(super) fn without_line(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(reason, _)| reason).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_channels_and_deprecations_are_read() {
        let Ok(Meta::Package(package)) = read_meta(
            br#"{"schema":"olm.package","name":"p","defaultChannel":"stable",
                "icon":{"base64data":"PHN2\nZz4=","mediatype":"image/svg+xml"},"properties":null}"#,
        ) else {
            panic!("no package")
        };
        assert_eq!((package.name.as_str(), package.default_channel.as_str()), ("p", "stable"));
        assert_eq!(package.icon.unwrap().data, b"<svg>");

        let Ok(Meta::Channel(channel)) = read_meta(
            br#"{"schema":"olm.channel","package":"p","name":"stable",
                "entries":[{"name":"p.v1","skipRange":"<1.0.0"},{"name":"p.v2","replaces":"p.v1","skips":null}]}"#,
        ) else {
            panic!("no channel")
        };
        assert_eq!(channel.entries.len(), 2);
        assert_eq!(channel.entries[0].skip_range, "<1.0.0");

        let Ok(Meta::Deprecations(deprecations)) = read_meta(
            br#"{"schema":"olm.deprecations","package":"p",
                "entries":[{"reference":{"schema":"olm.bundle","name":"p.v1"},"message":"old"}]}"#,
        ) else {
            panic!("no deprecations")
        };
        assert_eq!(deprecations.entries[0].message, "old");
    }

    #[test]
    fn null_is_as_good_as_nothing() {
        let Ok(Meta::Channel(channel)) = read_meta(
            br#"{"schema":"olm.channel","package":"p","name":"stable","description":null,"image":null,
                "entries":[{"name":"p.v1","replaces":null,"skipRange":null,"skips":null}]}"#,
        ) else {
            panic!("no channel")
        };
        assert_eq!(channel.entries[0].replaces, "");
        let Ok(Meta::Package(package)) = read_meta(
            br#"{"schema":"olm.package","package":null,"name":"p","defaultChannel":null,"description":null,
                "icon":{"base64data":null,"mediatype":null},"properties":null,"relatedImages":null}"#,
        ) else {
            panic!("no package")
        };
        assert!(package.icon.is_none() && package.default_channel.is_empty());
        let Ok(Meta::Bundle(bundle)) = read_meta(
            br#"{"schema":"olm.bundle","package":"p","name":"p.v1","image":"example.com/p","defaultChannel":null,
                "properties":[{"type":"olm.package","value":{"packageName":"p","version":"1.0.0"}}]}"#,
        ) else {
            panic!("no bundle")
        };
        assert_eq!((bundle.version.as_str(), bundle.fault), ("1.0.0", None));
        assert!(
            read_meta(br#"{"schema":null}"#).is_err_and(|error| error.reason == "a meta without a schema")
        );
    }

    #[test]
    fn texts_are_borrowed_where_they_can_be() {
        let fields: Fields = serde_json::from_str(r#"{"schema":"a","name":"b\n"}"#).unwrap();
        assert!(matches!((fields.schema, fields.name), (Cow::Borrowed("a"), Cow::Owned(_))));
    }

    #[test]
    fn unknown_schemas_pass_whatever_they_hold() {
        for text in [
            r#"{"schema":"acme.notes","name":1,"properties":{"a":[]},"entries":7}"#,
            r#"{"schema":"olm.template.basic"}"#,
        ] {
            assert!(matches!(read_meta(text.as_bytes()), Ok(Meta::Other)), "{text}");
        }
    }

    #[test]
    fn the_package_of_a_meta_that_makes_no_sense_is_found_where_it_can_be() {
        for (text, expected) in [
            (r#"{"schema":"olm.bundle","package":"p","name":1}"#, Some("p")),
            (r#"{"schema":"olm.package","name":"p","defaultChannel":[]}"#, Some("p")),
            (r#"{"schema":"olm.bundle","package":1,"name":"p"}"#, None),
            (r#"{"schema":"acme.notes","package":"p"}"#, None),
            (r#"{"schema":"olm.bundle","package":"p",}"#, None),
            (r#"{"schema":"olm.bundle","package":"p","package":"q"}"#, None),
        ] {
            assert!(expected.is_none() || read_meta(text.as_bytes()).is_err(), "{text}");
            assert_eq!(find_package(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn names_and_lists_have_a_limit_that_holds_to_the_one() {
        let names = |length: usize| {
            let name = "x".repeat(length);
            [
                format!(r#"{{"schema":"olm.package","name":"{name}"}}"#),
                format!(r#"{{"schema":"olm.package","name":"p","defaultChannel":"{name}"}}"#),
                format!(r#"{{"schema":"olm.channel","package":"{name}","name":"c"}}"#),
                format!(r#"{{"schema":"olm.channel","package":"p","name":"{name}"}}"#),
            ]
        };
        let lists = |count: usize| {
            let items = vec!["{}"; count].join(",");
            [
                format!(r#"{{"schema":"olm.channel","package":"p","properties":[{items}]}}"#),
                format!(r#"{{"schema":"olm.channel","package":"p","relatedImages":[{items}]}}"#),
            ]
        };
        let entries = |commas: usize| {
            let items = vec!["{}"; commas + 1].join(",");
            [format!(r#"{{"schema":"olm.channel","package":"p","entries":[{items}]}}"#)]
        };
        for more in [-1, 0, 1] {
            let around = |limit: usize| limit.checked_add_signed(more).unwrap();
            let names = names(around(MAX_NAME_BYTES));
            let lists = lists(around(MAX_LISTED));
            let entries = entries(around(MAX_ENTRY_COMMAS));
            for text in names.iter().chain(&lists).chain(&entries) {
                let read = read_meta(text.as_bytes());
                assert_eq!(read.is_ok(), more < 1, "{}: {read:?}", &text[..60]);
            }
        }
        // Other schemas may have any.
        let other = format!(r#"{{"schema":"acme.notes","name":"{}"}}"#, "x".repeat(MAX_NAME_BYTES + 1));
        assert!(matches!(read_meta(other.as_bytes()), Ok(Meta::Other)));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, offset, reason) in [
            ("{\"name\":\"p\"}", 0, "a meta without a schema"),
            ("{\"schema\":\"olm.package\"}", 0, "a package without a name"),
            ("{\"schema\":\"olm.channel\"}", 0, "an `olm.channel` without a package"),
            (
                "{\"schema\":\"olm.package\",\n \"name\": 1}",
                34,
                "invalid type: integer `1`, expected a string",
            ),
            ("{\"schema\":\"olm.channel\",,}", 24, "key must be a string"),
            ("{\"name\":\"\u{ff}\"}", 9, "invalid unicode code point"),
            ("{\"schema\":\"olm.bundle\",\"schema\":\"olm.bundle\"}", 30, "duplicate field `schema`"),
        ] {
            let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
            let error = read_meta(&bytes).unwrap_err();
            assert_eq!((error.offset, error.reason.as_str()), (offset, reason), "{text}");
        }
    }
}
