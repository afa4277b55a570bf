//! The Kubernetes API over a [`Store`]: list, get, watch and write of declared types, for kubectl and every other client.
//!
//! Nothing here knows what the types are about: a [`ResourceType`] says what is needed to serve it. The behaviour that
//! clients rely on is the contract of k8s.io/apiserver; the numbers C1…C304 in comments and tests are its rules.
//!
//! A request passes [`filter`] (who asks, may they, how long may it take), then the [route](Api::router), then the
//! handler of a resource, which reads from or appends to the store.

mod accept;
mod age;
pub mod audit;
pub mod auth;
mod body;
pub mod crd;
mod discovery;
mod document;
mod encode;
mod facts;
mod filter;
mod frames;
pub mod health;
mod metrics;
mod openapi;
mod params;
mod read;
mod request;
mod resource;
mod respond;
mod schema;
mod selector;
pub mod serve;
mod status;
mod token;
mod watch;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::audit::Audit;
use self::auth::{Authenticator, Authorizer, Namespaces};
use self::discovery::Discovery;
use self::encode::CellCache;
use self::filter::{InFlight, Room};
use self::frames::Frames;
use self::health::ReadinessCheck;
use self::openapi::OpenApi;
use self::schema::Schemas;
use self::status::ApiError;
pub use self::write::StatusOwnership;
use crate::resource::ResourceType;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// How long a readiness check waits for a store that was never reached.
const STORE_CHECK: Duration = Duration::from_secs(2);

/// A server's API: what it serves, to whom, from which store.
pub struct Api {
    store: Arc<dyn Store>,
    resources: &'static [&'static ResourceType],
    schemas: Schemas,
    discovery: Discovery,
    openapi: OpenApi,
    authenticator: Arc<dyn Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    namespaces: Arc<dyn Namespaces>,
    /// Cancelled when the server was told to stop: it says that it is not ready any more (C232).
    stopping: CancellationToken,
    /// Cancelled when watches are to end (C234).
    draining: CancellationToken,
    /// Whether the store was ever reached. After that, an absent store does not make the server unready: what is
    /// in memory is still served.
    store_was_reached: AtomicBool,
    cells: Arc<CellCache>,
    frames: Arc<Frames>,
    inflight: InFlight,
    readiness: Vec<ReadinessCheck>,
    audit: Option<Audit>,
    metrics: Arc<Metrics>,
}

/// What an [`Api`] is made of.
pub struct ApiConfig {
    /// Where objects are.
    pub store: Arc<dyn Store>,
    /// The types that are served, all of one group and version.
    pub resources: &'static [&'static ResourceType],
    /// Finds out who asks.
    pub authenticator: Arc<dyn Authenticator>,
    /// Decides whether they may.
    pub authorizer: Arc<dyn Authorizer>,
    /// Knows where objects may be put.
    pub namespaces: Arc<dyn Namespaces>,
    /// Cancelled when the server is told to stop.
    pub stopping: CancellationToken,
    /// Cancelled when watches are to end.
    pub draining: CancellationToken,
    /// What has a default.
    pub options: ApiOptions,
}

/// What can be set for an [`Api`], and has a default.
pub struct ApiOptions {
    /// How many reads are answered at a time (C227).
    pub max_requests_inflight: usize,
    /// How many writes are answered at a time.
    pub max_mutating_requests_inflight: usize,
    /// Watches at a time.
    pub max_watches: usize,
    /// Watches of one user at a time. The nodes of a cluster may all watch as one.
    pub max_watches_per_user: usize,
    /// What has to be there, beside the store, before the server is ready.
    pub readiness: Vec<ReadinessCheck>,
    /// Where requests are noted, if they are.
    pub audit: Option<Audit>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Default for ApiOptions {
    fn default() -> Self {
        ApiOptions {
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            max_watches: 20_000,
            max_watches_per_user: 10_000,
            readiness: Vec::new(),
            audit: None,
            metrics: Metrics::new(),
        }
    }
}

impl Api {
    /// Makes the documents that are answered from memory.
    pub fn new(config: ApiConfig) -> Arc<Self> {
        let ApiConfig {
            store,
            resources,
            authenticator,
            authorizer,
            namespaces,
            stopping,
            draining,
            options,
        } = config;
        let ApiOptions {
            max_requests_inflight,
            max_mutating_requests_inflight,
            max_watches,
            max_watches_per_user,
            readiness,
            audit,
            metrics,
        } = options;
        let room = Room {
            reading: max_requests_inflight,
            writing: max_mutating_requests_inflight,
            watching: max_watches,
            watching_per_user: max_watches_per_user,
        };
        let schemas = Schemas::new(resources);
        Arc::new(Api {
            store,
            resources,
            discovery: Discovery::new(resources),
            openapi: OpenApi::new(resources, &schemas),
            schemas,
            authenticator,
            authorizer,
            namespaces,
            stopping,
            draining,
            store_was_reached: AtomicBool::new(false),
            cells: Arc::new(CellCache::new()),
            frames: Arc::new(Frames::new()),
            inflight: InFlight::new(&metrics, room),
            readiness,
            audit,
            metrics,
        })
    }

