//! The record of one request: stage by stage, an event each.

use std::collections::BTreeMap;

use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Copied, Level, Log};
use crate::api::auth::{Attributes, User};
use crate::api::serve::PeerAddress;
use crate::api::status::ApiError;

/// Characters of the name that a client gives itself.
const MAX_USER_AGENT: usize = 1024;

/// What is noted of a request.
pub(in crate::api) struct Record {
    log: Log,
    event: Event,
    request: Option<Copied>,
    response: Option<Copied>,
    has_panicked: bool,
}

/// An event of audit.k8s.io/v1.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: Value,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    object_ref: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    response_status: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Box<RawValue>>,
    request_received_timestamp: MicroTime,
    stage_timestamp: MicroTime,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

impl Record {
    pub(super) fn begin(log: Log, id: &HeaderValue, parts: &Parts, attributes: &Attributes) -> Self {
        let now = MicroTime(Timestamp::now());
        let user_agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let peer = parts.extensions.get::<PeerAddress>().map(|PeerAddress(peer)| peer.ip().to_string());
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: log.audit.level.as_str(),
            audit_id: id.to_str().unwrap_or_default().to_owned(),
            stage: "",
            request_uri: parts.uri.to_string(),
            verb: attributes.verb.clone(),
            user: json!({}),
            source_ips: peer.into_iter().collect(),
            user_agent: user_agent.unwrap_or_default().chars().take(MAX_USER_AGENT).collect(),
            object_ref: object_ref(attributes),
            response_status: Value::Null,
            request_object: None,
            response_object: None,
            request_received_timestamp: now.clone(),
            stage_timestamp: now,
            annotations: BTreeMap::new(),
        };
        Record { log, event, request: None, response: None, has_panicked: false }
    }

    /// Notes who asks, and that the request was received.
    pub(in crate::api) fn received(&mut self, user: Option<&User>) {
        if let Some(User { name, uid, groups, extra }) = user {
            self.event.user = json!({"username": name});
            if !uid.is_empty() {
                self.event.user["uid"] = json!(uid);
            }
            if !groups.is_empty() {
                self.event.user["groups"] = json!(groups);
            }
            if !extra.is_empty() {
                self.event.user["extra"] = json!(extra);
            }
        }
        self.write("RequestReceived");
    }

    /// Notes whether the user may, and why.
    pub(in crate::api) fn decided(&mut self, decision: &'static str, reason: &str) {
        self.event.annotations.insert("authorization.k8s.io/decision", decision.to_owned());
        self.event.annotations.insert("authorization.k8s.io/reason", reason.to_owned());
    }

    /// Returns what the body of the request is to be copied to, if it is.
    pub(in crate::api) fn copy_request(&mut self) -> Option<Copied> {
        self.request = (self.log.audit.level >= Level::Request).then(Copied::new);
        self.request.clone()
    }

    /// Returns what the body of the answer is to be copied to, if it is. Streams of events are not.
    pub(in crate::api) fn copy_response(&mut self, is_stream: bool) -> Option<Copied> {
        self.response = (self.log.audit.level >= Level::RequestResponse && !is_stream).then(Copied::new);
        self.response.clone()
    }

    /// Notes that a stream of events begins.
    pub(in crate::api) fn started(&mut self, code: StatusCode) {
        self.event.response_status = json!({"metadata": {}, "code": code.as_u16()});
        self.write("ResponseStarted");
    }

    /// Notes what the answer is.
    pub(in crate::api) fn answered(
        &mut self,
        code: StatusCode,
        error: Option<&ApiError>,
        has_panicked: bool,
    ) {
        let mut status = json!({"metadata": {}, "code": code.as_u16()});
        if let Some(error) = error {
            status["status"] = "Failure".into();
            status["message"] = error.message().into();
            if !error.reason().is_empty() {
                status["reason"] = error.reason().into();
            }
        }
        self.event.response_status = status;
        self.has_panicked = has_panicked;
    }

    /// Notes that the answer was sent.
    pub(in crate::api) fn complete(mut self) {
        self.event.request_object = self.request.as_ref().and_then(Copied::take).and_then(as_json);
        self.event.response_object = self.response.as_ref().and_then(Copied::take).and_then(as_json);
        self.write(if self.has_panicked { "Panic" } else { "ResponseComplete" });
    }

    fn write(&mut self, stage: &'static str) {
        self.event.stage = stage;
        self.event.stage_timestamp = MicroTime(Timestamp::now());
        self.log.write(serde_json::to_string(&self.event).expect("plain data can be written"));
    }
}

/// Returns what a request is about; nothing for a path.
fn object_ref(attributes: &Attributes) -> Value {
    if !attributes.is_resource() {
        return Value::Null;
    }
    let Attributes { group, version, resource, subresource, namespace, name, .. } = attributes;
    let mut reference = json!({"resource": resource, "apiGroup": group, "apiVersion": version});
    for (field, value) in [("namespace", namespace), ("name", name), ("subresource", subresource)] {
        if !value.is_empty() {
            reference[field] = json!(value);
        }
    }
    reference
}

/// Returns a body as JSON on one line; nothing when it is none.
fn as_json(body: Vec<u8>) -> Option<Box<RawValue>> {
    let value: Value = match serde_json::from_slice(&body) {
        Ok(value) => value,
        Err(_) => serde_saphyr::from_slice(&body).ok()?,
    };
    serde_json::value::to_raw_value(&value).ok()
}
