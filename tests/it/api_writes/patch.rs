use std::sync::Arc;

use axum::http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::support::rounds;
use crate::support::router::TestApi;

const MERGE: &str = "merge-patch+json";
const JSON: &str = "json-patch+json";

#[tokio::test]
async fn c156_c157_patches_come_in_three_types() {
    let (api, _) = with_one(&source("a")).await;
    let send = |media_type: &str| api.call(Method::PATCH, &path("a")).body(media_type, "{}");
    for media_type in [
        "application/strategic-merge-patch+json",
        "application/apply-patch+cbor",
        "application/json",
        "application/yaml",
        "",
    ] {
        let answer = send(media_type).await;
        assert_eq!(answer.expect(415)["reason"], "UnsupportedMediaType");
        let listed =
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        assert!(refused(&answer, 415).ends_with(listed), "{media_type}");
    }
    send("application/merge-patch+json; charset=utf-8").await.expect(200);
    let openapi = api.get("/openapi/v3/apis/core.rukpak.io/v1beta1").await.expect(200);
    let item = "/apis/core.rukpak.io/v1beta1/namespaces/{namespace}/catalogsources/{name}";
    let types = openapi["paths"][item]["patch"]["requestBody"]["content"].as_object().unwrap();
    assert_eq!(types.len(), 3);
    assert!(types.contains_key("application/apply-patch+yaml"));
}

#[tokio::test]
async fn c158_what_is_not_there_is_not_patched() {
    let api = TestApi::new();
    for (kind, patch) in [(MERGE, json!({})), (JSON, json!([]))] {
        for path in [path("a"), format!("{}/status", path("a"))] {
            assert_eq!(api.patch(&path, kind, &patch).await.expect(404)["reason"], "NotFound");
        }
    }
}

#[tokio::test]
async fn c159_a_json_patch_is_carried_out_whole_or_not_at_all() {
    let (api, created) = with_one(&source("a")).await;
    let send = |patch: Value| api.patch(&path("a"), JSON, &patch);
    refused(&send(json!({"op": "add"})).await, 400);
    refused(&api.call(Method::PATCH, &path("a")).body("application/json-patch+json", "[{").await, 400);
    let add = json!({"op": "add", "path": "/metadata/labels", "value": {"a": "1"}});
    for failing in [
        json!({"op": "test", "path": "/spec/image", "value": "other"}),
        json!({"op": "remove", "path": "/spec/missing"}),
        json!({"op": "dance", "path": "/spec"}),
    ] {
        let status = send(json!([add, failing])).await.expect(422);
        assert_eq!((&status["reason"], &status["details"]), (&json!("Invalid"), &json!({})));
        let message = status["message"].as_str().unwrap();
        assert!(
            message.starts_with("the server rejected our request due to an error in our request"),
            "{message}"
        );
    }
    assert_eq!(api.get(&path("a")).await.expect(200), created);
    let test = json!({"op": "test", "path": "/spec/image", "value": created["spec"]["image"]});
    let patched =
        send(json!([test, add, {"op": "copy", "from": "/spec/image", "path": "/spec/publisher"}])).await;
    let patched = patched.expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"a": "1"}));
    assert_eq!(patched["spec"]["publisher"], created["spec"]["image"]);
}

#[tokio::test]
async fn c160_a_json_patch_is_bounded() {
    let (api, _) = with_one(&source("a")).await;
    let test = json!({"op": "test", "path": "/kind", "value": "CatalogSource"});
    let status = api.patch(&path("a"), JSON, &Value::from(vec![test.clone(); 10_001])).await.expect(413);
    assert_eq!(status["reason"], "RequestEntityTooLarge");
    api.patch(&path("a"), JSON, &Value::from(vec![test; 10_000])).await.expect(200);
    let seed = json!({"op": "add", "path": "/metadata/annotations", "value": {"a": {"b": "c"}}});
    let double = |number| json!({"op": "copy", "from": "/metadata/annotations", "path": format!("/metadata/annotations/{number}")});
    let doubling: Value = std::iter::once(seed).chain((0..100).map(double)).collect();
    api.patch(&path("a"), JSON, &doubling).await.expect(413);
}

#[tokio::test]
async fn c161_c166_a_merge_patch_changes_what_it_names() {
    let labels = json!({"a": "1", "b": "1"});
    let sent = with(
        source("a"),
        &[("/metadata/labels", labels), ("/metadata/finalizers", json!(["example.com/x"]))],
    );
    let (api, created) = with_one(&sent).await;
    let send = |patch: Value| api.patch(&path("a"), MERGE, &patch);
    for patch in [
        json!({}),
        json!({"metadata": {"labels": {"a": "1", "c": null}}}),
        json!({"status": {"packages": 1}}),
    ] {
        assert_eq!(send(patch).await.expect(200), created);
    }
    let patch = json!({"metadata": {"labels": {"a": null, "c": "1"}, "finalizers": ["example.com/y"]}});
    let patched = send(patch).await.expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"b": "1", "c": "1"}));
    assert_eq!(patched["metadata"]["finalizers"], json!(["example.com/y"]));
    for body in ["", "{", "[]", "5", "null"] {
        let answer = api.call(Method::PATCH, &path("a")).body("application/merge-patch+json", body).await;
        refused(&answer, 400);
    }
}

