//! Documents that are made once and answered from memory, with an ETag (C246, C250, C256).

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use bytes::Bytes;
use sha2::{Digest, Sha512};

use super::respond;

/// How long what never changes under its URL may be kept: a year.
const IMMUTABLE_FOR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A document and what names its content.
#[derive(Clone, Debug)]
pub(super) struct Document {
    text: Bytes,
    /// Upper-case SHA-512, as k8s.io/kube-openapi has it.
    hash: String,
}

impl Document {
    pub(super) fn new(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        let hash = Sha512::digest(&text).iter().map(|byte| format!("{byte:02X}")).collect();
        Document { text, hash }
    }

    /// Returns what names the content.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// Answers with the document, or with 304 where the client has it.
    pub(super) fn respond(&self, headers: &HeaderMap, media_type: &'static str) -> Response<Body> {
        let etag = format!("\"{}\"", self.hash);
        let mut response = if matches(headers, &etag) {
            respond::not_modified()
        } else {
            respond::with_type(Body::from(self.text.clone()), media_type)
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, HeaderValue::try_from(etag).expect("hexadecimal in quotes"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}

/// Tells caches that an answer is good for as long as they like (C251).
pub(super) fn never_changes(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    let expires = httpdate::fmt_http_date(SystemTime::now() + IMMUTABLE_FOR);
    headers.insert(header::EXPIRES, HeaderValue::try_from(expires).expect("dates are ASCII"));
}

/// Returns whether a client says that it has what an ETag names.
pub(super) fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut tags = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tags.any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c250_what_the_client_has_is_not_sent_again() {
        let document = Document::new("{}");
        assert_eq!(document.hash().len(), 128);
        let mut headers = HeaderMap::new();
        assert_eq!(document.respond(&headers, "application/json").status(), 200);
        for (sent, status) in [
            (format!("\"{}\"", document.hash()), 304),
            (format!("\"x\", W/\"{}\"", document.hash()), 304),
            ("*".to_owned(), 304),
            (document.hash().to_owned(), 200),
            ("\"x\"".to_owned(), 200),
        ] {
            headers.insert(header::IF_NONE_MATCH, sent.parse().unwrap());
            assert_eq!(document.respond(&headers, "application/json").status(), status, "{sent}");
        }
    }
}
