//! From a package to the objects it is served as.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::draft::{BundleSummary, Content};
use super::rules::{ValidBundle, ValidPackage};
use super::{Catalog, ReconcileError};
use crate::model::{
    API_VERSION, ApiKey, CATALOG_LABEL, CatalogCacheStatus, Channel, ChannelEntry, Deprecation, Icon, Link,
    Maintainer, Metadata, PACKAGE_LABEL, PROVIDER_LABEL, PackageSpec, Provider,
};
use crate::resource::{fits_label, now};
use crate::store::{Key, Object, Operation, Stored, Tail};

/// The end of a cut object, for taking one that is not cut apart.
const CLOSING: &str = "}}";

/// A BundleMetadata up to where it is cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BundleHead {
    api_version: String,
    kind: String,
    pub(super) metadata: Metadata,
    pub(super) spec: BundleHeadSpec,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BundleHeadSpec {
    pub(super) catalog_source: String,
    pub(super) package: String,
    version: String,
    image: String,
    pub(super) channels: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deprecation: Option<Deprecation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "providedAPIs")]
    provided_apis: Vec<ApiKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "requiredAPIs")]
    required_apis: Vec<ApiKey>,
}

/// A Package; its description is the part behind the cut.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PackageObject<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: &'a PackageSpec,
}

/// What tells an object from others, and from earlier ones of the same name.
pub(super) struct Identity {
    name: String,
    uid: String,
    creation_timestamp: Time,
}

impl Identity {
    /// Of an object that is made now.
    pub(super) fn new(name: &str) -> Self {
        let uid = uuid::Uuid::new_v4().to_string();
        Identity { name: name.to_owned(), uid, creation_timestamp: now() }
    }

    /// Of an object that is stored.
    pub(super) fn of(object: &Object) -> Result<Self, ReconcileError> {
        #[derive(Deserialize)]
        struct WithMetadata {
            metadata: Metadata,
        }
        let WithMetadata { metadata } = serde_json::from_slice(&object.summary())
            .map_err(|error| ReconcileError::Damaged(error.to_string()))?;
        let Metadata { name, uid, creation_timestamp, .. } = metadata;
        Ok(Identity { name, uid, creation_timestamp })
    }
}

/// What the `olm.csv.metadata` property of a bundle says about its package.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CsvFacts {
    description: Option<String>,
    display_name: Option<String>,
    keywords: Option<Vec<String>>,
    links: Option<Vec<Link>>,
    maintainers: Option<Vec<Maintainer>>,
    maturity: Option<String>,
    min_kube_version: Option<String>,
    provider: Option<Provider>,
}

/// The properties of a bundle, without looking into their values.
#[derive(Deserialize)]
struct TailFields<'a> {
    #[serde(borrow)]
    properties: Vec<TailProperty<'a>>,
}

#[derive(Deserialize)]
struct TailProperty<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    value: &'a RawValue,
}

impl Catalog {
    fn metadata(&self, identity: Identity, package: &str, provider: &str) -> Metadata {
        let labels = [(CATALOG_LABEL, &*self.name), (PACKAGE_LABEL, package), (PROVIDER_LABEL, provider)];
        Metadata {
            name: identity.name,
            namespace: self.namespace.clone(),
            uid: identity.uid,
            creation_timestamp: identity.creation_timestamp,
            labels: labels
                .into_iter()
                .filter(|(_, value)| !value.is_empty() && fits_label(value))
                .map(|(label, value)| (label.to_owned(), value.to_owned()))
                .collect::<BTreeMap<_, _>>(),
            owner_references: vec![OwnerReference {
                api_version: API_VERSION.to_owned(),
                kind: "CatalogSource".to_owned(),
                name: self.name.clone(),
                uid: self.uid.clone(),
                controller: Some(true),
                block_owner_deletion: None,
            }],
        }
    }

    /// Returns a BundleMetadata for a bundle that was read.
    pub(super) fn bundle(
        &self,
        identity: Identity,
        package: &str,
        bundle: &ValidBundle,
        summary: BundleSummary,
        tail: Tail,
    ) -> Object {
        let head = BundleHead {
            api_version: API_VERSION.to_owned(),
            kind: "BundleMetadata".to_owned(),
            metadata: self.metadata(identity, package, ""),
            spec: BundleHeadSpec {
                catalog_source: self.name.clone(),
                package: package.to_owned(),
                version: bundle.version.to_string(),
                image: summary.image,
                channels: bundle.channels.clone(),
                deprecation: bundle.deprecation.clone(),
                provided_apis: summary.provided_apis,
                required_apis: summary.required_apis,
            },
        };
        cut(&head, tail)
    }

    /// Returns a Package.
    pub(super) fn package(
        &self,
        identity: Identity,
        package: &ValidPackage,
        channels: Vec<Channel>,
        icon: Option<&Icon>,
        csv: CsvFacts,
    ) -> Object {
        let provider = csv.provider.unwrap_or_default();
        let metadata = self.metadata(identity, &package.name, &provider.name);
        let description = csv
            .description
            .filter(|description| !description.is_empty())
            .unwrap_or_else(|| package.facts.description.clone());
        let spec = PackageSpec {
            catalog_source: self.name.clone(),
            catalog_source_display_name: self.presentation.display_name.clone(),
            catalog_source_publisher: self.presentation.publisher.clone(),
            catalog_source_namespace: self.namespace.clone(),
            provider,
            package_name: package.name.clone(),
            display_name: csv.display_name.unwrap_or_default(),
            default_channel: package.facts.default_channel.clone(),
            channels,
            deprecation: package.deprecation.clone(),
            icon: icon.cloned(),
            keywords: csv.keywords.unwrap_or_default(),
            maintainers: csv.maintainers.unwrap_or_default(),
            links: csv.links.unwrap_or_default(),
            min_kube_version: csv.min_kube_version.unwrap_or_default(),
            maturity: csv.maturity.unwrap_or_default(),
            description: String::new(),
        };
        let object = PackageObject { api_version: API_VERSION, kind: "Package", metadata, spec: &spec };
        let tail = match description.as_str() {
            "" => Tail::None,
            text => Tail::pack(format!(",\"description\":{}}}}}", quoted(text)).as_bytes()),
        };
        match tail {
            Tail::None => Object::whole(encode(&object)),
            tail => cut(&object, tail),
        }
    }
}

