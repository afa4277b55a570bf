//! Every failure as a metav1.Status, in this file only (C1–C14).

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::auth::{Attributes, User};
use crate::resource::{FieldError, ResourceType};
use crate::store::StoreError;

/// A request that failed, as the client is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ApiError {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Option<Box<Details>>,
    /// A token for going on with a list, where one is to be had (C79).
    continue_token: Option<String>,
}

/// What a Status says about the object of the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    retry_after_seconds: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Cause {
    reason: String,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    field: String,
}

/// A Status on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: ListMeta<'a>,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct ListMeta<'a> {
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    continue_token: Option<&'a str>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        ApiError { code, reason, message: message.into(), details: None, continue_token: None }
    }

    fn about(mut self, resource: &ResourceType, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.name = name.to_owned();
        details.group = resource.group.to_owned();
        details.kind = kind.to_owned();
        self
    }

    fn because(mut self, reason: &str, message: &str, field: &str) -> Self {
        self.details.get_or_insert_default().causes.push(Cause {
            reason: reason.to_owned(),
            message: message.to_owned(),
            field: field.to_owned(),
        });
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// No such object (C2).
    pub(super) fn not_found(resource: &ResourceType, name: &str) -> Self {
        let message = format!("{}.{} {name:?} not found", resource.plural, resource.group);
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(resource, resource.plural, name)
    }

    /// No such resource in the group and version (C8).
    pub(super) fn unknown_resource() -> Self {
        let message = "the server could not find the requested resource";
        let mut error = Self::new(StatusCode::NOT_FOUND, "NotFound", message);
        error.details = Some(Box::default());
        error
    }

    /// An object of the name is there already (C3).
    pub(super) fn already_exists(resource: &ResourceType, name: &str) -> Self {
        let message = format!("{}.{} {name:?} already exists", resource.plural, resource.group);
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(resource, resource.plural, name)
    }

    /// An object of the name is there, and will be gone at some time (C137).
    pub(super) fn being_deleted(resource: &ResourceType, name: &str) -> Self {
        let mut error = Self::already_exists(resource, name);
        error.message = format!("object is being deleted: {}", error.message);
        error
    }

    /// Every generated name that was tried is taken; this is the last one (C133).
    pub(super) fn no_unique_name(resource: &ResourceType, name: &str) -> Self {
        let mut error = Self::already_exists(resource, name);
        error.message.push_str(", the server was not able to generate a unique name for the object");
        error.retry_after(1)
    }

    /// Somebody else wrote in between (C4).
    pub(super) fn conflict(resource: &ResourceType, name: &str, why: &str) -> Self {
        let plural = resource.plural;
        let group = resource.group;
        let message = format!("Operation cannot be fulfilled on {plural}.{group} {name:?}: {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(resource, plural, name)
    }

    /// Somebody else changed the object since the client read it (C4).
    pub(super) fn stale(resource: &ResourceType, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// Fields that others own with another value, and where they are (C178).
    pub(super) fn apply_conflict(message: String, causes: impl Iterator<Item = (String, String)>) -> Self {
        let conflict = Self::new(StatusCode::CONFLICT, "Conflict", message);
        causes.fold(conflict, |conflict, (message, field)| {
            conflict.because("FieldManagerConflict", &message, &field)
        })
    }

    /// A JSON patch that cannot be carried out (C159).
    pub(super) fn rejected(why: &str) -> Self {
        let message = format!("the server rejected our request due to an error in our request: {why}");
        let mut error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        error.details = Some(Box::default());
        error
    }

    /// An object that breaks rules (C5).
    pub(super) fn invalid(resource: &ResourceType, name: &str, errors: &[FieldError]) -> Self {
        let kind = format!("{}.{}", resource.kind, resource.group);
        Self::invalid_of(&kind, name, errors).about(resource, resource.kind, name)
    }

    /// Options that break rules (C65).
    pub(super) fn invalid_options(kind: &str, group: &str, errors: &[FieldError]) -> Self {
        let mut error = Self::invalid_of(&format!("{kind}.{group}"), "", errors);
        let details = error.details.get_or_insert_default();
        details.kind = kind.to_owned();
        details.group = group.to_owned();
        error
    }

    fn invalid_of(kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let listed: Vec<_> =
            errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        let all = match &listed[..] {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let message = format!("{kind} {name:?} is invalid: {all}");
        errors
            .iter()
            .fold(Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message), |status, error| {
                status.because(error.reason.as_str(), &error.message, &error.field)
            })
    }

    /// A request that makes no sense.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// No, or bad, credentials (C7).
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// Somebody who may not (C6).
    pub(super) fn forbidden(user: &User, attributes: &Attributes, reason: &str) -> Self {
        let Attributes { verb, group, resource, subresource, namespace, name, path, .. } = attributes;
        let user = &user.name;
        let mut message = if attributes.is_resource() {
            let what = match &**name {
                "" => format!("{resource}.{group} is forbidden"),
                name => format!("{resource}.{group} {name:?} is forbidden"),
            };
            let resource = match &**subresource {
                "" => resource.clone(),
                subresource => format!("{resource}/{subresource}"),
            };
            let place = match &**namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            format!(
                "{what}: User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}"
            )
        } else {
            format!("forbidden: User {user:?} cannot {verb} path {path:?}")
        };
        if !reason.is_empty() {
            message = format!("{message}: {reason}");
        }
        let mut error = Self::new(StatusCode::FORBIDDEN, "Forbidden", message);
        error.details = Some(Box::new(Details {
            name: name.clone(),
            group: group.clone(),
            kind: resource.clone(),
            ..Details::default()
        }));
        error
    }

    /// A namespace that is not there (C284).
    pub(super) fn no_namespace(name: &str) -> Self {
        let mut error =
            Self::new(StatusCode::NOT_FOUND, "NotFound", format!("namespaces {name:?} not found"));
        let details = Details { name: name.to_owned(), kind: "namespaces".to_owned(), ..Details::default() };
        error.details = Some(Box::new(details));
        error
    }

    /// A new object for a namespace that is being deleted (C285).
    pub(super) fn terminating(resource: &ResourceType, name: &str, namespace: &str) -> Self {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let message = format!("{}.{} {name:?} is forbidden: {why}", resource.plural, resource.group);
        let cause = format!("namespace {namespace} is being terminated");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(resource, resource.plural, name).because(
            "NamespaceTerminating",
            &cause,
            "metadata.namespace",
        )
    }

    /// A request that took too long (C226).
    pub(super) fn timeout() -> Self {
        let message = "Timeout: request did not complete within requested timeout";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    /// Unknown and repeated fields, where they are not allowed (C195).
    pub(super) fn strict(resource: &ResourceType, fault: &str) -> Self {
        let ResourceType { kind, version, .. } = resource;
        Self::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {fault}"))
    }

    /// A method that the resource does not have (C9).
    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        error.details = Some(Box::default());
        error
    }

    /// No representation that the client accepts (C36).
    pub(super) fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// A body in a format that is not read (C49).
    pub(super) fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// A body over the limit (C224).
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// A path and query over the limit.
    pub(super) fn target_too_long(bytes: usize, most: usize) -> Self {
        let message =
            format!("the path and query of the request are too long: {bytes} bytes, the limit is {most}");
        Self::new(StatusCode::URI_TOO_LONG, "RequestURITooLong", message)
    }

    /// More headers than the limit.
    pub(super) fn too_many_headers(headers: usize, most: usize) -> Self {
        let message = format!("the request has too many headers: {headers}, the limit is {most}");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "RequestHeaderFieldsTooLarge", message)
    }

    /// History that is gone, for a list (C64).
    pub(super) fn expired_list() -> Self {
        let message = "The resourceVersion for the provided list is too old.";
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// History that is gone, for a continued list, with a token to go on with in the present (C79).
    pub(super) fn expired_continue(token: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can \
                       start a new list without the continue parameter, or use the continue token in this \
                       response to retrieve the remainder of the results. Continuing with the provided token \
                       results in an inconsistent list - objects that were created, modified, or deleted \
                       between the time the first chunk was returned and now may show up in the list.";
        let mut error = Self::new(StatusCode::GONE, "Expired", message);
        error.continue_token = Some(token);
        error
    }

    /// History that is gone, for a watch; sent as the last event of the stream (C108).
    pub(super) fn expired_watch(requested: u64, oldest: u64) -> Self {
        let message = format!("too old resource version: {requested} ({oldest})");
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// A state that is not there yet (C54).
    pub(super) fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
            .because("ResourceVersionTooLarge", "Too large resource version", "")
            .retry_after(1)
    }

    /// A watch of a store that nothing can be read from yet (C112).
    pub(super) fn not_ready() -> Self {
        let message = "storage is (re)initializing";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).retry_after(1)
    }

    /// The server itself failed (C13).
    pub(super) fn internal(message: impl std::fmt::Display) -> Self {
        let message = format!("Internal error occurred: {message}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// Something the server needs is away for the moment.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message).retry_after(1)
    }

    /// Returns the HTTP status.
    pub(super) fn code(&self) -> StatusCode {
        self.code
    }

    /// Returns why, as one word; empty where there is none.
    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    /// Returns why, as a sentence.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Returns the Status as JSON.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let status = Status {
            kind: "Status",
            api_version: "v1",
            metadata: ListMeta { continue_token: self.continue_token.as_deref() },
            status: "Failure",
            message: &self.message,
            reason: self.reason,
            details: self.details.as_deref(),
            code: Some(self.code.as_u16()),
        };
        serde_json::to_vec(&status).expect("plain data can be written")
    }
}