    /// Returns every route, in the order in which clients use them. All of them are there from the first connection on,
    /// so that what is absent is absent for good (C10).
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/", get(paths))
            .route("/version", get(version))
            .route("/livez", get(health::live))
            .route("/livez/{check}", get(health::one_live))
            .route("/readyz", get(health::ready))
            .route("/readyz/{check}", get(health::one_ready))
            .route("/healthz", get(health::healthy))
            .route("/healthz/{check}", get(health::one_live))
            .route("/metrics", get(metrics::metrics))
            // After a 404 kubectl asks whether the namespace is there, and shows that answer instead of the first if it is
            // a 404 too. Namespaces are not served here, but they are not missing either.
            .route("/api/v1/namespaces/{namespace}", any(async || ApiError::method_not_allowed()))
            .route("/apis", get(discovery::groups))
            .route("/apis/{group}", get(discovery::group_by_name))
            .route("/apis/{group}/{version}", get(discovery::resources))
            .route("/openapi/v2", get(openapi::swagger))
            .route("/openapi/v3", get(openapi::index))
            .route("/openapi/v3/apis/{group}/{version}", get(openapi::group_version))
            .route("/apis/{group}/{version}/{*resource}", any(resource::handle))
            .method_not_allowed_fallback(async || status::ApiError::method_not_allowed())
            .fallback(async || not_found())
            .layer(from_fn_with_state(Arc::clone(self), filter::filter))
            .with_state(Arc::clone(self))
    }

    /// Answers that something is not here: as an API where its group and version are, as any web server elsewhere (C8,
    /// C10).
    fn not_here(&self, group: &str, version: &str) -> Result<Response<Body>, ApiError> {
        let is_ours = |resource: &&ResourceType| (resource.group, resource.version) == (group, version);
        if self.resources.iter().any(is_ours) { Err(ApiError::unknown_resource()) } else { Ok(not_found()) }
    }

    /// Returns the type that a request is about.
    fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static ResourceType> {
        let wanted = |resource: &&ResourceType| {
            (resource.group, resource.version, resource.plural) == (group, version, plural)
        };
        self.resources.iter().copied().find(wanted)
    }

    async fn is_store_ready(&self) -> bool {
        if !self.store_was_reached.load(Ordering::Relaxed) {
            let reached = tokio::time::timeout(STORE_CHECK, self.store.current()).await;
            self.store_was_reached.store(matches!(reached, Ok(Ok(_))), Ordering::Relaxed);
        }
        self.store_was_reached.load(Ordering::Relaxed)
    }
}

fn not_found() -> Response<Body> {
    respond::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// `GET /`: where there is something (C240).
async fn paths(State(api): State<Arc<Api>>) -> Response<Body> {
    let mut paths = vec!["/apis".to_owned(), "/metrics".to_owned(), "/openapi/v2".to_owned()];
    if let Some(first) = api.resources.first() {
        let (group, version) = (first.group, first.version);
        paths.extend([format!("/apis/{group}"), format!("/apis/{group}/{version}")]);
        paths.push(format!("/openapi/v3/apis/{group}/{version}"));
    }
    paths.extend(["/openapi/v3", "/version"].map(str::to_owned));
    paths.extend(health::paths(&api));
    paths.sort();
    respond::json(&json!({"paths": paths}))
}

/// `GET /version` (C240). Major and minor are those of the Kubernetes API that is followed.
async fn version() -> Response<Body> {
    respond::json(&json!({
        "major": "1",
        "minor": "34",
        "gitVersion": concat!("v1.34.0+packageserver-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))
}
