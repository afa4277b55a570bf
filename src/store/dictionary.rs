//! What texts have in common, kept once: zstd packs and unpacks each of them with it.
//!
//! Versions of a bundle differ in a few lines. Packed by themselves each holds everything anew; packed with one of them as
//! a dictionary, the others are little more than what differs. A dictionary is an object of its own in the namespace of those
//! that refer to it. Its name is a hash of its text and of its owner, so that it never changes and is never shared; its owner
//! puts it before the first object that refers to it, and removes it after the last one is gone. So in every state of a
//! store that has an object, its dictionary is there too.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::object::pack_with;
use super::past::Past;
use super::{ContentHash, Key, Object, ObjectError, Store, StoreError, Stored, Tail};

/// The resource of dictionaries.
pub const DICTIONARIES: &str = "dictionaries";

/// Bytes of a dictionary at most: more makes texts hardly smaller, and takes longer and more memory to make ready.
const MAX_DICTIONARY_BYTES: usize = 64 << 10;

/// Names a dictionary within its namespace: a hash of its owner and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DictionaryId(ContentHash);

impl DictionaryId {
    /// Its size in bytes.
    pub(super) const LENGTH: usize = ContentHash::LENGTH;

    fn of(owner: &str, text: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        // Where the owner ends has to be known.
        hasher.update(&(owner.len() as u64).to_le_bytes()).update(owner.as_bytes()).update(text);
        DictionaryId(hasher.finalize().into())
    }

    /// Takes the bytes of an id.
    pub(super) fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        DictionaryId(ContentHash::from_bytes(bytes))
    }

    /// Returns the bytes of the id.
    pub(super) fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        self.0.as_bytes()
    }

    /// Returns where the dictionary is.
    pub fn key(&self, namespace: &str) -> Key {
        Key::new(DICTIONARIES, namespace, &self.to_string())
    }
}

impl fmt::Display for DictionaryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A dictionary, made ready to pack with.
pub struct Dictionary {
    id: DictionaryId,
    text: Bytes,
    prepared: zstd::dict::EncoderDictionary<'static>,
}

impl Dictionary {
    /// Makes a dictionary of a text like those that are to be packed; of a long one the first 64 KiB are enough. `owner`
    /// says who puts it and removes it.
    pub fn new(owner: &str, text: &[u8]) -> Self {
        let text = &text[..text.len().min(MAX_DICTIONARY_BYTES)];
        Dictionary {
            id: DictionaryId::of(owner, text),
            text: Bytes::copy_from_slice(text),
            prepared: zstd::dict::EncoderDictionary::copy(text, super::object::ZSTD_LEVEL),
        }
    }

    /// Returns its name.
    pub fn id(&self) -> DictionaryId {
        self.id
    }

    /// Returns it as an object, with a head that says what it is for.
    pub fn object(&self, head: impl Into<Bytes>) -> Object {
        Object::cut(head, Tail::pack(&self.text))
    }

    /// Packs a text where that saves space.
    pub fn pack(&self, text: &[u8]) -> Tail {
        match pack_with(text, Some(self.prepared.as_cdict())) {
            Some(packed) => {
                Tail::Referring { dictionary: self.id, packed: packed.into(), length: text.len() }
            }
            None => Tail::pack(text),
        }
    }
}

/// Adds to objects that were packed with dictionaries the texts of these, which are read once each: those that are held
/// somewhere from there, and of the others those that are still there all at once. Other objects are left as they are.
///
/// # Errors
///
/// Those of the store; [`StoreError::Compacted`] for an object so old that its dictionary is gone.
pub(crate) async fn complete_all<S: Store + ?Sized>(
    store: &S,
    held: impl Fn(&Key) -> Option<Stored>,
    wanted: &[Stored],
) -> Result<Vec<Object>, StoreError> {
    let mut needed: Vec<Needed<'_>> = wanted.iter().filter_map(needed_by).collect();
    needed.sort_unstable();
    needed.dedup();
    let mut texts: HashMap<Needed<'_>, Bytes> = HashMap::new();
    let (mut missing, mut keys) = (Vec::new(), Vec::new());
    for needed in needed {
        let key = needed.key();
        match held(&key) {
            Some(found) => drop(texts.insert(needed, text_of(&found)?)),
            None => {
                missing.push(needed);
                keys.push(key);
            }
        }
    }
    if !missing.is_empty() {
        for (needed, found) in missing.into_iter().zip(store.read(&keys).await?) {
            if let Some(found) = found {
                texts.insert(needed, text_of(&found)?);
            }
        }
    }
    let mut past = Past::of(store);
    let mut objects = Vec::with_capacity(wanted.len());
    for stored in wanted {
        let Some(needed) = needed_by(stored) else {
            objects.push(stored.object.clone());
            continue;
        };
        let text = match texts.get(&needed) {
            Some(text) => text,
            None => {
                let found = of_the_past(&mut past, &needed.key(), stored).await?;
                texts.entry(needed).or_insert(text_of(&found)?)
            }
        };
        objects.push(Object::cut(stored.object.head().clone(), stored.object.tail().join(text)));
    }
    Ok(objects)
}

