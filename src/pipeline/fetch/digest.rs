//! Digests: what registries name content by, and how it is verified as it passes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// The digest of some content: `sha256:` or `sha512:` and its hash in lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a digest of the form sha256:… or sha512:…")]
pub struct InvalidDigest(String);

impl Digest {
    /// Returns the sha256 digest of some bytes.
    pub fn sha256(bytes: &[u8]) -> Self {
        Digest(format!("sha256:{}", hex(&Sha256::digest(bytes))))
    }

    /// Returns the whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the algorithm and the hash.
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or_default()
    }

    /// Begins to hash content that should have this digest.
    pub fn verifier(&self) -> Verifier {
        match self.parts().0 {
            "sha512" => Verifier::Sha512(Sha512::new()),
            _ => Verifier::Sha256(Sha256::new()),
        }
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let length = match text.split_once(':') {
            Some(("sha256", hash)) => (hash.len() == 64).then_some(hash),
            Some(("sha512", hash)) => (hash.len() == 128).then_some(hash),
            _ => None,
        };
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match length {
            Some(hash) if hash.bytes().all(is_hex) => Ok(Digest(text.to_owned())),
            _ => Err(InvalidDigest(text.chars().take(160).collect())),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hashes content as it passes.
pub enum Verifier {
    /// With SHA-256.
    Sha256(Sha256),
    /// With SHA-512.
    Sha512(Sha512),
}

impl Verifier {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Verifier::Sha256(hash) => hash.update(bytes),
            Verifier::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Returns the digest of all that passed.
    pub fn finish(self) -> Digest {
        Digest(match self {
            Verifier::Sha256(hash) => format!("sha256:{}", hex(&hash.finalize())),
            Verifier::Sha512(hash) => format!("sha512:{}", hex(&hash.finalize())),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_checked_when_read() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::sha256(b"").as_str(), empty);
        assert_eq!(empty.parse(), Ok(Digest::sha256(b"")));
        assert_eq!(Digest::sha256(b"").verifier().finish(), Digest::sha256(b""));
        let upper = empty.to_uppercase();
        for text in ["", "sha256:", "sha256:abc", &empty[7..], &upper, "sha256:../../etc/passwd", "md5:0"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