/// A CatalogCache as it is stored: its operators are put in when it is read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CacheObject {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    status: CatalogCacheStatus,
    spec: EmptySpec,
}

#[derive(Serialize)]
struct EmptySpec {}

impl Catalog {
    /// Returns the operation that notes that bundles of the catalog have changed.
    ///
    /// # Errors
    ///
    /// [`ReconcileError::Damaged`] when what is stored cannot be read.
    pub fn touch_cache(&self, stored: Option<&Stored>) -> Result<Operation, ReconcileError> {
        let identity = match stored {
            Some(stored) => Identity::of(&stored.object)?,
            None => Identity::new(&self.name),
        };
        let mut metadata = self.metadata(identity, "", "");
        metadata.labels.remove(PACKAGE_LABEL);
        let updated = Condition {
            type_: "CacheUpdatedAt".to_owned(),
            status: "True".to_owned(),
            reason: "CatalogIngested".to_owned(),
            message: "the bundles of the catalog changed".to_owned(),
            last_transition_time: now(),
            observed_generation: None,
        };
        let object = CacheObject {
            api_version: API_VERSION,
            kind: "CatalogCache",
            metadata,
            status: CatalogCacheStatus { conditions: vec![updated] },
            spec: EmptySpec {},
        };
        let object = cut(&object, Tail::Deferred);
        let key = self.cache_key();
        Ok(match stored {
            Some(stored) => Operation::replace(key, stored.version, object),
            None => Operation::create(key, object),
        })
    }

    /// Returns where the CatalogCache is.
    pub fn cache_key(&self) -> Key {
        Key::new("catalogcaches", &self.namespace, &self.name)
    }
}

/// Returns the channels as they are served: sorted by name, entries newest first.
///
/// # Errors
///
/// [`ReconcileError::Spool`] when their entries cannot be read.
pub(super) fn channels(package: &ValidPackage, content: &Content) -> Result<Vec<Channel>, ReconcileError> {
    let versions: HashMap<_, _> =
        package.bundles.iter().map(|bundle| (bundle.name.as_str(), &bundle.version)).collect();
    let served = package.channels.iter().map(|channel| {
        let mut entries = content.channel(channel.spooled)?.entries;
        entries.sort_by(|a, b| {
            let version = |name: &str| versions.get(name);
            version(&b.name).cmp(&version(&a.name)).then_with(|| a.name.cmp(&b.name))
        });
        let entries = entries.into_iter().map(|entry| ChannelEntry {
            version: versions.get(entry.name.as_str()).map(ToString::to_string).unwrap_or_default(),
            name: entry.name,
            replaces: entry.replaces,
            skips: entry.skips,
            skip_range: entry.skip_range,
        });
        Ok(Channel {
            name: channel.name.clone(),
            head: channel.head.clone(),
            entries: entries.collect(),
            deprecation: channel.deprecation.clone(),
        })
    });
    served.collect()
}

/// Reads what a bundle says about its package from the stored form of the bundle.
pub(super) fn csv_facts(bundle: &Object) -> Result<CsvFacts, ReconcileError> {
    let tail = bundle.tail().unpack().map_err(|error| ReconcileError::Damaged(error.to_string()))?;
    // `,"relatedImages":…,"properties":…}}`, which with one brace moved to the front is an object.
    let text = std::str::from_utf8(&tail).map_err(|error| ReconcileError::Damaged(error.to_string()))?;
    let Some(fields) = text.strip_prefix(',').and_then(|text| text.strip_suffix('}')) else {
        return Ok(CsvFacts::default());
    };
    let fields = format!("{{{fields}");
    let fields: TailFields =
        serde_json::from_str(&fields).map_err(|error| ReconcileError::Damaged(error.to_string()))?;
    let csv = fields.properties.iter().find(|property| property.kind == "olm.csv.metadata");
    // A value of an unexpected form says nothing; it is the publisher's, and the package is good without it.
    Ok(csv.and_then(|csv| serde_json::from_str(csv.value.get()).ok()).unwrap_or_default())
}

/// Reads the part of a stored BundleMetadata that other metas decide.
pub(super) fn bundle_head(bundle: &Object) -> Result<BundleHead, ReconcileError> {
    serde_json::from_slice(&bundle.summary()).map_err(|error| ReconcileError::Damaged(error.to_string()))
}

/// Encodes an object whose last field is `spec`, cut before the end of it.
pub(super) fn cut<T: Serialize>(head: &T, tail: Tail) -> Object {
    let mut text = encode(head);
    debug_assert!(text.ends_with(CLOSING.as_bytes()));
    text.truncate(text.len() - CLOSING.len());
    Object::cut(text, tail)
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data can be written")
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("strings can be written")
}
