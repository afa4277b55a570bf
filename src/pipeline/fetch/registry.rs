//! Images in registries: the pull half of the distribution protocol.
//!
//! See <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>. Registries on loopback addresses
//! are spoken to in plain HTTP, all others with TLS.

mod token;

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use oci_client::Reference;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use reqwest::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode};

use super::{BlobStream, Digest, FetchError, ImageSource, verify};
use crate::pipeline::limits::LimitExceeded;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a registry may send nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of a registry's own words that are repeated in an error.
const QUOTED_BYTES: usize = 300;

const MANIFEST_TYPES: [&str; 4] = [
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
];

/// Connections to registries, shared by all ingests.
#[derive(Clone)]
pub struct RegistryClient {
    http: reqwest::Client,
}

/// An image in a registry.
pub struct RegistryImage {
    http: reqwest::Client,
    reference: Reference,
    /// What authorised the last request; registries hand it out on demand.
    authorization: Mutex<Option<String>>,
}

impl RegistryClient {
    /// Makes a client with the machine's certificates and proxy settings.
    ///
    /// # Errors
    ///
    /// [`FetchError::Transport`] when the certificates cannot be read.
    pub fn new() -> Result<Self, FetchError> {
        crate::tls::install_crypto();
        let http = reqwest::Client::builder()
            .user_agent(concat!("packageserver/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(|error| FetchError::Transport {
                place: "this machine's certificates".to_owned(),
                reason: chain(&error),
            })?;
        Ok(RegistryClient { http })
    }

    /// Returns an image; nothing is asked of the registry yet.
    pub fn image(&self, reference: &Reference) -> RegistryImage {
        RegistryImage {
            http: self.http.clone(),
            reference: reference.clone(),
            authorization: Mutex::new(None),
        }
    }
}

#[async_trait]
impl ImageSource for RegistryImage {
    async fn resolve(&self) -> Result<Digest, FetchError> {
        if let Some(digest) = self.reference.digest() {
            return digest
                .parse()
                .map_err(|error: super::InvalidDigest| self.answer(error.to_string()));
        }
        let path = format!("manifests/{}", self.reference.tag().unwrap_or("latest"));
        let head = self.request(Method::HEAD, &path).await?;
        let announced = head
            .headers()
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok());
        if let (true, Some(digest)) = (head.status().is_success(), announced) {
            return digest
                .parse()
                .map_err(|error: super::InvalidDigest| self.answer(error.to_string()));
        }
        // Some registries answer HEAD wrongly or without the digest; what GET says holds.
        let manifest = self
            .success(self.request(Method::GET, &path).await?)
            .await?;
        let bytes = self
            .body(manifest, "manifest", MAX_TAGGED_MANIFEST_BYTES)
            .await?;
        Ok(Digest::sha256(&bytes))
    }

    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, FetchError> {
        let response = self
            .request(Method::GET, &format!("manifests/{digest}"))
            .await?;
        let response = self.success(response).await?;
        let bytes = self.body(response, "manifest", limit).await?;
        verify("manifest", digest, &bytes)?;
        Ok(bytes)
    }

    async fn blob(&self, digest: &Digest) -> Result<BlobStream, FetchError> {
        let response = self
            .request(Method::GET, &format!("blobs/{digest}"))
            .await?;
        let response = self.success(response).await?;
        let place = self.place();
        let chunks = response
            .bytes_stream()
            .map_err(move |error| FetchError::Transport {
                place: place.clone(),
                reason: chain(&error),
            });
        Ok(chunks.boxed())
    }
}

/// Bytes of a manifest that has to be read to learn its digest.
const MAX_TAGGED_MANIFEST_BYTES: u64 = 4 << 20;

impl RegistryImage {
    fn registry(&self) -> &str {
        self.reference.resolve_registry()
    }

    fn place(&self) -> String {
        format!("{}/{}", self.registry(), self.reference.repository())
    }

