use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use packageserver::store::{Expect, StoreError};
use serde_json::{Value, json};

use super::*;
use crate::support::hooked_store::{HookedStore, Verdict};

#[tokio::test]
async fn c125_a_created_object_is_given_its_identity() {
    let api = TestApi::new();
    let sent = with(source("a"), &[("/status", json!({"packages": 5}))]);
    let created = api.post(R, &sent).header("user-agent", "tester/1.0 (x)").await.expect(201);
    let metadata = &created["metadata"];
    assert_eq!((&metadata["namespace"], &metadata["generation"]), (&json!("test"), &json!(1)));
    assert!(["uid", "creationTimestamp", "resourceVersion"].iter().all(|field| metadata[field].is_string()));
    assert_eq!(created["status"], Value::Null);
    assert_eq!(created["spec"], sent["spec"]);
    let owned = json!({"f:spec": {".": {}, "f:image": {}}});
    assert_eq!(managers(&created), [("tester Update".to_owned(), owned)]);
    let entry = &metadata["managedFields"][0];
    assert_eq!(entry["time"], metadata["creationTimestamp"]);
    assert_eq!((&entry["fieldsType"], &entry["apiVersion"]), (&json!("FieldsV1"), &sent["apiVersion"]));
    assert_eq!(api.get(&path("a")).await.expect(200), created);
}

#[tokio::test]
async fn c126_what_the_server_gives_cannot_be_brought() {
    let brought = json!({
        "name": "a", "uid": "u", "creationTimestamp": "2020-01-01T00:00:00Z", "deletionTimestamp": "2020-01-01T00:00:00Z",
        "deletionGracePeriodSeconds": 5, "selfLink": "/x", "generation": 7,
    });
    let (_, created) = with_one(&with(source("a"), &[("/metadata", brought)])).await;
    let metadata = &created["metadata"];
    assert_ne!(metadata["uid"], "u");
    assert_ne!(metadata["creationTimestamp"], "2020-01-01T00:00:00Z");
    assert_eq!(metadata["generation"], 1);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        assert_eq!(metadata[field], Value::Null, "{field}");
    }
}

#[tokio::test]
async fn c127_a_new_object_has_no_version_yet() {
    let api = TestApi::new();
    let sent = with(source("a"), &[("/metadata/resourceVersion", json!("1"))]);
    let message = refused(&api.post(R, &sent).await, 400);
    assert_eq!(message, "resourceVersion should not be set on objects to be created");
}

