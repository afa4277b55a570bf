//! Continue tokens: where the next page of a list begins, and in which state (C77–C79).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::status::ApiError;
use crate::store::{Key, Range, ResourceVersion};

const VERSION: &str = "meta.k8s.io/v1";

/// A place in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContinueToken {
    /// The state of the list; none when it is gone, and the list goes on with what is there now.
    pub(super) version: Option<ResourceVersion>,
    /// The last object that was returned.
    pub(super) after: Key,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    /// The first key that may follow: the last one, and a NUL.
    start: String,
}

impl ContinueToken {
    pub(super) fn encode(&self) -> String {
        let wire = Wire {
            v: VERSION.to_owned(),
            rv: self.version.map_or(-1, |version| version.get() as i64),
            start: format!("{}\0", self.after),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).expect("plain data can be written"))
    }

    /// Reads a token that belongs to a list of a range.
    ///
    /// # Errors
    ///
    /// 400 when it is none, or one of another list.
    pub(super) fn decode(text: &str, range: &Range) -> Result<Self, ApiError> {
        let invalid = || ApiError::bad_request("continue key is not valid: invalid continue token");
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| invalid())?;
        let Wire { v, rv, start } = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
        let after = Key::parse(start.strip_suffix('\0').unwrap_or(&start)).map_err(|_| invalid())?;
        // Names that served objects have: none that leads elsewhere, were it a path.
        let is_name = !after.name().contains('/') && !matches!(after.name(), "." | "..");
        if v != VERSION || rv == 0 || rv < -1 || !range.contains(&after) || !is_name {
            return Err(invalid());
        }
        let version = u64::try_from(rv).ok().map(ResourceVersion::from_u64);
        Ok(ContinueToken { version, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c077_tokens_read_back_and_stay_in_their_list() {
        let range = Range::namespace("packages", "test");
        for version in [None, Some(ResourceVersion::from_u64(7999))] {
            let token = ContinueToken { version, after: Key::new("packages", "test", "p") };
            assert_eq!(ContinueToken::decode(&token.encode(), &range).unwrap(), token);
            let other = Range::namespace("packages", "other");
            assert_eq!(ContinueToken::decode(&token.encode(), &other).unwrap_err().code(), 400);
        }
    }

    #[test]
    fn c078_garbage_is_refused() {
        let range = Range::resource("packages");
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for text in [
            "x".to_owned(),
            "%%%".to_owned(),
            encode("{}"),
            encode(r#"{"v":"v2","rv":1,"start":"packages/a/b"}"#),
            encode(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"packages/a/b"}"#),
            encode(r#"{"v":"meta.k8s.io/v1","rv":-5,"start":"packages/a/b"}"#),
            encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"icons/a/b"}"#),
            encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../icons/a/b"}"#),
            encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"packages/a/../../icons/a/b"}"#),
            encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"packages/a/.."}"#),
        ] {
            assert_eq!(ContinueToken::decode(&text, &range).unwrap_err().code(), 400, "{text}");
        }
    }
}
