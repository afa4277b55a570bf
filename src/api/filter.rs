//! What every request passes before it is answered (C14): is there still time, who asks, is there room, may they.
//! And what every answer passes on its way out: the form of errors, headers, compression, the books.

mod exchange;
mod gzip;
mod inflight;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use futures::FutureExt;
use tokio::time::Instant;

use self::exchange::{AUDIT_ID, Exchange};
pub(super) use self::inflight::{InFlight, Room};
use super::accept::{Form, Format, Representation, format_of_errors};
use super::auth::{Attributes, Decision, User};
use super::params::Query;
use super::serve::InUse;
use super::status::ApiError;
use super::{Api, respond};

/// The longest time that a request that is not a watch may take (C24, C226).
const MAX_DURATION: Duration = Duration::from_secs(60);

/// The longest time that a write of one object may take (C226).
const MAX_WRITE_DURATION: Duration = Duration::from_secs(34);

/// Headers of a request: a proxy that passes on who asks sends one for each of their groups.
pub(super) const MAX_HEADERS: usize = 1000;

/// Bytes of the path and query of a request. Below what the protocols can carry, so that the answer can say so.
const MAX_TARGET_BYTES: usize = 60 << 10;

/// Paths that everybody may read (C277).
const ALWAYS_ALLOWED: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Passes a request on to its route, or refuses it.
pub(super) async fn filter(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let in_use = parts.extensions.remove::<InUse>();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let attributes = Attributes::of(&parts);
    let errors = (format_of_errors(&parts.headers), respond::is_pretty(&query, &parts.headers));
    // What is streamed to a watcher has to arrive at once (C51).
    let may_compress =
        !attributes.is_long_running() && parts.method != Method::HEAD && gzip::is_accepted(&parts.headers);
    let mut exchange = Exchange::begin(&api, &parts, &attributes, in_use);

    let answer = admit(&api, &mut exchange, &query, attributes, parts, body, next);
    let answer = match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(answer) => answer.unwrap_or_else(ApiError::into_response),
        Err(_) => {
            exchange.panicked();
            let text = "This request made the server fail. Look in its log for details.\n";
            respond::text(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    };

    let mut answer = in_format(answer, errors);
    let headers = answer.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    headers.insert(AUDIT_ID, exchange.audit_id().clone());
    let answer = exchange.answer(answer);
    if may_compress { gzip::compress(answer).await } else { answer }
}

async fn admit(
    api: &Api,
    exchange: &mut Exchange,
    query: &Query,
    attributes: Attributes,
    mut parts: Parts,
    body: Body,
    next: Next,
) -> Result<Response<Body>, ApiError> {
    within_limits(&parts)?;
    let is_always_allowed = ALWAYS_ALLOWED.contains(&&*attributes.path);
    let is_health = ALWAYS_ALLOWED.iter().any(|path| attributes.path.starts_with(path));
    if api.draining.is_cancelled() && !is_health && attributes.path != "/metrics" {
        return Ok(late(parts.version));
    }
    if let Some(name) = parts.headers.keys().find(|name| name.as_str().starts_with("impersonate-")) {
        // Whoever passes a request on has resolved it; asked directly, acting as oneself would be a surprise (C263).
        let message =
            format!("header {name:?} is not honoured here; send the request through the kube-apiserver");
        return Err(ApiError::bad_request(message));
    }
    let user = authenticate(api, exchange, &mut parts).await?;
    exchange.received(user.as_ref());
    if !is_health {
        let admitted = match attributes.is_long_running() {
            true => api.inflight.admit_watch(user.as_ref()),
            false => api.inflight.admit(user.as_ref(), &attributes),
        };
        match admitted {
            Ok(permit) => exchange.hold(permit),
            Err(inflight::Full) => return Ok(exchange.too_many()),
        }
    }
    if !is_always_allowed {
        let user = user.as_ref().ok_or_else(ApiError::unauthorized)?;
        authorize(api, exchange, user, &attributes).await?;
    }
    // What authenticates is for this place only (C272).
    parts.headers.remove(header::AUTHORIZATION);
    let deadline = deadline(&attributes, query)?.map(|duration| Instant::now() + duration);
    exchange.ends_at(deadline);
    if let Some(user) = user {
        parts.extensions.insert(user);
    }
    parts.extensions.insert(attributes);
    let body = exchange.tap(&parts, body);
    let answer = next.run(Request::from_parts(parts, body));
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, answer).await.map_err(|_| exchange.timed_out()),
        None => Ok(answer.await),
    }
}

