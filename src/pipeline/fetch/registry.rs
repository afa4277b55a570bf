//! Images in registries: the pull half of the distribution protocol.
//!
//! See <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>. Registries on this machine, and those
//! that `registries.conf` calls insecure, may be spoken to in plain HTTP; all others only with TLS.

mod blob;
mod connection;
mod endpoint;
mod keyring;
mod mirrors;
mod redirect;
mod retry;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oci_client::Reference;
use reqwest::Method;

use self::connection::{Connections, Trust, check_authorities, host_of, is_here, read_authorities};
use self::endpoint::{Ask, Authorizations, Endpoint};
pub use self::keyring::{AuthFiles, InvalidCredentials, Keyring};
use self::mirrors::Blocked;
pub use self::mirrors::{InvalidMirrors, Mirrors};
use super::{BlobStream, Digest, FetchError, ImageSource, verify};

/// How long a registry may send nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a manifest that has to be read to learn its digest.
const MAX_TAGGED_MANIFEST_BYTES: u64 = 4 << 20;

/// How registries are spoken to, whoever asks.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Where images are pulled from instead.
    pub mirrors: Mirrors,
    /// A directory with certificates of authorities that are trusted beside the machine's own.
    pub authorities: Option<PathBuf>,
    /// The server's own credentials.
    pub auth_files: AuthFiles,
    /// How long a registry may send nothing.
    pub read_timeout: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        RegistryOptions {
            mirrors: Mirrors::default(),
            authorities: None,
            auth_files: AuthFiles::None,
            read_timeout: READ_TIMEOUT,
        }
    }
}

impl RegistryOptions {
    /// Reads the files with credentials and certificates once, to find out what is wrong with them. Blocks.
    ///
    /// # Errors
    ///
    /// [`FetchError::Configuration`].
    pub fn check(&self) -> Result<(), FetchError> {
        self.read().map(drop)
    }

    /// Reads the files with credentials and certificates. Blocks.
    fn read(&self) -> Result<(Vec<Keyring>, String), FetchError> {
        let keyrings =
            self.auth_files.read().map_err(|error| FetchError::Configuration(error.to_string()))?;
        let authorities = self.authorities.as_deref().map(read_authorities).transpose()?;
        Ok((keyrings, authorities.unwrap_or_default()))
    }
}

/// What a CatalogSource brings along for its registry.
#[derive(Clone, Debug, Default)]
pub struct Access {
    keyring: Keyring,
    /// As PEM.
    authorities: String,
}

impl Access {
    /// Adds credentials, which are tried before the server's own.
    pub fn with_credentials(mut self, keyring: Keyring) -> Self {
        self.keyring = keyring;
        self
    }

    /// Adds certificates of authorities, which are trusted beside the machine's and the server's.
    ///
    /// # Errors
    ///
    /// When the text holds no certificates as PEM.
    pub fn with_authorities(mut self, pem: &str) -> Result<Self, String> {
        check_authorities(pem)?;
        self.authorities = pem.to_owned();
        Ok(self)
    }
}

/// Connections to registries, shared by all ingests.
#[derive(Clone)]
pub struct RegistryClient {
    options: Arc<RegistryOptions>,
    connections: Arc<Connections>,
    remembered: Arc<Authorizations>,
}

/// An image in a registry, or in its mirrors.
pub struct RegistryImage {
    reference: Reference,
    /// Where to ask, in this order.
    endpoints: Vec<Arc<Endpoint>>,
    /// The one that had an answer.
    chosen: AtomicUsize,
}

impl RegistryClient {
    /// Makes a client. Nothing is read yet, nor is any connection made.
    pub fn new(options: RegistryOptions) -> Self {
        crate::tls::install_crypto();
        RegistryClient {
            connections: Arc::new(Connections::new(options.read_timeout)),
            options: Arc::new(options),
            remembered: Arc::default(),
        }
    }

