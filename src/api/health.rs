//! /livez, /readyz and /healthz (C236–C239).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode, Uri};

use super::params::Query;
use super::{Api, respond};

/// Something that has to be there before a server is ready.
pub struct ReadinessCheck {
    /// Its name in the list of checks, such as `informer-sync`.
    pub name: &'static str,
    /// Returns whether it is there.
    pub is_ready: Box<dyn Fn() -> bool + Send + Sync>,
}

/// What can be checked.
#[derive(Clone, Copy)]
enum Check<'a> {
    /// The server answers.
    Ping,
    /// It can write its log.
    Log,
    /// The store has been read from.
    Store,
    /// One of the server's own.
    Own(&'a ReadinessCheck),
    /// The server has not been told to stop.
    Shutdown,
}

const LIVE: [Check<'static>; 2] = [Check::Ping, Check::Log];

fn ready_checks(api: &Api) -> Vec<Check<'_>> {
    let own = api.readiness.iter().map(Check::Own);
    LIVE.into_iter().chain([Check::Store]).chain(own).chain([Check::Shutdown]).collect()
}

impl Check<'_> {
    fn name(self) -> &'static str {
        match self {
            Check::Ping => "ping",
            Check::Log => "log",
            Check::Store => "etcd",
            Check::Own(check) => check.name,
            Check::Shutdown => "shutdown",
        }
    }

    async fn passes(self, api: &Api) -> bool {
        match self {
            Check::Ping | Check::Log => true,
            Check::Store => api.is_store_ready().await,
            Check::Own(check) => (check.is_ready)(),
            Check::Shutdown => !api.stopping.is_cancelled(),
        }
    }
}

/// Returns the paths of all checks.
pub(super) fn paths(api: &Api) -> Vec<String> {
    let of = |root: &str, checks: &[Check<'_>]| {
        let each = checks.iter().map(|check| format!("/{root}/{}", check.name()));
        std::iter::once(format!("/{root}")).chain(each).collect::<Vec<_>>()
    };
    [of("healthz", &LIVE), of("livez", &LIVE), of("readyz", &ready_checks(api))].concat()
}

/// `GET /livez`: whether a restart would help.
pub(super) async fn live(State(api): State<Arc<Api>>, uri: Uri) -> Response<Body> {
    answer(&api, "livez", &LIVE, &uri).await
}

/// `GET /readyz`: whether requests can be answered.
pub(super) async fn ready(State(api): State<Arc<Api>>, uri: Uri) -> Response<Body> {
    answer(&api, "readyz", &ready_checks(&api), &uri).await
}

/// `GET /healthz`: what it was called before.
pub(super) async fn healthy(State(api): State<Arc<Api>>, uri: Uri) -> Response<Body> {
    answer(&api, "healthz", &LIVE, &uri).await
}

/// `GET /livez/{check}` and `GET /healthz/{check}`
pub(super) async fn one_live(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Response<Body> {
    one(&api, &LIVE, &name).await
}

/// `GET /readyz/{check}`
pub(super) async fn one_ready(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Response<Body> {
    one(&api, &ready_checks(&api), &name).await
}

async fn one(api: &Api, checks: &[Check<'_>], name: &str) -> Response<Body> {
    match checks.iter().find(|check| check.name() == name) {
        None => super::not_found(),
        Some(check) if check.passes(api).await => respond::text(StatusCode::OK, "ok"),
        Some(_) => {
            respond::text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error: reason withheld\n")
        }
    }
}

async fn answer(api: &Api, name: &str, checks: &[Check<'_>], uri: &Uri) -> Response<Body> {
    let query = Query::parse(uri.query().unwrap_or_default());
    let mut excluded: Vec<_> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = Vec::new();
    for check in checks {
        let check_name = check.name();
        let before = excluded.len();
        excluded.retain(|excluded| *excluded != check_name);
        let line = if excluded.len() < before {
            format!("[+]{check_name} excluded: ok\n")
        } else if check.passes(api).await {
            format!("[+]{check_name} ok\n")
        } else {
            failed.push(check_name);
            format!("[-]{check_name} failed: reason withheld\n")
        };
        lines.push_str(&line);
    }
    if !excluded.is_empty() {
        let unknown: Vec<_> = excluded.iter().map(|name| format!("{name:?}")).collect();
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            unknown.join(",")
        ));
    }
    if !failed.is_empty() {
        tracing::info!(check = name, failed = failed.join(","), "health check failed");
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n"));
    }
    if query.get("verbose").is_some() {
        return respond::text(StatusCode::OK, format!("{lines}{name} check passed\n"));
    }
    respond::text(StatusCode::OK, "ok")
}
