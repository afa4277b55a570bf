//! The metas of a File-Based Catalog, typed.
//!
//! See <https://olm.operatorframework.io/docs/reference/file-based-catalogs/>.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bundle::{BundleMeta, RawProperty, read_bundle};
use super::split::Malformed;
use crate::model::RelatedImage;

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
#[derive(Debug)]
pub struct ChannelMeta {
    /// The name.
    pub name: String,
    /// The package it belongs to.
    pub package: String,
    /// Its bundles.
    pub entries: Vec<EntryMeta>,
}

/// A bundle in a channel.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryMeta {
    /// The name of the bundle.
    #[serde(default)]
    pub name: String,
    /// The bundle it replaces.
    #[serde(default)]
    pub replaces: String,
    /// The bundles it skips.
    #[serde(default, deserialize_with = "null_as_default")]
    pub skips: Vec<String>,
    /// The versions it skips.
    #[serde(default)]
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
    #[serde(default)]
    pub message: String,
}

/// What a deprecation is about.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeprecationReference {
    /// The schema: `olm.package`, `olm.channel` or `olm.bundle`.
    #[serde(default)]
    pub schema: String,
    /// The name; none for the package itself.
    #[serde(default)]
    pub name: String,
}

/// Every field of every schema that is served: one pass over the text fills what is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow, default)]
    schema: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    package: Cow<'a, str>,
    #[serde(borrow, default)]
    default_channel: Cow<'a, str>,
    #[serde(borrow, default)]
    description: Cow<'a, str>,
    #[serde(borrow, default)]
    image: Cow<'a, str>,
    #[serde(borrow, default)]
    icon: Option<&'a RawValue>,
    #[serde(borrow, default)]
    entries: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "null_as_default")]
    properties: Vec<RawProperty<'a>>,
    #[serde(default, deserialize_with = "null_as_default")]
    related_images: Vec<RelatedImage>,
}

/// Enough to know whether a meta that does not parse should have.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow, default)]
    schema: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RawIcon<'a> {
    #[serde(borrow, default)]
    base64data: Cow<'a, str>,
    #[serde(default)]
    mediatype: String,
}

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
                Some(schema)
                    if !matches!(&*schema, "" | PACKAGE | CHANNEL | BUNDLE | DEPRECATIONS) =>
                {
                    Ok(Meta::Other)
                }
                _ => Err(locate(text, &error)),
            };
        }
    };
    let fault = |reason: String| Malformed { offset: 0, reason };
    match &*fields.schema {
        "" => Err(fault("a meta without a schema".to_owned())),
        PACKAGE if fields.name.is_empty() => Err(fault("a package without a name".to_owned())),
        PACKAGE => Ok(Meta::Package(PackageMeta {
            icon: fields
                .icon
                .map(|icon| read_icon(icon, &fields.name))
                .transpose()
                .map_err(fault)?
                .flatten(),
            name: fields.name.into_owned(),
            default_channel: fields.default_channel.into_owned(),
            description: fields.description.into_owned(),
        })),
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
            let entries = read_entries(fields.entries).map_err(|error| {
                fault(format!(
                    "deprecations of package `{}`: {error}",
                    fields.package
                ))
            })?;
            Ok(Meta::Deprecations(DeprecationsMeta {
                package: fields.package.into_owned(),
                entries,
            }))
        }
        _ => Ok(Meta::Other),
    }
}

fn read_icon(icon: &RawValue, package: &str) -> Result<Option<IconMeta>, String> {
    let raw: Option<RawIcon> = serde_json::from_str(icon.get())
        .map_err(|error| format!("icon of package `{package}`: {error}"))?;
    let Some(raw) = raw else { return Ok(None) };
    // YAML folds long base64 into lines.
    let text: String = raw.base64data.split_ascii_whitespace().collect();
    let data = STANDARD
        .decode(text)
        .map_err(|error| format!("icon of package `{package}`: {error}"))?;
    Ok((!data.is_empty()).then_some(IconMeta {
        mediatype: raw.mediatype,
        data,
    }))
}

fn read_entries<'a, T: Deserialize<'a>>(
    raw: Option<&'a RawValue>,
) -> Result<Vec<T>, serde_json::Error> {
    let entries: Option<Vec<T>> = raw
        .map(|raw| serde_json::from_str(raw.get()))
        .transpose()?
        .flatten();
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

/// Turns the line and column of an error into an offset.
fn locate(text: &[u8], error: &serde_json::Error) -> Malformed {
    let start = match error.line() {
        0 | 1 => 0,
        line => memchr::memchr_iter(b'\n', text)
            .nth(line - 2)
            .map_or(0, |newline| newline + 1),
    };
    let offset = (start + error.column().saturating_sub(1)).min(text.len()) as u64;
    Malformed {
        offset,
        reason: without_line(&error.to_string()),
    }
}

/// Takes line and column off a message: they count from the start of the meta, which nobody knows. The offset in
/// the file says it better.
pub(super) fn without_line(message: &str) -> String {
    message
        .rsplit_once(" at line ")
        .map_or(message, |(reason, _)| reason)
        .to_owned()
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
        assert_eq!(
            (package.name.as_str(), package.default_channel.as_str()),
            ("p", "stable")
        );
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
    fn unknown_schemas_pass_whatever_they_hold() {
        for text in [
            r#"{"schema":"acme.notes","name":1,"properties":{"a":[]},"entries":7}"#,
            r#"{"schema":"olm.template.basic"}"#,
        ] {
            assert!(
                matches!(read_meta(text.as_bytes()), Ok(Meta::Other)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, offset, reason) in [
            ("{\"name\":\"p\"}", 0, "a meta without a schema"),
            (
                "{\"schema\":\"olm.package\"}",
                0,
                "a package without a name",
            ),
            (
                "{\"schema\":\"olm.package\",\n \"name\": 1}",
                34,
                "invalid type: integer `1`, expected a string",
            ),
            ("{\"schema\":\"olm.channel\",,}", 24, "key must be a string"),
            ("{\"name\":\"\u{ff}\"}", 9, "invalid unicode code point"),
            (
                "{\"schema\":\"olm.bundle\",\"schema\":\"olm.bundle\"}",
                30,
                "duplicate field `schema`",
            ),
        ] {
            let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
            let error = read_meta(&bytes).unwrap_err();
            assert_eq!(
                (error.offset, error.reason.as_str()),
                (offset, reason),
                "{text}"
            );
        }
    }
}
