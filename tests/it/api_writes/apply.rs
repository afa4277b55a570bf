use std::sync::Arc;

use async_trait::async_trait;
use axum::http::Method;
use packageserver::api::auth::{Attributes, Authorizer, Decision, User};
use serde_json::{Value, json};

use super::*;
use crate::support::router::{Call, TestApi};

const APPLY: &str = "apply-patch+yaml";

fn apply(api: &TestApi, manager: &str, config: &Value) -> Call {
    let name = config["metadata"]["name"].as_str().expect("a name");
    api.patch(&format!("{}?fieldManager={manager}", path(name)), APPLY, config)
}

fn force(api: &TestApi, manager: &str, config: &Value) -> Call {
    apply(api, &format!("{manager}&force=true"), config)
}

/// What somebody wants of the object `a`, beside what identifies it.
fn wanting(changes: &[(&str, Value)]) -> Value {
    with(with(source("a"), &[("/spec", json!({}))]), changes)
}

fn labels(labels: Value) -> Value {
    with(source("a"), &[("/metadata/labels", labels)])
}

#[tokio::test]
async fn c171_who_applies_has_a_name() {
    let api = TestApi::new();
    let answer = api.patch(&path("a"), APPLY, &source("a")).header("user-agent", "kubectl/v1").await;
    assert_eq!(invalid(&answer), ["FieldValueRequired fieldManager"]);
    let details = &answer.json()["details"];
    assert_eq!((&details["kind"], &details["group"]), (&json!("PatchOptions"), &json!("meta.k8s.io")));
}

/// Allows everything but one verb.
struct Without(&'static str);

#[async_trait]
impl Authorizer for Without {
    async fn authorize(&self, _: &User, attributes: &Attributes) -> Result<Decision, String> {
        let is_forbidden = attributes.verb == self.0;
        Ok(if is_forbidden { Decision::Deny("it is a test".to_owned()) } else { Decision::Allow })
    }
}

#[tokio::test]
async fn c173_to_apply_what_is_not_there_is_to_create_it() {
    let api = TestApi::new();
    let created = apply(&api, "me", &labels(json!({"a": "1"}))).await.expect(201);
    let metadata = &created["metadata"];
    assert_eq!((&metadata["generation"], &metadata["namespace"]), (&json!(1), &json!("test")));
    assert!(metadata["uid"].is_string() && metadata["resourceVersion"].is_string());
    let owned = json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:image": {}}});
    assert_eq!(managers(&created), [("me Apply".to_owned(), owned)]);
    assert_eq!(api.get(&path("a")).await.expect(200), created);

    let store = in_memory();
    let api = TestApi::with(Arc::clone(&store), Arc::new(Without("create")));
    let message = refused(&apply(&api, "me", &source("a")).await, 403);
    let expected = "catalogsources.core.rukpak.io \"a\" is forbidden: User \"admin\" cannot create resource \
                    \"catalogsources\" in API group \"core.rukpak.io\" in the namespace \"test\": it is a test";
    assert_eq!(message, expected);
    TestApi::over(store).post(R, &source("a")).await.expect(201);
    apply(&api, "me", &source("a")).await.expect(200);
    // Nobody in particular may do nothing.
    let nobody = Some(User { name: "nobody".to_owned(), ..User::default() });
    apply(&TestApi::new(), "me", &source("a")).user(nobody).await.expect(403);
    // A status is of something that is there.
    let api = TestApi::new();
    api.patch(&format!("{}/status?fieldManager=me", path("a")), APPLY, &source("a")).await.expect(404);
}

#[tokio::test]
async fn c173_what_is_created_by_an_apply_is_checked_like_anything() {
    let api = TestApi::new();
    let answer = apply(&api, "me", &wanting(&[])).await;
    assert_eq!(invalid(&answer), ["FieldValueRequired spec.image"]);
    let answer =
        apply(&api, "me", &with(labels(json!({"a": "-"})), &[("/spec/image", json!("Not An Image"))])).await;
    assert_eq!(invalid(&answer), ["FieldValueInvalid metadata.labels", "FieldValueInvalid spec.image"]);
    let nameless = with(source("a"), &[("/metadata", json!({}))]);
    let answer = api.patch(&format!("{}?fieldManager=me", path("a")), APPLY, &nameless).await;
    assert_eq!(answer.expect(201)["metadata"]["name"], "a", "the URL says which");
}

#[tokio::test]
async fn c174_to_apply_the_same_again_is_no_change() {
    let api = TestApi::new();
    let created = apply(&api, "me", &labels(json!({"a": "1"}))).await.expect(201);
    let before = api.store.current().await.unwrap();
    assert_eq!(apply(&api, "me", &labels(json!({"a": "1"}))).await.expect(200), created);
    assert_eq!(force(&api, "me", &labels(json!({"a": "1"}))).await.expect(200), created);
    assert_eq!(api.store.current().await.unwrap(), before);
    // To say the same as somebody else is a change: now two own it.
    let shared = apply(&api, "you", &labels(json!({"a": "1"}))).await.expect(200);
    assert_ne!(version(&shared), version(&created));
    assert_eq!(managers(&shared).len(), 2);
}

#[tokio::test]
async fn c174_to_apply_the_same_again_is_no_change_however_late() {
    let api = TestApi::new();
    apply(&api, "first", &labels(json!({"a": "1"}))).await.expect(201);
    let both = apply(&api, "second", &labels(json!({"b": "1"}))).await.expect(200);
    // As if it had been long ago, the first one first: entries are sorted by their times.
    let mut old = both.clone();
    for (entry, year) in
        old["metadata"]["managedFields"].as_array_mut().unwrap().iter_mut().zip(["2020", "2021"])
    {
        entry["time"] = json!(format!("{year}-01-01T00:00:00Z"));
    }
    // A change of times alone is none.
    let old = with(old, &[("/metadata/annotations", json!({"x": "y"}))]);
    let old = api.put(&format!("{}?fieldManager=edit", path("a")), &old).await.expect(200);
    let names = |object: &Value| managers(object).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&old), ["first Apply", "second Apply", "edit Update"]);
    assert!(old["metadata"]["managedFields"][0]["time"].as_str().unwrap().starts_with("2020"));
    assert_eq!(apply(&api, "first", &labels(json!({"a": "1"}))).await.expect(200), old);
    // What does change something has the time of that.
    let changed = apply(&api, "first", &labels(json!({"a": "2"}))).await.expect(200);
    assert_eq!(names(&changed), ["second Apply", "first Apply", "edit Update"]);
}