    /// Returns an image; nothing is asked of the registry yet. Files with credentials and certificates are read anew, so
    /// that they can change.
    ///
    /// # Errors
    ///
    /// [`FetchError::Blocked`], or [`FetchError::Configuration`] when a file makes no sense.
    pub async fn image(&self, reference: &Reference, access: &Access) -> Result<RegistryImage, FetchError> {
        let places = self
            .options
            .mirrors
            .places(reference)
            .map_err(|Blocked(prefix)| FetchError::Blocked { image: reference.to_string(), prefix })?;
        let options = Arc::clone(&self.options);
        let reading = tokio::task::spawn_blocking(move || options.read());
        let (keyrings, mut authorities) =
            reading.await.map_err(|error| FetchError::Configuration(error.to_string()))??;
        authorities.push_str(&access.authorities);
        let endpoints = places.into_iter().map(|place| {
            let keyrings = [&access.keyring].into_iter().chain(&keyrings);
            let candidates =
                keyrings.flat_map(|keyring| keyring.candidates(&place.registry, &place.repository)).collect();
            let trust = Trust {
                authorities: authorities.clone(),
                is_insecure: place.is_insecure,
                is_here: is_here(&place.registry),
                host: host_of(&place.registry).to_owned(),
            };
            let http = self.connections.client(&trust)?;
            let remembered = Arc::clone(&self.remembered);
            Ok(Arc::new(Endpoint::new(place, &identifier(reference), http, candidates, remembered)))
        });
        let endpoints = endpoints.collect::<Result<_, FetchError>>()?;
        Ok(RegistryImage { reference: reference.clone(), endpoints, chosen: AtomicUsize::new(0) })
    }
}

/// Returns tag and digest as they stand behind the repository.
fn identifier(reference: &Reference) -> String {
    let tag = reference.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    let digest = reference.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
    tag + &digest
}

#[async_trait]
impl ImageSource for RegistryImage {
    async fn resolve(&self) -> Result<Digest, FetchError> {
        if let Some(digest) = self.reference.digest() {
            let invalid = |error: super::InvalidDigest| FetchError::Configuration(error.to_string());
            return digest.parse().map_err(invalid);
        }
        let tag = self.reference.tag().unwrap_or("latest");
        self.first(|endpoint| resolve(endpoint, format!("manifests/{tag}"))).await
    }

    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, FetchError> {
        self.first(|endpoint| {
            let digest = digest.clone();
            async move {
                let bytes = endpoint.read(&format!("manifests/{digest}"), "manifest", limit).await?;
                verify("manifest", &digest, &bytes)?;
                Ok(bytes)
            }
        })
        .await
    }

    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobStream, FetchError> {
        self.first(|endpoint| blob::download(endpoint, digest.clone(), size)).await
    }
}

/// Finds out what a tag stands for.
async fn resolve(endpoint: Arc<Endpoint>, path: String) -> Result<Digest, FetchError> {
    let head = endpoint.ask(&Ask { method: Method::HEAD, path: &path, from: 0 }).await?;
    let announced = head.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
    if let (true, Some(digest)) = (head.status().is_success(), announced) {
        return digest.parse().map_err(|error: super::InvalidDigest| endpoint.answer(error.to_string()));
    }
    // Some registries answer HEAD wrongly or without the digest; what GET says holds.
    let bytes = endpoint.read(&path, "manifest", MAX_TAGGED_MANIFEST_BYTES).await?;
    Ok(Digest::sha256(&bytes))
}

impl RegistryImage {
    /// Asks the places one after the other, beginning with the one that answered before.
    async fn first<T, F>(&self, ask: impl Fn(Arc<Endpoint>) -> F) -> Result<T, FetchError>
    where
        F: Future<Output = Result<T, FetchError>>,
    {
        let chosen = self.chosen.load(Ordering::Relaxed);
        let others = (0..self.endpoints.len()).filter(|index| *index != chosen);
        let mut failed: Vec<(usize, FetchError)> = Vec::new();
        for index in [chosen].into_iter().chain(others) {
            match ask(Arc::clone(&self.endpoints[index])).await {
                Ok(answer) => {
                    self.chosen.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => {
                    tracing::debug!(place = self.endpoints[index].place(), %error, "not from here");
                    failed.push((index, error));
                }
            }
        }
        // The registry itself has the last word; what its mirrors said stands beside it.
        failed.sort_by_key(|(index, _)| *index);
        let (_, error) = failed.pop().expect("an image has at least one place");
        if failed.is_empty() {
            return Err(error);
        }
        let mirrors = failed.iter().map(|(_, error)| error.to_string()).collect::<Vec<_>>().join("; ");
        Err(FetchError::Everywhere { error: Box::new(error), mirrors })
    }
}
