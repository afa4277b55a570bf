//! What ingesting a catalog appends: a package's events, and the records that let the next ingest do less.

mod contents;

use serde::{Deserialize, Serialize};

pub use self::contents::{CONTENTS, Contents, FileFacts, LayerContent, LayerEntry, Role, contents_key};
use crate::store::{ContentHash, DictionaryId, Key, Object, Operation, ResourceVersion};

/// The resource of [`Checkpoint`]s: one record a CatalogSource, under its name.
pub const CHECKPOINTS: &str = "checkpoints";

/// The resource of [`Provenance`] records: one a package, named `<catalogsource>/<package>`.
pub const PROVENANCE: &str = "provenance";

/// The way objects are made from metas. Raised when the same metas are to give other objects, so that what an earlier
/// version made is made anew.
pub const DERIVATION: u32 = 1;

/// The events of one package, in the order they must be committed in.
#[derive(Debug)]
pub struct PackageEvents {
    /// The package, by its name in the catalog.
    pub package: String,
    /// Bundles that are new or changed, then the Package with what is stored beside it, then deletions. A prefix
    /// of them leaves every reader with bundles that exist for each entry of the Package.
    pub operations: Vec<Operation>,
    /// What becomes of the package's record, which is written with them; none when it stays.
    pub record: Option<RecordChange>,
    /// What they do to served objects.
    pub tally: Tally,
}

/// What becomes of the record of a package.
#[derive(Debug)]
pub struct RecordChange {
    /// Where it is.
    pub key: Key,
    /// The event that wrote what is there, and what that is.
    pub from: Option<(ResourceVersion, Provenance)>,
    /// What it is to be; none when the package is gone.
    pub to: Option<Provenance>,
}

impl RecordChange {
    /// Returns the operation that goes with all of the package's events in one batch.
    pub fn settled(&self) -> Operation {
        self.settle(self.from.as_ref().map(|(version, _)| *version))
    }

    /// Returns the operation that goes with the last of the package's events. `version` is the event that wrote what is
    /// there now.
    pub fn settle(&self, version: Option<ResourceVersion>) -> Operation {
        let key = self.key.clone();
        match (&self.to, version) {
            (Some(to), Some(version)) => Operation::replace(key, version, encode_record(to)),
            (Some(to), None) => Operation::create(key, encode_record(to)),
            (None, version) => Operation::delete(key, version.unwrap_or_default()),
        }
    }

    /// Returns the operation that goes first where the package's events do not fit in one batch. Whatever becomes of
    /// the rest, what is there is known then, and known to be unsettled.
    pub fn unsettle(&self) -> Operation {
        let record = Provenance::unsettled(self.from.as_ref().map(|(_, record)| record), self.to.as_ref());
        let (key, object) = (self.key.clone(), encode_record(&record));
        match &self.from {
            Some((version, _)) => Operation::replace(key, *version, object),
            None => Operation::create(key, object),
        }
    }
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

/// How far a catalog was ingested. It is marked with the first batch of an ingest and moves with the last one, so that an
/// ingest that was cut short is known, and its image is never taken for what is served.
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
    /// The way objects were made: [`DERIVATION`].
    #[serde(default)]
    pub derivation: u32,
    /// How many packages are served.
    pub packages: u64,
    /// How many bundles are served.
    pub bundles: u64,
    /// Whether an ingest has begun to write and has not ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unsettled: bool,
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
    /// The way the objects were made: [`DERIVATION`].
    pub derivation: u32,
    /// A hash of the [`Presentation`] of the catalog.
    pub presentation: MetaHash,
    /// The files of the catalog that hold the package. Where they are the same again, so is the package.
    pub files: Vec<FileProvenance>,
    /// The digest of the stored icon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// The bundles, sorted by name.
    pub bundles: Vec<BundleProvenance>,
    /// What the bundles may be packed with. They stay as long as the package does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dictionaries: Vec<DictionaryId>,
}

/// A file that objects were made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProvenance {
    /// The path within the catalog.
    #[serde(rename = "p")]
    pub path: String,
    /// Its content.
    #[serde(flatten)]
    pub facts: FileFacts,
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

impl Provenance {
    /// Returns the record of a package that is being changed from one state to another in several steps: it names every
    /// object that can be there on the way, and vouches for none.
    pub fn unsettled(from: Option<&Provenance>, to: Option<&Provenance>) -> Self {
        let known = || from.into_iter().chain(to);
        let mut bundles: Vec<BundleProvenance> = known()
            .flat_map(|provenance| &provenance.bundles)
            .map(|bundle| BundleProvenance {
                hash: MetaHash::ZERO,
                placement: MetaHash::ZERO,
                ..bundle.clone()
            })
            .collect();
        bundles.sort_by(|a, b| a.name.cmp(&b.name));
        bundles.dedup_by(|a, b| a.name == b.name);
        let mut dictionaries: Vec<_> =
            known().flat_map(|provenance| provenance.dictionaries.iter().copied()).collect();
        dictionaries.sort_unstable();
        dictionaries.dedup();
        Provenance {
            object: to.or(from).map(|provenance| provenance.object.clone()).unwrap_or_default(),
            // Neither no icon nor any that there is.
            icon: Some(String::new()),
            bundles,
            dictionaries,
            ..Provenance::default()
        }
    }
}

impl BundleProvenance {
    /// Returns the name of the object.
    pub fn object_name(&self) -> &str {
        self.object.as_deref().unwrap_or(&self.name)
    }
}

/// The hash of a meta, or of what was made from metas.
pub type MetaHash = ContentHash;

/// Returns where the checkpoint of a CatalogSource is.
pub fn checkpoint_key(namespace: &str, catalog_source: &str) -> Key {
    Key::new(CHECKPOINTS, namespace, catalog_source)
}

/// Returns where the provenance of a package is.
pub fn provenance_key(namespace: &str, catalog_source: &str, package: &str) -> Key {
    Key::new(PROVENANCE, namespace, &format!("{catalog_source}/{package}"))
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
    use crate::store::Dictionary;

    #[test]
    fn a_provenance_record_reads_back() {
        let record = Provenance {
            object: "kube-green".to_owned(),
            fingerprint: MetaHash::of(b"package"),
            derivation: DERIVATION,
            presentation: MetaHash::of(b"presentation"),
            files: vec![FileProvenance {
                path: "kube-green/catalog.yaml".to_owned(),
                facts: FileFacts { size: 7, hash: MetaHash::of(b"content") },
            }],
            icon: None,
            bundles: vec![BundleProvenance {
                name: "kube-green.v0.3.0".to_owned(),
                object: None,
                version: "0.3.0".to_owned(),
                hash: MetaHash::of(b"bundle"),
                placement: MetaHash::of(b"alpha"),
            }],
            dictionaries: vec![Dictionary::new("catalog/kube-green", b"text").id()],
        };
        assert_eq!(decode_record::<Provenance>(&encode_record(&record)).unwrap(), record);
        assert!(serde_json::from_str::<MetaHash>("\"12\"").is_err());
    }
}