/// Refuses a head that is larger than anybody needs it.
fn within_limits(parts: &Parts) -> Result<(), ApiError> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET_BYTES {
        return Err(ApiError::target_too_long(target, MAX_TARGET_BYTES));
    }
    match parts.headers.len() {
        0..=MAX_HEADERS => Ok(()),
        headers => Err(ApiError::too_many_headers(headers, MAX_HEADERS)),
    }
}

/// Finds out who asks.
async fn authenticate(
    api: &Api,
    exchange: &mut Exchange,
    parts: &mut Parts,
) -> Result<Option<User>, ApiError> {
    let user = match parts.extensions.get::<User>().cloned() {
        // A request of this process's own; nothing that comes over the wire has extensions of this kind.
        Some(user) => Ok(Some(user)),
        None => api.authenticator.authenticate(parts).await,
    };
    let result = if user.is_ok() { "success" } else { "failure" };
    api.metrics.authentications.with_label_values(&[result]).inc();
    user.map_err(|error| {
        tracing::debug!(%error, "credentials refused");
        exchange.received(None);
        ApiError::unauthorized()
    })
}

/// Finds out whether they may.
async fn authorize(
    api: &Api,
    exchange: &mut Exchange,
    user: &User,
    attributes: &Attributes,
) -> Result<(), ApiError> {
    let decision = api.authorizer.authorize(user, attributes).await;
    let (result, annotation, reason) = match &decision {
        Ok(Decision::Allow) => ("allowed", "allow", ""),
        Ok(Decision::Deny(reason)) => ("denied", "forbid", reason.as_str()),
        Err(error) => ("error", "forbid", error.as_str()),
    };
    api.metrics.authorizations.with_label_values(&[result]).inc();
    exchange.decided(annotation, reason);
    match decision {
        Ok(Decision::Allow) => Ok(()),
        Ok(Decision::Deny(reason)) => Err(ApiError::forbidden(user, attributes, &reason)),
        Err(error) => Err(ApiError::internal(error)),
    }
}

/// Returns how long a request may take; none for watches, which have a time of their own.
fn deadline(attributes: &Attributes, query: &Query) -> Result<Option<Duration>, ApiError> {
    if attributes.is_long_running() {
        return Ok(None);
    }
    let asked = match query.text("timeout") {
        "" => Duration::ZERO,
        text => crate::resource::parse_duration(text)
            .map_err(|_| ApiError::bad_request("invalid timeout specified in the request URL"))?,
    };
    let is_write = matches!(&*attributes.verb, "create" | "update" | "patch" | "delete");
    let most = if is_write { MAX_WRITE_DURATION } else { MAX_DURATION };
    Ok(Some(if asked.is_zero() { most } else { asked.min(most) }))
}

/// Answers a request that came when the server had begun to leave (C233).
fn late(version: Version) -> Response<Body> {
    let text = "The apiserver is shutting down, please try again later.";
    let mut answer = respond::text(StatusCode::TOO_MANY_REQUESTS, text);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    // HTTP/2 has no such header: its connections are told to end by another way.
    if version <= Version::HTTP_11 {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Writes an error in the format that the client reads.
fn in_format(answer: Response<Body>, (format, pretty): (Format, bool)) -> Response<Body> {
    let Some(error) = answer.extensions().get::<ApiError>().filter(|_| format == Format::Yaml || pretty)
    else {
        return answer;
    };
    match respond::object(error.to_json(), Representation { form: Form::Object, format }, pretty) {
        Ok(formatted) => {
            let (mut parts, _) = answer.into_parts();
            let (formatted, body) = formatted.into_parts();
            parts.headers.extend(formatted.headers);
            Response::from_parts(parts, body)
        }
        Err(_) => answer,
    }
}
