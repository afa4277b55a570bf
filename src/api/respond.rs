//! Bodies into responses.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::accept::{Format, Representation};
use super::params::Query;
use super::status::ApiError;

/// Answers with an object, or a list, whose JSON text is given.
///
/// # Errors
///
/// When the text cannot be written in the format that was asked for.
pub(super) fn object(
    json: Vec<u8>,
    representation: Representation,
    pretty: bool,
) -> Result<Response<Body>, ApiError> {
    let body = match representation.format {
        Format::Json if pretty => indent(&json)?,
        Format::Json => json,
        Format::Yaml => {
            let mut value = serde_json::Deserializer::from_slice(&json);
            let value = serde_transcode::Transcoder::new(&mut value);
            serde_saphyr::to_string(&value).map_err(ApiError::internal)?.into_bytes()
        }
    };
    Ok(with_type(Body::from(body), representation.format.media_type()))
}

/// Answers with JSON that is written while it is sent.
pub(super) fn stream(body: Body) -> Response<Body> {
    with_type(body, Format::Json.media_type())
}

/// Answers with a JSON document of the server's own.
pub(super) fn json<T: Serialize>(value: &T) -> Response<Body> {
    let body = serde_json::to_vec(value).expect("plain data can be written");
    with_type(Body::from(body), Format::Json.media_type())
}

/// Answers that the client has what it asks for.
pub(super) fn not_modified() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// Answers with plain text.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = with_type(Body::from(text.into()), "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Answers with bytes of a type.
pub(super) fn with_type(body: Body, media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Returns whether an answer is indented (C26).
pub(super) fn is_pretty(query: &Query, headers: &HeaderMap) -> bool {
    query.boolean("pretty").unwrap_or_else(|| {
        let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let people = ["curl", "Wget", "Mozilla/5.0"];
        agent.is_some_and(|agent| people.iter().any(|name| agent.starts_with(name)))
    })
}

/// Indents JSON; fields stay in their order.
fn indent(json: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut text = Vec::with_capacity(json.len() * 2);
    let mut value = serde_json::Deserializer::from_slice(json);
    let mut indented = serde_json::Serializer::pretty(&mut text);
    serde_transcode::transcode(&mut value, &mut indented).map_err(ApiError::internal)?;
    text.push(b'\n');
    Ok(text)
}
