//! A registry that does what it is told, also what none should: for what a real one cannot be brought to do.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use packageserver::api::serve::serve;
use packageserver::pipeline::fetch::Digest;
use packageserver::telemetry::metrics::Metrics;
use packageserver::tls::authority::{Authority, Validity};
use packageserver::tls::server::{ServingCertificate, config};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::PATIENCE;
use super::image::Image;

/// A registry of one test, on loopback.
pub struct FakeRegistry {
    address: String,
    /// The certificate of the authority that signed the registry's, where it has one.
    authority: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// What a registry is asked.
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// How many requests with the same method and path came before.
    pub before: usize,
}

/// What it does.
pub enum Answer {
    /// What a registry should.
    Proper,
    /// This.
    This(Response),
    /// The first bytes of what it should, then the connection breaks.
    Cut(usize),
    /// What it should, but so many bytes at the end, or all of it, only when the gate is opened.
    Hold(usize, Gate),
    /// Nothing, ever.
    Silence,
}

/// What an answer is held at.
#[derive(Clone, Default)]
pub struct Gate {
    held: watch::Sender<bool>,
    opened: CancellationToken,
}

impl Gate {
    /// Returns whether something is held here, or was.
    pub fn is_held(&self) -> bool {
        *self.held.borrow()
    }

    /// Waits until something is held.
    pub async fn held(&self) {
        let mut held = self.held.subscribe();
        let held = tokio::time::timeout(PATIENCE, held.wait_for(|held| *held)).await;
        held.expect("the answer is wanted").expect("the gate is there");
    }

    /// Lets it go on.
    pub fn open(&self) {
        self.opened.cancel();
    }

    async fn pass(&self) {
        self.held.send_replace(true);
        self.opened.cancelled().await;
    }
}

type Behaviour = Box<dyn Fn(&Asked) -> Answer + Send + Sync>;

#[derive(Default)]
struct Shared {
    /// Path behind `/v2/` → media type and content.
    content: Mutex<HashMap<String, (String, Bytes)>>,
    behaviour: Mutex<Option<Behaviour>>,
    requests: Mutex<Vec<String>>,
    counts: Mutex<HashMap<String, usize>>,
}

impl FakeRegistry {
    /// Starts a registry that speaks plain HTTP.
    pub async fn start() -> Self {
        Self::start_with(false).await
    }

    /// Starts a registry that speaks TLS.
    pub async fn start_tls() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(tls: bool) -> Self {
        packageserver::tls::install_crypto();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let (signer, _) = Authority::generate("test", Validity::days(1)).expect("an authority can be made");
        let authority = signer.certificate().to_owned();
        let server = tokio::spawn(async move {
            if tls {
                let signed = signer.server(
                    &["localhost".to_owned()],
                    &[Ipv4Addr::LOCALHOST.into()],
                    Validity::days(1),
                );
                let signed = ServingCertificate::of(&signed.expect("a certificate can be signed"));
                let config = config(signed.expect("key and certificate fit"));
                let config = config.expect("a configuration can be made");
                serve(listener, config, router, 1000, Metrics::new(), CancellationToken::new())
                    .await
                    .expect("it serves");
            } else {
                axum::serve(listener, router).await.expect("it serves");
            }
        });
        FakeRegistry { address, authority, shared, server }
    }

    /// Returns the certificate of the authority that signed the registry's.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Changes what is done with requests.
    pub fn behave(&self, behaviour: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        *self.shared.behaviour.lock().unwrap() = Some(Box::new(behaviour));
    }

    /// Returns host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the reference of a tag.
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.address)
    }

    /// Puts an image under a tag and returns its digest.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> Digest {
        for blob in image.blobs() {
            let path = format!("{repository}/blobs/{}", Digest::sha256(blob));
            self.put(&path, "application/octet-stream", blob.clone());
        }
        self.push_manifest(repository, tag, image.manifest_type(), image.manifest())
    }

    /// Puts a manifest or an index under a tag and returns its digest.
    pub fn push_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &[u8]) -> Digest {
        let digest = Digest::sha256(manifest);
        for name in [tag, digest.as_str()] {
            self.put(&format!("{repository}/manifests/{name}"), media_type, manifest.to_vec());
        }
        digest
    }

    /// Puts any content anywhere behind `/v2/`.
    pub fn put(&self, path: &str, media_type: &str, content: Vec<u8>) {
        self.shared.content.lock().unwrap().insert(path.to_owned(), (media_type.to_owned(), content.into()));
    }

    /// Returns the requests that came so far, as `METHOD path`, with the range where there is one.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Asked {
    /// Returns a header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }
}

