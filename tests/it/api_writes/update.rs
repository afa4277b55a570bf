use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::support::router::TestApi;

/// An object as the controller leaves it: with a status.
async fn with_status() -> (TestApi, Value) {
    let (api, created) = with_one(&source("a")).await;
    let sent =
        with(created, &[("/status", json!({"packages": 5, "conditions": [condition("Ready", "True")]}))]);
    let stored = api.put(&status_path(), &sent).await.expect(200);
    (api, stored)
}

fn condition(kind: &str, status: &str) -> Value {
    let time = "2026-01-01T00:00:00Z";
    json!({"type": kind, "status": status, "reason": "Because", "message": "", "lastTransitionTime": time})
}

fn status_path() -> String {
    format!("{}/status", path("a"))
}

#[tokio::test]
async fn c141_an_object_is_replaced() {
    let (api, created) = with_one(&source("a")).await;
    let sent = with(created.clone(), &[("/spec", json!({"image": "x/y:z", "publisher": "me"}))]);
    let stored = api.put(&path("a"), &sent).await.expect(200);
    assert_eq!(stored["spec"], sent["spec"]);
    assert_ne!(version(&stored), version(&created));
    assert_eq!(api.get(&path("a")).await.expect(200), stored);
    let sent = with(stored, &[("/spec", json!({"image": "x/y:z"}))]);
    assert_eq!(api.put(&path("a"), &sent).await.expect(200)["spec"], json!({"image": "x/y:z"}));
}

