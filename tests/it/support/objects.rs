//! Objects put into a store by hand, without the code that usually makes them.

use std::sync::Arc;

use packageserver::store::{Batch, Key, Object, Operation, ResourceVersion, Store, Tail};
use serde_json::{Value, json};

/// The namespace that tests use if they need only one.
pub const NAMESPACE: &str = "test";

/// Where packages of that namespace are.
pub const PACKAGES: &str = "/apis/core.rukpak.io/v1beta1/namespaces/test/packages";

/// Where packages of all namespaces are.
pub const ALL_PACKAGES: &str = "/apis/core.rukpak.io/v1beta1/packages";

/// Where CatalogSources of that namespace are.
pub const SOURCES: &str = "/apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources";

/// One write of a batch.
pub enum Write {
    Put(Value),
    Delete(&'static str, &'static str, String),
}

/// A Package with one channel.
pub fn package(name: &str) -> Value {
    package_in(NAMESPACE, name)
}

pub fn package_in(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "core.rukpak.io/v1beta1",
        "kind": "Package",
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("uid-of-{name}"),
            "creationTimestamp": "2024-05-01T10:00:00Z",
            "labels": {"core.rukpak.io/catalog": "catalog", "core.rukpak.io/package": name},
        },
        "spec": {
            "catalogSource": "catalog", "packageName": name, "defaultChannel": "stable",
            "displayName": format!("The {name}"), "provider": {"name": "Example"},
            "channels": [{
                "name": "stable", "head": format!("{name}.v2.0.0"),
                "entries": [
                    {"name": format!("{name}.v2.0.0"), "version": "2.0.0", "replaces": format!("{name}.v1.0.0")},
                    {"name": format!("{name}.v1.0.0"), "version": "1.0.0"},
                ],
            }],
            "description": format!("What {name} does."),
        },
    })
}

/// A Package with other labels.
pub fn labelled(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut object = package(name);
    object["metadata"]["labels"] =
        labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    object
}

pub fn source(name: &str) -> Value {
    json!({
        "apiVersion": "core.rukpak.io/v1beta1",
        "kind": "CatalogSource",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": format!("uid-of-{name}"), "generation": 1,
            "creationTimestamp": "2024-05-01T10:00:00Z",
        },
        "spec": {"image": "example.com/catalog:v1"},
    })
}

fn key_of(object: &Value) -> Key {
    let resource = match object["kind"].as_str().expect("objects have a kind") {
        "Package" => "packages",
        "BundleMetadata" => "bundlemetadata",
        "CatalogSource" => "catalogsources",
        "CatalogCache" => "catalogcaches",
        kind => panic!("no resource of kind {kind}"),
    };
    let text = |field: &str| object["metadata"][field].as_str().expect("objects have names").to_owned();
    Key::new(resource, &text("namespace"), &text("name"))
}

/// An object as the pipeline stores it: fields in their usual order, the long ones apart.
fn encode(object: &Value) -> Object {
    let part = |name: &str| object.get(name).cloned();
    let mut head = String::from("{");
    for name in ["apiVersion", "kind", "metadata", "status"] {
        if let Some(value) = part(name) {
            head.push_str(&format!("{name:?}:{value},"));
        }
    }
    let mut spec = part("spec").unwrap_or_else(|| json!({}));
    let long = spec.as_object_mut().and_then(|spec| spec.remove("description"));
    let spec = spec.to_string();
    head.push_str(&format!("\"spec\":{}", &spec[..spec.len() - 1]));
    match long {
        Some(long) => {
            let comma = if spec == "{}" { "" } else { "," };
            Object::cut(head, Tail::pack(format!("{comma}\"description\":{long}}}}}").as_bytes()))
        }
        None => Object::whole(head + "}}"),
    }
}

/// Commits writes as one batch, and returns the version of each event.
pub async fn commit(store: &Arc<dyn Store>, writes: Vec<Write>) -> Vec<u64> {
    let mut operations = Vec::new();
    for write in writes {
        let (key, object) = match write {
            Write::Put(object) => (key_of(&object), Some(encode(&object))),
            Write::Delete(resource, namespace, name) => (Key::new(resource, namespace, &name), None),
        };
        let stored = store.get(&key).await.expect("the store can be read");
        operations.push(match (stored, object) {
            (Some(stored), Some(object)) => Operation::replace(key, stored.version, object),
            (None, Some(object)) => Operation::create(key, object),
            (Some(stored), None) => Operation::delete(key, stored.version),
            (None, None) => panic!("`{key}` is not there to be deleted"),
        });
    }
    let events = operations.len() as u16;
    let revision =
        store.append(Batch { operations, ..Batch::default() }).await.expect("the store can be written to");
    (1..=events).map(|index| ResourceVersion::new(revision, index).get()).collect()
}

/// Writes an object, in a batch of its own, and returns the version of the event.
pub async fn put(store: &Arc<dyn Store>, object: Value) -> u64 {
    commit(store, vec![Write::Put(object)]).await[0]
}

/// Deletes a package, and returns the version of the event.
pub async fn delete(store: &Arc<dyn Store>, name: &str) -> u64 {
    commit(store, vec![Write::Delete("packages", NAMESPACE, name.to_owned())]).await[0]
}

/// Returns the version of a list taken now.
pub async fn current(store: &Arc<dyn Store>) -> u64 {
    store.current().await.expect("the store can be read").get()
}

/// Returns the version of an object or a list.
#[track_caller]
pub fn version(object: &Value) -> u64 {
    let version = &object["metadata"]["resourceVersion"];
    version
        .as_str()
        .and_then(|version| version.parse().ok())
        .unwrap_or_else(|| panic!("no version: {object}"))
}

/// Returns the names of the objects of a list.
pub fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list has items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("objects have names")).collect()
}
