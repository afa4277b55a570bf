//! The API without sockets: requests go straight to the router, over a store in memory.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::request::{Builder, Parts};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use packageserver::api::auth::{
    AnyNamespace, Authenticator, Authorizer, BadCredentials, MastersAuthorizer, User,
};
use packageserver::api::{Api, ApiConfig, ApiOptions};
use packageserver::model::RESOURCES;
use packageserver::sink::EmbeddedStore;
use packageserver::store::Store;
use packageserver::telemetry::metrics::Metrics;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Bytes of an answer that a test reads.
const MAX_ANSWER: usize = 64 << 20;

/// The API of one test.
pub struct TestApi {
    /// What is behind it.
    pub store: Arc<dyn Store>,
    /// Cancelled to tell the API that the server stops.
    pub stopping: CancellationToken,
    /// Cancelled to end watches.
    pub draining: CancellationToken,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    router: Router,
}

/// A request on its way; `.await` sends it and gives the [`Answer`].
pub struct Call {
    router: Router,
    request: Builder,
    user: Option<User>,
    body: Bytes,
}

/// What was answered, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Knows nobody: who asks is said by [`Call::user`].
struct Strangers;

#[async_trait]
impl Authenticator for Strangers {
    async fn authenticate(&self, _: &mut Parts) -> Result<Option<User>, BadCredentials> {
        Ok(None)
    }
}

impl TestApi {
    /// Serves every type over an empty store; only administrators may do anything.
    pub fn new() -> Self {
        Self::over(Arc::new(EmbeddedStore::in_memory().expect("memory suffices")))
    }

    /// As [`Self::new`], over another store.
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self::with(store, Arc::new(MastersAuthorizer))
    }

    /// As [`Self::over`], with another say on who may do what.
    pub fn with(store: Arc<dyn Store>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self::with_options(store, authorizer, ApiOptions::default())
    }

    /// As [`Self::with`], with options of its own.
    pub fn with_options(store: Arc<dyn Store>, authorizer: Arc<dyn Authorizer>, options: ApiOptions) -> Self {
        let (stopping, draining) = (CancellationToken::new(), CancellationToken::new());
        let metrics = Arc::clone(&options.metrics);
        let api = Api::new(ApiConfig {
            store: Arc::clone(&store),
            resources: RESOURCES,
            authenticator: Arc::new(Strangers),
            authorizer,
            namespaces: Arc::new(AnyNamespace),
            stopping: stopping.clone(),
            draining: draining.clone(),
            options,
        });
        TestApi { store, stopping, draining, metrics, router: api.router() }
    }

    /// Begins a request, as administrator.
    pub fn call(&self, method: Method, path: &str) -> Call {
        Call {
            router: self.router.clone(),
            request: Request::builder().method(method).uri(path),
            user: Some(User::administrator()),
            body: Bytes::new(),
        }
    }

    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: &Value) -> Call {
        self.call(Method::POST, path).json(body)
    }

    pub fn put(&self, path: &str, body: &Value) -> Call {
        self.call(Method::PUT, path).json(body)
    }

    /// A patch of a type, such as `merge-patch+json`.
    pub fn patch(&self, path: &str, kind: &str, body: &Value) -> Call {
        self.call(Method::PATCH, path).body(&format!("application/{kind}"), body.to_string())
    }

    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }
}

impl Call {
    /// Adds a header.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.request = self.request.header(name.as_ref(), value.as_ref());
        self
    }

    /// Asks for an answer of a media type.
    pub fn accept(self, media_types: &str) -> Self {
        self.header(header::ACCEPT, media_types)
    }

    /// Asks as somebody else; as nobody, if none.
    pub fn user(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }

    /// Sends JSON.
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Sends a body of a media type; of none, if that is empty.
    pub fn body(mut self, media_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        if media_type.is_empty() { self } else { self.header(header::CONTENT_TYPE, media_type) }
    }

    /// Sends the request and returns the response before its body is read, as a watch needs it.
    pub async fn response(self) -> Response<Body> {
        let mut request = self.request.body(Body::from(self.body)).expect("the request is well-formed");
        if let Some(user) = self.user {
            request.extensions_mut().insert(user);
        }
        self.router.oneshot(request).await.expect("a router always answers")
    }
}

impl IntoFuture for Call {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async {
            let (parts, body) = self.response().await.into_parts();
            let body = to_bytes(body, MAX_ANSWER).await.expect("answers end");
            Answer { status: parts.status, headers: parts.headers, body }
        })
    }
}

impl Answer {
    /// Returns the JSON of an answer that has to have this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// Returns the answer as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Returns the answer as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns every value of a header.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().expect("headers are ASCII")).collect()
    }
}