/// An answer of a status and some headers.
pub fn status(status: StatusCode, headers: &[(&'static str, &str)]) -> Answer {
    let mut response = status.into_response();
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_str(value).expect("a header"));
    }
    Answer::This(response)
}

/// An answer of some JSON.
pub fn json(value: &serde_json::Value) -> Answer {
    Answer::This(([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response())
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let path = parts.uri.path().to_owned();
    let line = format!("{} {path}", parts.method);
    let before = {
        let mut counts = shared.counts.lock().unwrap();
        let count = counts.entry(line.clone()).or_default();
        *count += 1;
        *count - 1
    };
    let asked = Asked {
        method: parts.method,
        path,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
        before,
    };
    let range = asked.header("range");
    let logged = if range.is_empty() { line } else { format!("{line} {range}") };
    shared.requests.lock().unwrap().push(logged);
    let behaviour = shared.behaviour.lock().unwrap().as_ref().map(|behaviour| behaviour(&asked));
    match behaviour.unwrap_or(Answer::Proper) {
        Answer::Proper => proper(&shared, &asked),
        Answer::This(response) => response,
        Answer::Cut(after) => cut(proper(&shared, &asked), after).await,
        Answer::Hold(rest, gate) => hold(proper(&shared, &asked), rest, gate).await,
        Answer::Silence => std::future::pending().await,
    }
}

fn proper(shared: &Shared, asked: &Asked) -> Response {
    let path = asked.path.strip_prefix("/v2/").unwrap_or_default();
    let Some((media_type, content)) = shared.content.lock().unwrap().get(path).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let start = asked.header("range").strip_prefix("bytes=").and_then(|range| range.split('-').next());
    let start: Option<usize> = start.and_then(|start| start.parse().ok());
    let mut response = match start {
        Some(start) if start >= content.len() => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
            (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], content.slice(start..))
                .into_response()
        }
        None => content.clone().into_response(),
    };
    let digest = Digest::sha256(&content).to_string();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(&media_type).expect("a media type"));
    headers.insert("docker-content-digest", HeaderValue::from_str(&digest).expect("a digest"));
    response
}

/// Announces all of a body, and breaks off after some of it.
async fn cut(response: Response, after: usize) -> Response {
    let (mut parts, body) = response.into_parts();
    let content = axum::body::to_bytes(body, usize::MAX).await.expect("it is in memory");
    parts.headers.insert(header::CONTENT_LENGTH, content.len().into());
    let start = content.slice(..after.min(content.len()));
    let broken = async {
        // What came before is sent while there is nothing else to do.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut"))
    };
    let chunks = stream::iter([Ok(start)]).chain(stream::once(broken));
    Response::from_parts(parts, Body::from_stream(chunks))
}

/// Announces all of a body, and holds the last bytes of it; the head too, where that is all of it.
async fn hold(response: Response, rest: usize, gate: Gate) -> Response {
    let (mut parts, body) = response.into_parts();
    let content = axum::body::to_bytes(body, usize::MAX).await.expect("it is in memory");
    parts.headers.insert(header::CONTENT_LENGTH, content.len().into());
    if rest >= content.len() {
        gate.pass().await;
        return Response::from_parts(parts, content.into());
    }
    let (start, end) = (content.slice(..content.len() - rest), content.slice(content.len() - rest..));
    let end = async move {
        // What came before is on its way.
        gate.pass().await;
        Ok(end)
    };
    let chunks = stream::iter([Ok::<_, std::io::Error>(start)]).chain(stream::once(end));
    Response::from_parts(parts, Body::from_stream(chunks))
}
