//! A bundle: one version of a package.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AGE, Deprecation, GROUP, VERSION};
use crate::resource::{Access, Column, ColumnKind, ResourceType, SelectableField};

/// BundleMetadata is a bundle of a catalog: one version of a package, with its image and what it declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.BundleMetadata")]
pub struct BundleMetadata {
    /// The version of this representation of the object.
    pub api_version: String,
    /// The type of the object.
    pub kind: String,
    /// Standard object metadata.
    pub metadata: ObjectMeta,
    /// The bundle.
    pub spec: BundleMetadataSpec,
}

/// The content of a bundle. The last two fields are the large ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.BundleMetadataSpec")]
pub struct BundleMetadataSpec {
    /// The name of the CatalogSource the bundle comes from.
    pub catalog_source: String,
    /// The package the bundle belongs to.
    pub package: String,
    /// The version, as semantic versioning has it.
    pub version: String,
    /// The image of the bundle.
    #[serde(default)]
    pub image: String,
    /// The channels that hold the bundle, sorted by name.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub channels: Vec<String>,
    /// The publisher's note that the bundle should no longer be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecation: Option<Deprecation>,
    /// The APIs the bundle provides: its `olm.gvk` properties.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "providedAPIs")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub provided_apis: Vec<ApiKey>,
    /// The APIs the bundle needs: its `olm.gvk.required` properties.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "requiredAPIs")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub required_apis: Vec<ApiKey>,
    /// The images that the bundle uses.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub related_images: Vec<RelatedImage>,
    /// The properties of the bundle as the catalog has them, but for `olm.bundle.object`, whose manifests are
    /// summed up as one `olm.csv.metadata`.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub properties: Vec<Property>,
}

/// An API by group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "io.rukpak.core.v1beta1.APIKey")]
pub struct ApiKey {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind.
    pub kind: String,
}

/// An image that a bundle uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "io.rukpak.core.v1beta1.RelatedImage")]
pub struct RelatedImage {
    /// What the image is for.
    #[serde(default)]
    pub name: String,
    /// The reference of the image.
    #[serde(default)]
    pub image: String,
}

/// A property: a type, and a value whose form the type decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "io.rukpak.core.v1beta1.Property")]
pub struct Property {
    /// The type, such as `olm.package`.
    pub r#type: String,
    /// The value.
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub value: Value,
}

pub(super) const RESOURCE: ResourceType = ResourceType {
    group: GROUP,
    version: VERSION,
    kind: "BundleMetadata",
    plural: "bundlemetadata",
    singular: "bundlemetadata",
    short_names: &[],
    categories: &[],
    access: Access::ReadOnly,
    columns: &[
        Column {
            name: "Catalog",
            kind: ColumnKind::String,
            description: "The CatalogSource the bundle comes from",
            priority: 0,
            cell: |object| object["spec"]["catalogSource"].clone(),
        },
        Column {
            name: "Package",
            kind: ColumnKind::String,
            description: "The package the bundle belongs to",
            priority: 0,
            cell: |object| object["spec"]["package"].clone(),
        },
        Column {
            name: "Version",
            kind: ColumnKind::String,
            description: "The version",
            priority: 0,
            cell: |object| object["spec"]["version"].clone(),
        },
        AGE,
        Column {
            name: "Channels",
            kind: ColumnKind::String,
            description: "The channels that hold the bundle",
            priority: 1,
            cell: |object| {
                let names = object["spec"]["channels"].as_array().into_iter().flatten();
                names.filter_map(Value::as_str).collect::<Vec<_>>().join(",").into()
            },
        },
        Column {
            name: "Image",
            kind: ColumnKind::String,
            description: "The image of the bundle",
            priority: 1,
            cell: |object| object["spec"]["image"].clone(),
        },
        Column {
            name: "Deprecated",
            kind: ColumnKind::String,
            description: "Whether the publisher advises against the bundle",
            priority: 1,
            cell: |object| if object["spec"]["deprecation"].is_null() { "" } else { "true" }.into(),
        },
    ],
    selectable: &[SelectableField { path: "spec.catalogSource" }, SelectableField { path: "spec.package" }],
    parts: &[],
    schema: |generator| generator.subschema_for::<BundleMetadata>(),
};
