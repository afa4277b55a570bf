//! Where a catalog comes from.

use std::sync::OnceLock;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AGE, GROUP, SourceReference, VERSION};
use crate::resource::{
    Access, Column, ColumnKind, FieldError, ResourceType, format_duration, is_dns_subdomain, parse_duration,
};

/// The annotation that asks for a refresh now: each new value is one request.
pub const REFRESH_ANNOTATION: &str = "core.rukpak.io/refresh-requested-at";

/// The shortest time between two polls of a registry, unless another one is set.
const MIN_POLLING_INTERVAL: Duration = Duration::from_secs(60);

static MIN_POLLING_INTERVAL_SET: OnceLock<Duration> = OnceLock::new();

/// Sets the shortest `spec.pollingInterval` that is accepted, for all of this process. The first call counts.
pub fn set_min_polling_interval(shortest: Duration) {
    let _ = MIN_POLLING_INTERVAL_SET.set(shortest);
}

/// CatalogSource names an image that holds a File-Based Catalog. Its packages and bundles are served as Package
/// and BundleMetadata objects in the same namespace, and kept up to date.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.CatalogSource")]
pub struct CatalogSource {
    /// The version of this representation of the object.
    pub api_version: String,
    /// The type of the object.
    pub kind: String,
    /// Standard object metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: CatalogSourceSpec,
    /// What there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<CatalogSourceStatus>,
}

/// What to ingest, and how often to look for changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.CatalogSourceSpec")]
pub struct CatalogSourceSpec {
    /// The catalog image: a reference such as `quay.io/operatorhubio/catalog:latest`. Where the server allows
    /// local sources also `oci:PATH` (an OCI layout), `oci-archive:PATH` (a tar of one) or `fbc:PATH` (a plain
    /// directory).
    pub image: String,
    /// How often to ask the registry whether the image has changed, as a duration such as `45m`; at least `1m`.
    /// Without it, and for an image pinned by digest, the image is read once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polling_interval: Option<String>,
    /// The name of the catalog as people read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Who publishes the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// Which catalog to prefer where several hold the same package: the one with the higher number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The name of a Secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg` in the same
    /// namespace, with the credentials for the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret: Option<String>,
    /// Certificates that the registry's own is checked against, beside the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
}

/// A ConfigMap with certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.CABundle")]
pub struct CaBundle {
    /// The name of the ConfigMap, in the same namespace.
    pub name: String,
    /// The key in the ConfigMap that holds the certificates as PEM; `ca.crt` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What was ingested, and how that went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.CatalogSourceStatus")]
pub struct CatalogSourceStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the registry was last asked for the image.
    #[serde(default)]
    pub latest_image_poll: Option<Time>,
    /// The image whose content is served, by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_image: Option<String>,
    /// How many packages are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<i64>,
    /// How many bundles are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundles: Option<i64>,
    /// The last value of the annotation `core.rukpak.io/refresh-requested-at` that was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_refresh: Option<String>,
    /// Ready: a list of the packages can be answered now. Progressing: an ingest is going on. Degraded: the last
    /// attempt failed, wholly or in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The last ingest that was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ingest: Option<IngestSummary>,
    /// Packages that were not taken over as the image has them, at most 20 of them. Where there is an earlier
    /// version of such a package, that is served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub invalid_packages: Vec<InvalidPackage>,
}

/// What an ingest did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.IngestSummary")]
pub struct IngestSummary {
    /// When it began.
    pub started_at: MicroTime,
    /// When its last event was committed.
    pub completed_at: MicroTime,
    /// Bytes read from the image, as transferred.
    pub bytes_read: i64,
    /// Objects that are new.
    pub added: i64,
    /// Objects that were changed.
    pub modified: i64,
    /// Objects that are gone.
    pub deleted: i64,
    /// Objects that stayed as they were.
    pub unchanged: i64,
    /// Packages that were refused; see `invalidPackages`.
    pub invalid: i64,
}

