//! The heads of requests: how long they may be, and what whoever sends a longer one is told (C230).

use std::sync::Arc;

use axum::http::Method;
use http::header::HeaderName;
use packageserver::sink::EmbeddedStore;
use packageserver::store::Store;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::objects::{PACKAGES, package, put};
use crate::support::raw::{Raw, http2, http2_get};
use crate::support::router::TestApi;
use crate::support::tls::TlsServer;

/// Bytes of path and query.
const TARGET: usize = 60 << 10;

/// Headers of a request.
const HEADERS: usize = 1000;

/// Bytes of a selector.
const SELECTOR: usize = 32 << 10;

/// Requirements of a selector.
const REQUIREMENTS: usize = 512;

fn empty() -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::in_memory().expect("there is memory"))
}

/// Asserts that a body is the Status of a code and reason, and says a limit.
#[track_caller]
fn refuses(body: &Value, code: u16, reason: &str, limit: usize) {
    assert_eq!(
        (&body["kind"], &body["code"], &body["reason"]),
        (&"Status".into(), &code.into(), &reason.into())
    );
    assert!(body["message"].as_str().unwrap().contains(&format!("the limit is {limit}")), "{body}");
}

/// Sends a request over HTTP/1.1; returns the code, and the body if it has any.
async fn over_http1(server: &TlsServer, target: &str, headers: &[(String, String)]) -> (u16, Value) {
    let mut raw = Raw::connect(server).await;
    let lines: String = headers.iter().map(|(name, value)| format!("\r\n{name}: {value}")).collect();
    // Who is refused may be so before everything is sent.
    let _ = raw.0.write_all(format!("GET {target} HTTP/1.1{lines}\r\n\r\n").as_bytes()).await;
    let (status, headers) = raw.head().await;
    let code = status.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    raw.0.read_exact(&mut body).await.unwrap();
    (code, serde_json::from_slice(&body).unwrap_or_default())
}

