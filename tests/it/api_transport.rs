//! What only a connection shows: framing, flushing, protocols, the end (C84, C114, C119, C120, C122, C123, C230–C234).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use packageserver::sink::EmbeddedStore;
use packageserver::store::Store;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::PATIENCE;
use crate::support::hooked_store::{Call, Fault, HookedStore, Verdict, unavailable};
use crate::support::objects::{self, PACKAGES, current, delete, package, put};
use crate::support::raw::{Raw, http2, http2_get};
use crate::support::tls::TlsServer;

fn empty() -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::in_memory().expect("there is memory"))
}

#[tokio::test]
async fn c084_c122_c234_a_watch_over_http_1() {
    let store = empty();
    let server = TlsServer::start(Arc::clone(&store)).await;
    let mut raw = Raw::connect(&server).await;
    raw.send(&format!("GET {PACKAGES}?watch=1&resourceVersion={} HTTP/1.1", current(&store).await)).await;
    // Nothing has happened, and yet the head is there.
    let (status, headers) = raw.head().await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["transfer-encoding"], "chunked");
    assert!(!headers.contains_key("content-length"));
    put(&store, package("a")).await;
    let chunk = raw.chunk().await;
    assert!(chunk.starts_with(b"{\"type\":\"ADDED\"") && chunk.ends_with(b"}\n"));
    server.stop().await;
    // The end is the end of the body, not of the connection.
    assert_eq!(raw.chunk().await, b"");
}

#[tokio::test]
async fn c122_a_list_over_http_1_has_a_length() {
    let server = TlsServer::start(empty()).await;
    let mut raw = Raw::connect(&server).await;
    for _ in 0..2 {
        raw.send(&format!("GET {PACKAGES} HTTP/1.1\r\nUser-Agent: curl/8.5.0")).await;
        let (_, headers) = raw.head().await;
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        raw.0.read_exact(&mut body).await.unwrap();
        // C26, as curl sees it.
        assert!(body.starts_with(b"{\n  \"kind\""));
    }
}

#[tokio::test]
async fn c123_who_asks_for_a_websocket_gets_a_plain_watch() {
    let server = TlsServer::start(empty()).await;
    let mut raw = Raw::connect(&server).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
    raw.send(&format!("GET {PACKAGES}?watch=1&timeoutSeconds=1 HTTP/1.1\r\n{upgrade}")).await;
    assert_eq!(raw.head().await.0, "HTTP/1.1 200 OK");
    assert_eq!(raw.chunk().await, b"");
}