#[tokio::test]
async fn c175_a_uid_is_of_an_object_that_is_there() {
    let api = TestApi::new();
    let of = |uid: &Value| with(source("a"), &[("/metadata/uid", uid.clone())]);
    let answer = apply(&api, "me", &of(&json!("u"))).await;
    assert_eq!(answer.expect(409)["reason"], "Conflict");
    assert!(refused(&answer, 409).contains("uid mismatch"));
    let created = apply(&api, "me", &source("a")).await.expect(201);
    assert_eq!(apply(&api, "me", &of(&created["metadata"]["uid"])).await.expect(200), created);
    assert_eq!(invalid(&apply(&api, "me", &of(&json!("other"))).await), ["FieldValueInvalid metadata.uid"]);
    let at =
        |version: &str| with(labels(json!({"b": "1"})), &[("/metadata/resourceVersion", json!(version))]);
    apply(&api, "me", &at("1")).await.expect(409);
    apply(&api, "me", &at(version(&created))).await.expect(200);
}

#[tokio::test]
async fn c176_c177_a_configuration_says_what_it_is_of() {
    let api = TestApi::new();
    for (field, value) in [
        ("/kind", Value::Null),
        ("/kind", json!("Package")),
        ("/apiVersion", Value::Null),
        ("/apiVersion", json!("core.rukpak.io/v1")),
        ("/metadata/namespace", json!("other")),
    ] {
        refused(&apply(&api, "me", &with(source("a"), &[(field, value)])).await, 400);
    }
    let managed = with(source("a"), &[("/metadata/managedFields", json!([]))]);
    assert_eq!(refused(&apply(&api, "me", &managed).await, 400), "metadata.managedFields must be nil");
    let other = api.patch(&format!("{}?fieldManager=me", path("b")), APPLY, &source("a")).await;
    assert!(refused(&other, 400).contains("does not match the name on the URL"));
    for body in ["", "[]", "- x", "a: b: c", "5"] {
        let path = format!("{}?fieldManager=me", path("a"));
        refused(&api.call(Method::PATCH, &path).body("application/apply-patch+yaml", body).await, 400);
    }
}

