//! One request and its answer, for the books: metrics and the audit log.

mod passed;
mod sending;
mod tap;

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use self::passed::Passed;
use self::sending::Sending;
use self::tap::Tap;
use super::inflight::Permit;
use crate::api::audit::Record;
use crate::api::auth::{Attributes, User};
use crate::api::serve::{InUse, Reading};
use crate::api::status::ApiError;
use crate::api::{Api, respond};
use crate::telemetry::metrics::{Metrics, OpenWatch, RequestLabels};

/// Names a request in every log it appears in (C27).
pub(super) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Characters of an audit id that a client may choose.
const MAX_AUDIT_ID: usize = 64;

/// A request on its way.
pub(super) struct Exchange {
    metrics: Arc<Metrics>,
    labels: RequestLabels,
    audit_id: HeaderValue,
    start: Instant,
    is_long_running: bool,
    deadline: Option<Instant>,
    permit: Option<Permit>,
    /// Says that the connection is in use.
    in_use: Option<InUse>,
    open: Option<OpenWatch>,
    record: Option<Box<Record>>,
    has_panicked: bool,
}

impl Exchange {
    pub(super) fn begin(api: &Api, parts: &Parts, attributes: &Attributes, in_use: Option<InUse>) -> Self {
        let audit_id = audit_id(parts);
        let labels = api.labels(parts, attributes);
        let audit = api.audit.as_ref();
        let record = audit.and_then(|audit| audit.begin(&api.metrics, &audit_id, parts, attributes));
        Exchange {
            metrics: Arc::clone(&api.metrics),
            labels,
            audit_id,
            start: Instant::now(),
            is_long_running: attributes.is_long_running(),
            deadline: None,
            permit: None,
            in_use,
            open: None,
            record,
            has_panicked: false,
        }
    }

    pub(super) fn audit_id(&self) -> &HeaderValue {
        &self.audit_id
    }

    /// Notes who asks, if that is known, and that the request was received.
    pub(super) fn received(&mut self, user: Option<&User>) {
        if let Some(user) = user {
            // Names are as many as there are users; those of a server's own are of interest.
            let name = if user.name == "admin" { "admin" } else { "other" };
            self.metrics.user_requests.with_label_values(&[name]).inc();
            if let Some(in_use) = &self.in_use {
                in_use.is_known();
            }
        }
        if let Some(record) = &mut self.record {
            record.received(user);
        }
    }

    /// Notes what was decided about the request.
    pub(super) fn decided(&mut self, decision: &'static str, reason: &str) {
        if let Some(record) = &mut self.record {
            record.decided(decision, reason);
        }
    }

    /// Keeps the request's place until it is answered.
    pub(super) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Notes until when the answer has to be complete.
    pub(super) fn ends_at(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Notes that the handler broke off (C13).
    pub(super) fn panicked(&mut self) {
        tracing::error!(audit_id = ?self.audit_id, "a request made its handler fail");
        self.metrics.aborted(&self.labels);
        self.has_panicked = true;
    }

    /// Refuses the request because there are too many (C227).
    pub(super) fn too_many(&self) -> Response<Body> {
        self.metrics.ended_early(&self.labels, 429);
        let text = "Too many requests, please try again later.";
        let mut answer = respond::text(StatusCode::TOO_MANY_REQUESTS, text);
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        answer
    }

    /// Gives up on the request because it takes too long (C226).
    pub(super) fn timed_out(&self) -> ApiError {
        self.metrics.ended_early(&self.labels, 504);
        ApiError::timeout()
    }

    /// Reads along with the body of a request that has one.
    pub(super) fn tap(&mut self, parts: &Parts, body: Body) -> Body {
        if matches!(parts.method, Method::GET | Method::HEAD) {
            return body;
        }
        let copied = self.record.as_mut().and_then(|record| record.copy_request());
        let metrics = Arc::clone(&self.metrics);
        Body::new(Tap { inner: body, passed: Passed::new(copied), metrics, labels: self.labels })
    }

    /// Goes along with the answer until it is sent.
    pub(super) fn answer(mut self, answer: Response<Body>) -> Response<Body> {
        let (parts, inner) = answer.into_parts();
        let error = parts.extensions.get::<ApiError>();
        if self.is_long_running && parts.status.is_success() {
            self.open = Some(self.metrics.opened(&self.labels));
            if let Some(record) = &mut self.record {
                record.started(parts.status);
            }
        }
        let copied = match &mut self.record {
            Some(record) => {
                record.answered(parts.status, error, self.has_panicked);
                record.copy_response(self.is_long_running)
            }
            None => None,
        };
        // What is there already is not waited for.
        let is_whole = hyper::body::Body::size_hint(&inner).exact().is_some();
        let timer = self.deadline.filter(|_| !is_whole).map(|deadline| Box::pin(sleep_until(deadline)));
        let reading = Reading::of_stream();
        if let Some(reading) = &reading {
            reading.begin();
        }
        let sending = Sending {
            inner,
            rest: Bytes::new(),
            timer,
            reading,
            passed: Passed::new(copied),
            code: parts.status,
            exchange: self,
        };
        Response::from_parts(parts, Body::new(sending))
    }
}

/// Returns the id that the request came with, or a new one.
fn audit_id(parts: &Parts) -> HeaderValue {
    let given = parts.headers.get(AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= MAX_AUDIT_ID);
    given.cloned().unwrap_or_else(|| {
        HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).expect("a uuid is made of hexadecimal digits")
    })
}