/// Which dictionary an object needs. Objects are many and dictionaries are few: the keys of these are made once each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Needed<'a> {
    namespace: &'a str,
    id: DictionaryId,
}

impl Needed<'_> {
    fn key(&self) -> Key {
        self.id.key(self.namespace)
    }
}

/// Returns the dictionary that an object needs, if it needs one.
fn needed_by(stored: &Stored) -> Option<Needed<'_>> {
    match stored.object.tail() {
        Tail::Referring { dictionary, .. } => {
            Some(Needed { namespace: stored.key.namespace(), id: *dictionary })
        }
        _ => None,
    }
}

fn text_of(dictionary: &Stored) -> Result<Bytes, StoreError> {
    dictionary.object.tail().unpack().map_err(|error| damaged(&dictionary.key, &error))
}

/// Reads a dictionary that has been removed since, as it was when the object was written. Where history begins later than
/// that, it is there at the beginning, if it outlived a state that can still be read: it was there all the time.
async fn of_the_past<S: Store + ?Sized>(
    past: &mut Past<'_, S>,
    key: &Key,
    stored: &Stored,
) -> Result<Stored, StoreError> {
    let (found, at) = past.read(key, stored.version).await?;
    found.ok_or_else(|| match at > stored.version {
        true => StoreError::Compacted { requested: stored.version, oldest: at },
        false => StoreError::Unavailable(format!("`{}` needs `{key}`, which is not there", stored.key)),
    })
}

fn damaged(key: &Key, error: &ObjectError) -> StoreError {
    StoreError::Unavailable(format!("`{key}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(count: usize) -> Vec<String> {
        let lines: Vec<_> = (0..200).map(|line| format!("line {line} says {}", line * 7919 % 1000)).collect();
        let common = lines.join("\n");
        (0..count).map(|version| format!("{common}\nversion {version}")).collect()
    }

    #[test]
    fn texts_alike_pack_to_what_differs_and_read_back() {
        let texts = versions(10);
        let dictionary = Dictionary::new("catalog/package", texts[0].as_bytes());
        for text in &texts {
            let tail = dictionary.pack(text.as_bytes());
            assert!(matches!(&tail, Tail::Referring { dictionary: id, .. } if *id == dictionary.id()));
            assert!(tail.size() < 100, "{} of {}", tail.size(), Tail::pack(text.as_bytes()).size());
            assert_eq!(tail.unpack_with(texts[0].as_bytes()).unwrap(), text);
            assert!(tail.unpack().is_err(), "not without the dictionary");
        }
        assert_eq!(dictionary.pack(b""), Tail::None);
        assert_eq!(dictionary.pack(b"short"), Tail::Plain("short".into()));
        let object = dictionary.object("{}");
        assert_eq!(object.tail().unpack().unwrap(), texts[0]);
    }

    #[test]
    fn ids_differ_by_text_and_owner_and_are_written_as_names() {
        let id = |owner: &str, text: &str| Dictionary::new(owner, text.as_bytes()).id();
        assert_ne!(id("a", "bc"), id("ab", "c"));
        assert_ne!(id("a", "b"), id("a", "c"));
        assert_eq!(id("a", "b"), id("a", "b"));
        let written = serde_json::to_string(&id("a", "b")).unwrap();
        assert_eq!(serde_json::from_str::<DictionaryId>(&written).unwrap(), id("a", "b"));
        assert_eq!(id("a", "b").key("test").name(), written.trim_matches('"'));
        assert!(serde_json::from_str::<DictionaryId>("\"12\"").is_err());
    }

    #[test]
    fn a_dictionary_is_bounded_and_still_packs() {
        let text = "some words of a long text, ".repeat(20_000);
        let dictionary = Dictionary::new("owner", text.as_bytes());
        assert_eq!(dictionary.text.len(), MAX_DICTIONARY_BYTES);
        let tail = dictionary.pack(text.as_bytes());
        assert_eq!(tail.unpack_with(&dictionary.text).unwrap(), text);
    }
}