#[tokio::test]
async fn c162_a_patch_that_leaves_no_object_of_the_type_is_refused() {
    let (api, created) = with_one(&source("a")).await;
    for patch in [
        json!({"metadata": {"labels": 5}}),
        json!({"metadata": {"labels": {"a": 1}}}),
        json!({"metadata": {"finalizers": "x"}}),
    ] {
        assert_eq!(
            invalid(&api.patch(&path("a"), MERGE, &patch).await),
            ["FieldValueInvalid patch"],
            "{patch}"
        );
    }
    let answer = api.patch(&path("a"), MERGE, &json!({"spec": {"image": 5, "priority": "x"}})).await;
    assert_eq!(invalid(&answer), ["FieldValueTypeInvalid spec.image", "FieldValueTypeInvalid spec.priority"]);
    for value in [json!(5), json!([])] {
        refused(
            &api.patch(&path("a"), JSON, &json!([{"op": "replace", "path": "", "value": value}])).await,
            400,
        );
    }
    refused(&api.patch(&path("a"), MERGE, &json!({"kind": "Package"})).await, 400);
    assert_eq!(api.get(&path("a")).await.expect(200), created);
}

#[tokio::test(flavor = "multi_thread")]
async fn c163_patches_without_a_version_all_succeed() {
    let (api, _) = with_one(&source("a")).await;
    let api = Arc::new(api);
    let patches = (0..100).map(|number: usize| {
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            let label = format!("l{number}");
            let (kind, patch) = match number % 3 {
                0 => (MERGE, json!({"metadata": {"labels": {label: "1"}}})),
                // Kept apart from labels, which are not there at first.
                1 => (JSON, json!([{"op": "add", "path": "/metadata/annotations", "value": {label: "1"}}])),
                _ => (
                    "apply-patch+yaml",
                    with(source("a"), &[("/metadata/labels", json!({label: "1"})), ("/spec", json!({}))]),
                ),
            };
            let path = format!("{}?fieldManager=m{number}", path("a"));
            api.patch(&path, kind, &patch).await.expect(200);
        })
    });
    for patched in futures::future::join_all(patches).await {
        patched.unwrap();
    }
    let object = api.get(&path("a")).await.expect(200);
    assert_eq!(object["metadata"]["labels"].as_object().unwrap().len(), 67);
    assert_eq!(object["metadata"]["annotations"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn c164_a_patch_may_say_of_which_version() {
    let (api, created) = with_one(&source("a")).await;
    let patch = |version: &str, value: &str| json!({"metadata": {"resourceVersion": version, "labels": {"a": value}}});
    let patched = api.patch(&path("a"), MERGE, &patch(version(&created), "1")).await.expect(200);
    let status = api.patch(&path("a"), MERGE, &patch(version(&created), "2")).await.expect(409);
    assert_eq!(status["reason"], "Conflict");
    let test = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": version(&created)},
        {"op": "remove", "path": "/metadata/labels"},
    ]);
    api.patch(&path("a"), JSON, &test).await.expect(422);
    assert_eq!(api.get(&path("a")).await.expect(200), patched);
}

#[tokio::test]
async fn c165_a_patch_does_not_make_another_object() {
    let (api, created) = with_one(&source("a")).await;
    let metadata = |field: &str| json!({"metadata": {field: "other"}});
    let message = refused(&api.patch(&path("a"), MERGE, &metadata("name")).await, 400);
    assert_eq!(message, "the name of the object (other) does not match the name on the URL (a)");
    let nameless = json!([{"op": "remove", "path": "/metadata"}]);
    assert!(refused(&api.patch(&path("a"), JSON, &nameless).await, 400).contains("undeterminable"));
    let answer = api.patch(&path("a"), MERGE, &metadata("uid")).await;
    assert!(refused(&answer, 422).contains("field is immutable"));
    assert_eq!(
        invalid(&api.patch(&path("a"), MERGE, &metadata("uid")).await),
        ["FieldValueInvalid metadata.uid"]
    );
    refused(&api.patch(&path("a"), MERGE, &metadata("namespace")).await, 400);
    let same = json!({"metadata": {"uid": created["metadata"]["uid"], "name": "a", "namespace": "test"}});
    assert_eq!(api.patch(&path("a"), MERGE, &same).await.expect(200), created);
}

