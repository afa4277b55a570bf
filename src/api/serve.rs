//! Connections: TLS in, requests to the router, an orderly end (C230, C233).

mod connections;
mod patience;
mod streams;
mod turns;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(in crate::api) use self::connections::InUse;
use self::connections::{Connections, Idle, Place};
use self::patience::Patience;
pub(in crate::api) use self::streams::Reading;
use self::streams::Streams;
use self::turns::{Gathering, Turns};
use super::auth::ClientCertificates;
use super::filter::MAX_HEADERS;
use crate::telemetry::metrics::Metrics;

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a client may take to send the head of a request (C230).
const HEAD: Duration = Duration::from_secs(32);

/// How long a connection may be there without a request (C230). HTTP/1.1 has less: there, the next head is waited for.
const IDLE: Idle = Idle { first: HEAD, next: Duration::from_secs(90) };

/// Bytes of the head of a request (C230).
const HEAD_BYTES: usize = 1 << 20;

/// Headers that are read of a request: some more than are taken, so that whoever sends them is told so in full.
const HEADERS: usize = MAX_HEADERS + 24;

/// Streams of one HTTP/2 connection: an aggregator sends the requests of all users over a few of them (C230).
const STREAMS: u32 = 1000;

/// How often a connection without traffic is asked whether there is still somebody.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long a client may leave what it asked for unread (C114).
const UNREAD: Duration = Duration::from_secs(60);

/// How long requests that are under way are waited for at the end (C233).
const DRAIN: Duration = Duration::from_secs(60);

/// Pause after the system could not give a connection, because it is out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a request came from; an extension of it.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// Serves requests until `draining` is cancelled and those under way are answered. There are never more than
/// `max_connections`; where one more comes, it takes the place of one that is not in use (see [`connections`]).
///
/// # Errors
///
/// When the listener cannot tell its address.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    max_connections: usize,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let connections = Connections::new(max_connections, Arc::clone(&metrics));
    let server = Arc::new(Server { acceptor: TlsAcceptor::from(tls), router, metrics, draining });
    tracing::info!(%address, max_connections, "serving");
    loop {
        let accepted = tokio::select! {
            () = server.draining.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match connections.enter().await {
                Some(place) => drop(tokio::spawn(Arc::clone(&server).connect(stream, peer, place))),
                None => tracing::debug!(%peer, "a connection was refused: all others are in use"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, connections.empty()).await.is_err() {
        tracing::warn!("some requests were not answered before the end");
    }
    Ok(())
}

/// What a connection writes to and reads from, under TLS.
type Carrier = Gathering<Patience<TcpStream>>;

/// What every connection needs.
struct Server {
    acceptor: TlsAcceptor,
    router: Router,
    metrics: Arc<Metrics>,
    draining: CancellationToken,
}

impl Server {
    /// Serves one connection to its end, or until its place is needed.
    async fn connect(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place) {
        let place = Arc::new(place);
        let serving = async {
            let stream = tokio::select! {
                // There is nothing to be answered yet.
                () = self.draining.cancelled() => return,
                shaken = self.handshake(stream) => shaken,
            };
            match stream {
                Ok((stream, carrier)) => self.speak(stream, carrier, peer, &place).await,
                Err(error) => {
                    self.metrics.tls_errors.inc();
                    tracing::debug!(%peer, %error, "TLS handshake failed");
                }
            }
        };
        tokio::select! {
            () = place.evicted() => tracing::debug!(%peer, "an idle connection gave way to another one"),
            () = serving => {}
        }
    }

    /// Returns what requests come from, and what carries it.
    async fn handshake(&self, stream: TcpStream) -> io::Result<(TlsStream<Carrier>, Carrier)> {
        stream.set_nodelay(true)?;
        let stream = Gathering::new(Patience::new(stream, UNREAD));
        let carrier = stream.handle();
        let stream = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await??;
        Ok((stream, carrier))
    }

    async fn speak(
        &self,
        stream: TlsStream<Carrier>,
        carrier: Carrier,
        peer: SocketAddr,
        place: &Arc<Place>,
    ) {
        let certificates = stream.get_ref().1.peer_certificates().filter(|chain| !chain.is_empty());
        let certificates = certificates.map(|chain| {
            ClientCertificates(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
        });
        let (router, used) = (self.router.clone(), Arc::clone(place));
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            if let Some(certificates) = &certificates {
                request.extensions_mut().insert(certificates.clone());
            }
            request.extensions_mut().insert(PeerAddress(peer));
            request.extensions_mut().insert(used.used());
            router.clone().oneshot(request)
        });
        let builder = protocols();
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = Turns::new(connection, carrier);
        let mut is_leaving = false;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, error = &*error, "connection failed");
                    }
                    return;
                }
                () = self.draining.cancelled(), if !is_leaving => {}
                () = place.idle(IDLE), if !is_leaving => {}
            }
            // What is being answered is answered to its end, and what comes in between is not lost unseen (C233).
            connection.connection().graceful_shutdown();
            is_leaving = true;
        }
    }
}

/// Returns what is spoken, and how much of it is borne.
fn protocols() -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}