#[tokio::test]
async fn c128_the_namespace_is_that_of_the_url() {
    let api = TestApi::new();
    let sent = with(source("a"), &[("/metadata/namespace", json!("other"))]);
    let message = refused(&api.post(R, &sent).await, 400);
    assert_eq!(
        message,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let sent = with(source("a"), &[("/metadata/namespace", json!("test"))]);
    assert_eq!(api.post(R, &sent).await.expect(201)["metadata"]["namespace"], "test");
}

#[tokio::test]
async fn c129_the_type_is_that_of_the_url() {
    let api = TestApi::new();
    let sent = with(source("a"), &[("/kind", Value::Null), ("/apiVersion", Value::Null)]);
    let created = api.post(R, &sent).await.expect(201);
    assert_eq!(
        (&created["kind"], &created["apiVersion"]),
        (&json!("CatalogSource"), &source("a")["apiVersion"])
    );
    for (field, value) in
        [("/kind", "Package"), ("/apiVersion", "core.rukpak.io/v1"), ("/kind", "CatalogSourceList")]
    {
        let message = refused(&api.post(R, &with(source("b"), &[(field, json!(value))])).await, 400);
        assert!(
            message.contains(value) && message.contains("core.rukpak.io/v1beta1, Kind=CatalogSource"),
            "{message}"
        );
    }
    refused(&api.post(R, &with(source("b"), &[("/kind", json!(5))])).await, 400);
}

#[tokio::test]
async fn c130_c049_a_body_is_one_object_in_json_or_yaml() {
    let api = TestApi::new();
    for body in ["", "{", "[]", "[{}]", "5", "null", "\"x\""] {
        refused(&api.call(axum::http::Method::POST, R).body("application/json", body).await, 400);
    }
    let yaml = "apiVersion: core.rukpak.io/v1beta1\nkind: CatalogSource\nmetadata: {name: a}\nspec:\n  image: x/y:z\n";
    let post = |media_type: &str| api.call(axum::http::Method::POST, R).body(media_type, yaml);
    assert_eq!(post("application/yaml").await.expect(201)["spec"]["image"], "x/y:z");
    let json = source("b").to_string();
    let post = |media_type: &str| api.call(axum::http::Method::POST, R).body(media_type, json.clone());
    post("").await.expect(201);
    for media_type in ["text/plain", "application/vnd.kubernetes.protobuf", "application/merge-patch+json"] {
        let answer = post(media_type).await;
        assert_eq!(answer.expect(415)["reason"], "UnsupportedMediaType");
        assert!(refused(&answer, 415).ends_with("application/json, application/yaml"));
    }
}

#[tokio::test]
async fn c131_an_object_needs_a_name() {
    let api = TestApi::new();
    let answer = api.post(R, &with(source("a"), &[("/metadata", json!({}))])).await;
    assert_eq!(invalid(&answer), ["FieldValueRequired metadata.name"]);
    assert!(refused(&answer, 422).contains("name or generateName is required"));
}

#[tokio::test]
async fn c132_names_are_generated() {
    let api = TestApi::new();
    let generated = |prefix: String| {
        let sent = with(source("a"), &[("/metadata", json!({"generateName": prefix}))]);
        let call = api.post(R, &sent);
        async move { call.await.expect(201)["metadata"]["name"].as_str().unwrap().to_owned() }
    };
    let mut names = HashSet::new();
    for _ in 0..20 {
        let name = generated("test-".to_owned()).await;
        let random = name.strip_prefix("test-").unwrap();
        assert!(
            random.len() == 5 && random.chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)),
            "{name}"
        );
        names.insert(name);
    }
    assert_eq!(names.len(), 20);
    for length in [57, 58, 59] {
        let name = generated("x".repeat(length)).await;
        assert_eq!(name.len(), length.min(58) + 5);
    }
    let both = with(source("named"), &[("/metadata/generateName", json!("test-"))]);
    assert_eq!(api.post(R, &both).await.expect(201)["metadata"]["name"], "named");
    let bad = with(source("a"), &[("/metadata", json!({"generateName": "No_"}))]);
    let expected = ["FieldValueInvalid metadata.generateName", "FieldValueInvalid metadata.name"];
    assert_eq!(invalid(&api.post(R, &bad).await), expected);
}

#[tokio::test]
async fn c133_a_generated_name_that_is_taken_is_tried_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let api = |free_from: usize| {
        let tries = Arc::clone(&tries);
        tries.store(0, Ordering::Relaxed);
        TestApi::over(HookedStore::over(in_memory(), move |batch| {
            let operation = &batch.operations[0];
            if operation.expect != Expect::Absent || tries.fetch_add(1, Ordering::Relaxed) >= free_from {
                return Verdict::Pass;
            }
            Verdict::Fail(StoreError::Conflict { key: operation.key.clone() })
        }))
    };
    let sent = with(source("a"), &[("/metadata", json!({"generateName": "test-"}))]);
    api(7).post(R, &sent).await.expect(201);
    assert_eq!(tries.load(Ordering::Relaxed), 8);
    let answer = api(8).post(R, &sent).await;
    let status = answer.expect(409);
    assert_eq!(status["reason"], "AlreadyExists");
    assert_eq!(tries.load(Ordering::Relaxed), 8);
    let name = status["details"]["name"].as_str().unwrap();
    let message = format!(
        "catalogsources.core.rukpak.io {name:?} already exists, the server was not able to generate a unique name for the \
         object"
    );
    assert!(name.starts_with("test-"));
    assert_eq!(status["message"], *message);
    assert_eq!(status["details"]["retryAfterSeconds"], 1);
    assert_eq!(answer.headers("retry-after"), ["1"]);
}

