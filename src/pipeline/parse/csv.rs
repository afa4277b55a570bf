//! What a ClusterServiceVersion says about a bundle.
//!
//! Newer catalogs carry it as one `olm.csv.metadata` property. Older ones carry the manifests of the bundle, in base64,
//! as `olm.bundle.object` properties; the same property is then made from the ClusterServiceVersion among them.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::yaml;

/// The type of the property.
pub(super) const CSV_METADATA: &str = "olm.csv.metadata";

const CSV_KIND: &str = "ClusterServiceVersion";

/// The value of an `olm.csv.metadata` property, as far as it is made here: what is not looked into stays raw.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CsvMetadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_service_definitions: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crd_descriptions: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    install_modes: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keywords: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maintainers: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maturity: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_kube_version: Option<Box<RawValue>>,
    #[serde(rename = "nativeAPIs", skip_serializing_if = "Option::is_none")]
    native_apis: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Csv {
    #[serde(default)]
    metadata: CsvObjectMeta,
    #[serde(default)]
    spec: CsvSpec,
}

#[derive(Default, Deserialize)]
struct CsvObjectMeta {
    #[serde(default)]
    annotations: Option<Box<RawValue>>,
    #[serde(default)]
    labels: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CsvSpec {
    #[serde(rename = "apiservicedefinitions")]
    api_service_definitions: Option<Box<RawValue>>,
    #[serde(rename = "customresourcedefinitions")]
    crd_descriptions: Option<Box<RawValue>>,
    description: Option<Box<RawValue>>,
    display_name: Option<Box<RawValue>>,
    install_modes: Option<Box<RawValue>>,
    keywords: Option<Box<RawValue>>,
    links: Option<Box<RawValue>>,
    maintainers: Option<Box<RawValue>>,
    maturity: Option<Box<RawValue>>,
    min_kube_version: Option<Box<RawValue>>,
    #[serde(rename = "nativeAPIs")]
    native_apis: Option<Box<RawValue>>,
    provider: Option<Box<RawValue>>,
}

/// Finds the ClusterServiceVersion among manifests in base64 and returns what is kept of it.
///
/// # Errors
///
/// A sentence, when a manifest cannot be read.
pub(super) fn find_csv(objects: &[Cow<str>]) -> Result<Option<CsvMetadata>, String> {
    for (index, data) in objects.iter().enumerate() {
        let wrong = |error: &dyn std::fmt::Display| format!("manifest {index}: {error}");
        let text: Cow<str> = if data.contains(char::is_whitespace) {
            data.split_ascii_whitespace().collect::<String>().into()
        } else {
            Cow::Borrowed(&**data)
        };
        let mut manifest = STANDARD.decode(&*text).map_err(|error| wrong(&error))?;
        if manifest.trim_ascii_start().first() != Some(&b'{') {
            manifest = yaml::to_json(&manifest).map_err(|malformed| wrong(&malformed.reason))?;
        }
        let kind: Kind = serde_json::from_slice(&manifest).map_err(|error| wrong(&error))?;
        if kind.kind == CSV_KIND {
            let csv: Csv = serde_json::from_slice(&manifest).map_err(|error| wrong(&error))?;
            return Ok(Some(csv.into()));
        }
    }
    Ok(None)
}

impl From<Csv> for CsvMetadata {
    fn from(csv: Csv) -> Self {
        let Csv { metadata, spec } = csv;
        CsvMetadata {
            annotations: metadata.annotations,
            api_service_definitions: spec.api_service_definitions,
            crd_descriptions: spec.crd_descriptions,
            description: spec.description,
            display_name: spec.display_name,
            install_modes: spec.install_modes,
            keywords: spec.keywords,
            labels: metadata.labels,
            links: spec.links,
            maintainers: spec.maintainers,
            maturity: spec.maturity,
            min_kube_version: spec.min_kube_version,
            native_apis: spec.native_apis,
            provider: spec.provider,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_csv_is_found_among_manifests_in_either_format() {
        let crd = STANDARD.encode(r#"{"kind":"CustomResourceDefinition","spec":{}}"#);
        let json = r#"{"kind":"ClusterServiceVersion","metadata":{"annotations":{"a":"b"}},
            "spec":{"displayName":"Thing","provider":{"name":"Acme"},"install":{"spec":{"deployments":[]}}}}"#;
        let yaml = "kind: ClusterServiceVersion\nmetadata:\n  annotations: {a: b}\nspec:\n  displayName: Thing\n  provider: {name: Acme}\n";
        for csv in [json, yaml] {
            let found = find_csv(&[crd.as_str().into(), STANDARD.encode(csv).into()]).unwrap().unwrap();
            assert_eq!(
                serde_json::to_string(&found).unwrap(),
                r#"{"annotations":{"a":"b"},"displayName":"Thing","provider":{"name":"Acme"}}"#
            );
        }
        assert!(find_csv(&[crd.into()]).unwrap().is_none());
        assert!(find_csv(&["%%%".into()]).is_err());
    }
}
