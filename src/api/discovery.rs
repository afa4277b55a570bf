//! What there is: `/apis`, the group and the version (C243–C248).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::document::Document;
use super::status::ApiError;
use super::{Api, accept};
use crate::resource::ResourceType;

/// The media type of aggregated discovery. Clients tell it from the plain one by these parameters (C245).
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The documents of a server.
pub(super) struct Discovery {
    groups: Document,
    aggregated: Document,
    group: Document,
    resources: Document,
    group_name: &'static str,
    version: &'static str,
}

impl Discovery {
    /// Makes the documents for the types of one group and version.
    pub(super) fn new(resources: &[&'static ResourceType]) -> Self {
        let (group_name, version) = resources.first().map_or(("", ""), |first| (first.group, first.version));
        let group = group(group_name, version);
        let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]});
        let mut single = json!({"kind": "APIGroup", "apiVersion": "v1"});
        merge(&mut single, group);
        let list = json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": format!("{group_name}/{version}"),
            "resources": resources.iter().flat_map(|resource| plain(resource)).collect::<Vec<_>>(),
        });
        let aggregated = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": [{
                "metadata": {"name": group_name, "creationTimestamp": null},
                "versions": [{
                    "version": version,
                    "freshness": "Current",
                    "resources": resources.iter().map(|resource| aggregated(resource)).collect::<Vec<_>>(),
                }],
            }],
        });
        let document = |value: Value| Document::new(value.to_string());
        Discovery {
            groups: document(groups),
            aggregated: document(aggregated),
            group: document(single),
            resources: document(list),
            group_name,
            version,
        }
    }
}

/// `GET /apis`
pub(super) async fn groups(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let discovery = &api.discovery;
    if accept::aggregated_discovery(&headers)? {
        let mut response = discovery.aggregated.respond(&headers, AGGREGATED);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
        return Ok(response);
    }
    Ok(discovery.groups.respond(&headers, "application/json"))
}

/// `GET /apis/{group}`
pub(super) async fn group_by_name(
    State(api): State<Arc<Api>>,
    Path(group): Path<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    if group != api.discovery.group_name {
        return api.not_here(&group, "");
    }
    accept::json_only(&headers)?;
    Ok(api.discovery.group.respond(&headers, "application/json"))
}

/// `GET /apis/{group}/{version}`
pub(super) async fn resources(
    State(api): State<Arc<Api>>,
    Path((group, version)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    if (&*group, &*version) != (api.discovery.group_name, api.discovery.version) {
        return api.not_here(&group, &version);
    }
    accept::json_only(&headers)?;
    Ok(api.discovery.resources.respond(&headers, "application/json"))
}

fn group(name: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS: &[&str] = &["get", "patch", "update"];

fn verbs(resource: &ResourceType) -> &'static [&'static str] {
    if resource.is_writable() { WRITE } else { READ }
}

/// The entries of a type and its subresources in the plain form.
fn plain(resource: &ResourceType) -> Vec<Value> {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": true,
        "kind": resource.kind,
        "verbs": verbs(resource),
        "storageVersionHash": storage_version_hash(resource),
    });
    add_names(&mut entry, resource);
    let mut entries = vec![entry];
    entries.extend(subresources(resource).map(|(name, verbs)| {
        json!({
            "name": format!("{}/{name}", resource.plural),
            "singularName": "",
            "namespaced": true,
            "kind": resource.kind,
            "verbs": verbs,
        })
    }));
    entries
}

fn aggregated(resource: &ResourceType) -> Value {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind,
        "scope": "Namespaced",
        "singularResource": resource.singular,
        "verbs": verbs(resource),
    });
    add_names(&mut entry, resource);
    let subresources: Vec<_> = subresources(resource)
        .map(|(name, verbs)| json!({"subresource": name, "responseKind": kind, "verbs": verbs}))
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

fn subresources(resource: &ResourceType) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let status = resource.is_writable().then_some(("status", STATUS));
    let parts = resource.parts.iter().map(|part| (part.name, &READ[..1]));
    status.into_iter().chain(parts)
}

fn add_names(entry: &mut Value, resource: &ResourceType) {
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
}

/// Tells clients when the stored form of a type is another one (C244).
fn storage_version_hash(resource: &ResourceType) -> String {
    let name = format!("{}/{}/{}", resource.group, resource.version, resource.kind);
    STANDARD.encode(&Sha256::digest(name)[..8])
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