#[tokio::test]
async fn c178_c179_what_others_want_otherwise_is_a_conflict() {
    let api = TestApi::new();
    let mine = with(labels(json!({"a": "1", "b": "1"})), &[("/spec/publisher", json!("me"))]);
    apply(&api, "mine", &mine).await.expect(201);
    let yours = wanting(&[("/spec/publisher", json!("you"))]);
    let status = apply(&api, "yours", &yours).await.expect(409);
    assert_eq!(status["reason"], "Conflict");
    assert_eq!(status["message"], r#"Apply failed with 1 conflict: conflict with "mine": .spec.publisher"#);
    let cause = json!({"reason": "FieldManagerConflict", "message": r#"conflict with "mine""#, "field": ".spec.publisher"});
    assert_eq!(status["details"]["causes"], json!([cause]));

    let patch = json!({"metadata": {"labels": {"a": "2"}}});
    api.patch(&format!("{}?fieldManager=edit", path("a")), "merge-patch+json", &patch).await.expect(200);
    let all = with(labels(json!({"a": "3", "b": "2"})), &[("/spec/publisher", json!("you"))]);
    let status = apply(&api, "yours", &all).await.expect(409);
    let message = "Apply failed with 3 conflicts: conflicts with \"edit\" using core.rukpak.io/v1beta1:\n- \
                   .metadata.labels.a\nconflicts with \"mine\":\n- .metadata.labels.b\n- .spec.publisher";
    assert_eq!(status["message"], message);
    let causes = status["details"]["causes"].as_array().unwrap();
    assert!(
        causes.iter().any(|cause| cause["message"] == r#"conflict with "edit" using core.rukpak.io/v1beta1"#)
    );
    assert_eq!(causes.len(), 3);

    let forced = force(&api, "yours", &all).await.expect(200);
    assert_eq!(forced["metadata"]["labels"], json!({"a": "3", "b": "2"}));
    let expected = [
        ("mine Apply".to_owned(), json!({"f:spec": {"f:image": {}}})),
        (
            "yours Apply".to_owned(),
            json!({"f:metadata": {"f:labels": {"f:a": {}, "f:b": {}}}, "f:spec": {"f:image": {}, "f:publisher": {}}}),
        ),
    ];
    assert_eq!(managers(&forced), expected);
}

#[tokio::test]
async fn c180_what_is_dropped_goes_unless_somebody_else_wants_it() {
    let api = TestApi::new();
    let mine = with(labels(json!({"a": "1", "b": "1"})), &[("/spec/caBundle", json!({"name": "n"}))]);
    apply(&api, "mine", &mine).await.expect(201);
    apply(&api, "yours", &wanting(&[("/metadata/labels", json!({"b": "1"}))])).await.expect(200);
    let applied = apply(&api, "mine", &source("a")).await.expect(200);
    assert_eq!(applied["metadata"]["labels"], json!({"b": "1"}));
    assert_eq!(applied["spec"], source("a")["spec"]);
    let applied = apply(&api, "yours", &wanting(&[])).await.expect(200);
    assert_eq!(applied["metadata"].get("labels"), None);
    // To want nothing at all is to give everything up.
    let answer = apply(&api, "mine", &wanting(&[])).await;
    assert_eq!(invalid(&answer), ["FieldValueRequired spec.image"]);
}

#[tokio::test]
async fn c181_updates_never_conflict() {
    let api = TestApi::new();
    let created = apply(&api, "me", &labels(json!({"a": "1", "b": "1"}))).await.expect(201);
    let sent = with(created, &[("/metadata/labels", json!({"a": "2"}))]);
    let updated = api.put(&format!("{}?fieldManager=edit", path("a")), &sent).await.expect(200);
    let expected = [
        ("me Apply".to_owned(), json!({"f:spec": {"f:image": {}}})),
        ("edit Update".to_owned(), json!({"f:metadata": {"f:labels": {"f:a": {}}}})),
    ];
    assert_eq!(managers(&updated), expected);
    let status = apply(&api, "me", &labels(json!({"a": "1"}))).await.expect(409);
    assert_eq!(causes(&status), ["FieldManagerConflict .metadata.labels.a"]);
}

#[tokio::test]
async fn c182_what_is_not_of_the_type_cannot_be_applied() {
    let api = TestApi::new();
    for query in ["", "&fieldValidation=Strict", "&fieldValidation=Ignore"] {
        let unknown = with(source("a"), &[("/spec/foo", json!(1)), ("/metadata/bar", json!(1))]);
        let message = refused(&apply(&api, &format!("me{query}"), &unknown).await, 400);
        let expected = "failed to create typed patch object (test/a; core.rukpak.io/v1beta1, Kind=CatalogSource): \
                        .metadata.bar: field not declared in schema, .spec.foo: field not declared in schema";
        assert_eq!(message, expected);
    }
    let message = refused(&apply(&api, "me", &with(source("a"), &[("/spec/image", json!(5))])).await, 400);
    assert!(message.contains(".spec.image: Invalid value: \"integer\""), "{message}");
}

#[tokio::test]
async fn c183_c184_c186_managers_are_listed_by_what_they_did() {
    let (api, _) = with_one(&source("a")).await;
    let status = format!("{}/status", path("a"));
    let manager = |path: &str, name: &str| format!("{path}?fieldManager={name}");
    let sent = with(
        api.get(&path("a")).await.expect(200),
        &[("/status", json!({"packages": 1})), ("/spec/publisher", json!("x"))],
    );
    api.put(&manager(&status, "me"), &sent).await.expect(200);
    let label = json!({"metadata": {"labels": {"a": "1"}}, "status": {"packages": 2}});
    api.patch(&manager(&path("a"), "me"), "merge-patch+json", &label).await.expect(200);
    // What is not of this part of the object is neither taken nor owned.
    let config = with(labels(json!({"c": "1"})), &[("/status", json!({"bundles": 1}))]);
    api.patch(&manager(&status, "me"), APPLY, &config).await.expect(200);
    let applied = api.patch(&manager(&path("a"), "me"), APPLY, &config).await.expect(200);
    let expected = [
        ("me Apply".to_owned(), json!({"f:metadata": {"f:labels": {"f:c": {}}}, "f:spec": {"f:image": {}}})),
        ("me Apply status".to_owned(), json!({"f:status": {"f:bundles": {}}})),
        (" Update".to_owned(), json!({"f:spec": {".": {}, "f:image": {}}})),
        ("me Update".to_owned(), json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}})),
        ("me Update status".to_owned(), json!({"f:status": {".": {}, "f:packages": {}}})),
    ];
    let mut found = managers(&applied);
    // Within a second the order of time is not known.
    found.sort_by_key(|(name, _)| (name.contains("Update"), name.clone()));
    assert_eq!(found, expected);
    for entry in applied["metadata"]["managedFields"].as_array().unwrap() {
        assert_eq!(
            (&entry["fieldsType"], &entry["apiVersion"]),
            (&json!("FieldsV1"), &json!("core.rukpak.io/v1beta1"))
        );
        assert!(entry["time"].as_str().unwrap().ends_with('Z'));
    }
    let conflict = with(source("a"), &[("/status", json!({"packages": 3}))]);
    let answer = api.patch(&manager(&status, "you"), APPLY, &conflict).await;
    let message = "Apply failed with 1 conflict: conflict with \"me\" with subresource \"status\" using \
                   core.rukpak.io/v1beta1: .status.packages";
    assert_eq!(refused(&answer, 409), message);
}

#[tokio::test]
async fn c185_what_the_server_says_belongs_to_nobody() {
    let api = TestApi::new();
    let sent = json!({
        "name": "a", "namespace": "test", "generation": 5, "creationTimestamp": "2020-01-01T00:00:00Z", "selfLink": "/x",
        "deletionTimestamp": "2020-01-01T00:00:00Z", "deletionGracePeriodSeconds": 1, "generateName": "b",
    });
    let config = with(source("a"), &[("/metadata", sent)]);
    let applied = apply(&api, "me", &config).await.expect(201);
    let owned = json!({"f:metadata": {"f:generateName": {}}, "f:spec": {"f:image": {}}});
    assert_eq!(managers(&applied), [("me Apply".to_owned(), owned)]);
    assert_eq!(
        (&applied["metadata"]["generation"], applied["metadata"].get("deletionTimestamp")),
        (&json!(1), None)
    );
    assert_eq!(apply(&api, "me", &config).await.expect(200), applied);
}

#[tokio::test]
async fn c188_what_has_no_managers_is_owned_by_before_first_apply() {
    let (api, _) = with_one(&labels(json!({"a": "1"}))).await;
    let clear = json!({"metadata": {"managedFields": [{}]}});
    let cleared = api.patch(&path("a"), "merge-patch+json", &clear).await.expect(200);
    assert_eq!(cleared["metadata"].get("managedFields"), None);
    let status = apply(&api, "me", &labels(json!({"a": "2"}))).await.expect(409);
    assert!(status["message"].as_str().unwrap().contains("conflict with \"before-first-apply\" using"));
    let applied = apply(&api, "me", &labels(json!({"b": "1"}))).await.expect(200);
    let names: Vec<_> = managers(&applied).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["me Apply", "before-first-apply Update"]);
}

