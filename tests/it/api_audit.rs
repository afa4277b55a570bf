//! The audit log (C291, C292).

use std::sync::Arc;

use axum::http::Method;
use packageserver::api::ApiOptions;
use packageserver::api::audit::{Audit, AuditEvents, Level};
use packageserver::api::auth::{MastersAuthorizer, User};
use packageserver::store::Store;
use serde_json::{Value, json};

use crate::support::hooked_store::{Fault, HookedStore};
use crate::support::objects::{PACKAGES, SOURCES, package, put};
use crate::support::router::TestApi;

fn audited(level: Level) -> (TestApi, AuditEvents, Arc<HookedStore>) {
    let (audit, events) = Audit::new(level);
    let options = ApiOptions { audit: Some(audit), ..ApiOptions::default() };
    let store = HookedStore::in_memory();
    let api =
        TestApi::with_options(Arc::clone(&store) as Arc<dyn Store>, Arc::new(MastersAuthorizer), options);
    (api, events, store)
}

/// Returns the events that were noted since.
async fn noted(events: &mut AuditEvents) -> Vec<Value> {
    let mut noted = Vec::new();
    while !events.is_empty() {
        let line = events.next().await.unwrap();
        assert!(!line.contains('\n'));
        noted.push(serde_json::from_str(&line).unwrap());
    }
    noted
}

