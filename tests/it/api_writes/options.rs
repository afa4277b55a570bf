use axum::http::Method;
use serde_json::{Value, json};

use super::*;
use crate::support::router::{Call, TestApi};

const MERGE: &str = "merge-patch+json";

fn queried(path: &str, query: &str) -> String {
    format!("{path}?{query}")
}

/// A write of each kind that would succeed, with a query.
fn writes(api: &TestApi, current: &Value, query: &str) -> Vec<(&'static str, Call)> {
    let (item, label) = (queried(&path("a"), query), json!({"metadata": {"labels": {"new": "1"}}}));
    let json_patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"new": "1"}}]);
    let config = with(source("a"), &[("/metadata/labels", json!({"new": "1"}))]);
    let update = with(current.clone(), &[("/metadata/labels", json!({"new": "1"}))]);
    vec![
        ("CreateOptions", api.post(&queried(R, query), &source("b"))),
        ("UpdateOptions", api.put(&item, &update)),
        ("PatchOptions", api.patch(&item, MERGE, &label)),
        ("PatchOptions", api.patch(&item, "json-patch+json", &json_patch)),
        ("PatchOptions", api.patch(&format!("{item}&fieldManager=m"), "apply-patch+yaml", &config)),
    ]
}

#[tokio::test]
async fn c167_force_is_for_applying() {
    let (api, _) = with_one(&source("a")).await;
    for value in ["true", "false"] {
        let path = queried(&path("a"), &format!("force={value}"));
        let answer = api.patch(&path, MERGE, &json!({})).await;
        assert_eq!(invalid(&answer), ["FieldValueForbidden force"]);
        assert_eq!(answer.json()["details"]["kind"], "PatchOptions");
    }
}

#[tokio::test]
async fn c172_c194_c199_options_are_checked_with_every_write() {
    let (api, created) = with_one(&source("a")).await;
    for (query, cause) in [
        ("dryRun=Some", "FieldValueNotSupported dryRun"),
        ("fieldValidation=Loose", "FieldValueNotSupported fieldValidation"),
        (&format!("fieldManager={}", "x".repeat(129)), "FieldValueTooLong fieldManager"),
        ("fieldManager=%00", "FieldValueInvalid fieldManager"),
    ] {
        for (kind, call) in writes(&api, &created, query) {
            let answer = call.await;
            assert_eq!(invalid(&answer), [cause], "{kind} {query}");
            let details = &answer.json()["details"];
            assert_eq!((&details["kind"], &details["group"]), (&json!(kind), &json!("meta.k8s.io")));
        }
    }
    assert_eq!(api.get(&path("a")).await.expect(200), created);
}

#[tokio::test]
async fn c187_who_writes_is_named_or_known_by_the_program() {
    let (api, _) = with_one(&source("a")).await;
    let label = |name: &str| json!({"metadata": {"labels": {name: "1"}}});
    api.patch(&path("a"), MERGE, &label("a"))
        .header("user-agent", "kubectl/v1.32.0 (linux)")
        .await
        .expect(200);
    let named = queried(&path("a"), "fieldManager=my+manager");
    let patched =
        api.patch(&named, MERGE, &label("b")).header("user-agent", "kubectl/v1.32.0").await.expect(200);
    let names: Vec<_> = managers(&patched).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [" Update", "kubectl Update", "my manager Update"]);
}

/// A spec with fields that are not known and one that is there twice, as text.
fn odd(name: &str) -> String {
    format!(
        r#"{{"apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource", "foo": 1, "metadata": {{"name": "{name}",
        "bar": {{}}}}, "spec": {{"image": "x/first:1", "Image": "x", "image": "x/last:1", "caBundle": {{"name": "n", "x": 1}}}}}}"#
    )
}

const ODDITIES: [&str; 5] = [
    r#"unknown field "foo""#,
    r#"unknown field "metadata.bar""#,
    r#"unknown field "spec.Image""#,
    r#"unknown field "spec.caBundle.x""#,
    r#"duplicate field "spec.image""#,
];