/// A package that was not taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.InvalidPackage")]
pub struct InvalidPackage {
    /// The name of the package, or of the directory where a file is too broken to tell.
    pub name: String,
    /// What is wrong.
    pub message: String,
    /// The file within the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where in the file, in bytes from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

impl CatalogSourceStatus {
    /// Returns the condition of a type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

pub(super) const RESOURCE: ResourceType = ResourceType {
    group: GROUP,
    version: VERSION,
    kind: "CatalogSource",
    plural: "catalogsources",
    singular: "catalogsource",
    short_names: &["catsrc"],
    categories: &[],
    access: Access::ReadWrite { validate },
    columns: &[
        Column {
            name: "Image",
            kind: ColumnKind::String,
            description: "The catalog image",
            priority: 0,
            cell: |object| object["spec"]["image"].clone(),
        },
        Column {
            name: "Packages",
            kind: ColumnKind::Integer,
            description: "How many packages are served",
            priority: 0,
            cell: |object| object["status"]["packages"].clone(),
        },
        Column {
            name: "Ready",
            kind: ColumnKind::String,
            description: "Whether the packages can be listed",
            priority: 0,
            cell: |object| condition(object, "Ready")["status"].clone(),
        },
        Column {
            name: "Last Poll",
            kind: ColumnKind::Date,
            description: "Time since the registry was last asked for the image",
            priority: 0,
            cell: |object| object["status"]["latestImagePoll"].clone(),
        },
        AGE,
        Column {
            name: "Digest",
            kind: ColumnKind::String,
            description: "The digest of the image that is served",
            priority: 1,
            cell: |object| {
                let resolved = object["status"]["resolvedImage"].as_str().unwrap_or_default();
                resolved.rsplit_once('@').map(|(_, digest)| digest).into()
            },
        },
        Column {
            name: "Bundles",
            kind: ColumnKind::Integer,
            description: "How many bundles are served",
            priority: 1,
            cell: |object| object["status"]["bundles"].clone(),
        },
        Column {
            name: "Message",
            kind: ColumnKind::String,
            description: "What went wrong last, or else what is going on",
            priority: 1,
            cell: |object| {
                let of = |type_| condition(object, type_);
                let telling = ["Degraded", "Progressing", "Ready"];
                let shown = telling.into_iter().map(of).find(|condition| condition["status"] == "True");
                shown.unwrap_or(of("Ready"))["message"].clone()
            },
        },
    ],
    selectable: &[],
    parts: &[],
    schema: |generator| generator.subschema_for::<CatalogSource>(),
};

/// Returns a condition of an object, `null` if it has none of the type.
fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .and_then(|conditions| conditions.iter().find(|condition| condition["type"] == type_))
        .unwrap_or(&Value::Null)
}

fn validate(object: &Value) -> Vec<FieldError> {
    validate_with(object, *MIN_POLLING_INTERVAL_SET.get().unwrap_or(&MIN_POLLING_INTERVAL))
}

fn validate_with(object: &Value, shortest: Duration) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match object["spec"]["image"].as_str() {
        Some("") => errors.push(FieldError::required("spec.image", "")),
        Some(image) => {
            if let Err(error) = image.parse::<SourceReference>() {
                errors.push(FieldError::invalid("spec.image", image, &error.to_string()));
            }
        }
        // That it is missing, or no text, the schema says.
        None => {}
    }
    if let Some(text) = object["spec"]["pollingInterval"].as_str() {
        let field = "spec.pollingInterval";
        match parse_duration(text) {
            Err(error) => errors.push(FieldError::invalid(field, text, &error.to_string())),
            Ok(interval) if interval < shortest => {
                let detail = format!("must be at least {}", format_duration(shortest));
                errors.push(FieldError::invalid(field, text, &detail));
            }
            Ok(_) => {}
        }
    }
    let references = [("spec.pullSecret", "/spec/pullSecret"), ("spec.caBundle.name", "/spec/caBundle/name")];
    for (field, pointer) in references {
        if let Some(name) = object.pointer(pointer).and_then(Value::as_str)
            && !is_dns_subdomain(name)
        {
            errors.push(FieldError::invalid(field, name, "must be a DNS subdomain (RFC 1123)"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(spec: Value) -> Vec<String> {
        let errors = validate_with(&json!({"spec": spec}), Duration::from_secs(90));
        errors.into_iter().map(|error| format!("{error:?}")).collect()
    }

    #[test]
    fn what_a_catalog_source_says_is_checked() {
        for spec in [
            json!({"image": "quay.io/x/y:v1"}),
            json!({"image": "quay.io/x/y:v1", "pollingInterval": "90s", "pullSecret": "a.b-c"}),
            json!({"image": "oci:x", "caBundle": {"name": "ca"}}),
        ] {
            assert_eq!(said(spec.clone()), [""; 0], "{spec}");
        }
        for (spec, field) in [
            (json!({"image": ""}), "spec.image"),
            (json!({"image": "https://quay.io/x"}), "spec.image"),
            (json!({"image": "x", "pollingInterval": "89s"}), "must be at least 90s"),
            (json!({"image": "x", "pollingInterval": "often"}), "spec.pollingInterval"),
            (json!({"image": "x", "pullSecret": ""}), "spec.pullSecret"),
            (json!({"image": "x", "pullSecret": "a/b"}), "spec.pullSecret"),
            (json!({"image": "x", "caBundle": {"name": "A"}}), "spec.caBundle.name"),
        ] {
            let said = said(spec.clone());
            assert!(said.len() == 1 && said[0].contains(field), "{spec}: {said:?}");
        }
    }
}
