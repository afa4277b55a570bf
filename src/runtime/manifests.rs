//! Manifests that are applied at the start: read from files, sent through the API like anybody's.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use serde_json::Value;
use tower::ServiceExt;

use super::FIELD_MANAGER;
use crate::api::auth::User;
use crate::pipeline::limits::read_bounded;
use crate::resource::{is_dns_label, is_dns_subdomain};

/// Bytes of a manifest file.
const MAX_FILE: u64 = 8 << 20;

/// Bytes of an answer.
const MAX_ANSWER: usize = 8 << 20;

/// Where an object without a namespace goes, as with kubectl.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// Reads all objects in files and directories; of a directory, the files whose names say that they are manifests.
pub(super) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, Value)>> {
    let mut objects = Vec::new();
    for path in paths {
        let files = if path.is_dir() { manifests_in(path) } else { Ok(vec![path.clone()]) };
        for file in files.with_context(|| format!("cannot read `{}`", path.display()))? {
            let read = || -> io::Result<Vec<u8>> {
                read_bounded(fs::File::open(&file)?.by_ref(), "bytes in a manifest", MAX_FILE)
            };
            let text = read().with_context(|| format!("cannot read `{}`", file.display()))?;
            let text =
                String::from_utf8(text).with_context(|| format!("`{}` is not UTF-8", file.display()))?;
            let documents: Vec<Value> = serde_saphyr::from_multiple(&text)
                .map_err(|error| anyhow::anyhow!("`{}`: {}", file.display(), error.without_snippet()))?;
            objects.extend(
                documents.into_iter().filter(|object| !object.is_null()).map(|object| (file.clone(), object)),
            );
        }
    }
    Ok(objects)
}

fn manifests_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_manifest = path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if is_manifest && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Creates an object, or changes the one that is there to what the manifest says: what it said the last time and does not
/// say any more goes, and what others have set beside stays.
pub(super) async fn apply(router: &Router, file: &Path, object: &Value) -> anyhow::Result<()> {
    let place = file.display();
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let namespace = match text("/metadata/namespace") {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    let resource = crate::model::RESOURCES.iter().find(|resource| {
        resource.is_writable() && resource.kind == kind && resource.api_version() == api_version
    });
    let Some(resource) = resource else {
        bail!("`{place}`: {kind:?} of {api_version:?} cannot be applied here; only CatalogSources can");
    };
    if !is_dns_subdomain(name) || !is_dns_label(namespace) {
        bail!("`{place}`: {namespace:?} and {name:?} cannot be namespace and name of a {kind}");
    }
    let collection = format!("/apis/{api_version}/namespaces/{namespace}/{}", resource.plural);
    let request = request(&format!("{collection}/{name}"), &wanted(object))?;
    let (status, answer) = send(router, request).await?;
    if !status.is_success() {
        bail!("`{place}`: {}", answer["message"].as_str().unwrap_or("the server refused it"));
    }
    tracing::info!(namespace, name, kind, "applied");
    Ok(())
}

/// Returns what a manifest says of an object, without what says which one it was where the manifest was read from.
fn wanted(object: &Value) -> Value {
    let mut wanted = object.clone();
    if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, _| !["managedFields", "resourceVersion", "uid"].contains(&&**field));
    }
    wanted
}

fn request(path: &str, body: &Value) -> anyhow::Result<Request<Body>> {
    let mut request = Request::builder()
        .method(Method::PATCH)
        .uri(format!("{path}?fieldManager={FIELD_MANAGER}&force=true&fieldValidation=Strict"))
        .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
        .body(Body::from(body.to_string()))?;
    request.extensions_mut().insert(User::administrator());
    Ok(request)
}

async fn send(router: &Router, request: Request<Body>) -> anyhow::Result<(StatusCode, Value)> {
    let response = router.clone().oneshot(request).await?;
    let status = response.status();
    let body = to_bytes(response.into_body(), MAX_ANSWER).await?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