fn stages(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["stage"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn c291_c292_a_request_is_noted_when_it_comes_and_when_it_is_answered() {
    let (api, mut log, _) = audited(Level::Metadata);
    put(&api.store, package("p")).await;
    let user = User {
        name: "admin".to_owned(),
        uid: "u1".to_owned(),
        groups: vec!["system:masters".to_owned()],
        extra: [("scopes".to_owned(), vec!["a".to_owned()])].into(),
    };
    let call =
        api.get(&format!("{PACKAGES}/p?pretty=1")).user(Some(user)).header("audit-id", "from-the-aggregator");
    let answer = call.header("user-agent", "kubectl/v1.32.4").await;
    assert_eq!(answer.headers("audit-id"), ["from-the-aggregator"]);
    let events = noted(&mut log).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    let user =
        json!({"username": "admin", "uid": "u1", "groups": ["system:masters"], "extra": {"scopes": ["a"]}});
    for event in &events {
        assert_eq!((&event["kind"], &event["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
        assert_eq!((&event["level"], &event["auditID"]), (&json!("Metadata"), &json!("from-the-aggregator")));
        assert_eq!((&event["verb"], &event["user"]), (&json!("get"), &user));
        assert_eq!(event["requestURI"], format!("{PACKAGES}/p?pretty=1"));
        assert_eq!(event["userAgent"], "kubectl/v1.32.4");
        let reference = json!({
            "resource": "packages", "apiGroup": "core.rukpak.io", "apiVersion": "v1beta1", "namespace": "test", "name": "p",
        });
        assert_eq!(event["objectRef"], reference);
        for field in ["requestReceivedTimestamp", "stageTimestamp"] {
            assert!(event[field].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        }
        assert_eq!((&event["requestObject"], &event["responseObject"]), (&Value::Null, &Value::Null));
    }
    assert_eq!(events[0]["responseStatus"], Value::Null);
    assert_eq!(events[1]["responseStatus"], json!({"metadata": {}, "code": 200}));
    assert_eq!(
        events[1]["annotations"],
        json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""})
    );
}

#[tokio::test]
async fn c291_levels_say_how_much() {
    let object = json!({"metadata": {"name": "s"}, "spec": {"image": "example.com/a:b"}});
    for (level, has_request, has_response) in [
        (Level::None, None, None),
        (Level::Metadata, Some(false), Some(false)),
        (Level::Request, Some(true), Some(false)),
        (Level::RequestResponse, Some(true), Some(true)),
    ] {
        let (api, mut log, _) = audited(level);
        let created = api.post(SOURCES, &object).await.expect(201);
        let events = noted(&mut log).await;
        let Some(last) = events.last() else {
            assert_eq!(has_request, None);
            continue;
        };
        let expected =
            |has: Option<bool>, value: &Value| if has == Some(true) { value.clone() } else { Value::Null };
        assert_eq!(last["requestObject"], expected(has_request, &object));
        assert_eq!(last["responseObject"], expected(has_response, &created));
        assert_eq!(last["objectRef"]["resource"], "catalogsources");
    }
    // What people write in YAML is noted as JSON, and what is packed is noted as it was.
    let (api, mut log, _) = audited(Level::RequestResponse);
    let yaml = "metadata: {name: yaml}\nspec: {image: example.com/a:b}\n";
    api.call(Method::POST, SOURCES).body("application/yaml", yaml).await.expect(201);
    assert_eq!(noted(&mut log).await[1]["requestObject"]["metadata"]["name"], "yaml");
    let mut large = package("p");
    large["spec"]["keywords"] = json!(["x".repeat(200_000)]);
    put(&api.store, large).await;
    api.get(&format!("{PACKAGES}/p")).header("accept-encoding", "gzip").await;
    assert_eq!(noted(&mut log).await[1]["responseObject"]["metadata"]["name"], "p");
}

#[tokio::test]
async fn c291_c292_refusals_are_noted_too() {
    let (api, mut log, store) = audited(Level::RequestResponse);
    api.get(PACKAGES).user(None).await.expect(401);
    let events = noted(&mut log).await;
    assert_eq!(events.last().unwrap()["responseStatus"]["code"], 401);
    assert_eq!(events.last().unwrap()["responseStatus"]["reason"], "Unauthorized");

    let somebody = User { name: "somebody".to_owned(), ..User::default() };
    api.get(PACKAGES).user(Some(somebody)).await.expect(403);
    let events = noted(&mut log).await;
    let last = events.last().unwrap();
    assert_eq!(last["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&last["user"]["username"], &last["responseStatus"]["code"]),
        (&json!("somebody"), &json!(403))
    );

    api.get(&format!("{PACKAGES}/none")).await.expect(404);
    let events = noted(&mut log).await;
    let status = &events.last().unwrap()["responseStatus"];
    assert_eq!((&status["reason"], &status["status"]), (&json!("NotFound"), &json!("Failure")));

    store.set(Fault::Panic);
    assert_eq!(api.get(PACKAGES).await.status, 500);
    let events = noted(&mut log).await;
    assert_eq!(stages(&events), ["RequestReceived", "Panic"]);
    assert_eq!(events[1]["responseStatus"]["code"], 500);
    assert!(api.metrics.audit_events.get() >= 8);
}

#[tokio::test]
async fn c291_a_watch_is_noted_when_it_begins_and_when_it_ends() {
    let (api, mut log, _) = audited(Level::RequestResponse);
    let response = api.get(&format!("{PACKAGES}?watch=1")).response().await;
    let events = noted(&mut log).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseStarted"]);
    assert_eq!((&events[1]["verb"], &events[1]["responseStatus"]["code"]), (&json!("watch"), &json!(200)));
    drop(response);
    let events = noted(&mut log).await;
    assert_eq!(stages(&events), ["ResponseComplete"]);
    assert_eq!(events[0]["responseObject"], Value::Null);
}

#[tokio::test]
async fn a_log_that_nobody_writes_away_loses_events_and_counts_them() {
    let (api, mut log, _) = audited(Level::Request);
    let object = json!({"metadata": {"name": "s"}, "spec": {"image": "x".repeat(2 << 20)}});
    for _ in 0..20 {
        api.post(SOURCES, &object).await;
    }
    let lost = api.metrics.audit_errors.get();
    assert!(lost >= 4, "{lost}");
    assert_eq!(noted(&mut log).await.len() as u64, 40 - lost);
    // What was read makes room.
    api.post(SOURCES, &object).await;
    assert_eq!(noted(&mut log).await.len(), 2);
}