#[tokio::test]
async fn c134_names_are_subdomains() {
    let api = TestApi::new();
    for name in [".", "..", "a/b", "a%b", "A", "a_b", "-a", "a-", "a..b", &"a".repeat(254)] {
        assert_eq!(invalid(&api.post(R, &source(name)).await), ["FieldValueInvalid metadata.name"], "{name}");
    }
    for namespace in ["A", "a.b", "a%20b", &"a".repeat(64)] {
        let path = R.replace("/test/", &format!("/{namespace}/"));
        assert_eq!(invalid(&api.post(&path, &source("a")).await), ["FieldValueInvalid metadata.namespace"]);
    }
    api.post(&R.replace("/test/", "/a%2Fb/"), &source("a")).await.expect(405);
    for name in ["a", "a.b-c", &"a".repeat(253)] {
        api.post(R, &source(name)).await.expect(201);
    }
}

#[tokio::test]
async fn c135_metadata_is_checked_and_all_that_is_wrong_is_said() {
    let api = TestApi::new();
    let owner = |changes: &[(&str, Value)]| {
        with(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "n", "uid": "u"}), changes)
    };
    let controller = |uid: &str| owner(&[("/controller", json!(true)), ("/uid", json!(uid))]);
    let long = |length: usize| json!({"a": "x".repeat(length - 1)});
    for (field, value, expected) in [
        ("labels", json!({"-a": "x"}), vec!["FieldValueInvalid metadata.labels"]),
        ("labels", json!({"a": "x y"}), vec!["FieldValueInvalid metadata.labels"]),
        ("labels", json!({"a": "x".repeat(64)}), vec!["FieldValueInvalid metadata.labels"]),
        ("labels", json!({"example.com/a": "", "b": "x".repeat(63)}), vec![]),
        ("annotations", json!({"a b": "x"}), vec!["FieldValueInvalid metadata.annotations"]),
        ("annotations", json!({"Example.com/A": "any text, \n ü"}), vec![]),
        ("annotations", long(262_144), vec![]),
        ("annotations", long(262_145), vec!["FieldValueTooLong metadata.annotations"]),
        (
            "ownerReferences",
            json!([{"apiVersion": ""}]),
            vec![
                "FieldValueInvalid metadata.ownerReferences.apiVersion",
                "FieldValueInvalid metadata.ownerReferences.kind",
                "FieldValueInvalid metadata.ownerReferences.name",
                "FieldValueInvalid metadata.ownerReferences.uid",
            ],
        ),
        (
            "ownerReferences",
            json!([owner(&[("/apiVersion", json!("a/b/c"))])]),
            vec!["FieldValueInvalid metadata.ownerReferences.apiVersion"],
        ),
        (
            "ownerReferences",
            json!([controller("u"), controller("v")]),
            vec!["FieldValueInvalid metadata.ownerReferences"],
        ),
        ("ownerReferences", json!([controller("u"), owner(&[("/uid", json!("v"))])]), vec![]),
        ("finalizers", json!(["a/b/c", "example.com/x"]), vec!["FieldValueInvalid metadata.finalizers"]),
        (
            "finalizers",
            json!(["orphan", "foregroundDeletion"]),
            vec!["FieldValueInvalid metadata.finalizers"],
        ),
    ] {
        let answer = api.post(R, &with(source("a"), &[(&format!("/metadata/{field}"), value.clone())])).await;
        match expected.is_empty() {
            true => drop(api.delete(&path("a")).await.expect(200)),
            false => assert_eq!(invalid(&answer), expected, "{value}"),
        }
    }
    let wrong = with(source("A"), &[("/metadata/labels", json!({"a": "-"})), ("/spec/image", json!(5))]);
    let expected = [
        "FieldValueTypeInvalid spec.image",
        "FieldValueInvalid metadata.name",
        "FieldValueInvalid metadata.labels",
    ];
    assert_eq!(invalid(&api.post(R, &wrong).await), expected);
}