#[tokio::test]
async fn c188_updaters_are_at_most_ten() {
    let (api, _) = with_one(&source("a")).await;
    for number in 0..20 {
        let patch = json!({"metadata": {"labels": {format!("l{number:02}"): "1"}}});
        api.patch(&format!("{}?fieldManager=m{number:02}", path("a")), "merge-patch+json", &patch)
            .await
            .expect(200);
    }
    let names: Vec<_> =
        managers(&api.get(&path("a")).await.expect(200)).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 10);
    assert!(names.contains(&"ancient-changes Update".to_owned()), "{names:?}");
}

#[tokio::test]
async fn c189_managers_are_cleared_by_one_empty_entry_and_by_nothing_else() {
    for (kind, clear) in [
        ("merge-patch+json", json!({"metadata": {"managedFields": [{}]}})),
        ("json-patch+json", json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}])),
    ] {
        let (api, _) = with_one(&source("a")).await;
        let cleared = api.patch(&path("a"), kind, &clear).await.expect(200);
        assert_eq!(cleared["metadata"].get("managedFields"), None);
        let label = json!({"metadata": {"labels": {"a": "1"}}});
        let patched = api.patch(&path("a"), "merge-patch+json", &label).await.expect(200);
        assert_eq!(patched["metadata"].get("managedFields"), None);
    }
    let (api, created) = with_one(&source("a")).await;
    let put = |managers: Value| {
        api.put(&path("a"), &with(created.clone(), &[("/metadata/managedFields", managers)]))
    };
    let bad = json!([{"manager": "m", "operation": "Steal", "apiVersion": "v1", "fieldsType": "FieldsV1"}]);
    for kept in [Value::Null, json!([]), bad] {
        assert_eq!(put(kept).await.expect(200), created);
    }
    let own = json!([{
        "manager": "m", "operation": "Apply", "apiVersion": "core.rukpak.io/v1beta1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:image": {}}},
    }]);
    assert_eq!(put(own.clone()).await.expect(200)["metadata"]["managedFields"], own);
    let (api, created) = with_one(&source("a")).await;
    let cleared =
        api.put(&path("a"), &with(created, &[("/metadata/managedFields", json!([{}]))])).await.expect(200);
    assert_eq!(cleared["metadata"].get("managedFields"), None);
    // A status says nothing about managers.
    let (api, created) = with_one(&source("a")).await;
    let sent = with(created.clone(), &[("/metadata/managedFields", json!([{}]))]);
    assert_eq!(api.put(&format!("{}/status", path("a")), &sent).await.expect(200), created);
}

