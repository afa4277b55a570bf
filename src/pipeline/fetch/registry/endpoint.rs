//! One place an image is pulled from: requests, with authorisation and as often as it takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;

use super::connection::{chain, host_of, is_distrust, is_here, is_worth_another};
use super::keyring::{Credential, Secret};
use super::mirrors::Place;
use super::retry::{Retries, is_temporary, retry_after};
use super::token;
use crate::event::MetaHash;
use crate::pipeline::fetch::FetchError;
use crate::pipeline::limits::check;

/// Bytes of an error that are read, and characters of it that are repeated.
const MAX_ERROR_BYTES: u64 = 16 << 10;
const QUOTED: usize = 300;

/// Authorisations that are remembered from one poll to the next.
const MAX_REMEMBERED: usize = 1024;

/// Where images without a registry are, and the host that answers for it.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_HOST: &str = "registry-1.docker.io";

const MANIFEST_TYPES: [&str; 4] = [
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
];

/// A repository of a registry.
pub(super) struct Endpoint {
    place: Place,
    /// How the image is called here.
    image: String,
    pub(super) http: Client,
    scheme: OnceLock<Scheme>,
    candidates: Vec<Arc<Credential>>,
    remembered: Arc<Authorizations>,
    key: (String, MetaHash),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
}

/// What authorised requests, for the next one: registries hand it out on demand, and it may run out at any time.
#[derive(Default)]
pub(super) struct Authorizations(Mutex<HashMap<(String, MetaHash), Authorization>>);

/// A header, and whose credentials it came from.
#[derive(Clone)]
pub(super) struct Authorization {
    pub(super) header: HeaderValue,
    origin: String,
}

/// A request.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Behind the repository: `manifests/…` or `blobs/…`.
    pub(super) path: &'a str,
    /// The first byte that is wanted.
    pub(super) from: u64,
}

/// A request that failed.
pub(super) enum Failure {
    /// It may work later; the registry may have said when.
    Passing(FetchError, Option<Duration>),
    Final(FetchError),
}

impl Endpoint {
    pub(super) fn new(
        place: Place,
        identifier: &str,
        http: Client,
        candidates: Vec<Arc<Credential>>,
        remembered: Arc<Authorizations>,
    ) -> Self {
        let image = format!("{}/{}{identifier}", place.registry, place.repository);
        let key = (format!("{}/{}", place.registry, place.repository), identity(&candidates));
        let scheme = OnceLock::new();
        if !place.is_insecure && !is_here(&place.registry) {
            let _ = scheme.set(Scheme::Https);
        }
        Endpoint { place, image, http, scheme, candidates, remembered, key }
    }

    pub(super) fn repository(&self) -> &str {
        &self.place.repository
    }

    pub(super) fn host(&self) -> &str {
        host_of(&self.place.registry)
    }