    /// Sends a request, and once more with authorisation if the registry asks for it.
    async fn request(&self, method: Method, path: &str) -> Result<Response, FetchError> {
        let response = self.send(&method, path).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenge = response
            .headers()
            .get(WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok());
        let Some(challenge) = challenge else {
            return Ok(response);
        };
        let authorization = token::answer(self, challenge).await?;
        *self.authorization.lock().expect("not poisoned") = Some(authorization);
        self.send(&method, path).await
    }

    async fn send(&self, method: &Method, path: &str) -> Result<Response, FetchError> {
        let (registry, repository) = (self.registry(), self.reference.repository());
        let url = format!("{}://{registry}/v2/{repository}/{path}", scheme(registry));
        let mut request = self.http.request(method.clone(), url);
        if path.starts_with("manifests/") {
            request = request.header(ACCEPT, MANIFEST_TYPES.join(", "));
        }
        if let Some(authorization) = &*self.authorization.lock().expect("not poisoned") {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| self.transport(&error))
    }

    /// Turns an answer that is not a success into an error that says what the registry said.
    async fn success(&self, response: Response) -> Result<Response, FetchError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::NOT_FOUND {
            return Err(FetchError::NotFound {
                what: self.reference.to_string(),
                place: self.registry().to_owned(),
            });
        }
        let said = self.quote(response).await;
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(FetchError::Denied {
                registry: self.registry().to_owned(),
                repository: self.reference.repository().to_owned(),
                credentials: "without credentials".to_owned(),
                reason: format!("{status}{said}"),
            });
        }
        Err(self.answer(format!("{status}{said}")))
    }

    /// Reads a body of bounded length.
    async fn body(&self, response: Response, what: &str, limit: u64) -> Result<Bytes, FetchError> {
        let mut stream = response.bytes_stream();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| self.transport(&error))?);
            crate::pipeline::limits::check("bytes in a manifest", bytes.len() as u64, limit)
                .map_err(|source: LimitExceeded| FetchError::TooLarge {
                    what: format!("{what} in {}", self.place()),
                    source,
                })?;
        }
        Ok(bytes.freeze())
    }

    /// Returns the start of what a registry said, fit to be shown.
    async fn quote(&self, response: Response) -> String {
        let mut stream = response.bytes_stream();
        let mut said = Vec::new();
        while let Some(Ok(chunk)) = stream.next().await {
            said.extend_from_slice(&chunk[..chunk.len().min(QUOTED_BYTES - said.len())]);
            if said.len() == QUOTED_BYTES {
                break;
            }
        }
        let text: String = String::from_utf8_lossy(&said)
            .chars()
            .filter(|character| !character.is_control())
            .collect();
        if text.is_empty() {
            text
        } else {
            format!(": {text}")
        }
    }

    fn answer(&self, answer: String) -> FetchError {
        FetchError::Answer {
            place: self.place(),
            answer,
        }
    }

    fn transport(&self, error: &reqwest::Error) -> FetchError {
        FetchError::Transport {
            place: self.place(),
            reason: chain(error),
        }
    }
}

fn scheme(registry: &str) -> &'static str {
    if is_loopback(registry) {
        "http"
    } else {
        "https"
    }
}

fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Puts an error and its causes in one line, without URLs, which may hold tokens.
fn chain(error: &reqwest::Error) -> String {
    let mut text = match error {
        error if error.is_timeout() => "timed out".to_owned(),
        error if error.is_connect() => "cannot connect".to_owned(),
        error if error.is_redirect() => "refused redirect".to_owned(),
        _ => "connection failed".to_owned(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_spoken_to_in_the_clear() {
        for registry in [
            "localhost:5000",
            "localhost",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            assert_eq!(scheme(registry), "http", "{registry}");
        }
        for registry in [
            "quay.io",
            "localhost.example.com:5000",
            "128.0.0.1:5000",
            "10.0.0.1",
            "registry:5000",
        ] {
            assert_eq!(scheme(registry), "https", "{registry}");
        }
    }
}
