//! OpenAPI documents, made from the types once at the start (C249–C258).

mod paths;
mod swagger;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::document::{Document, never_changes};
use super::schema::Schemas;
use super::status::ApiError;
use super::{Api, accept};
use crate::resource::ResourceType;

/// The documents of a server.
pub(super) struct OpenApi {
    /// `/openapi/v3`: which documents there are.
    index: Document,
    /// `/openapi/v3/apis/{group}/{version}`.
    group_version: Document,
    /// `group/version` of that document.
    name: String,
    /// `/openapi/v2`.
    swagger: Document,
}

impl OpenApi {
    /// Makes the documents for the types of one group and version.
    pub(super) fn new(resources: &[&'static ResourceType], schemas: &Schemas) -> Self {
        let name = resources.first().map(|resource| resource.api_version()).unwrap_or_default();
        let document = document(resources, schemas);
        let write = |value: &Value| serde_json::to_vec(value).expect("plain data can be written");
        let group_version = Document::new(write(&document));
        let swagger = Document::new(write(&swagger::from_openapi(&document)));
        let url = format!("/openapi/v3/apis/{name}?hash={}", group_version.hash());
        let mut paths = serde_json::Map::new();
        paths.insert(format!("apis/{name}"), json!({"serverRelativeURL": url}));
        let index = json!({"paths": paths}).to_string();
        OpenApi { index: Document::new(index), group_version, name, swagger }
    }
}

fn document(resources: &[&'static ResourceType], schemas: &Schemas) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": "packageserver", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths::all(resources),
        "components": {"schemas": schemas.definitions},
    })
}

/// `GET /openapi/v2` (C256).
pub(super) async fn swagger(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    accept::json_only(&headers)?;
    Ok(api.openapi.swagger.respond(&headers, "application/json"))
}

/// `GET /openapi/v3` (C250).
pub(super) async fn index(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    accept::json_only(&headers)?;
    Ok(api.openapi.index.respond(&headers, "application/json"))
}

/// `GET /openapi/v3/apis/{group}/{version}` (C251). Whatever hash is asked for, this is the document: a redirect to the
/// right one would not pass an aggregator.
pub(super) async fn group_version(
    State(api): State<Arc<Api>>,
    Path((group, version)): Path<(String, String)>,
    uri: axum::http::Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    if format!("{group}/{version}") != api.openapi.name {
        return api.not_here(&group, &version);
    }
    accept::json_only(&headers)?;
    let document = &api.openapi.group_version;
    let mut response = document.respond(&headers, "application/json");
    let asked = super::params::Query::parse(uri.query().unwrap_or_default());
    if asked.get("hash") == Some(document.hash()) {
        never_changes(&mut response);
    }
    Ok(response)
}