#[tokio::test]
async fn c002_c142_c152_what_is_not_there_is_not_updated() {
    let api = TestApi::new();
    let sent = with(source("a"), &[("/metadata/resourceVersion", json!("1"))]);
    for path in [path("a"), status_path()] {
        let status = api.put(&path, &sent).await.expect(404);
        assert_eq!(status["message"], r#"catalogsources.core.rukpak.io "a" not found"#);
        let details = json!({"name": "a", "group": "core.rukpak.io", "kind": "catalogsources"});
        assert_eq!((&status["reason"], &status["details"]), (&json!("NotFound"), &details));
        api.put(&path, &source("a")).await.expect(404);
    }
    api.get(&path("a")).await.expect(404);
}

#[tokio::test]
async fn c143_an_update_says_of_which_version() {
    let (api, created) = with_one(&source("a")).await;
    for (sent, path) in [(Value::Null, path("a")), (json!(""), path("a")), (json!("0"), status_path())] {
        let answer = api.put(&path, &with(created.clone(), &[("/metadata/resourceVersion", sent)])).await;
        assert_eq!(invalid(&answer), ["FieldValueInvalid metadata.resourceVersion"]);
        assert!(refused(&answer, 422).contains("must be specified for an update"));
    }
    let answer = api.put(&path("a"), &with(created, &[("/metadata/resourceVersion", json!("x"))])).await;
    assert_eq!(invalid(&answer), ["FieldValueInvalid metadata.resourceVersion"]);
}

#[tokio::test]
async fn c004_c144_a_stale_version_is_a_conflict() {
    let (api, created) = with_one(&source("a")).await;
    let label = |value: &str| with(created.clone(), &[("/metadata/labels", json!({"a": value}))]);
    api.put(&path("a"), &label("1")).await.expect(200);
    for path in [path("a"), status_path()] {
        let status = api.put(&path, &label("2")).await.expect(409);
        let message = "Operation cannot be fulfilled on catalogsources.core.rukpak.io \"a\": the object has been modified; \
                       please apply your changes to the latest version and try again";
        assert_eq!((&status["reason"], &status["message"]), (&json!("Conflict"), &json!(message)));
        let details = json!({"name": "a", "group": "core.rukpak.io", "kind": "catalogsources"});
        assert_eq!(status["details"], details);
    }
}

#[tokio::test]
async fn c145_name_and_namespace_are_those_of_the_url() {
    let (api, created) = with_one(&source("a")).await;
    let put = |field: &str, value: Value| api.put(&path("a"), &with(created.clone(), &[(field, value)]));
    let message = refused(&put("/metadata/name", json!("b")).await, 400);
    assert_eq!(message, "the name of the object (b) does not match the name on the URL (a)");
    assert!(refused(&put("/metadata/name", Value::Null).await, 400).contains("undeterminable"));
    assert!(
        refused(&put("/metadata/namespace", json!("b")).await, 400).contains("does not match the namespace")
    );
    assert_eq!(put("/metadata/namespace", Value::Null).await.expect(200)["metadata"]["namespace"], "test");
}

#[tokio::test]
async fn c146_another_uid_is_another_object() {
    let (api, created) = with_one(&source("a")).await;
    let put = |uid: Value| api.put(&path("a"), &with(created.clone(), &[("/metadata/uid", uid)]));
    let answer = put(json!("other")).await;
    assert_eq!(answer.expect(409)["reason"], "Conflict");
    assert!(refused(&answer, 409).contains("Precondition failed: UID in precondition: other"));
    put(Value::Null).await.expect(200);
}

#[tokio::test]
async fn c147_what_the_server_gave_stays() {
    let (api, created) = with_one(&source("a")).await;
    let sent = with(
        created.clone(),
        &[
            ("/metadata/creationTimestamp", json!("2020-01-01T00:00:00Z")),
            ("/metadata/deletionTimestamp", json!("2020-01-01T00:00:00Z")),
            ("/metadata/deletionGracePeriodSeconds", json!(30)),
            ("/metadata/generation", json!(99)),
            ("/metadata/selfLink", json!("/x")),
        ],
    );
    assert_eq!(api.put(&path("a"), &sent).await.expect(200), created);
}

#[tokio::test]
async fn c148_the_same_again_is_no_change() {
    let (api, stored) = with_status().await;
    let before = api.store.current().await.unwrap();
    for path in [path("a"), status_path()] {
        for sent in [stored.clone(), with(stored.clone(), &[("/spec/publisher", json!(null))])] {
            let answer = api.put(&path, &sent).header("user-agent", "somebody-else").await;
            assert_eq!(answer.expect(200), stored);
        }
    }
    assert_eq!(api.store.current().await.unwrap(), before);
}

#[tokio::test]
async fn c148_a_null_in_the_store_is_no_difference() {
    use packageserver::store::{Batch, Key, Object, Operation};
    let (api, stored) = with_status().await;
    // As the controller writes it: a field without a value is there, as null.
    let key = Key::new("catalogsources", "test", "a");
    let with_null =
        with(stored, &[("/status/latestImagePoll", json!(0)), ("/metadata/resourceVersion", Value::Null)]);
    let text = with_null.to_string().replace("\"latestImagePoll\":0", "\"latestImagePoll\":null");
    let current = api.store.get(&key).await.unwrap().unwrap().version;
    api.store.append(Batch::of(Operation::replace(key, current, Object::whole(text)))).await.unwrap();
    let stored = api.get(&path("a")).await.expect(200);
    assert_eq!(stored["status"].get("latestImagePoll"), Some(&Value::Null));
    assert_eq!(api.put(&status_path(), &stored).await.expect(200), stored);
    assert_eq!(api.put(&path("a"), &stored).await.expect(200), stored);
}

#[tokio::test]
async fn c149_generations_count_changes_of_the_spec() {
    let (api, created) = with_one(&source("a")).await;
    let labelled = with(created, &[("/metadata/labels", json!({"a": "1"}))]);
    let stored = api.put(&path("a"), &labelled).await.expect(200);
    assert_eq!(stored["metadata"]["generation"], 1);
    let stored = api.put(&path("a"), &with(stored, &[("/spec/publisher", json!("me"))])).await.expect(200);
    assert_eq!(stored["metadata"]["generation"], 2);
    let patch = json!({"spec": {"publisher": null}});
    let stored = api.patch(&path("a"), "merge-patch+json", &patch).await.expect(200);
    assert_eq!(stored["metadata"]["generation"], 3);
}

#[tokio::test]
async fn c150_a_status_is_not_written_with_the_object() {
    let (api, stored) = with_status().await;
    let sent =
        with(stored.clone(), &[("/status", json!({"packages": 99})), ("/spec/publisher", json!("me"))]);
    let updated = api.put(&path("a"), &sent).await.expect(200);
    assert_eq!(updated["status"], stored["status"]);
    let without = with(updated, &[("/status", Value::Null)]);
    assert_eq!(api.put(&path("a"), &without).await.expect(200)["status"], stored["status"]);
}

#[tokio::test]
async fn c151_nothing_but_the_status_is_written_with_the_status() {
    let (api, stored) = with_status().await;
    let sent = with(
        stored.clone(),
        &[
            ("/status", json!({"packages": 6})),
            ("/spec/publisher", json!("me")),
            ("/metadata/labels", json!({"a": "1"})),
            ("/metadata/annotations", json!({"a": "1"})),
            ("/metadata/finalizers", json!(["example.com/x"])),
        ],
    );
    let updated = api.put(&status_path(), &sent).await.expect(200);
    assert_eq!((&updated["status"], &updated["spec"]), (&json!({"packages": 6}), &stored["spec"]));
    for field in ["labels", "annotations", "finalizers", "generation"] {
        assert_eq!(updated["metadata"].get(field), stored["metadata"].get(field), "{field}");
    }
    // What is wrong with what is not taken is nobody's fault; what is wrong with the status is.
    let sent = with(updated, &[("/spec/image", json!("Not An Image")), ("/status/packages", json!("six"))]);
    assert_eq!(invalid(&api.put(&status_path(), &sent).await), ["FieldValueTypeInvalid status.packages"]);
    let twice = json!({"conditions": [condition("Ready", "True"), condition("Ready", "False")]});
    let sent = with(sent, &[("/status", twice)]);
    assert_eq!(invalid(&api.put(&status_path(), &sent).await), ["FieldValueDuplicate status.conditions[1]"]);
    assert_eq!(
        api.put(&status_path(), &with(sent, &[("/status", Value::Null)])).await.expect(200).get("status"),
        None
    );
}

#[tokio::test]
async fn c153_nothing_new_holds_up_a_deletion() {
    let held = with(source("a"), &[("/metadata/finalizers", json!(["example.com/x", "example.com/y"]))]);
    let (api, _) = with_one(&held).await;
    let deleting = api.delete(&path("a")).await.expect(200);
    let finalizers = |names: Value| with(deleting.clone(), &[("/metadata/finalizers", names)]);
    let answer = api.put(&path("a"), &finalizers(json!(["example.com/x", "example.com/z"]))).await;
    assert_eq!(invalid(&answer), ["FieldValueForbidden metadata.finalizers"]);
    let left = api.put(&path("a"), &finalizers(json!(["example.com/y"]))).await.expect(200);
    assert_eq!(left["metadata"]["finalizers"], json!(["example.com/y"]));
}

#[tokio::test]
async fn c154_c214_who_does_the_last_finalizer_is_given_the_object_and_it_is_gone() {
    let held = with(source("a"), &[("/metadata/finalizers", json!(["example.com/x"]))]);
    let (api, _) = with_one(&held).await;
    let deleting = api.delete(&path("a")).await.expect(200);
    let watch = format!("{R}?watch&resourceVersion={}&timeoutSeconds=1", version(&deleting));
    let sent = with(deleting.clone(), &[("/metadata/finalizers", Value::Null)]);
    let last = api.put(&path("a"), &sent).await.expect(200);
    assert_eq!(last["metadata"]["uid"], deleting["metadata"]["uid"]);
    assert_eq!(last["metadata"].get("finalizers"), None);
    api.get(&path("a")).await.expect(404);
    let events = api.get(&watch).await.text();
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((events.len(), &events[0]["type"]), (1, &json!("DELETED")));
    assert_eq!(events[0]["object"]["metadata"]["resourceVersion"], last["metadata"]["resourceVersion"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn c155_no_update_that_was_answered_is_lost() {
    const WRITERS: usize = 5;
    const TIMES: usize = 10;
    let (api, _) = with_one(&source("a")).await;
    let api = Arc::new(api);
    let writers = (0..WRITERS).map(|writer| {
        let api = Arc::clone(&api);
        tokio::spawn(async move {
            for number in 0..TIMES {
                loop {
                    let mut object = api.get(&path("a")).await.expect(200);
                    object["metadata"]["labels"][format!("l{writer}-{number}")] = "1".into();
                    let answer = api.put(&path("a"), &object).await;
                    if answer.status == 200 {
                        break;
                    }
                    assert_eq!(answer.expect(409)["reason"], "Conflict");
                }
            }
        })
    });
    for written in futures::future::join_all(writers).await {
        written.unwrap();
    }
    let labels = api.get(&path("a")).await.expect(200)["metadata"]["labels"].clone();
    assert_eq!(labels.as_object().unwrap().len(), WRITERS * TIMES);
}

#[tokio::test]
async fn rules_that_came_later_do_not_lock_an_object() {
    use packageserver::store::{Batch, Key, Object, Operation};
    let (api, created) =
        with_one(&with(source("a"), &[("/metadata/finalizers", json!(["example.com/x"]))])).await;
    let key = Key::new("catalogsources", "test", "a");
    let invalid_now =
        with(created, &[("/spec/image", json!("Not An Image")), ("/metadata/resourceVersion", Value::Null)]);
    let current = api.store.get(&key).await.unwrap().unwrap().version;
    let object = Object::whole(invalid_now.to_string());
    api.store.append(Batch::of(Operation::replace(key, current, object))).await.unwrap();
    let label = json!({"metadata": {"labels": {"a": "1"}}});
    api.patch(&path("a"), "merge-patch+json", &label).await.expect(200);
    let spec = json!({"spec": {"publisher": "me"}});
    assert_eq!(
        invalid(&api.patch(&path("a"), "merge-patch+json", &spec).await),
        ["FieldValueInvalid spec.image"]
    );
    api.patch(&status_path(), "merge-patch+json", &json!({"status": {"packages": 1}})).await.expect(200);
    api.delete(&path("a")).await.expect(200);
    api.patch(&path("a"), "merge-patch+json", &json!({"metadata": {"finalizers": null}})).await.expect(200);
    api.get(&path("a")).await.expect(404);
}
