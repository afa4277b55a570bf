//! What clients write, and what becomes of it (C125–C215), through the router, over a store in memory.

mod apply;
mod create;
mod delete;
mod options;
mod patch;
mod update;

use std::sync::Arc;

use packageserver::sink::EmbeddedStore;
use packageserver::store::Store;
use serde_json::{Value, json};

use crate::support::router::{Answer, TestApi};

/// The collection that most tests write to.
const R: &str = "/apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources";

/// A CatalogSource with all it needs.
fn source(name: &str) -> Value {
    json!({
        "apiVersion": "core.rukpak.io/v1beta1",
        "kind": "CatalogSource",
        "metadata": {"name": name},
        "spec": {"image": "example.com/catalog:v1"},
    })
}

/// Returns the path of an object.
fn path(name: &str) -> String {
    format!("{R}/{name}")
}

/// Returns a value with some of its fields changed, each named by its pointer; `null` removes a field.
fn with(mut value: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, change) in changes {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer has a slash");
        let mut place = &mut value;
        for step in parent.split('/').skip(1) {
            place = &mut place[step];
        }
        match change {
            Value::Null => drop(place.as_object_mut().expect("an object").remove(name)),
            change => place[name] = change.clone(),
        }
    }
    value
}

/// Returns an API and an object in it.
async fn with_one(object: &Value) -> (TestApi, Value) {
    let api = TestApi::new();
    let created = api.post(R, object).await.expect(201);
    (api, created)
}

fn in_memory() -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::in_memory().expect("memory suffices"))
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().expect("a version")
}

/// Returns the reasons and fields of the causes of a refusal.
fn causes(status: &Value) -> Vec<String> {
    let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    causes.iter().map(|cause| format!("{} {}", text(&cause["reason"]), text(&cause["field"]))).collect()
}

/// Returns the causes of a request that has to be refused as invalid.
#[track_caller]
fn invalid(answer: &Answer) -> Vec<String> {
    let status = answer.expect(422);
    assert_eq!(status["reason"], "Invalid");
    causes(&status)
}

/// Returns the message of a request that has to be refused with a code.
#[track_caller]
fn refused(answer: &Answer, code: u16) -> String {
    let status = answer.expect(code);
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")));
    status["message"].as_str().expect("a message").to_owned()
}

/// Returns the managers of an object without times, each with what it owns.
fn managers(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let entry = |entry: Value| {
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        let mut name = format!("{} {}", text("manager"), text("operation"));
        if !text("subresource").is_empty() {
            name = format!("{name} {}", text("subresource"));
        }
        (name, entry["fieldsV1"].clone())
    };
    entries.into_iter().map(entry).collect()
}
