//! All bundles of a catalog in one object, for clients of the prototype.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AGE, ApiKey, GROUP, VERSION};
use crate::resource::{Access, Column, ColumnKind, ResourceType};

/// CatalogCache lists the bundles of the CatalogSource of the same name. It is put together from BundleMetadata
/// objects when it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.CatalogCache")]
pub struct CatalogCache {
    /// The version of this representation of the object.
    pub api_version: String,
    /// The type of the object.
    pub kind: String,
    /// Standard object metadata.
    pub metadata: ObjectMeta,
    /// What there is to say about the list.
    #[serde(default)]
    pub status: CatalogCacheStatus,
    /// The list.
    pub spec: CatalogCacheSpec,
}

/// The bundles of a catalog.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.CatalogCacheSpec")]
pub struct CatalogCacheSpec {
    /// One entry a bundle, sorted by name.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub operators: Vec<Operator>,
}

/// How fresh the list of bundles is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.CatalogCacheStatus")]
pub struct CatalogCacheStatus {
    /// CacheUpdatedAt: when the bundles last changed.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A bundle in brief.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "io.rukpak.core.v1beta1.Operator")]
pub struct Operator {
    /// The name of the bundle.
    pub name: String,
    /// The package it belongs to.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The APIs it provides.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub providedapis: Vec<ApiKey>,
    /// The APIs it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub requiredapis: Vec<ApiKey>,
    /// The image of the bundle.
    pub bundlepath: String,
}

pub(super) const RESOURCE: ResourceType = ResourceType {
    group: GROUP,
    version: VERSION,
    kind: "CatalogCache",
    plural: "catalogcaches",
    singular: "catalogcache",
    short_names: &[],
    categories: &[],
    access: Access::ReadOnly,
    columns: &[
        Column {
            name: "Updated",
            kind: ColumnKind::Date,
            description: "Time since the bundles last changed",
            priority: 0,
            cell: |object| {
                let conditions = object["status"]["conditions"].as_array();
                let updated = conditions.and_then(|conditions| {
                    conditions.iter().find(|condition| condition["type"] == "CacheUpdatedAt")
                });
                updated.map_or(Value::Null, |condition| condition["lastTransitionTime"].clone())
            },
        },
        AGE,
    ],
    selectable: &[],
    parts: &[],
    schema: |generator| generator.subschema_for::<CatalogCache>(),
};