#[tokio::test]
async fn c135_a_finalizer_without_a_domain_is_warned_of() {
    let api = TestApi::new();
    let finalizers = json!(["mine", "example.com/x", "orphan"]);
    let answer = api.post(R, &with(source("a"), &[("/metadata/finalizers", finalizers)])).await;
    answer.expect(201);
    let warnings = answer.headers("warning");
    assert!(
        warnings.len() == 1 && warnings[0].contains(r#"metadata.finalizers: \"mine\": prefer"#),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn c136_an_owner_listed_twice_is_kept_once() {
    let api = TestApi::new();
    let owner =
        |uid: &str, name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid});
    let owners = json!([owner("u", "n"), owner("v", "n"), owner("u", "n"), owner("u", "other")]);
    let answer = api.post(R, &with(source("a"), &[("/metadata/ownerReferences", owners)])).await;
    let kept = json!([owner("u", "n"), owner("v", "n"), owner("u", "other")]);
    assert_eq!(answer.expect(201)["metadata"]["ownerReferences"], kept);
    let [warning] = answer.headers("warning")[..] else { panic!("{:?}", answer.headers("warning")) };
    assert!(
        warning.contains(".metadata.ownerReferences contains duplicate entries") && warning.contains(": u\"")
    );

    let patch = json!({"metadata": {"ownerReferences": [owner("w", "n"), owner("w", "n")]}});
    let answer = api.patch(&path("a"), "merge-patch+json", &patch).await;
    assert_eq!(answer.expect(200)["metadata"]["ownerReferences"], json!([owner("w", "n")]));
    assert_eq!(answer.headers("warning").len(), 1);
}

