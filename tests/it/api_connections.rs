//! Connections: how many there may be, who gives way to whom, and how long one may be there for nothing (C230).
//!
//! Time stands still once a connection is made, so that the limits of time are seen as they are.

use std::sync::Arc;
use std::time::Duration;

use packageserver::sink::EmbeddedStore;
use packageserver::store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::support::objects::{PACKAGES, current, package, put};
use crate::support::raw::{Raw, http2, http2_get};
use crate::support::server::{Kind, Server};
use crate::support::tls::TlsServer;
use crate::support::{PATIENCE, eventually};

const HANDSHAKE: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_secs(32);
const NEXT: Duration = Duration::from_secs(90);
const UNREAD: Duration = Duration::from_secs(60);

fn empty() -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::in_memory().expect("there is memory"))
}

/// Begins a watch on a connection of its own, and reads the head of the answer.
async fn watching(server: &TlsServer) -> Raw {
    let mut raw = Raw::connect(server).await;
    raw.send(&format!("GET {PACKAGES}?watch=1 HTTP/1.1")).await;
    assert_eq!(raw.head().await.0, "HTTP/1.1 200 OK");
    raw
}

/// Asks for the health on a connection, and returns the status line; nothing where nobody answers.
async fn alive(raw: &mut Raw) -> Option<String> {
    let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    raw.0.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        match timeout(PATIENCE, raw.0.read_buf(&mut answer)).await.expect("an answer, or an end") {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
    String::from_utf8_lossy(&answer).lines().next().map(str::to_owned)
}

/// As a probe of a kubelet: a connection, one request, and no credentials.
async fn probe(server: &TlsServer) -> Option<String> {
    let stream = server.connect_with(server.client_config(&["http/1.1"])).await.ok()?;
    alive(&mut Raw(tokio::io::BufReader::new(stream))).await
}

const ALIVE: &str = "HTTP/1.1 200 OK";

#[tokio::test]
async fn so_many_connections_are_in_use_and_no_more() {
    for most in [2, 3, 4] {
        let store = empty();
        let server = TlsServer::start_with(Arc::clone(&store), most).await;
        let mut watches = vec![watching(&server).await, watching(&server).await];
        if most > 2 {
            watches.push(watching(&server).await);
        }
        // With room for one more than there are, a probe finds its place; without, it is turned away, and so is an
        // administrator: there is nothing to be closed for either.
        assert_eq!(probe(&server).await.as_deref(), Some(ALIVE).filter(|_| most > 3), "{most}");
        let refused = server.metrics.connections_dropped.with_label_values(&["refused"]).get();
        assert_eq!(refused, u64::from(most <= 3));
        // What is in use goes on.
        put(&store, package("a")).await;
        for watch in &mut watches {
            assert!(watch.chunk().await.starts_with(b"{\"type\":\"ADDED\""));
        }
        drop(watches);
        eventually("room", || async { probe(&server).await.filter(|status| status == ALIVE) }).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_not_in_use_gives_way() {
    let server = TlsServer::start_with(empty(), 3).await;
    let _watch = watching(&server).await;
    let mut known = Raw::connect(&server).await;
    known.send(&format!("GET {PACKAGES}/none HTTP/1.1")).await;
    assert_eq!(known.head().await.0, "HTTP/1.1 404 Not Found");
    // Nobody knows who is behind those, and as many as there are, they only keep out each other.
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(TcpStream::connect(server.address).await.unwrap());
        assert_eq!(probe(&server).await.as_deref(), Some(ALIVE));
        // A probe that has left is not an idle connection that somebody may have to go for.
        eventually("the probe's connection to end", || {
            let open = server.metrics.connections.get();
            async move { (open == 2).then_some(()) }
        })
        .await;
    }
    let evicted = || server.metrics.connections_dropped.with_label_values(&["evicted"]).get();
    assert!(evicted() >= 19, "{}", evicted());
    assert_eq!(server.metrics.connections_dropped.with_label_values(&["refused"]).get(), 0);
    assert!(server.metrics.connections.get() <= 3);
    let ended = timeout(PATIENCE, strangers[0].read(&mut [0])).await.expect("it is closed");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    // The rest of the answer is read with what comes next.
    let length = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    known.0.write_all(length).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\nok") {
        assert_ne!(timeout(PATIENCE, known.0.read_buf(&mut read)).await.unwrap().unwrap(), 0);
    }
    // Where nobody else is left to go, the one that is known does.
    let _second = watching(&server).await;
    drop(strangers);
    let _third = watching(&server).await;
    assert_eq!(timeout(PATIENCE, known.0.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
}

/// Asserts that the server ends a connection at a limit, which began to count soon before.
async fn ends_at(limit: Duration, stream: &mut (impl AsyncReadExt + Unpin)) {
    let start = Instant::now();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    // How it ends is not the same for all.
    let _ = ended.expect("the server ends it");
    is_limit(limit, start.elapsed());
}

#[track_caller]
fn is_limit(limit: Duration, elapsed: Duration) {
    assert!(elapsed > limit / 2 && elapsed < limit + Duration::from_secs(1), "{elapsed:?}, {limit:?}");
}

/// Sends a byte a second for as long as somebody takes them.
async fn dribble(mut to: impl AsyncWriteExt + Unpin, bytes: &[u8]) {
    for byte in bytes.iter().cycle() {
        if to.write_all(std::slice::from_ref(byte)).await.is_err() || to.flush().await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_handshake_may_take_so_long_and_no_longer() {
    let server = TlsServer::start(empty()).await;
    tokio::time::pause();
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    ends_at(HANDSHAKE, &mut silent).await;
    // The beginning of a hello that claims to be long.
    let (mut read, write) = TcpStream::connect(server.address).await.unwrap().into_split();
    let dribbling =
        tokio::spawn(dribble(write, &[0x16, 0x03, 0x01, 0x01, 0x00, 0x01, 0x00, 0x00, 0xfc, 0x03]));
    ends_at(HANDSHAKE, &mut read).await;
    dribbling.abort();
    assert_eq!(server.metrics.tls_errors.get(), 2);
}

#[tokio::test]
async fn c230_a_head_may_take_so_long_and_no_longer() {
    let server = TlsServer::start(empty()).await;
    for protocols in [&["http/1.1"][..], &["h2"], &[]] {
        let mut silent = server.connect(protocols).await;
        tokio::time::pause();
        ends_at(FIRST, &mut silent).await;
        tokio::time::resume();
    }
    let (mut read, mut write) = tokio::io::split(server.connect(&["http/1.1"]).await);
    write.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
    write.flush().await.unwrap();
    tokio::time::pause();
    let dribbling = tokio::spawn(dribble(write, b"y"));
    ends_at(FIRST, &mut read).await;
    dribbling.abort();
}

#[tokio::test]
async fn c230_a_connection_without_requests_ends() {
    let server = TlsServer::start(empty()).await;
    let mut raw = Raw::connect(&server).await;
    assert_eq!(alive(&mut raw).await.as_deref(), Some(ALIVE));
    tokio::time::pause();
    ends_at(FIRST, &mut raw.0).await;
    tokio::time::resume();

    let (send, driving) = http2(&server).await;
    let mut send = send.ready().await.unwrap();
    let (response, _) = send.send_request(http2_get("/livez"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    tokio::time::pause();
    let start = Instant::now();
    // It is told to go, and not cut off.
    let mut send = send.ready().await.unwrap();
    timeout(PATIENCE, driving).await.expect("the server ends it").unwrap();
    is_limit(NEXT, start.elapsed());
    let error = std::future::poll_fn(|context| send.poll_ready(context)).await.unwrap_err();
    assert!(error.is_go_away() || error.is_io() || error.to_string().contains("closed"), "{error:?}");
}

#[tokio::test]
async fn a_watch_without_events_is_a_use() {
    let store = empty();
    let server = TlsServer::start(Arc::clone(&store)).await;
    let mut raw = watching(&server).await;
    let (send, _driving) = http2(&server).await;
    let mut send = send.ready().await.unwrap();
    let (response, _) = send.send_request(http2_get(&format!("{PACKAGES}?watch=1")), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    tokio::time::pause();
    tokio::time::sleep(NEXT * 3).await;
    put(&store, package("a")).await;
    assert!(raw.chunk().await.starts_with(b"{\"type\":\"ADDED\""));
    assert!(body.data().await.unwrap().unwrap().starts_with(b"{\"type\":\"ADDED\""));
}

/// Opens a connection whose client takes no more than so much of any answer.
async fn takes(bytes: u32, server: &TlsServer) -> h2::client::SendRequest<bytes::Bytes> {
    let stream = server.connect(&["h2"]).await;
    let mut client = h2::client::Builder::new();
    client.initial_window_size(bytes);
    let (send, connection) = client.handshake(stream).await.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    send
}

#[tokio::test]
async fn c114_a_stream_that_is_not_read_is_reset_and_no_other() {
    let store = empty();
    put(&store, package("a")).await;
    let server = TlsServer::start(Arc::clone(&store)).await;
    let send = takes(0, &server).await;
    let mut bodies = Vec::new();
    for path in [PACKAGES.to_owned(), format!("{PACKAGES}?watch=1"), "/livez".to_owned()] {
        let mut ready = send.clone().ready().await.unwrap();
        let (response, _) = ready.send_request(http2_get(&path), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        bodies.push(response.into_body());
    }
    let query = format!("watch=1&resourceVersion={}", current(&store).await);
    let mut other = takes(1, &server).await.ready().await.unwrap();
    let (response, _) = other.send_request(http2_get(&format!("{PACKAGES}?{query}")), true).unwrap();
    let mut quiet = response.await.unwrap().into_body();
    tokio::time::pause();
    let start = Instant::now();
    for mut body in bodies {
        let error = timeout(PATIENCE, body.data()).await.expect("it ends").unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
    }
    is_limit(UNREAD, start.elapsed());
    // One that has nothing to be read is none of those, until it has.
    tokio::time::sleep(UNREAD * 3).await;
    put(&store, package("b")).await;
    assert_eq!(quiet.data().await.unwrap().expect("it is still there"), "{");
    tokio::time::sleep(UNREAD * 3).await;
    put(&store, package("c")).await;
    let start = Instant::now();
    let error = timeout(PATIENCE, quiet.data()).await.expect("it ends").unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
    is_limit(UNREAD, start.elapsed());
}

#[tokio::test]
async fn c114_what_a_stream_does_not_take_is_not_kept_for_it() {
    let store = empty();
    let mut object = package("large");
    object["spec"]["keywords"] = serde_json::json!(["x".repeat(1 << 20)]);
    put(&store, object).await;
    let server = TlsServer::start(store).await;
    let mut send = takes(1, &server).await.ready().await.unwrap();
    let (response, _) = send.send_request(http2_get(&format!("{PACKAGES}/large")), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "{");
    tokio::time::pause();
    let start = Instant::now();
    let error = timeout(PATIENCE, body.data()).await.expect("it ends").unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
    is_limit(UNREAD, start.elapsed());
}

#[tokio::test]
async fn the_flag_says_how_many_connections_there_may_be() {
    let mut server = Server::start_as(Kind::Up, &["--max-connections=4"]).await;
    let url = server.kubeconfig();
    let kubeconfig = std::fs::read_to_string(url).unwrap();
    let address = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("server: https://"));
    let address = address.expect("it says where the server is").trim_matches('"').to_owned();
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(TcpStream::connect(&address).await.unwrap());
    }
    // Whoever holds connections holds up nobody.
    server.ready().await;
    let client = server.client().await;
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.unwrap();
    let value = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).expect("it is counted");
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert!(value("packageserver_connections ") <= 4, "{text}");
    assert!(value("packageserver_connections_dropped_total{reason=\"evicted\"}") >= 36, "{text}");
    assert!(server.process().log().contains("max_connections=4"));
}