#[tokio::test]
async fn c122_c230_c234_a_watch_over_http_2() {
    let store = empty();
    let server = TlsServer::start(Arc::clone(&store)).await;
    let (send, driving) = http2(&server).await;
    let mut send = send.ready().await.unwrap();
    let (response, _) = send.send_request(http2_get(&format!("{PACKAGES}?watch=1")), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    assert!(!response.headers().contains_key("transfer-encoding"));
    assert!(!response.headers().contains_key("content-length"));
    let mut body = response.into_body();
    put(&store, package("a")).await;
    let data = body.data().await.unwrap().unwrap();
    assert!(data.starts_with(b"{\"type\":\"ADDED\""));
    server.stop().await;
    while let Some(data) = body.data().await {
        assert_eq!(data.expect("the stream ends, it is not reset"), "");
    }
    drop((send, body));
    // An aggregator sends everybody's requests over few connections.
    assert_eq!(driving.await.unwrap(), 1000);
}

#[tokio::test]
async fn c230_many_watches_share_a_connection() {
    let store = empty();
    let server = TlsServer::start(Arc::clone(&store)).await;
    let (send, _driving) = http2(&server).await;
    let mut bodies = Vec::new();
    for _ in 0..900 {
        let mut ready = send.clone().ready().await.unwrap();
        let (response, _) = ready.send_request(http2_get(&format!("{PACKAGES}?watch=1")), true).unwrap();
        bodies.push(response.await.unwrap().into_body());
    }
    put(&store, package("a")).await;
    for body in &mut bodies {
        let data = tokio::time::timeout(PATIENCE, body.data()).await.expect("it comes").unwrap().unwrap();
        assert!(data.starts_with(b"{\"type\":\"ADDED\""));
    }
}

#[tokio::test]
async fn c230_what_is_spoken() {
    let server = TlsServer::start(empty()).await;
    for (offered, chosen) in
        [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let stream = server.connect(offered).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        let version = stream.get_ref().1.protocol_version();
        assert!(matches!(version, Some(rustls::ProtocolVersion::TLSv1_3 | rustls::ProtocolVersion::TLSv1_2)));
    }
    // Nothing older than TLS 1.2: a hello that offers 1.1 only is refused.
    let mut old = TcpStream::connect(server.address).await.unwrap();
    let hello = [
        &[0x16, 0x03, 0x01, 0x00, 0x2d, 0x01, 0x00, 0x00, 0x29, 0x03, 0x02][..],
        &[0; 32],
        &[0x00, 0x00, 0x02, 0xc0, 0x13, 0x01, 0x00],
    ]
    .concat();
    old.write_all(&hello).await.unwrap();
    let mut alert = Vec::new();
    let read = tokio::time::timeout(PATIENCE, old.read_buf(&mut alert)).await;
    read.expect("an answer comes").unwrap();
    assert_eq!(alert.first(), Some(&0x15), "an alert: {alert:?}");
    let failed = || server.metrics.tls_errors.get();
    crate::support::eventually("the failure to be counted", || async { (failed() > 0).then_some(()) }).await;
}

#[tokio::test]
async fn c231_who_is_not_known_is_told_so_over_http_2_too() {
    let server = TlsServer::start(empty()).await;
    let mut config = server.client_config(&["h2"]);
    config.client_auth_cert_resolver = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
        .client_auth_cert_resolver;
    let stream = server.connect_with(config).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut send: h2::client::SendRequest<bytes::Bytes> = send.ready().await.unwrap();
    let (response, _) = send.send_request(http2_get(PACKAGES), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 401);
    let mut send = send.ready().await.unwrap();
    let (response, _) = send.send_request(http2_get("/livez"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn c233_a_server_that_leaves_answers_what_it_began() {
    let store = empty();
    let server = TlsServer::start(Arc::clone(&store)).await;
    let mut raw = Raw::connect(&server).await;
    raw.send(&format!("GET {PACKAGES} HTTP/1.1")).await;
    raw.head().await;
    let address = server.address;
    server.stop().await;
    // A new connection finds nobody.
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn c114_a_watcher_that_does_not_read_holds_up_nobody() {
    let store = empty();
    let server = TlsServer::start(Arc::clone(&store)).await;
    let query = format!("GET {PACKAGES}?watch=1&resourceVersion={} HTTP/1.1", current(&store).await);
    let mut stuck = Raw::connect(&server).await;
    stuck.send(&query).await;
    stuck.head().await;
    let mut reading = Raw::connect(&server).await;
    reading.send(&query).await;
    reading.head().await;
    // More than the buffers between the two can hold.
    let mut object = package("large");
    object["spec"]["keywords"] = serde_json::json!(["x".repeat(1 << 20)]);
    for number in 0..30 {
        object["spec"]["displayName"] = serde_json::json!(format!("{number}"));
        put(&store, object.clone()).await;
    }
    let mut read = 0;
    while read < 30 {
        read += reading.chunk().await.iter().filter(|byte| **byte == b'\n').count();
    }
    drop(stuck);
}

#[tokio::test]
async fn c013_a_broken_handler_leaves_the_connection_usable() {
    let store = HookedStore::in_memory();
    let server = TlsServer::start(Arc::clone(&store) as Arc<dyn Store>).await;
    let mut raw = Raw::connect(&server).await;
    for (fault, expected) in
        [(Fault::Panic, "HTTP/1.1 500 Internal Server Error"), (Fault::None, "HTTP/1.1 200 OK")]
    {
        store.set(fault);
        raw.send(&format!("GET {PACKAGES} HTTP/1.1")).await;
        let (status, headers) = raw.head().await;
        assert_eq!(status, expected);
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        raw.0.read_exact(&mut body).await.unwrap();
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_read_to_its_end_is_broken_off() {
    /// More than are read at once.
    const OBJECTS: usize = 501;
    let hooked = HookedStore::in_memory();
    let store: Arc<dyn Store> = Arc::clone(&hooked) as _;
    for number in 0..OBJECTS {
        put(&store, package(&format!("p{number}"))).await;
    }
    let server = TlsServer::start(store).await;
    let (mut send, _driving) = http2(&server).await;
    let misfortunes: [fn() -> Verdict; 2] = [|| Verdict::Fail(unavailable()), || panic!("on command")];
    for misfortune in misfortunes {
        let second_list_fails = || {
            let lists = AtomicUsize::new(0);
            hooked.hook(move |call| match call {
                Call::List if lists.fetch_add(1, Ordering::SeqCst) > 0 => misfortune(),
                _ => Verdict::Pass,
            });
        };
        second_list_fails();
        let mut raw = Raw::connect(&server).await;
        raw.send(&format!("GET {PACKAGES} HTTP/1.1")).await;
        let mut answer = Vec::new();
        let end = tokio::time::timeout(PATIENCE, raw.0.read_to_end(&mut answer)).await.expect("an end comes");
        assert!(!answer.ends_with(b"0\r\n\r\n"), "{end:?}: the last chunk says that this is all");

        second_list_fails();
        read_list(&mut send).await.unwrap_err();
        // Others on the same connection notice nothing.
        hooked.set(Fault::None);
        let list: Value = serde_json::from_slice(&read_list(&mut send).await.unwrap()).unwrap();
        assert_eq!(objects::names(&list).len(), OBJECTS);
    }
}

/// Lists packages and reads what comes, to its end.
async fn read_list(send: &mut h2::client::SendRequest<bytes::Bytes>) -> Result<Vec<u8>, h2::Error> {
    let (response, _) = send.send_request(http2_get(PACKAGES), true)?;
    let response = tokio::time::timeout(PATIENCE, response).await.expect("an answer comes")?;
    assert_eq!(response.status(), 200);
    let (mut body, mut read) = (response.into_body(), Vec::new());
    while let Some(data) = tokio::time::timeout(PATIENCE, body.data()).await.expect("more comes, or an end") {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        read.extend(data);
    }
    Ok(read)
}

fn packages(client: kube::Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("core.rukpak.io", "v1beta1", "Package");
    Api::namespaced_with(client, objects::NAMESPACE, &ApiResource::from_gvk_with_plural(&kind, "packages"))
}

#[tokio::test]
async fn c119_c120_kube_watches_in_both_modes() {
    let store = empty();
    for number in 0..5 {
        put(&store, package(&format!("p{number}"))).await;
    }
    let server = TlsServer::start(Arc::clone(&store)).await;
    for config in [watcher::Config::default().page_size(2), watcher::Config::default().streaming_lists()] {
        let mut events = Box::pin(watcher::watcher(packages(server.kube()), config.clone()));
        let mut next = async || {
            let event = tokio::time::timeout(PATIENCE, events.try_next()).await.expect("an event comes");
            event.expect("no error").expect("a watcher goes on")
        };
        let mut initial = Vec::new();
        loop {
            match next().await {
                Event::Init => {}
                Event::InitApply(object) => initial.push(object.metadata.name.unwrap()),
                Event::InitDone => break,
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(initial, ["p0", "p1", "p2", "p3", "p4"], "{config:?}");
        put(&store, package("new")).await;
        let Event::Apply(object) = next().await else { panic!("not what was added") };
        assert_eq!(object.metadata.name.as_deref(), Some("new"));
        delete(&store, "new").await;
        let Event::Delete(object) = next().await else { panic!("not what was deleted") };
        assert_eq!(object.metadata.name.as_deref(), Some("new"));
    }
}

#[tokio::test]
async fn c108_c119_kube_starts_anew_when_history_is_gone() {
    let store = empty();
    put(&store, package("a")).await;
    let server = TlsServer::start(Arc::clone(&store)).await;
    let api = packages(server.kube());
    let old = current(&store).await;
    put(&store, package("b")).await;
    let now = current(&store).await;
    store.compact(packageserver::store::Revision::new(now / 1000)).await.unwrap();
    let mut events = api.watch(&WatchParams::default(), &old.to_string()).await.unwrap().boxed();
    match events.try_next().await.unwrap() {
        Some(WatchEvent::Error(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"))
        }
        event => panic!("{event:?}"),
    }
    assert!(events.try_next().await.unwrap().is_none(), "nothing follows an error");
    let list = api.list(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!((list.items.len(), list.metadata.remaining_item_count), (1, Some(1)));
}

#[tokio::test]
async fn c229_a_client_tries_again_after_the_pause_it_was_told() {
    let store = HookedStore::in_memory();
    let server = TlsServer::start(Arc::clone(&store) as Arc<dyn Store>).await;
    let mut raw = Raw::connect(&server).await;
    for (fault, path, code) in [
        (Fault::Unavailable, PACKAGES.to_owned(), "503"),
        (Fault::Unavailable, format!("{PACKAGES}?watch=1"), "429"),
    ] {
        store.set(fault);
        raw.send(&format!("GET {path} HTTP/1.1")).await;
        let (status, headers) = raw.head().await;
        assert!(status.starts_with(&format!("HTTP/1.1 {code}")), "{status}");
        assert_eq!(headers["retry-after"], "1");
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        raw.0.read_exact(&mut body).await.unwrap();
    }
    store.set(Fault::None);
    tokio::time::timeout(Duration::from_secs(60), raw.send(&format!("GET {PACKAGES} HTTP/1.1")))
        .await
        .unwrap();
    assert_eq!(raw.head().await.0, "HTTP/1.1 200 OK");
}
