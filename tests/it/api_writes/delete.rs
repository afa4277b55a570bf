use axum::http::Method;
use serde_json::{Value, json};

use super::*;
use crate::support::router::{Call, TestApi};

/// An object that is held up by a finalizer.
fn held(name: &str) -> Value {
    with(source(name), &[("/metadata/finalizers", json!(["example.com/x"]))])
}

fn delete(api: &TestApi, options: &Value) -> Call {
    api.delete(&path("a")).json(options)
}

#[tokio::test]
async fn c202_what_is_not_there_is_not_deleted() {
    let status = TestApi::new().delete(&path("a")).await.expect(404);
    assert_eq!(status["message"], r#"catalogsources.core.rukpak.io "a" not found"#);
}

#[tokio::test]
async fn c203_a_deletion_says_what_is_gone() {
    let (api, created) = with_one(&source("a")).await;
    let status = api.delete(&path("a")).await.expect(200);
    let details = json!({"name": "a", "group": "core.rukpak.io", "kind": "catalogsources", "uid": created["metadata"]["uid"]});
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    });
    assert_eq!(status, expected);
    api.get(&path("a")).await.expect(404);
}

#[tokio::test]
async fn c204_c205_finalizers_hold_up_a_deletion() {
    let (api, created) = with_one(&held("a")).await;
    let watch = format!("{R}?watch&resourceVersion={}&timeoutSeconds=1", version(&created));
    let deleting = api.delete(&path("a")).await.expect(200);
    assert_eq!(deleting["kind"], "CatalogSource");
    let time = deleting["metadata"]["deletionTimestamp"].as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    assert_eq!(deleting["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(deleting["metadata"]["generation"], 2);
    assert_ne!(version(&deleting), version(&created));
    assert_eq!(api.delete(&path("a")).await.expect(200), deleting);
    let events = api.get(&watch).await.text();
    let kinds: Vec<_> =
        events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone()).collect();
    assert_eq!(kinds, ["MODIFIED"]);
}

#[tokio::test]
async fn c206_who_asks_for_dependents_to_go_is_told_that_it_takes_a_while() {
    let (api, _) = with_one(&held("a")).await;
    delete(&api, &json!({"orphanDependents": false})).await.expect(202);
    let (api, _) = with_one(&source("a")).await;
    delete(&api, &json!({"orphanDependents": false})).await.expect(200);
}

#[tokio::test]
async fn c207_options_come_in_the_body_or_else_in_the_query() {
    for (version, kind) in [
        ("v1", "DeleteOptions"),
        ("meta.k8s.io/v1", "DeleteOptions"),
        ("core.rukpak.io/v1beta1", "DeleteOptions"),
        ("", ""),
    ] {
        let (api, _) = with_one(&source("a")).await;
        let options = json!({"apiVersion": version, "kind": kind, "propagationPolicy": "Foreground"});
        let deleting = delete(&api, &options).await.expect(200);
        assert_eq!(deleting["metadata"]["finalizers"], json!(["foregroundDeletion"]), "{version}");
    }
    let (api, _) = with_one(&source("a")).await;
    for options in [
        json!({"apiVersion": "v2", "kind": "DeleteOptions"}),
        json!({"apiVersion": "v1", "kind": "Pod"}),
        json!([]),
        json!({"preconditions": 5}),
    ] {
        refused(&delete(&api, &options).await, 400);
    }
    refused(&api.delete(&path("a")).body("application/json", "{").await, 400);
    refused(&api.delete(&path("a")).body("text/plain", "{}").await, 415);
    refused(&api.delete(&format!("{}?gracePeriodSeconds=x", path("a"))).await, 400);
    // With a body, the query does not count.
    let query = format!("{}?propagationPolicy=Orphan", path("a"));
    let yaml = "kind: DeleteOptions\napiVersion: v1\npropagationPolicy: Foreground\n";
    let deleting = api.delete(&query).body("application/yaml", yaml).await.expect(200);
    assert_eq!(deleting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let (api, _) = with_one(&source("a")).await;
    let deleting = api.delete(&query).await.expect(200);
    assert_eq!(deleting["metadata"]["finalizers"], json!(["orphan"]));
}

#[tokio::test]
async fn c208_a_deletion_can_be_meant_for_one_object_or_one_version_of_it() {
    let (api, created) = with_one(&source("a")).await;
    let uid = &created["metadata"]["uid"];
    for preconditions in [json!({"uid": "other"}), json!({"uid": uid, "resourceVersion": "1"})] {
        let answer = delete(&api, &json!({"preconditions": preconditions})).await;
        assert_eq!(answer.expect(409)["reason"], "Conflict");
        assert!(refused(&answer, 409).contains("Precondition failed"));
    }
    assert_eq!(api.get(&path("a")).await.expect(200), created);
    let preconditions = json!({"uid": uid, "resourceVersion": version(&created)});
    delete(&api, &json!({"preconditions": preconditions})).await.expect(200);
}

#[tokio::test]
async fn c209_policies_are_known_and_said_once() {
    let (api, _) = with_one(&source("a")).await;
    for (options, expected) in [
        (json!({"propagationPolicy": "Sideways"}), "FieldValueNotSupported propagationPolicy"),
        (json!({"propagationPolicy": ""}), "FieldValueNotSupported propagationPolicy"),
        (
            json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
            "FieldValueInvalid propagationPolicy",
        ),
        (json!({"dryRun": ["Some"]}), "FieldValueNotSupported dryRun"),
    ] {
        let answer = delete(&api, &options).await;
        assert_eq!(invalid(&answer), [expected]);
        let details = &answer.json()["details"];
        assert_eq!((&details["kind"], &details["group"]), (&json!("DeleteOptions"), &json!("meta.k8s.io")));
    }
}

#[tokio::test]
async fn c210_policies_are_left_to_the_garbage_collector() {
    for (before, options, after) in [
        (json!([]), json!({"propagationPolicy": "Background"}), Value::Null),
        (json!([]), json!({"propagationPolicy": "Foreground"}), json!(["foregroundDeletion"])),
        (json!([]), json!({"propagationPolicy": "Orphan"}), json!(["orphan"])),
        (json!([]), json!({"orphanDependents": true}), json!(["orphan"])),
        (json!(["orphan"]), json!({}), json!(["orphan"])),
        (json!(["orphan"]), json!({"propagationPolicy": "Background"}), Value::Null),
        (json!(["orphan"]), json!({"orphanDependents": false}), Value::Null),
        (
            json!(["orphan", "a.b/c"]),
            json!({"propagationPolicy": "Foreground"}),
            json!(["a.b/c", "foregroundDeletion"]),
        ),
        (json!(["orphan", "a.b/c"]), json!({"propagationPolicy": "Orphan"}), json!(["orphan", "a.b/c"])),
    ] {
        let (api, _) = with_one(&with(source("a"), &[("/metadata/finalizers", before)])).await;
        let answer = delete(&api, &options).await.expect(200);
        assert_eq!(answer["metadata"]["finalizers"], after, "{options}");
        api.get(&path("a")).await.expect(if after.is_null() { 404 } else { 200 });
    }
    // One may think better of it while it is not done.
    let (api, _) = with_one(&source("a")).await;
    let first = delete(&api, &json!({"propagationPolicy": "Foreground"})).await.expect(200);
    let second = delete(&api, &json!({"propagationPolicy": "Orphan"})).await.expect(200);
    assert_eq!(second["metadata"]["finalizers"], json!(["orphan"]));
    for field in ["generation", "deletionTimestamp"] {
        assert_eq!(first["metadata"][field], second["metadata"][field]);
    }
}

#[tokio::test]
async fn c211_there_is_no_grace_period() {
    for seconds in [0, 30, -1] {
        let (api, _) = with_one(&source("a")).await;
        delete(&api, &json!({"gracePeriodSeconds": seconds})).await.expect(200);
        api.get(&path("a")).await.expect(404);
    }
}

async fn several(names: &str, labelled: &str) -> TestApi {
    let api = TestApi::new();
    for name in names.chars().map(String::from) {
        let labels = if labelled.contains(&name) { json!({"a": "1"}) } else { Value::Null };
        api.post(R, &with(source(&name), &[("/metadata/labels", labels)])).await.expect(201);
    }
    api
}

fn names(list: &Value) -> String {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

async fn left(api: &TestApi) -> String {
    names(&api.get(R).await.expect(200))
}

#[tokio::test]
async fn c212_what_is_selected_is_deleted() {
    let api = several("abcde", "bd").await;
    let elsewhere = R.replace("/test/", "/other/");
    api.post(&elsewhere, &source("x")).await.expect(201);
    let list = api.delete(&format!("{R}?labelSelector=a%3D1")).await.expect(200);
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("CatalogSourceList"), &json!("core.rukpak.io/v1beta1"))
    );
    assert_eq!((names(&list), left(&api).await), ("bd".to_owned(), "ace".to_owned()));
    let list = api.delete(&format!("{R}?fieldSelector=metadata.name%3Dc")).await.expect(200);
    assert_eq!((names(&list), left(&api).await), ("c".to_owned(), "ae".to_owned()));
    api.post(R, &held("h")).await.expect(201);
    let list = api.delete(R).json(&json!({"propagationPolicy": "Background"})).await.expect(200);
    assert_eq!((names(&list), left(&api).await), ("aeh".to_owned(), "h".to_owned()));
    assert!(list["items"][2]["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(list["items"][0]["metadata"].get("deletionTimestamp"), None);
    api.patch(&path("h"), "merge-patch+json", &json!({"metadata": {"finalizers": null}})).await.expect(200);
    let list = api.delete(R).await.expect(200);
    assert_eq!(list["items"], json!([]));
    assert!(list["metadata"]["resourceVersion"].is_string());
    assert_eq!(names(&api.get(&elsewhere).await.expect(200)), "x");
    for (query, code) in [("?labelSelector=%3D", 400), ("?limit=x", 400), ("?propagationPolicy=x", 422)] {
        api.delete(&format!("{R}{query}")).await.expect(code);
    }
    let everywhere = "/apis/core.rukpak.io/v1beta1/catalogsources";
    assert_eq!(api.call(Method::DELETE, everywhere).await.status, 405);
}

#[tokio::test]
async fn c213_a_limit_is_one_page() {
    let api = several("abcdefg", "bdfg").await;
    let list = api.delete(&format!("{R}?limit=2&labelSelector=a%3D1")).await.expect(200);
    assert_eq!((names(&list), left(&api).await), ("bd".to_owned(), "acefg".to_owned()));
    let token = list["metadata"]["continue"].as_str().unwrap();
    let list = api.delete(&format!("{R}?limit=2&labelSelector=a%3D1&continue={token}")).await.expect(200);
    assert_eq!((names(&list), left(&api).await), ("fg".to_owned(), "ace".to_owned()));
    assert_eq!(list["metadata"].get("continue"), None);
    let api = several("abc", "").await;
    let list = api.delete(&format!("{R}?limit=3")).await.expect(200);
    assert_eq!((names(&list), list["metadata"].get("continue")), ("abc".to_owned(), None));
}

#[tokio::test]
async fn c213_what_others_delete_meanwhile_is_no_failure() {
    use crate::support::hooked_store::{HookedStore, Verdict};
    use packageserver::store::{Batch, Operation, Write};
    use std::sync::Arc;
    let inner = in_memory();
    let other = Arc::clone(&inner);
    // Whenever an object is deleted, somebody else is a little faster, and puts another one in its place.
    let store = HookedStore::over(Arc::clone(&inner), move |batch| {
        let operation = batch.operations[0].clone();
        if matches!(operation.write, Write::Delete) && operation.key.name() == "b" {
            let other = Arc::clone(&other);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        let key = operation.key.clone();
                        other.append(Batch::of(operation)).await.unwrap();
                        let object = packageserver::store::Object::whole(
                            with(
                                source("b"),
                                &[("/metadata/uid", json!("new")), ("/metadata/namespace", json!("test"))],
                            )
                            .to_string(),
                        );
                        other.append(Batch::of(Operation::create(key, object))).await.unwrap();
                    });
                });
            });
        }
        Verdict::Pass
    });
    let api = TestApi::over(store);
    for name in ["a", "b", "c"] {
        api.post(R, &source(name)).await.expect(201);
    }
    let list = api.delete(R).await.expect(200);
    assert_eq!((names(&list), left(&api).await), ("ac".to_owned(), "b".to_owned()));
}
