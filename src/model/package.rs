//! A package and its channels.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AGE, Deprecation, GROUP, VERSION};
use crate::resource::{Access, Column, ColumnKind, Part, ResourceType, SelectableField};

/// The resource that icon bytes are stored under: same namespace and name as their Package, never listed.
pub const ICONS: &str = "icons";

/// Package is a package of a catalog, with its channels and what its publisher says about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.Package")]
pub struct Package {
    /// The version of this representation of the object.
    pub api_version: String,
    /// The type of the object.
    pub kind: String,
    /// Standard object metadata.
    pub metadata: ObjectMeta,
    /// The package.
    pub spec: PackageSpec,
}

/// The content of a package. Its last field is the one that is long and rarely read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.PackageSpec")]
pub struct PackageSpec {
    /// The name of the CatalogSource the package comes from.
    pub catalog_source: String,
    /// The CatalogSource's name as people read it.
    pub catalog_source_display_name: String,
    /// Who publishes the CatalogSource.
    pub catalog_source_publisher: String,
    /// The namespace of the CatalogSource.
    pub catalog_source_namespace: String,
    /// Who provides the package.
    pub provider: Provider,
    /// The name of the package in its catalog.
    pub package_name: String,
    /// The package's name as people read it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// The channel that is installed from if no other is asked for.
    pub default_channel: String,
    /// The channels, sorted by name.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub channels: Vec<Channel>,
    /// The publisher's note that the whole package should no longer be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecation: Option<Deprecation>,
    /// The icon; its bytes are read from the subresource `icon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<Icon>,
    /// Words to find the package by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub keywords: Vec<String>,
    /// Who maintains the package.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub maintainers: Vec<Maintainer>,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub links: Vec<Link>,
    /// The oldest Kubernetes the package works on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub min_kube_version: String,
    /// How mature its publisher considers it, such as `alpha` or `stable`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub maturity: String,
    /// What the package does, as Markdown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Who provides a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "io.rukpak.core.v1beta1.Provider")]
pub struct Provider {
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The web site.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
}

/// A channel: a line of bundles, each replacing earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.Channel")]
pub struct Channel {
    /// The name of the channel.
    pub name: String,
    /// The bundle at the head: the one that no other entry replaces or skips.
    pub head: String,
    /// The bundles, newest version first.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub entries: Vec<ChannelEntry>,
    /// The publisher's note that the channel should no longer be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecation: Option<Deprecation>,
}

/// A bundle in a channel, and which bundles it can be reached from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "io.rukpak.core.v1beta1.ChannelEntry")]
pub struct ChannelEntry {
    /// The name of the bundle.
    pub name: String,
    /// The version of the bundle.
    #[serde(default)]
    pub version: String,
    /// The bundle that this one replaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub replaces: String,
    /// Bundles that may be skipped on the way here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub skips: Vec<String>,
    /// Versions that may be upgraded to this one directly, as a range such as `>=1.0.0 <1.2.0`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub skip_range: String,
}

/// An icon. The bytes are at `…/packages/NAME/icon`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "io.rukpak.core.v1beta1.Icon")]
pub struct Icon {
    /// The media type, such as `image/svg+xml`.
    pub mediatype: String,
    /// What names the bytes: `sha256:` and their hash.
    pub digest: String,
    /// How many bytes there are.
    pub size: i64,
}

/// Somebody who maintains a package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "io.rukpak.core.v1beta1.Maintainer")]
pub struct Maintainer {
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The mail address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub email: String,
}

/// Where to read more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "io.rukpak.core.v1beta1.Link")]
pub struct Link {
    /// What is there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
}

pub(super) const RESOURCE: ResourceType = ResourceType {
    group: GROUP,
    version: VERSION,
    kind: "Package",
    plural: "packages",
    singular: "package",
    short_names: &["pkg"],
    categories: &[],
    access: Access::ReadOnly,
    columns: &[
        Column {
            name: "Catalog",
            kind: ColumnKind::String,
            description: "The CatalogSource the package comes from",
            priority: 0,
            cell: |object| object["spec"]["catalogSource"].clone(),
        },
        Column {
            name: "Channel",
            kind: ColumnKind::String,
            description: "The default channel",
            priority: 0,
            cell: |object| object["spec"]["defaultChannel"].clone(),
        },
        Column {
            name: "Version",
            kind: ColumnKind::String,
            description: "The version at the head of the default channel",
            priority: 0,
            cell: head_version,
        },
        AGE,
        Column {
            name: "Display Name",
            kind: ColumnKind::String,
            description: "The package's name as people read it",
            priority: 1,
            cell: |object| object["spec"]["displayName"].clone(),
        },
        Column {
            name: "Provider",
            kind: ColumnKind::String,
            description: "Who provides the package",
            priority: 1,
            cell: |object| object["spec"]["provider"]["name"].clone(),
        },
        Column {
            name: "Channels",
            kind: ColumnKind::String,
            description: "All channels",
            priority: 1,
            cell: |object| {
                let names: Vec<_> = channels(object).filter_map(|channel| channel["name"].as_str()).collect();
                names.join(",").into()
            },
        },
        Column {
            name: "Bundles",
            kind: ColumnKind::Integer,
            description: "How many bundles the channels hold",
            priority: 1,
            cell: |object| {
                let entries = channels(object).filter_map(|channel| channel["entries"].as_array()).flatten();
                let names: std::collections::BTreeSet<_> =
                    entries.filter_map(|entry| entry["name"].as_str()).collect();
                names.len().into()
            },
        },
        Column {
            name: "Deprecated",
            kind: ColumnKind::String,
            description: "Whether the publisher advises against the package",
            priority: 1,
            cell: |object| if object["spec"]["deprecation"].is_null() { "" } else { "true" }.into(),
        },
    ],
    selectable: &[
        SelectableField { path: "spec.catalogSource" },
        SelectableField { path: "spec.packageName" },
    ],
    parts: &[Part { name: "icon", stored_as: ICONS }],
    schema: |generator| generator.subschema_for::<Package>(),
};

fn channels(object: &Value) -> impl Iterator<Item = &Value> {
    object["spec"]["channels"].as_array().into_iter().flatten()
}

fn head_version(object: &Value) -> Value {
    let default = &object["spec"]["defaultChannel"];
    let channel = channels(object).find(|channel| channel["name"] == *default);
    let head = channel.and_then(|channel| {
        channel["entries"].as_array()?.iter().find(|entry| entry["name"] == channel["head"])
    });
    head.map_or(Value::Null, |entry| entry["version"].clone())
}