    /// Returns how the repository is called in messages.
    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.place.registry, self.place.repository)
    }

    /// Returns whether requests are protected on their way.
    pub(super) fn is_protected(&self) -> bool {
        self.scheme.get() != Some(&Scheme::Http)
    }

    /// Sends a request until it is answered, within reason.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Response, FetchError> {
        let mut retries = Retries::new();
        loop {
            match self.ask_once(ask).await {
                Ok(response) => return Ok(response),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error, asked)) => {
                    tracing::debug!(%error, "asking again");
                    if !retries.wait(asked).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn ask_once(&self, ask: &Ask<'_>) -> Result<Response, Failure> {
        let response = self.authorized(ask).await?;
        match is_temporary(response.status()) {
            true => Err(self.busy(response).await),
            false => Ok(response),
        }
    }

    /// Sends a request as it was authorised last; if that does not do, with one credential after the other.
    async fn authorized(&self, ask: &Ask<'_>) -> Result<Response, Failure> {
        let remembered = self.remembered.get(&self.key);
        let response = self.send(ask, remembered.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.granted(response, remembered.as_ref()).await;
        }
        let challenges: Vec<_> = response.headers().get_all(WWW_AUTHENTICATE).iter().cloned().collect();
        if challenges.is_empty() {
            return self.granted(response, remembered.as_ref()).await;
        }
        let anonymous = [None];
        let candidates: Vec<_> = match &self.candidates[..] {
            [] => anonymous.to_vec(),
            some => some.iter().map(Some).collect(),
        };
        let (mut refusals, mut absent) = (Vec::new(), None);
        for candidate in candidates {
            let origin = candidate
                .map_or("without credentials".to_owned(), |candidate| format!("with {}", candidate.origin));
            let header = match token::answer(self, &challenges, candidate.map(|c| &c.secret)).await? {
                Ok(header) => header,
                Err(reason) => {
                    refusals.push((origin, reason));
                    continue;
                }
            };
            let authorization = Authorization { header, origin: origin.clone() };
            let response = self.send(ask, Some(&authorization)).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    refusals.push((origin, self.said(response).await));
                }
                // Registries hide from some what they show to others.
                StatusCode::NOT_FOUND => absent = Some((response, authorization)),
                _ => {
                    self.remembered.put(&self.key, authorization);
                    return Ok(response);
                }
            }
        }
        match absent {
            Some((response, authorization)) => {
                self.remembered.put(&self.key, authorization);
                Ok(response)
            }
            None => Err(Failure::Final(self.denied(&refusals))),
        }
    }

    /// Passes on what was not refused.
    async fn granted(
        &self,
        response: Response,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Failure> {
        if !matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(response);
        }
        let origin =
            authorization.map_or("without credentials", |authorization| authorization.origin.as_str());
        let said = self.said(response).await;
        Err(Failure::Final(self.denied(&[(origin.to_owned(), said)])))
    }

    /// Sends a request once. Where plain HTTP is allowed TLS is still tried first, so that nobody has to say which.
    async fn send(&self, ask: &Ask<'_>, authorization: Option<&Authorization>) -> Result<Response, Failure> {
        if let Some(scheme) = self.scheme.get() {
            let sent = self.send_by(*scheme, ask, authorization).await;
            return sent.map_err(|error| self.transport(&error));
        }
        let (scheme, sent) = match self.send_by(Scheme::Https, ask, authorization).await {
            Err(error) if error.is_connect() && !is_distrust(&error) => {
                (Scheme::Http, self.send_by(Scheme::Http, ask, authorization).await)
            }
            sent => (Scheme::Https, sent),
        };
        if sent.is_ok() {
            let _ = self.scheme.set(scheme);
        }
        sent.map_err(|error| self.transport(&error))
    }

    async fn send_by(
        &self,
        scheme: Scheme,
        ask: &Ask<'_>,
        authorization: Option<&Authorization>,
    ) -> Result<Response, reqwest::Error> {
        let scheme = match scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        let Place { registry, repository, .. } = &self.place;
        let host = if registry == DEFAULT_REGISTRY { DEFAULT_HOST } else { registry };
        let mut request =
            self.http.request(ask.method.clone(), format!("{scheme}://{host}/v2/{repository}/{}", ask.path));
        if ask.path.starts_with("manifests/") {
            request = request.header(ACCEPT, MANIFEST_TYPES.join(", "));
        }
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization.header.clone());
        }
        request.send().await
    }

    /// Turns an answer that is not a success into an error that says what the registry said.
    pub(super) async fn success(&self, response: Response) -> Result<Response, FetchError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::NOT_FOUND {
            return Err(FetchError::NotFound {
                what: self.image.clone(),
                place: self.place.registry.clone(),
            });
        }
        let said = self.said(response).await;
        Err(self.answer(said))
    }

    /// Returns the body of a successful answer, asking again when it breaks off.
    pub(super) async fn read(&self, path: &str, what: &str, limit: u64) -> Result<Bytes, FetchError> {
        let mut retries = Retries::new();
        loop {
            let response = self.ask(&Ask { method: Method::GET, path, from: 0 }).await?;
            let response = self.success(response).await?;
            match self.body(response, what, limit).await {
                Err(Failure::Passing(..)) if retries.wait(None).await => {}
                Err(Failure::Passing(error, _) | Failure::Final(error)) => return Err(error),
                Ok(body) => return Ok(body),
            }
        }
    }

    /// Reads a body of bounded length.
    pub(super) async fn body(&self, response: Response, what: &str, limit: u64) -> Result<Bytes, Failure> {
        let mut stream = response.bytes_stream();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| self.transport(&error))?);
            check("bytes in a manifest", bytes.len() as u64, limit).map_err(|source| {
                let what = format!("{what} in {}", self.place());
                Failure::Final(FetchError::TooLarge { what, source })
            })?;
        }
        Ok(bytes.freeze())
    }

    /// Returns the failure that an answer stands for which asks to come back later.
    pub(super) async fn busy(&self, response: Response) -> Failure {
        let asked = retry_after(&response);
        let answer = self.said(response).await;
        Failure::Passing(FetchError::Busy { place: self.place(), answer, retry_after: asked }, asked)
    }

    /// Returns what an answer says, fit to be shown: its status, and what stands where the protocol has its errors.
    /// Nothing else is repeated, because redirects and token services can lead to places that are nobody's business.
    pub(super) async fn said(&self, response: Response) -> String {
        let status = response.status();
        let Ok(body) = self.body(response, "error", MAX_ERROR_BYTES).await else {
            return status.to_string();
        };
        let said = serde_json::from_slice::<Said>(&body).unwrap_or_default();
        let errors =
            said.errors.into_iter().map(|error| match (error.code.as_str(), error.message.as_str()) {
                (said, "") | ("", said) => said.to_owned(),
                (code, message) => format!("{code}: {message}"),
            });
        let text =
            errors.chain([said.details]).filter(|said| !said.is_empty()).collect::<Vec<_>>().join(", ");
        let text: String = text.chars().filter(|character| !character.is_control()).take(QUOTED).collect();
        if text.is_empty() { status.to_string() } else { format!("{status}: {text}") }
    }

    pub(super) fn answer(&self, answer: String) -> FetchError {
        FetchError::Answer { place: self.place(), answer }
    }

    pub(super) fn transport(&self, error: &reqwest::Error) -> Failure {
        let failed = FetchError::Transport { place: self.place(), reason: chain(error) };
        match is_worth_another(error) {
            true => Failure::Passing(failed, None),
            false => Failure::Final(failed),
        }
    }

    fn denied(&self, refusals: &[(String, String)]) -> FetchError {
        let list = |part: fn(&(String, String)) -> &String| {
            let mut parts: Vec<_> = refusals.iter().map(part).map(String::as_str).collect();
            parts.dedup();
            parts.join(", ")
        };
        FetchError::Denied {
            registry: self.place.registry.clone(),
            repository: self.place.repository.clone(),
            credentials: list(|(origin, _)| origin),
            reason: list(|(_, reason)| reason),
        }
    }
}

/// The errors of a registry, and of a token service.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    errors: Vec<SaidError>,
    details: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SaidError {
    code: String,
    message: String,
}

impl Authorizations {
    fn get(&self, key: &(String, MetaHash)) -> Option<Authorization> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: &(String, MetaHash), authorization: Authorization) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key.clone(), authorization);
    }
}

/// Tells credentials apart, so that nobody is served with what others were authorised to.
fn identity(candidates: &[Arc<Credential>]) -> MetaHash {
    let mut hash = blake3::Hasher::new();
    for candidate in candidates {
        let parts = match &candidate.secret {
            Secret::Password { user, password } => ["password", user, password],
            Secret::Identity { token } => ["identity", token, ""],
            Secret::Registry { token } => ["registry", token, ""],
        };
        for part in [candidate.origin.as_str()].iter().chain(&parts) {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    MetaHash::from(hash.finalize())
}
