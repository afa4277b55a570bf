//! `olm.bundle`: read once, and written at once in the form it is served in.
//!
//! Bundles are nearly all of a catalog's bytes, so this is the hot path: property values are never turned into
//! trees, only stripped of white space on their way into the text that is packed and stored.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::compact::compact_into;
use super::csv::{CSV_METADATA, find_csv};
use super::meta::{MAX_NAME_BYTES, null_as_empty, shown};
use crate::model::{ApiKey, RelatedImage};

const PACKAGE: &str = "olm.package";
const GVK: &str = "olm.gvk";
const GVK_REQUIRED: &str = "olm.gvk.required";
const BUNDLE_OBJECT: &str = "olm.bundle.object";

/// A bundle, as far as it can be known from its own meta.
#[derive(Debug)]
pub struct BundleMeta {
    /// The name.
    pub name: String,
    /// The package it belongs to.
    pub package: String,
    /// Its image.
    pub image: String,
    /// Its version, empty when there is a fault.
    pub version: String,
    /// The APIs it provides.
    pub provided_apis: Vec<ApiKey>,
    /// The APIs it needs.
    pub required_apis: Vec<ApiKey>,
    /// The end of the BundleMetadata object from `relatedImages` on, empty when there is a fault; see
    /// [`crate::store::Object`].
    pub text: Vec<u8>,
    /// What is wrong with it, if anything is.
    pub fault: Option<String>,
}

/// A property as it stands in the catalog.
#[derive(Deserialize)]
pub(super) struct RawProperty<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "null_as_empty")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PackageProperty<'a> {
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    package_name: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct BundleObject<'a> {
    #[serde(borrow, default, deserialize_with = "null_as_empty")]
    data: Cow<'a, str>,
}

/// What the properties of a bundle say, gathered while they are written.
struct Properties<'a> {
    /// The end of the object, as far as it is written.
    text: Vec<u8>,
    /// Where the first property begins in it.
    start: usize,
    packages: Vec<PackageProperty<'a>>,
    provided_apis: Vec<ApiKey>,
    required_apis: Vec<ApiKey>,
    objects: Vec<Cow<'a, str>>,
    has_csv_metadata: bool,
}

/// Turns the fields of an `olm.bundle` into what is kept of it.
pub(super) fn read_bundle(
    name: String,
    package: String,
    image: String,
    properties: &[RawProperty],
    related_images: &[RelatedImage],
) -> BundleMeta {
    let mut bundle = BundleMeta {
        name,
        package,
        image,
        version: String::new(),
        provided_apis: Vec::new(),
        required_apis: Vec::new(),
        text: Vec::new(),
        fault: None,
    };
    if let Err(fault) = fill(&mut bundle, properties, related_images) {
        bundle.fault = Some(fault);
    }
    bundle
}

fn fill(bundle: &mut BundleMeta, raw: &[RawProperty], related_images: &[RelatedImage]) -> Result<(), String> {
    if bundle.name.is_empty() {
        return Err("a bundle without a name".to_owned());
    }
    let mut properties = Properties::new(raw, related_images);
    for (index, property) in raw.iter().enumerate() {
        properties.take(property).map_err(|fault| format!("property {index}: {fault}"))?;
    }
    properties.sum_up_objects()?;
    let [package] = &properties.packages[..] else {
        let count = properties.packages.len();
        return Err(format!("must have exactly one `{PACKAGE}` property, found {count}"));
    };
    if package.package_name != bundle.package {
        return Err(format!("its `{PACKAGE}` property names package `{}`", shown(&package.package_name)));
    }
    if let Err(error) = semver::Version::parse(&package.version) {
        return Err(format!("version `{}`: {error}", shown(&package.version)));
    }
    if package.version.len() > MAX_NAME_BYTES {
        return Err(format!("a version of more than {MAX_NAME_BYTES} bytes"));
    }
    if bundle.image.is_empty() && properties.objects.is_empty() {
        return Err("has no image".to_owned());
    }
    bundle.version = package.version.clone().into_owned();
    bundle.text = properties.finish();
    bundle.provided_apis = properties.provided_apis;
    bundle.required_apis = properties.required_apis;
    Ok(())
}

