//! What ingesting a catalog appends: a package's events, and the records that let the next ingest do less.

use serde::{Deserialize, Serialize};

use crate::store::{Key, Object, Operation};

/// The resource of [`Checkpoint`]s: one record a CatalogSource, under its name.
pub const CHECKPOINTS: &str = "checkpoints";

/// The resource of [`Provenance`] records: one a package, named `<catalogsource>/<package>`.
pub const PROVENANCE: &str = "provenance";

/// The events of one package, in the order they must be committed in.
#[derive(Debug)]
pub struct PackageEvents {
    /// The package, by its name in the catalog.
    pub package: String,
    /// Bundles that are new or changed, then the Package with what is stored beside it, then deletions. A prefix
    /// of them leaves every reader with bundles that exist for each entry of the Package.
    pub operations: Vec<Operation>,
    /// What they do to served objects.
    pub tally: Tally,
}

/// Counts of served objects (Packages and BundleMetadata) by what happened to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Objects that are new.
    pub added: u64,
    /// Objects that were changed.
    pub modified: u64,
    /// Objects that are gone.
    pub deleted: u64,
    /// Objects that stayed as they were.
    pub unchanged: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.modified += other.modified;
        self.deleted += other.deleted;
        self.unchanged += other.unchanged;
    }
}

/// How far a catalog was ingested. Moves with the last batch of an ingest, so that an interrupted one is resumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The CatalogSource, by uid: a later one of the same name starts anew.
    pub catalog_source_uid: String,
    /// What was read, as `spec.image` has it.
    pub image: String,
    /// The digest of the manifest that was read; none for a plain directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The names under which Packages present their catalog.
    #[serde(default)]
    pub presentation: Presentation,
    /// How many packages are served.
    pub packages: u64,
    /// How many bundles are served.
    pub bundles: u64,
}

/// What Packages say about their CatalogSource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Presentation {
    /// Its name as people read it.
    #[serde(default)]
    pub display_name: String,
    /// Who publishes it.
    #[serde(default)]
    pub publisher: String,
}

/// What the objects of one package were made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// The name of the Package object.
    pub object: String,
    /// A hash of everything the Package object was made from.
    pub fingerprint: MetaHash,
    /// The files of the catalog that hold the package.
    pub files: Vec<String>,
    /// The digest of the stored icon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// The bundles, sorted by name.
    pub bundles: Vec<BundleProvenance>,
}

/// What a BundleMetadata object was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleProvenance {
    /// The name of the bundle in the catalog.
    #[serde(rename = "n")]
    pub name: String,
    /// The name of the object, where it is another.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The version.
    #[serde(rename = "v")]
    pub version: String,
    /// The hash of its meta.
    #[serde(rename = "h")]
    pub hash: MetaHash,
    /// The hash of what other metas say about it: channels and deprecation.
    #[serde(rename = "p")]
    pub placement: MetaHash,
}

impl BundleProvenance {
    /// Returns the name of the object.
    pub fn object_name(&self) -> &str {
        self.object.as_deref().unwrap_or(&self.name)
    }
}

/// The first half of a blake3 hash: what was read is compared with itself later, and 128 bits leave no room for
/// two different metas to be taken for the same.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetaHash([u8; 16]);

impl MetaHash {
    /// Hashes bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from(blake3::hash(bytes))
    }
}

impl From<blake3::Hash> for MetaHash {
    fn from(hash: blake3::Hash) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        MetaHash(half)
    }
}

impl std::fmt::Display for MetaHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for MetaHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Serialize for MetaHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MetaHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        if text.len() != 32 {
            return Err(serde::de::Error::custom("a hash has 32 hexadecimal digits"));
        }
        Ok(MetaHash(number.to_be_bytes()))
    }
}

/// Returns where the checkpoint of a CatalogSource is.
pub fn checkpoint_key(namespace: &str, catalog_source: &str) -> Key {
    Key::new(CHECKPOINTS, namespace, catalog_source)
}

/// Returns where the provenance of a package is.
pub fn provenance_key(namespace: &str, catalog_source: &str, package: &str) -> Key {
    Key::new(
        PROVENANCE,
        namespace,
        &format!("{catalog_source}/{package}"),
    )
}

/// Encodes a record that is not served.
pub fn encode_record<T: Serialize>(record: &T) -> Object {
    Object::whole(serde_json::to_vec(record).expect("records are plain data"))
}

/// Decodes a record that is not served.
///
/// # Errors
///
/// When the record was written by something else.
pub fn decode_record<'a, T: Deserialize<'a>>(object: &'a Object) -> Result<T, serde_json::Error> {
    serde_json::from_slice(object.head())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provenance_record_reads_back() {
        let record = Provenance {
            object: "kube-green".to_owned(),
            fingerprint: MetaHash::of(b"package"),
            files: vec!["kube-green/catalog.yaml".to_owned()],
            icon: None,
            bundles: vec![BundleProvenance {
                name: "kube-green.v0.3.0".to_owned(),
                object: None,
                version: "0.3.0".to_owned(),
                hash: MetaHash::of(b"bundle"),
                placement: MetaHash::of(b"alpha"),
            }],
        };
        assert_eq!(
            decode_record::<Provenance>(&encode_record(&record)).unwrap(),
            record
        );
        assert!(serde_json::from_str::<MetaHash>("\"12\"").is_err());
    }
}