#[tokio::test]
async fn c168_a_status_is_patched_in_every_way() {
    let (api, created) = with_one(&source("a")).await;
    let status = format!("{}/status", path("a"));
    let patch =
        json!({"status": {"packages": 1}, "spec": {"publisher": "me"}, "metadata": {"labels": {"a": "1"}}});
    let patched = api.patch(&status, MERGE, &patch).await.expect(200);
    assert_eq!(patched["status"], json!({"packages": 1}));
    assert_eq!((&patched["spec"], patched["metadata"].get("labels")), (&created["spec"], None));
    let patch = json!([{"op": "replace", "path": "/status/packages", "value": 2}]);
    assert_eq!(api.patch(&status, JSON, &patch).await.expect(200)["status"], json!({"packages": 2}));
    let config = with(source("a"), &[("/status", json!({"bundles": 3})), ("/spec/publisher", json!("me"))]);
    let applied =
        api.patch(&format!("{status}?fieldManager=me"), "apply-patch+yaml", &config).await.expect(200);
    assert_eq!(applied["status"], json!({"packages": 2, "bundles": 3}));
    assert_eq!((&applied["spec"], &applied["metadata"]["generation"]), (&created["spec"], &json!(1)));
}

#[tokio::test]
async fn c169_c170_a_patch_can_do_the_last_finalizer() {
    let sent = with(source("a"), &[("/metadata/finalizers", json!(["orphan"]))]);
    let (api, created) = with_one(&sent).await;
    api.delete(&path("a")).await.expect(200);
    // As the garbage collector does it.
    let patch = json!({"metadata": {"uid": created["metadata"]["uid"], "finalizers": []}});
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
    let last = api.patch(&path("a"), MERGE, &patch).accept(metadata).await.expect(200);
    assert_eq!((&last["kind"], &last["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("a")));
    api.get(&path("a")).await.expect(404);
}

/// Any JSON for the body of a request.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        "[a-z]{0,3}",
        "metadata",
        "spec",
        "status",
        "labels",
        "name",
        "image",
        "finalizers",
        "ownerReferences",
        "uid",
        "managedFields",
        "fieldsV1",
        "conditions",
        "type",
        "kind",
        "apiVersion",
        "op",
        "path",
        "resourceVersion",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("a")),
        Just(json!("CatalogSource")),
        Just(json!("core.rukpak.io/v1beta1")),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// RFC 7386, word by word.
fn merged(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut result = target.as_object().cloned().unwrap_or_default();
    for (name, value) in patch {
        match value {
            Value::Null => drop(result.remove(name)),
            value => {
                let merged = merged(result.get(name).unwrap_or(&Value::Null), value);
                result.insert(name.clone(), merged);
            }
        }
    }
    result.into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(64, 20_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c161_labels_follow_rfc_7386(patches in prop::collection::vec(labels_patch(), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (api, _) = with_one(&source("a")).await;
            let mut model = json!({});
            for patch in patches {
                model = merged(&model, &json!({"metadata": {"labels": patch}}));
                let sent = json!({"metadata": {"labels": patch}});
                let stored = api.patch(&path("a"), MERGE, &sent).await.expect(200);
                let none = json!({});
                let labels = |object: &Value| object["metadata"].get("labels").unwrap_or(&none).clone();
                assert_eq!(labels(&stored), labels(&model));
            }
        });
    }

    #[test]
    fn any_json_is_answered(body in any_json(), spec in any_json()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (api, _) = with_one(&source("a")).await;
            let manager = format!("{}?fieldManager=m&force=true", path("a"));
            let object = with(source("a"), &[("/spec", spec.clone()), ("/status", spec)]);
            for body in [body, object] {
                for call in [
                    api.post(R, &body),
                    api.put(&path("a"), &body),
                    api.put(&format!("{}/status", path("a")), &body),
                    api.patch(&path("a"), MERGE, &body),
                    api.patch(&path("a"), JSON, &json!([body])),
                    api.patch(&path("a"), JSON, &json!([{"op": "add", "path": "/metadata/labels", "value": body}])),
                    api.patch(&manager, "apply-patch+yaml", &body),
                    api.delete(&format!("{}?dryRun=All", path("a"))).json(&body),
                ] {
                    let answer = call.await;
                    assert!(answer.status.as_u16() < 500, "{}: {body}", answer.text());
                }
            }
            api.get(&path("a")).await;
        });
    }
}

fn labels_patch() -> impl Strategy<Value = Value> {
    let value = prop_oneof![Just(Value::Null), "[ab]".prop_map(Value::from)];
    let labels = prop::collection::btree_map("[a-c]", value, 0..4);
    prop_oneof![4 => labels.prop_map(|labels| json!(labels)), 1 => Just(Value::Null)]
}
