//! A kube-apiserver of a test: answers as it is told, and remembers what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

/// What was asked: method and path, and the body if there was one.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// Returns a client of a cluster that answers each request with a status and a body, and what it was asked so far.
pub(super) fn cluster(
    answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static,
) -> (Client, Asked) {
    let asked = Asked::default();
    let (answer, noted) = (Arc::new(answer), Arc::clone(&asked));
    let service = service_fn(move |request: Request<Body>| {
        let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("requests have bodies").to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let line = format!("{} {}", head.method, head.uri.path());
            let (status, answer) = answer(&line, &body);
            noted.lock().unwrap_or_else(PoisonError::into_inner).push((line, body));
            let response =
                Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(response.expect("a status is all there is to it"))
        }
    });
    (Client::new(service, "default"), asked)
}

/// A Status as it comes with a failure.
pub(super) fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": reason,
        "code": code,
    });
    (code, status)
}
