//! What tells contents apart.

use std::fmt;

/// The first half of a blake3 hash, in text 32 hexadecimal digits: what was read is compared with itself later, and 128 bits
/// leave no room for two different contents to be taken for the same.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; ContentHash::LENGTH]);

impl ContentHash {
    /// What no bytes hash to, as far as anybody knows.
    pub const ZERO: ContentHash = ContentHash([0; ContentHash::LENGTH]);

    /// Its size in bytes.
    pub(super) const LENGTH: usize = 16;

    /// Hashes bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from(blake3::hash(bytes))
    }

    /// Takes the bytes of a hash.
    pub(super) fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        ContentHash(bytes)
    }

    /// Returns the bytes of the hash.
    pub(super) fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl From<blake3::Hash> for ContentHash {
    fn from(hash: blake3::Hash) -> Self {
        let mut half = [0; Self::LENGTH];
        half.copy_from_slice(&hash.as_bytes()[..Self::LENGTH]);
        ContentHash(half)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        if text.len() != 2 * Self::LENGTH {
            return Err(serde::de::Error::custom("a hash has 32 hexadecimal digits"));
        }
        Ok(ContentHash(number.to_be_bytes()))
    }
}
