//! The types of the API group `core.rukpak.io/v1beta1`, as they are written and read.
//!
//! Their doc comments are what `kubectl explain` prints.

mod bundle_metadata;
mod catalog_cache;
mod catalog_source;
mod package;
mod source;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use self::bundle_metadata::{ApiKey, BundleMetadata, BundleMetadataSpec, Property, RelatedImage};
pub use self::catalog_cache::{CatalogCache, CatalogCacheSpec, CatalogCacheStatus, Operator};
pub use self::catalog_source::{
    CaBundle, CatalogSource, CatalogSourceSpec, CatalogSourceStatus, IngestSummary, InvalidPackage,
    REFRESH_ANNOTATION, set_min_polling_interval,
};
pub use self::package::{
    Channel, ChannelEntry, ICONS, Icon, Link, Maintainer, Package, PackageSpec, Provider,
};
pub use self::source::{InvalidSource, SourceReference};
use crate::resource::{Column, ColumnKind, ResourceType};

/// The API group.
pub const GROUP: &str = "core.rukpak.io";

/// The version of the group.
pub const VERSION: &str = "v1beta1";

/// `group/version`, as objects carry it.
pub const API_VERSION: &str = "core.rukpak.io/v1beta1";

/// Label: the CatalogSource an object comes from.
pub const CATALOG_LABEL: &str = "core.rukpak.io/catalog";

/// Label: the package an object belongs to.
pub const PACKAGE_LABEL: &str = "core.rukpak.io/package";

/// Label: who provides the package.
pub const PROVIDER_LABEL: &str = "core.rukpak.io/provider";

/// The type whose objects say what to ingest.
pub const CATALOG_SOURCE: &ResourceType = &catalog_source::RESOURCE;

/// Every type that is served, in the order discovery lists them.
pub const RESOURCES: &[&ResourceType] =
    &[&bundle_metadata::RESOURCE, &catalog_cache::RESOURCE, CATALOG_SOURCE, &package::RESOURCE];

/// The metadata of objects that the pipeline makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The name, unique among the objects of its kind and namespace.
    pub name: String,
    /// The namespace.
    pub namespace: String,
    /// What tells this object from an earlier one of the same name.
    pub uid: String,
    /// When it was created.
    pub creation_timestamp: Time,
    /// What it can be found by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The CatalogSource it comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

/// A note from the publisher that something should no longer be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "io.rukpak.core.v1beta1.Deprecation")]
pub struct Deprecation {
    /// Why, and what to use instead.
    pub message: String,
}

/// The column every type ends with.
const AGE: Column = Column {
    name: "Age",
    kind: ColumnKind::Date,
    description: "Time since the object was created",
    priority: 0,
    cell: |object| object["metadata"]["creationTimestamp"].clone(),
};
