//! /metrics, and what requests are counted under (C241, C242).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Method, Response};

use super::auth::Attributes;
use super::body::media_type;
use super::params::Query;
use super::{Api, respond};
use crate::resource::ResourceType;
use crate::store::{At, ListRequest, Range};
use crate::telemetry::metrics::{RequestLabels, WatchLabels};

/// How long counting the objects of a resource may take.
const COUNT: Duration = Duration::from_secs(2);

/// Paths that are counted by their names.
const PATHS: [&str; 9] =
    ["/", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];

/// `GET /metrics`
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response<Body> {
    for resource in api.resources {
        // A page of one; the rest is counted.
        let range = Range::resource(resource.plural);
        let request = ListRequest { range, at: At::Latest, after: None, limit: 1 };
        if let Ok(Ok(page)) = tokio::time::timeout(COUNT, api.store.list(request)).await {
            api.metrics.counted(resource.group, resource.plural, page.items.len() as u64 + page.remaining);
        }
    }
    let (text, media_type) = api.metrics.text();
    respond::with_type(Body::from(text), media_type)
}

impl Api {
    /// Returns what a request is counted under.
    pub(super) fn labels(&self, parts: &Parts, attributes: &Attributes) -> RequestLabels {
        let Attributes { group, version, resource, subresource, .. } = attributes;
        let known = self.resource(group, version, resource);
        let (group, version, plural) =
            known.map_or(("", "", ""), |known| (known.group, known.version, known.plural));
        let subresource = match known {
            Some(known) if !subresource.is_empty() => subresource_of(known, subresource),
            Some(_) => "",
            None => PATHS.into_iter().find(|path| *path == attributes.path).unwrap_or("other"),
        };
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        RequestLabels {
            verb: verb(parts, attributes),
            dry_run: query.all("dryRun").fold("", |said, value| match (said, value) {
                (said, "") => said,
                ("" | "All", "All") => "All",
                _ => "invalid",
            }),
            group,
            version,
            resource: plural,
            subresource,
            scope: scope(attributes),
        }
    }

    /// Returns what a watch is counted under.
    pub(super) fn watch_labels(
        &self,
        resource: &'static ResourceType,
        attributes: &Attributes,
    ) -> WatchLabels {
        WatchLabels {
            group: resource.group,
            version: resource.version,
            resource: resource.plural,
            kind: resource.kind,
            scope: scope(attributes),
        }
    }
}

fn subresource_of(resource: &ResourceType, name: &str) -> &'static str {
    let part = resource.parts.iter().map(|part| part.name).find(|part| *part == name);
    part.unwrap_or(if name == "status" { "status" } else { "other" })
}

fn verb(parts: &Parts, attributes: &Attributes) -> &'static str {
    let is_apply = || media_type(&parts.headers) == "application/apply-patch+yaml";
    match &*attributes.verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" if is_apply() => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ if parts.method == Method::HEAD => "GET",
        _ => "other",
    }
}

fn scope(attributes: &Attributes) -> &'static str {
    match attributes {
        Attributes { name, .. } if !name.is_empty() => "resource",
        Attributes { namespace, .. } if !namespace.is_empty() => "namespace",
        attributes if attributes.is_resource() => "cluster",
        _ => "",
    }
}
