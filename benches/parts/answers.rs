//! What the API makes of objects in memory: lists, rows of tables, events. No network, no etcd.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Request, header};
use criterion::{Criterion, Throughput};
use http_body_util::BodyExt;
use packageserver::api::auth::{AnyNamespace, Authenticator, BadCredentials, MastersAuthorizer, User};
use packageserver::api::{Api, ApiConfig, ApiOptions};
use packageserver::model::RESOURCES;
use packageserver::sink::EmbeddedStore;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::Files;
use super::writing::{append, with_reconciler};

const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

/// A watch that begins with what there is, and says where that ends.
const STATE: &str =
    "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

/// What the last event of that has in it.
const END: &[u8] = b"k8s.io/initial-events-end";

/// Takes everybody for the administrator.
struct Anybody;

#[async_trait]
impl Authenticator for Anybody {
    async fn authenticate(&self, _: &mut Parts) -> Result<Option<User>, BadCredentials> {
        Ok(Some(User::administrator()))
    }
}

/// Measures it, in bytes of the answers.
pub(super) fn bench(criterion: &mut Criterion, files: &Files) {
    let runtime = Runtime::new().expect("threads can be started");
    let router = runtime.block_on(async {
        let store = Arc::new(EmbeddedStore::in_memory().expect("there is memory"));
        with_reconciler(files, &*store, |reconciler| {
            futures::executor::block_on(append(reconciler, &*store))
        });
        let api = Api::new(ApiConfig {
            store,
            resources: RESOURCES,
            authenticator: Arc::new(Anybody),
            authorizer: Arc::new(MastersAuthorizer),
            namespaces: Arc::new(AnyNamespace),
            stopping: CancellationToken::new(),
            draining: CancellationToken::new(),
            options: ApiOptions::default(),
        });
        api.router()
    });
    let mut group = criterion.benchmark_group("answers");
    group.sample_size(20);
    let watch = format!("packages?{STATE}");
    for (what, path, accept) in [
        ("packages, JSON", "packages", JSON),
        ("packages, metadata", "packages", METADATA),
        ("packages, Table", "packages?limit=500", TABLE),
        ("500 bundles, JSON", "bundlemetadata?limit=500", JSON),
        ("500 bundles, Table", "bundlemetadata?limit=500", TABLE),
        ("packages as events, JSON", &watch, JSON),
        ("packages as events, Table", &watch, TABLE),
    ] {
        let ask = || runtime.block_on(answer(&router, path, accept));
        group.throughput(Throughput::Bytes(ask() as u64));
        group.bench_function(what, |bencher| bencher.iter(ask));
    }
    group.finish();
}

/// Asks for something, and returns how many bytes come; of a watch, those of the state it begins with.
async fn answer(router: &Router, path: &str, accept: &str) -> usize {
    let request = Request::get(format!("/apis/core.rukpak.io/v1beta1/{path}")).header(header::ACCEPT, accept);
    let request = request.body(Body::empty()).expect("it is well-formed");
    let response = router.clone().oneshot(request).await.expect("it answers");
    assert_eq!(response.status(), 200);
    let (mut body, mut bytes) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame.expect("it is whole").into_data().unwrap_or_default();
        bytes += data.len();
        if path.contains("watch") && memchr::memmem::find(&data, END).is_some() {
            break;
        }
    }
    bytes
}