impl<'a> Properties<'a> {
    fn new(raw: &[RawProperty<'_>], related_images: &[RelatedImage]) -> Self {
        // Room for all, so that nothing is moved while it grows.
        let images = related_images.iter().map(|image| image.name.len() + image.image.len() + 32);
        let values = raw.iter().map(|property| property.value.map_or(0, |value| value.get().len()) + 64);
        let mut text = Vec::with_capacity(images.chain(values).sum::<usize>() + 64);
        text.extend_from_slice(b",\"relatedImages\":");
        serde_json::to_writer(&mut text, related_images).expect("plain data can be written");
        text.extend_from_slice(b",\"properties\":[");
        Properties {
            start: text.len(),
            text,
            packages: Vec::new(),
            provided_apis: Vec::new(),
            required_apis: Vec::new(),
            objects: Vec::new(),
            has_csv_metadata: false,
        }
    }

    fn take(&mut self, property: &RawProperty<'a>) -> Result<(), String> {
        if property.kind.is_empty() {
            return Err("without a type".to_owned());
        }
        let value = property.value.ok_or("without a value")?;
        let wrong = |error: serde_json::Error| format!("`{}`: {error}", shown(&property.kind));
        match &*property.kind {
            BUNDLE_OBJECT => {
                let object: BundleObject = serde_json::from_str(value.get()).map_err(wrong)?;
                self.objects.push(object.data);
                return Ok(());
            }
            PACKAGE => self.packages.push(serde_json::from_str(value.get()).map_err(wrong)?),
            GVK => self.provided_apis.push(serde_json::from_str(value.get()).map_err(wrong)?),
            GVK_REQUIRED => self.required_apis.push(serde_json::from_str(value.get()).map_err(wrong)?),
            CSV_METADATA => self.has_csv_metadata = true,
            _ => {}
        }
        self.write(&property.kind, value.get())
    }

    fn write(&mut self, kind: &str, value: &str) -> Result<(), String> {
        self.text.extend_from_slice(if self.text.len() == self.start {
            b"{\"type\":"
        } else {
            b",{\"type\":"
        });
        serde_json::to_writer(&mut self.text, kind).expect("strings can be written");
        self.text.extend_from_slice(b",\"value\":");
        compact_into(value.as_bytes(), &mut self.text)
            .map_err(|reason| format!("`{}`: {reason}", shown(kind)))?;
        self.text.push(b'}');
        Ok(())
    }

    /// Stands in for manifests, which are not kept, with what they say.
    fn sum_up_objects(&mut self) -> Result<(), String> {
        if self.has_csv_metadata {
            return Ok(());
        }
        if let Some(metadata) = find_csv(&self.objects)? {
            let value = serde_json::to_string(&metadata).map_err(|error| error.to_string())?;
            self.write(CSV_METADATA, &value)?;
        }
        Ok(())
    }

    /// Returns the end of the object.
    fn finish(&mut self) -> Vec<u8> {
        self.text.extend_from_slice(b"]}}");
        std::mem::take(&mut self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::parse::meta::{Meta, read_meta};

    fn read(text: &str) -> BundleMeta {
        match read_meta(text.as_bytes()) {
            Ok(Meta::Bundle(bundle)) => bundle,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bundle_is_read_and_its_tail_written() {
        let bundle = read(
            r#"{"schema": "olm.bundle", "name": "p.v1", "package": "p", "image": "quay.io/p@sha256:1",
                "relatedImages": [{"name": "op", "image": "quay.io/op"}],
                "properties": [
                    {"type": "olm.package", "value": {"packageName": "p", "version": "1.0.0"}},
                    {"type": "olm.gvk", "value": {"group": "g", "version": "v1", "kind": "K"}},
                    {"type": "olm.gvk.required", "value": {"group": "g", "version": "v1", "kind": "R"}},
                    {"type": "acme.note", "value": { "a": [ 1, "x  y" ] }}]}"#,
        );
        assert_eq!(bundle.fault, None);
        assert_eq!(bundle.version, "1.0.0");
        assert_eq!(bundle.provided_apis[0].kind, "K");
        assert_eq!(bundle.required_apis[0].kind, "R");
        let tail = String::from_utf8(bundle.text).unwrap();
        assert!(
            tail.starts_with(r#","relatedImages":[{"name":"op","image":"quay.io/op"}],"properties":[{"#),
            "{tail}"
        );
        assert!(tail.ends_with(r#"{"type":"acme.note","value":{"a":[1,"x  y"]}}]}}"#), "{tail}");
    }

    #[test]
    fn faults_of_a_bundle_are_its_own() {
        let with = |properties: &str| {
            read(&format!(
                r#"{{"schema":"olm.bundle","name":"p.v1","package":"p","image":"i","properties":{properties}}}"#
            ))
            .fault
            .unwrap_or_default()
        };
        let package = r#"{"type":"olm.package","value":{"packageName":"p","version":"1.0.0"}}"#;
        assert_eq!(with(&format!("[{package}]")), "");
        for (properties, fault) in [
            ("[]".to_owned(), "must have exactly one `olm.package` property, found 0"),
            (format!("[{package},{package}]"), "must have exactly one `olm.package` property, found 2"),
            (package.replace("\"p\"", "\"q\""), "its `olm.package` property names package `q`"),
            (
                package.replace("1.0.0", "1.0"),
                "version `1.0`: unexpected end of input while parsing minor version number",
            ),
            ("{\"value\":1}".to_owned(), "property 0: without a type"),
            ("{\"type\":\"x\"}".to_owned(), "property 0: without a value"),
        ] {
            let properties = if properties.starts_with('[') { properties } else { format!("[{properties}]") };
            assert_eq!(with(&properties), fault, "{properties}");
        }
    }
}