/// The same over HTTP/2.
async fn over_http2(server: &TlsServer, target: &str, headers: &[(String, String)]) -> (u16, Value) {
    let (send, _driving) = http2(server).await;
    let mut request = http2_get(target);
    for (name, value) in headers {
        request.headers_mut().append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let mut ready = send.ready().await.unwrap();
    let (response, _) = ready.send_request(request, true).unwrap();
    let response = response.await.expect("an answer, and no broken connection");
    let (code, mut body, mut bytes) = (response.status().as_u16(), response.into_body(), Vec::new());
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend(data);
    }
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn a_target_may_be_so_long_and_no_longer() {
    let server = TlsServer::start(empty()).await;
    let target = |bytes: usize| {
        let start = format!("{PACKAGES}?x=");
        format!("{start}{}", "y".repeat(bytes - start.len()))
    };
    let host = [("host".to_owned(), "localhost".to_owned())];
    for bytes in [TARGET - 1, TARGET] {
        assert_eq!(over_http1(&server, &target(bytes), &host).await.0, 200);
        assert_eq!(over_http2(&server, &target(bytes), &[]).await.0, 200);
    }
    for (code, body) in [
        over_http1(&server, &target(TARGET + 1), &host).await,
        over_http2(&server, &target(TARGET + 1), &[]).await,
    ] {
        assert_eq!(code, 414);
        refuses(&body, 414, "RequestURITooLong", TARGET);
    }
    // What is far beyond is not read, so that there is nothing to say.
    assert_eq!(over_http1(&server, &target(70_000), &host).await.0, 414);
    assert_eq!(over_http1(&server, &target(2 << 20), &host).await.0, 431);
}

#[tokio::test]
async fn a_request_may_have_so_many_headers_and_no_more() {
    let server = TlsServer::start(empty()).await;
    let headers = |count: usize| -> Vec<_> {
        // As a proxy says which groups somebody is in; without it, nobody could be in more than a hundred.
        let group = |number| ("x-remote-group".to_owned(), format!("group-{number}"));
        std::iter::once(("host".to_owned(), "localhost".to_owned())).chain((1..count).map(group)).collect()
    };
    for count in [HEADERS - 1, HEADERS] {
        assert_eq!(over_http1(&server, PACKAGES, &headers(count)).await.0, 200);
        assert_eq!(over_http2(&server, PACKAGES, &headers(count)).await.0, 200);
    }
    for (code, body) in [
        over_http1(&server, PACKAGES, &headers(HEADERS + 1)).await,
        over_http2(&server, PACKAGES, &headers(HEADERS + 1)).await,
    ] {
        assert_eq!(code, 431);
        refuses(&body, 431, "RequestHeaderFieldsTooLarge", HEADERS);
    }
    assert_eq!(over_http1(&server, PACKAGES, &headers(HEADERS * 2)).await.0, 431);
}

#[tokio::test]
async fn c230_a_head_may_be_a_mebibyte_and_no_more() {
    let server = TlsServer::start(empty()).await;
    let headers = |bytes: usize| {
        let host = ("host".to_owned(), "localhost".to_owned());
        vec![host, ("x-filling".to_owned(), "y".repeat(bytes))]
    };
    // The rest of the head is some hundred bytes.
    let less = (1 << 20) - 1000;
    assert_eq!(over_http1(&server, PACKAGES, &headers(less)).await.0, 200);
    assert_eq!(over_http1(&server, PACKAGES, &headers(1 << 20)).await.0, 431);
    assert_eq!(over_http2(&server, PACKAGES, &headers(1 << 20)).await.0, 431);
}

/// Asserts what becomes of a selector wherever one may be.
async fn selects(api: &TestApi, parameter: &str, text: &str, refused: Option<usize>) {
    let text = percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    // Only what has to be is encoded, as a client that wants it to fit would.
    let text = text.replace("%2D", "-").replace("%2E", ".");
    for query in [format!("{parameter}={text}"), format!("watch=1&timeoutSeconds=1&{parameter}={text}")] {
        let answer = api.get(&format!("{PACKAGES}?{query}")).await;
        match refused {
            None => assert_eq!(answer.status, 200, "{}", answer.text()),
            Some(limit) => refuses(&answer.expect(400), 400, "BadRequest", limit),
        }
    }
    let sources = "/apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources";
    let answer = api.call(Method::DELETE, &format!("{sources}?{parameter}={text}")).await;
    assert_eq!(answer.status.as_u16(), if refused.is_some() { 400 } else { 200 }, "{}", answer.text());
}

#[tokio::test(start_paused = true)]
async fn selectors_may_be_so_long_and_no_longer() {
    let api = TestApi::new();
    put(&api.store, package("p")).await;
    // Lengths are those of what was decoded, not of what was sent.
    let label = |bytes: usize| {
        // Values of 31 bytes and a comma each, and one that fills up.
        let start = "a notin (";
        let room = bytes - start.len() - 1;
        let values: Vec<_> = (0..room / 32).map(|number| format!("{number:031}")).collect();
        format!("{start}{},{})", values.join(","), "x".repeat(room % 32))
    };
    let field = |bytes: usize| format!("metadata.name!={}", "x".repeat(bytes - "metadata.name!=".len()));
    for (bytes, refused) in [(SELECTOR - 1, None), (SELECTOR, None), (SELECTOR + 1, Some(SELECTOR))] {
        let labels = label(bytes);
        assert_eq!(labels.len(), bytes);
        selects(&api, "labelSelector", &labels, refused).await;
        selects(&api, "fieldSelector", &field(bytes), refused).await;
    }
}

#[tokio::test(start_paused = true)]
async fn selectors_may_have_so_many_requirements_and_no_more() {
    let api = TestApi::new();
    put(&api.store, package("p")).await;
    for (count, refused) in
        [(REQUIREMENTS - 1, None), (REQUIREMENTS, None), (REQUIREMENTS + 1, Some(REQUIREMENTS))]
    {
        let labels: Vec<_> = (0..count).map(|number| format!("!a{number}")).collect();
        selects(&api, "labelSelector", &labels.join(","), refused).await;
        let fields: Vec<_> = (0..count).map(|number| format!("metadata.name!=a{number}")).collect();
        selects(&api, "fieldSelector", &fields.join(","), refused).await;
    }
}