#[tokio::test]
async fn c003_c137_a_name_is_taken_until_its_object_is_gone() {
    let (api, _) = with_one(&with(source("a"), &[("/metadata/finalizers", json!(["example.com/x"]))])).await;
    let status = api.post(R, &source("a")).await.expect(409);
    assert_eq!(status["reason"], "AlreadyExists");
    assert_eq!(status["message"], r#"catalogsources.core.rukpak.io "a" already exists"#);
    let details = json!({"name": "a", "group": "core.rukpak.io", "kind": "catalogsources"});
    assert_eq!(status["details"], details);
    api.delete(&path("a")).await.expect(200);
    let message = refused(&api.post(R, &source("a")).await, 409);
    assert_eq!(message, r#"object is being deleted: catalogsources.core.rukpak.io "a" already exists"#);
}

#[tokio::test]
async fn c009_c138_a_collection_is_posted_to_and_its_objects_are_changed() {
    let (api, _) = with_one(&source("a")).await;
    let everywhere = "/apis/core.rukpak.io/v1beta1/catalogsources";
    for path in [path("a"), format!("{}/status", path("a")), everywhere.to_owned()] {
        assert_eq!(api.post(&path, &source("b")).await.expect(405)["reason"], "MethodNotAllowed", "{path}");
    }
    for collection in [R, everywhere] {
        api.put(collection, &source("a")).await.expect(405);
        api.patch(collection, "merge-patch+json", &json!({})).await.expect(405);
    }
    let packages = R.replace("catalogsources", "packages");
    api.post(&packages, &source("a")).await.expect(405);
    api.patch(&format!("{packages}/a?fieldManager=m"), "apply-patch+yaml", &source("a")).await.expect(405);
    api.delete(&packages).await.expect(405);
}

#[tokio::test]
async fn c139_null_is_absent_and_a_wrong_type_is_refused() {
    let sent = with(source("a"), &[("/metadata", json!({"name": "a", "labels": null, "finalizers": null}))]);
    let (api, created) = with_one(&sent).await;
    assert_eq!(created["metadata"].get("labels"), None);
    for (field, value) in [
        ("labels", json!("x")),
        ("labels", json!({"a": 1})),
        ("finalizers", json!({})),
        ("name", json!(5)),
        ("creationTimestamp", json!("today")),
    ] {
        let sent = with(source("b"), &[(&format!("/metadata/{field}"), value)]);
        let message = refused(&api.post(R, &sent).await, 400);
        assert!(message.contains(&format!("metadata.{field}")), "{message}");
    }
    for metadata in [json!(5), json!([])] {
        refused(&api.post(R, &with(source("b"), &[("/metadata", metadata)])).await, 400);
    }
}

#[tokio::test]
async fn c005_c140_every_fault_of_a_spec_is_said_at_once() {
    let api = TestApi::new();
    let spec = json!({"image": "Not An Image", "pollingInterval": "1s", "priority": "high", "caBundle": {}});
    let answer = api.post(R, &with(source("a"), &[("/spec", spec)])).await;
    let status = answer.expect(422);
    let details = &status["details"];
    assert_eq!((&details["name"], &details["kind"]), (&json!("a"), &json!("CatalogSource")));
    let expected = [
        "FieldValueRequired spec.caBundle.name",
        "FieldValueTypeInvalid spec.priority",
        "FieldValueInvalid spec.image",
        "FieldValueInvalid spec.pollingInterval",
    ];
    assert_eq!(causes(&status), expected);
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with("CatalogSource.core.rukpak.io \"a\" is invalid: [spec.caBundle.name: "),
        "{message}"
    );
    let answer = api.post(R, &with(source("a"), &[("/spec", Value::Null)])).await;
    assert_eq!(invalid(&answer), ["FieldValueRequired spec"]);
}

#[tokio::test]
async fn c224_bodies_are_bounded() {
    const LIMIT: usize = 3 << 20;
    let (api, created) = with_one(&source("a")).await;
    let padded = |object: &Value, length: usize| {
        let text = object.to_string();
        format!("{text}{}", " ".repeat(length - text.len()))
    };
    use axum::http::Method;
    for (length, fits) in [(LIMIT, true), (LIMIT + 1, false)] {
        let code = |good: u16| if fits { good } else { 413 };
        let send = async |method: Method, path: &str, media_type: &str, object: &Value, good: u16| {
            let answer = api.call(method, path).body(media_type, padded(object, length)).await;
            assert_eq!(answer.status, code(good), "{}", answer.text());
            assert!(fits || refused(&answer, 413).contains("limit is 3145728"));
        };
        send(Method::POST, R, "application/json", &source("b"), 201).await;
        send(Method::PUT, &path("a"), "application/json", &created, 200).await;
        send(Method::PATCH, &path("a"), "application/merge-patch+json", &json!({}), 200).await;
        send(Method::DELETE, &path("b"), "application/json", &json!({}), 200).await;
    }
}

#[tokio::test]
async fn c225_what_is_too_large_for_the_store_goes_without_managers_or_not_at_all() {
    let limit = |limit: usize| {
        HookedStore::over(in_memory(), move |batch| {
            let operation = &batch.operations[0];
            match operation.size() {
                size if size > limit => {
                    Verdict::Fail(StoreError::TooLarge { key: operation.key.clone(), size, limit })
                }
                _ => Verdict::Pass,
            }
        })
    };
    let labels: Value = (0..40)
        .map(|number| (format!("label-{number}"), json!("x")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let sent = with(source("a"), &[("/metadata/labels", labels)]);
    let created = TestApi::over(limit(10_000)).post(R, &sent).await.expect(201);
    assert!(created["metadata"]["managedFields"].is_array());
    let created = TestApi::over(limit(1500)).post(R, &sent).await.expect(201);
    assert_eq!(created["metadata"].get("managedFields"), None);
    let status = TestApi::over(limit(100)).post(R, &sent).await.expect(413);
    assert_eq!(status["reason"], "RequestEntityTooLarge");
}

#[tokio::test(start_paused = true)]
async fn c226_a_write_is_given_34_seconds() {
    let stored = in_memory();
    TestApi::over(Arc::clone(&stored)).post(R, &source("a")).await.expect(201);
    let api = TestApi::over(HookedStore::over(stored, |_| Verdict::Hang));
    let start = tokio::time::Instant::now();
    let status = api.post(R, &source("b")).await.expect(504);
    assert_eq!(status["reason"], "Timeout");
    assert!(
        status["message"].as_str().unwrap().contains("request did not complete within requested timeout")
    );
    assert_eq!(start.elapsed().as_secs(), 34);
    let patch = json!({"metadata": {"labels": {"a": "1"}}});
    for call in [
        api.patch(&path("a"), "merge-patch+json", &patch),
        api.delete(&path("a")),
        api.delete(&format!("{}?timeout=40s", path("a"))),
    ] {
        let start = tokio::time::Instant::now();
        call.await.expect(504);
        assert_eq!(start.elapsed().as_secs(), 34);
    }
    // Deleting many may take as long as any request (C213), and whoever is in a hurry can say so.
    for (query, seconds) in [("", 60), ("?timeout=5s", 5)] {
        let start = tokio::time::Instant::now();
        api.delete(&format!("{R}{query}")).await.expect(504);
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
}

#[tokio::test]
async fn c215_a_name_can_be_used_again_but_a_uid_is_not() {
    let (api, first) = with_one(&source("a")).await;
    api.delete(&path("a")).await.expect(200);
    let second = api.post(R, &source("a")).await.expect(201);
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert_eq!(second["metadata"]["generation"], 1);
}
