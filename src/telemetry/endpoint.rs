//! Health and metrics of a process that has no API: plain HTTP, for the probes of a kubelet and for Prometheus.
//!
//! Nothing that it answers is secret, and nothing can be changed by it. It refuses more connections than a few, and waits
//! for none of them long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::metrics;

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// How long a client may take to send the head of a request, and stay without another one.
const HEAD: Duration = Duration::from_secs(10);

/// How long a connection may last.
const CONNECTION: Duration = Duration::from_secs(600);

/// Bytes of the head of a request.
const HEAD_BYTES: usize = 16 << 10;

/// Pause after the system could not give a connection, because it is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a process says of itself.
pub struct Endpoint {
    /// What it counts.
    pub registry: Registry,
    /// Returns whether it does its work.
    pub is_ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// Cancelled when it ends: then it is not ready any more.
    pub stopping: CancellationToken,
}

impl Endpoint {
    /// Returns the routes: /metrics, /healthz, /livez and /readyz.
    pub fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(counted))
            .route("/healthz", get(alive))
            .route("/livez", get(alive))
            .route("/readyz", get(ready))
            .with_state(Arc::new(self))
    }
}

async fn counted(State(endpoint): State<Arc<Endpoint>>) -> Response {
    let (text, media_type) = metrics::text(&endpoint.registry);
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}

async fn alive() -> &'static str {
    "ok"
}

async fn ready(State(endpoint): State<Arc<Endpoint>>) -> (StatusCode, &'static str) {
    if endpoint.stopping.is_cancelled() {
        (StatusCode::INTERNAL_SERVER_ERROR, "[-]shutdown failed: the process is told to stop\n")
    } else if !(endpoint.is_ready)() {
        (StatusCode::INTERNAL_SERVER_ERROR, "[-]etcd failed: the CatalogSources are not followed\n")
    } else {
        (StatusCode::OK, "ok")
    }
}

/// Serves until it is dropped.
///
/// # Errors
///
/// When the listener cannot tell its address.
pub async fn serve(listener: TcpListener, router: Router) -> io::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION, connection).await {
                tracing::debug!(%peer, %error, "connection failed");
            }
            drop(place);
        });
    }
}