#[tokio::test]
async fn c190_lists_are_merged_as_their_schema_says() {
    let api = TestApi::new();
    let owner = |uid: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": uid, "uid": uid});
    let with_lists = |finalizers: Value, owners: Value| {
        with(source("a"), &[("/metadata/finalizers", finalizers), ("/metadata/ownerReferences", owners)])
    };
    apply(&api, "mine", &with_lists(json!(["a.b/mine"]), json!([owner("u")]))).await.expect(201);
    let both = apply(&api, "yours", &with_lists(json!(["a.b/yours"]), json!([owner("v")]))).await.expect(200);
    assert_eq!(both["metadata"]["finalizers"], json!(["a.b/mine", "a.b/yours"]));
    assert_eq!(both["metadata"]["ownerReferences"], json!([owner("u"), owner("v")]));
    let left = apply(&api, "mine", &source("a")).await.expect(200);
    assert_eq!(left["metadata"]["finalizers"], json!(["a.b/yours"]));
    assert_eq!(left["metadata"]["ownerReferences"], json!([owner("v")]));
    let renamed = with(owner("v"), &[("/name", json!("other"))]);
    let status = apply(&api, "mine", &with_lists(json!([]), json!([renamed]))).await.expect(409);
    assert_eq!(causes(&status), [r#"FieldManagerConflict .metadata.ownerReferences[uid="v"]"#]);

    let status = format!("{}/status", path("a"));
    let condition = |kind: &str, status: &str| {
        let time = "2026-01-01T00:00:00Z";
        json!({"type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": time})
    };
    let conditions = |list: Value| with(source("a"), &[("/status", json!({"conditions": list}))]);
    let send = |manager: &str, list: Value| {
        api.patch(&format!("{status}?fieldManager={manager}"), APPLY, &conditions(list))
    };
    send("mine", json!([condition("Ready", "True"), condition("Mine", "True")])).await.expect(200);
    let merged =
        send("yours", json!([condition("Ready", "True"), condition("Yours", "True")])).await.expect(200);
    let kinds: Vec<_> = merged["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|condition| &condition["type"])
        .collect();
    assert_eq!(kinds, ["Ready", "Mine", "Yours"]);
    let conflict =
        send("yours", json!([condition("Ready", "False"), condition("Yours", "True")])).await.expect(409);
    assert_eq!(causes(&conflict), [r#"FieldManagerConflict .status.conditions[type="Ready"].status"#]);

    for (config, fault) in [
        (
            with_lists(json!(["a.b/c", "a.b/c"]), json!([])),
            ".metadata.finalizers: duplicate entries for key [=\"a.b/c\"]",
        ),
        (
            with_lists(json!([]), json!([owner("u"), owner("u")])),
            ".metadata.ownerReferences: duplicate entries for key [uid=\"u\"]",
        ),
    ] {
        let message = refused(&apply(&api, "mine", &config).await, 400);
        assert!(message.contains(fault), "{message}");
    }
    let twice = send("mine", json!([condition("Ready", "True"), condition("Ready", "False")])).await;
    assert!(refused(&twice, 400).contains(".status.conditions: duplicate entries for key [type=\"Ready\"]"));
}

#[tokio::test]
async fn c191_yaml_that_says_a_thing_twice_is_judged_as_asked() {
    let api = TestApi::new();
    let yaml = "apiVersion: core.rukpak.io/v1beta1\nkind: CatalogSource\nmetadata: {name: a}\nspec:\n  image: x/y:1\n  image: x/y:2\n";
    let send = |query: &str| {
        let path = format!("{}?fieldManager=me{query}", path("a"));
        api.call(Method::PATCH, &path).body("application/apply-patch+yaml", yaml)
    };
    let message = refused(&send("&fieldValidation=Strict").await, 400);
    assert!(
        message
            .contains(r#"error strict decoding YAML: strict decoding error: duplicate field "spec.image""#),
        "{message}"
    );
    let answer = send("").await;
    assert_eq!(answer.expect(201)["spec"]["image"], "x/y:2");
    assert_eq!(answer.headers("warning"), [r#"299 - "duplicate field \"spec.image\"""#]);
    assert_eq!(send("&fieldValidation=Ignore").await.headers("warning"), Vec::<&str>::new());
}

#[tokio::test]
async fn c193_kubectl_takes_over_what_it_applied_from_the_clients_side() {
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    // As `kubectl apply` creates an object.
    let config = labels(json!({"a": "1", "b": "1"}));
    let sent = with(config.clone(), &[("/metadata/annotations", json!({LAST: format!("{config}\n")}))]);
    let client_side = async || {
        let api = TestApi::new();
        api.post(&format!("{R}?fieldManager=kubectl-client-side-apply"), &sent).await.expect(201);
        api
    };
    let last = |object: &Value| -> Value {
        let text = object["metadata"]["annotations"][LAST].as_str().expect("it is there");
        assert!(text.ends_with("}\n"));
        serde_json::from_str(text).unwrap()
    };
    let new = labels(json!({"a": "2"}));
    let api = client_side().await;
    assert_eq!(
        causes(&apply(&api, "other", &new).await.expect(409)),
        ["FieldManagerConflict .metadata.labels.a"]
    );
    let applied = apply(&api, "kubectl", &new).await.expect(200);
    assert_eq!(applied["metadata"]["labels"], json!({"a": "2", "b": "1"}));
    assert_eq!(last(&applied), new);
    // What somebody changed since is not kubectl's any more.
    let api = client_side().await;
    let edit = json!({"metadata": {"labels": {"a": "3"}}});
    api.patch(&format!("{}?fieldManager=edit", path("a")), "merge-patch+json", &edit).await.expect(200);
    let status = apply(&api, "kubectl", &new).await.expect(409);
    assert_eq!(
        status["message"],
        "Apply failed with 1 conflict: conflict with \"edit\" using core.rukpak.io/v1beta1: .metadata.labels.a"
    );
    let forced = force(&api, "kubectl", &new).await.expect(200);
    assert_eq!(last(&forced), new);
    // Without the annotation there is nothing to keep in sync, and nothing to take over.
    let (api, _) = with_one(&config).await;
    apply(&api, "kubectl", &new).await.expect(409);
    assert_eq!(force(&api, "kubectl", &new).await.expect(200)["metadata"].get("annotations"), None);
    // What is too long to be kept is not.
    let api = client_side().await;
    let long = with(new.clone(), &[("/metadata/annotations", json!({"long": "x".repeat(262_000)}))]);
    let applied = apply(&api, "kubectl", &long).await.expect(200);
    assert_eq!(applied["metadata"]["annotations"].get(LAST), None);
}

#[tokio::test]
async fn c186_a_status_written_beside_the_api_has_an_owner_too() {
    use packageserver::api::StatusOwnership;
    use packageserver::model::CATALOG_SOURCE;
    use packageserver::store::{Batch, Key, Object, Operation};
    let (api, _) = with_one(&source("a")).await;
    let patch = json!({"status": {"packages": 7, "bundles": 7}});
    api.patch(&format!("{}/status?fieldManager=me", path("a")), "merge-patch+json", &patch).await.expect(200);
    let key = Key::new("catalogsources", "test", "a");
    let stored = api.store.get(&key).await.unwrap().unwrap();
    let old: Value = serde_json::from_slice(stored.object.head()).unwrap();
    let mut new = with(old.clone(), &[("/status/packages", json!(8))]);
    StatusOwnership::new(CATALOG_SOURCE, "controller").note(&old, &mut new);
    let object = Object::whole(new.to_string());
    api.store.append(Batch::of(Operation::replace(key, stored.version, object))).await.unwrap();
    let mut found = managers(&api.get(&path("a")).await.expect(200));
    found.sort_by_key(|(name, _)| name.clone());
    let expected = [
        (" Update".to_owned(), json!({"f:spec": {".": {}, "f:image": {}}})),
        ("controller Update status".to_owned(), json!({"f:status": {"f:packages": {}}})),
        ("me Update status".to_owned(), json!({"f:status": {".": {}, "f:bundles": {}}})),
    ];
    assert_eq!(found, expected);
}
