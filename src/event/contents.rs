//! What layers hold, so that one that is met again need not be fetched again.
//!
//! These are facts about content that digests name, so they never go out of date, whatever else was stored since.

use serde::{Deserialize, Serialize};

use super::MetaHash;
use crate::store::{Key, Object, Tail};

/// The resource of [`Contents`]: one record a CatalogSource, under its name.
pub const CONTENTS: &str = "contents";

/// Bytes of a record, as stored. More than that is not worth remembering: a catalog of many thousand files.
const MAX_BYTES: usize = 256 << 10;

/// What the layers of an image hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The catalog root that entries were chosen for.
    pub root: String,
    /// The layers that were read.
    pub layers: Vec<LayerContent>,
}

/// What a layer holds that can matter to the catalog: what is under its root, and what is above it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerContent {
    /// The digest of its compressed bytes.
    #[serde(rename = "d")]
    pub digest: String,
    /// Its entries, in their order.
    #[serde(rename = "e")]
    pub entries: Vec<LayerEntry>,
}

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// The path it is about.
    #[serde(rename = "p")]
    pub path: String,
    /// What it does to the path.
    #[serde(rename = "r")]
    pub role: Role,
    /// The content of a file of the catalog, where it was read.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileFacts>,
}

/// What an entry of a layer means to the layers below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Removes its path.
    #[serde(rename = "w")]
    Whiteout,
    /// Removes everything under its path.
    #[serde(rename = "o")]
    Opaque,
    /// Is a directory: what lower layers have under it stays.
    #[serde(rename = "d")]
    Directory,
    /// Is a file or whatever else: replaces its path and everything under it.
    #[serde(rename = "f")]
    Other,
}

/// What tells the content of a file from any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Its size in bytes.
    #[serde(rename = "s")]
    pub size: u64,
    /// Its hash.
    #[serde(rename = "h")]
    pub hash: MetaHash,
}

#[derive(Serialize, Deserialize)]
struct Record {
    spec: Contents,
}

impl Contents {
    /// Encodes the record; none when it would be too large.
    pub fn encode(&self) -> Option<Object> {
        let root = serde_json::to_string(&self.root).expect("strings can be written");
        let layers = serde_json::to_string(&self.layers).expect("records are plain data");
        let tail = Tail::pack(format!(",\"layers\":{layers}}}}}").as_bytes());
        let object = Object::cut(format!("{{\"spec\":{{\"root\":{root}"), tail);
        (object.size() <= MAX_BYTES).then_some(object)
    }

    /// Decodes a record; none when it cannot be read, because it can be done without.
    pub fn decode(object: &Object) -> Option<Self> {
        let record: Record = serde_json::from_slice(&object.json().ok()?).ok()?;
        Some(record.spec)
    }
}

/// Returns where the contents of a CatalogSource's image are.
pub fn contents_key(namespace: &str, catalog_source: &str) -> Key {
    Key::new(CONTENTS, namespace, catalog_source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(entries: usize) -> Contents {
        let entry = |number: usize| LayerEntry {
            path: format!("configs/package-{number}/catalog.json"),
            role: Role::Other,
            file: Some(FileFacts { size: 17, hash: MetaHash::of(&number.to_le_bytes()) }),
        };
        let layer =
            LayerContent { digest: "sha256:0".to_owned(), entries: (0..entries).map(entry).collect() };
        Contents { root: "configs".to_owned(), layers: vec![layer] }
    }

    #[test]
    fn a_record_reads_back_and_one_that_is_too_large_is_none() {
        for entries in [0, 1, 1000] {
            let object = contents(entries).encode().unwrap();
            assert_eq!(Contents::decode(&object), Some(contents(entries)));
        }
        assert!(contents(100_000).encode().is_none());
        assert_eq!(Contents::decode(&Object::whole("{}")), None);
    }
}