/// Returns the Status of a deletion that is complete (C203).
pub(super) fn deleted(resource: &ResourceType, name: &str, uid: &str) -> Vec<u8> {
    let details = Details {
        name: name.to_owned(),
        group: resource.group.to_owned(),
        kind: resource.plural.to_owned(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    let status = Status {
        kind: "Status",
        api_version: "v1",
        metadata: ListMeta { continue_token: None },
        status: "Success",
        message: "",
        reason: "",
        details: Some(&details),
        code: None,
    };
    serde_json::to_vec(&status).expect("plain data can be written")
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { .. } => ApiError::expired_list(),
            StoreError::Future { requested, current } => {
                ApiError::too_large_resource_version(requested.get(), current.get())
            }
            StoreError::TooLarge { .. } => ApiError::too_large(error.to_string()),
            StoreError::Unavailable(_) | StoreError::NoLeader(_) | StoreError::NoSpace(_) => {
                ApiError::unavailable(error.to_string())
            }
            // Whether it happened is not known: whoever asked has to look.
            StoreError::Unknown(_) => ApiError::timeout(),
            StoreError::Conflict { .. }
            | StoreError::Invalid(_)
            | StoreError::Corrupt { .. }
            | StoreError::Denied(_)
            | StoreError::Deposed { .. } => ApiError::internal(error),
        }
    }
}

impl axum::response::IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.code == StatusCode::FORBIDDEN {
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        if let Some(seconds) = self.details.as_ref().map(|details| details.retry_after_seconds)
            && seconds > 0
        {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For those who write it another way, or note it down.
        response.extensions_mut().insert(self);
        response
    }
}