#[tokio::test]
async fn c195_strict_refuses_what_is_unknown_or_there_twice() {
    let (api, created) = with_one(&source("a")).await;
    let expected = format!("strict decoding error: {}", ODDITIES.join(", "));
    for (method, path) in [(Method::POST, R.to_owned()), (Method::PUT, path("a"))] {
        let path = queried(&path, "fieldValidation=Strict");
        for media_type in ["application/json", "application/yaml"] {
            let answer = api.call(method.clone(), &path).body(media_type, odd("a")).await;
            let message = refused(&answer, 400);
            assert!(message.ends_with(&expected), "{message}");
            assert!(
                message.starts_with(
                    "CatalogSource in version \"v1beta1\" cannot be handled as a CatalogSource: "
                )
            );
        }
    }
    let strict = queried(&path("a"), "fieldValidation=Strict");
    let merge = r#"{"spec": {"foo": 1, "publisher": "x", "publisher": "y"}}"#;
    let operations = r#"[{"op": "add", "path": "/spec/foo", "value": 1, "x": 1}]"#;
    for (kind, patch, expected) in [
        (MERGE, merge, [r#"duplicate field "spec.publisher""#, r#"unknown field "spec.foo""#]),
        (
            "json-patch+json",
            operations,
            [r#"json patch unknown field "[0].x""#, r#"unknown field "spec.foo""#],
        ),
    ] {
        let call = api.call(Method::PATCH, &strict).body(&format!("application/{kind}"), patch);
        let answer = call.await;
        assert_eq!(invalid(&answer), ["FieldValueInvalid patch"]);
        let message = refused(&answer, 422);
        assert!(message.contains(&format!("strict decoding error: {}", expected.join(", "))), "{message}");
    }
    assert_eq!(api.get(&path("a")).await.expect(200), created);
}

#[tokio::test]
async fn c194_c196_c197_otherwise_it_is_dropped_and_the_client_told_or_not() {
    for (query, told) in [
        ("", true),
        ("fieldValidation=", true),
        ("fieldValidation=Warn", true),
        ("fieldValidation=Ignore", false),
    ] {
        let api = TestApi::new();
        let answer = api.call(Method::POST, &queried(R, query)).body("application/json", odd("a")).await;
        let created = answer.expect(201);
        let spec = json!({"image": "x/last:1", "caBundle": {"name": "n"}});
        assert_eq!(
            (&created["spec"], created.get("foo"), created["metadata"].get("bar")),
            (&spec, None, None)
        );
        let quoted = |text: &str| format!("299 - \"{}\"", text.replace('"', "\\\""));
        let expected: Vec<_> = ODDITIES.iter().filter(|_| told).map(|text| quoted(text)).collect();
        assert_eq!(answer.headers("warning"), expected, "{query}");
        let patch = r#"{"spec": {"foo": 1, "publisher": "x", "publisher": "y"}}"#;
        let call = api.call(Method::PATCH, &queried(&path("a"), query));
        let answer = call.body("application/merge-patch+json", patch).await;
        assert_eq!(answer.expect(200)["spec"]["publisher"], "y");
        assert_eq!(answer.headers("warning").len(), if told { 2 } else { 0 });
    }
}

#[tokio::test]
async fn c196_warnings_of_a_write_are_bounded() {
    let api = TestApi::new();
    let spec: serde_json::Map<_, _> =
        (0..50).map(|number| (format!("f{number:02}{}", "x".repeat(300)), json!(1))).collect();
    let mut sent = source("a");
    sent["spec"].as_object_mut().unwrap().extend(spec);
    let answer = api.post(R, &sent).await;
    answer.expect(201);
    let warnings = answer.headers("warning");
    assert_eq!(warnings.len(), 16);
    assert!(warnings.iter().all(|warning| warning.len() <= 256 + "299 - \"\"\"\"".len()));
}

#[tokio::test]
async fn c198_names_of_fields_are_taken_to_the_letter() {
    let api = TestApi::new();
    let sent = json!({"APIVersion": "x", "Kind": "y", "metadata": {"name": "a", "Labels": {}}, "spec": {"image": "x/y:z"}});
    let answer = api.post(R, &sent).await;
    answer.expect(201);
    assert_eq!(answer.headers("warning").len(), 3);
}

#[tokio::test]
async fn c200_a_dry_run_does_everything_but_keep_it() {
    let (api, created) = with_one(&source("a")).await;
    let before = api.store.current().await.unwrap();
    for (kind, call) in writes(&api, &created, "dryRun=All") {
        let answer = call.await;
        assert!(answer.status.is_success(), "{kind}: {}", answer.text());
        let object = answer.json();
        assert!(object["metadata"]["managedFields"].is_array());
        if kind == "CreateOptions" {
            assert_eq!((answer.status.as_u16(), object["metadata"].get("resourceVersion")), (201, None));
            assert!(
                object["metadata"]["uid"].is_string() && object["metadata"]["creationTimestamp"].is_string()
            );
        } else {
            assert_eq!((answer.status.as_u16(), version(&object)), (200, version(&created)));
            assert_eq!(object["metadata"]["labels"], json!({"new": "1"}));
        }
    }
    // What would fail fails.
    let dry = |path: &str| queried(path, "dryRun=All&fieldManager=m");
    api.post(&dry(R), &source("a")).await.expect(409);
    invalid(&api.post(&dry(R), &source("B")).await);
    api.put(&dry(&path("a")), &with(created.clone(), &[("/metadata/resourceVersion", json!("1"))]))
        .await
        .expect(409);
    api.put(&dry(&path("b")), &with(created.clone(), &[("/metadata/name", json!("b"))])).await.expect(404);
    let config = with(source("a"), &[("/spec/image", json!("x/y:z"))]);
    api.patch(&dry(&path("a")), "apply-patch+yaml", &config).await.expect(409);
    // To apply what is not there is to create it.
    let applied = api.patch(&dry(&path("b")), "apply-patch+yaml", &source("b")).await.expect(201);
    assert_eq!(applied["metadata"].get("resourceVersion"), None);
    let named = with(source("a"), &[("/metadata", json!({"generateName": "x-"}))]);
    assert!(api.post(&dry(R), &named).await.expect(201)["metadata"]["name"].is_string());
    assert_eq!(api.store.current().await.unwrap(), before);
}

#[tokio::test]
async fn c201_a_dry_run_deletes_nothing() {
    let (api, created) = with_one(&source("a")).await;
    let held = with(source("h"), &[("/metadata/finalizers", json!(["example.com/x"]))]);
    api.post(R, &held).await.expect(201);
    let before = api.store.current().await.unwrap();
    let options = json!({"dryRun": ["All"]});
    for call in [api.delete(&path("a")).json(&options), api.delete(&queried(&path("a"), "dryRun=All"))] {
        let status = call.await.expect(200);
        assert_eq!(
            (&status["status"], &status["details"]["uid"]),
            (&json!("Success"), &created["metadata"]["uid"])
        );
    }
    let deleting = api.delete(&path("h")).json(&options).await.expect(200);
    assert!(deleting["metadata"]["deletionTimestamp"].is_string());
    for call in [api.delete(R).json(&options), api.delete(&queried(R, "dryRun=All"))] {
        assert_eq!(call.await.expect(200)["items"].as_array().unwrap().len(), 2);
    }
    assert_eq!(api.store.current().await.unwrap(), before);
    assert_eq!(api.get(&path("a")).await.expect(200), created);
    assert_eq!(api.get(&path("h")).await.expect(200)["metadata"].get("deletionTimestamp"), None);
}
