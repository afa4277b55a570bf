//! Failures, routes, and the parameters of requests (C1–C27).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Method;
use packageserver::api::auth::{Attributes, Authorizer, Decision, Operator, User};
use packageserver::sink::EmbeddedStore;
use packageserver::store::Store;
use serde_json::{Value, json};

use crate::support::hooked_store::{Fault, HookedStore};
use crate::support::objects::{ALL_PACKAGES, PACKAGES, SOURCES, package, put, source};
use crate::support::router::TestApi;

const GROUP: &str = "/apis/core.rukpak.io/v1beta1";

fn somebody() -> Option<User> {
    Some(User { name: "somebody".to_owned(), ..User::default() })
}

/// Asserts that a body is a complete Status, and returns it.
#[track_caller]
fn status(body: &Value, code: u16, reason: &str) -> Value {
    assert_eq!(body["kind"], "Status", "{body}");
    assert_eq!(body["apiVersion"], "v1");
    assert_eq!(body["metadata"], json!({}));
    assert_eq!(body["status"], "Failure");
    assert_eq!(body["code"], code);
    assert_eq!(body["reason"], reason);
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    body.clone()
}

#[tokio::test]
async fn c001_every_failure_is_a_status() {
    let api = TestApi::new();
    for (call, code, reason) in [
        (api.get(&format!("{PACKAGES}/x")), 404, "NotFound"),
        (api.get(PACKAGES).user(None), 401, "Unauthorized"),
        (api.get(PACKAGES).user(somebody()), 403, "Forbidden"),
        (api.get(PACKAGES).accept("text/html"), 406, "NotAcceptable"),
        (api.get(&format!("{PACKAGES}?limit=x")), 400, "BadRequest"),
        (api.get(&format!("{PACKAGES}?resourceVersionMatch=Exact")), 422, "Invalid"),
        (api.post(PACKAGES, &json!({})), 405, "MethodNotAllowed"),
    ] {
        let answer = call.await;
        assert_eq!(answer.headers("content-type"), ["application/json"]);
        status(&answer.expect(code), code, reason);
    }
}

#[tokio::test]
async fn c002_what_is_not_there_is_named_by_its_plural() {
    let api = TestApi::new();
    for call in [
        api.get(&format!("{SOURCES}/x")),
        api.put(&format!("{SOURCES}/x"), &source("x")),
        api.patch(&format!("{SOURCES}/x"), "merge-patch+json", &json!({"spec": {}})),
        api.delete(&format!("{SOURCES}/x")),
    ] {
        let body = status(&call.await.expect(404), 404, "NotFound");
        assert_eq!(body["message"], r#"catalogsources.core.rukpak.io "x" not found"#);
        assert_eq!(
            body["details"],
            json!({"name": "x", "group": "core.rukpak.io", "kind": "catalogsources"})
        );
    }
}

#[tokio::test]
async fn c003_c004_c005_writes_that_cannot_be() {
    let api = TestApi::new();
    let mut object = source("x");
    object["metadata"] = json!({"name": "x"});
    api.post(SOURCES, &object).await.expect(201);
    let body = status(&api.post(SOURCES, &object).await.expect(409), 409, "AlreadyExists");
    assert_eq!(body["details"], json!({"name": "x", "group": "core.rukpak.io", "kind": "catalogsources"}));

    object["metadata"]["resourceVersion"] = json!("1");
    let body = status(&api.put(&format!("{SOURCES}/x"), &object).await.expect(409), 409, "Conflict");
    assert_eq!(body["details"], json!({"name": "x", "group": "core.rukpak.io", "kind": "catalogsources"}));
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("Operation cannot be fulfilled on"), "{message}");
    assert!(
        message.contains(
            "the object has been modified; please apply your changes to the latest version and try again"
        ),
        "{message}"
    );

    object["metadata"] = json!({"name": "y"});
    object["spec"] = json!({"image": "", "pollingInterval": "1s"});
    let body = status(&api.post(SOURCES, &object).await.expect(422), 422, "Invalid");
    assert_eq!(body["details"]["kind"], "CatalogSource");
    let causes = body["details"]["causes"].as_array().unwrap();
    let causes: Vec<_> = causes.iter().map(|cause| (&cause["reason"], &cause["field"])).collect();
    assert!(causes.contains(&(&json!("FieldValueRequired"), &json!("spec.image"))), "{causes:?}");
    assert!(causes.contains(&(&json!("FieldValueInvalid"), &json!("spec.pollingInterval"))), "{causes:?}");
}

/// Lets nobody do anything, and says why.
struct Nobody;

#[async_trait]
impl Authorizer for Nobody {
    async fn authorize(&self, _: &User, _: &Attributes) -> Result<Decision, String> {
        Ok(Decision::Deny("it is Sunday".to_owned()))
    }
}

#[tokio::test]
async fn c006_who_may_not_is_told_what_not() {
    let api = TestApi::with(Arc::new(EmbeddedStore::in_memory().unwrap()), Arc::new(Nobody));
    for (call, message) in [
        (
            api.get(&format!("{SOURCES}/n")),
            r#"catalogsources.core.rukpak.io "n" is forbidden: User "somebody" cannot get resource "catalogsources" in API group "core.rukpak.io" in the namespace "test""#,
        ),
        (
            api.get(ALL_PACKAGES),
            r#"packages.core.rukpak.io is forbidden: User "somebody" cannot list resource "packages" in API group "core.rukpak.io" at the cluster scope"#,
        ),
        (
            api.put(&format!("{SOURCES}/n/status"), &json!({})),
            r#"catalogsources.core.rukpak.io "n" is forbidden: User "somebody" cannot update resource "catalogsources/status" in API group "core.rukpak.io" in the namespace "test""#,
        ),
        (api.get("/metrics"), r#"forbidden: User "somebody" cannot get path "/metrics""#),
    ] {
        let answer = call.user(somebody()).await;
        assert_eq!(answer.headers("x-content-type-options"), ["nosniff"]);
        let body = status(&answer.expect(403), 403, "Forbidden");
        assert_eq!(body["message"], format!("{message}: it is Sunday"));
    }
}

#[tokio::test]
async fn c007_who_is_not_known_is_told_so_and_no_more() {
    let body = TestApi::new().get(PACKAGES).user(None).await.expect(401);
    assert_eq!(status(&body, 401, "Unauthorized")["message"], "Unauthorized");
}

#[tokio::test]
async fn c008_an_unknown_resource_of_the_group_is_not_found_as_one() {
    let api = TestApi::new();
    for path in
        ["/things", "/namespaces/test/things", "/namespaces/test/things/x", "/namespaces/test/packages/x/y"]
    {
        let body = status(&api.get(&format!("{GROUP}{path}")).await.expect(404), 404, "NotFound");
        assert_eq!(body["message"], "the server could not find the requested resource");
        assert_eq!(body["details"], json!({}));
    }
}

#[tokio::test]
async fn c009_c016_c017_a_method_that_is_not_there_is_not_allowed() {
    let api = TestApi::new();
    let item = format!("{PACKAGES}/x");
    let sources = format!("{GROUP}/catalogsources");
    let source_item = format!("{SOURCES}/x");
    let status_item = format!("{SOURCES}/x/status");
    let put_everywhere = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let cases = [
        (PACKAGES, &put_everywhere[..]),
        (ALL_PACKAGES, &put_everywhere[..]),
        (&item, &put_everywhere[..]),
        (&sources, &put_everywhere[..]),
        (SOURCES, &[Method::PUT, Method::PATCH]),
        (&source_item, &[Method::POST]),
        (&status_item, &[Method::POST, Method::DELETE]),
        ("/apis", &put_everywhere[..]),
        ("/version", &[Method::POST]),
    ];
    for (path, methods) in cases {
        for method in methods {
            let answer = api.call(method.clone(), path).json(&json!({})).await;
            assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
            let body = status(&answer.json(), 405, "MethodNotAllowed");
            assert_eq!(body["message"], "the server does not allow this method on the requested resource");
            // Who may not at all does not learn what there is (C14).
            let answer = api.call(method.clone(), path).json(&json!({})).user(somebody()).await;
            assert_eq!(answer.status, 403, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn c010_any_other_path_is_not_found() {
    let api = TestApi::new();
    for path in [
        "/nothing",
        "/api",
        "/api/v1/pods",
        "/apis/other",
        "/apis/other/v1",
        "/apis/other/v1/things",
        "/apis/core.rukpak.io/v2/packages",
        "/openapi/v3/apis/other/v1",
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert_eq!(answer.text(), "404 page not found\n", "{path}");
        assert_eq!(answer.headers("content-type"), ["text/plain; charset=utf-8"], "{path}");
    }
    // Every route is there before the first connection is accepted, so nothing is ever absent only for the moment.
    for path in
        ["/apis", "/apis/core.rukpak.io", GROUP, ALL_PACKAGES, "/openapi/v2", "/openapi/v3", "/version"]
    {
        assert_eq!(api.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn c011_a_pause_in_the_details_is_a_header_too() {
    let api = TestApi::new();
    let answer = api.get(&format!("{PACKAGES}/x?resourceVersion=999999999")).await;
    let body = status(&answer.expect(504), 504, "Timeout");
    assert_eq!(body["details"]["retryAfterSeconds"], 1);
    assert_eq!(answer.headers("retry-after"), ["1"]);
    assert!(api.get(&format!("{PACKAGES}/x")).await.headers("retry-after").is_empty());
}

#[tokio::test]
async fn c012_errors_are_never_tables() {
    let api = TestApi::new();
    for accept in [
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    ] {
        let answer = api.get(&format!("{PACKAGES}/x")).accept(accept).await;
        assert_eq!(answer.headers("content-type"), ["application/json"], "{accept}");
        status(&answer.expect(404), 404, "NotFound");
    }
    let answer = api.get(&format!("{PACKAGES}/x")).accept("application/yaml").await;
    assert_eq!((answer.status.as_u16(), answer.headers("content-type")), (404, vec!["application/yaml"]));
    assert!(answer.text().contains("reason: NotFound"), "{}", answer.text());
    let answer = api.get(&format!("{PACKAGES}/x?pretty=true")).await;
    assert!(answer.text().starts_with("{\n  \"kind\": \"Status\",\n"), "{}", answer.text());
}

#[tokio::test]
async fn c013_a_handler_that_breaks_off_is_a_500_and_no_more() {
    let store = HookedStore::in_memory();
    let api = TestApi::over(Arc::clone(&store) as Arc<dyn Store>);
    store.set(Fault::Panic);
    for _ in 0..3 {
        let answer = api.get(PACKAGES).await;
        assert_eq!(answer.status, 500);
        assert_eq!(answer.headers("content-type"), ["text/plain; charset=utf-8"]);
        assert_eq!(answer.headers("audit-id").len(), 1);
    }
    store.set(Fault::None);
    api.get(PACKAGES).await.expect(200);

    store.set(Fault::Unavailable);
    let answer = api.get(PACKAGES).await;
    status(&answer.expect(503), 503, "ServiceUnavailable");
    assert_eq!(answer.headers("retry-after"), ["1"]);
}

#[tokio::test]
async fn c014_checks_come_in_their_order() {
    let api = TestApi::new();
    let everything_wrong = format!("{SOURCES}?fieldSelector=x&limit=y&timeout=z");
    let call = || api.call(Method::PUT, &everything_wrong).accept("text/html").body("text/plain", "x");
    assert_eq!(call().user(None).await.status, 401);
    assert_eq!(call().user(somebody()).await.status, 403);
    let without_timeout = everything_wrong.replace("&timeout=z", "");
    let call = || api.call(Method::PUT, &without_timeout).accept("text/html").body("text/plain", "x");
    assert_eq!(call().await.status, 405);
    let create = || api.call(Method::POST, SOURCES).body("text/plain", "x");
    assert_eq!(create().accept("text/html").await.status, 406);
    assert_eq!(create().await.status, 415);
    assert_eq!(api.get(&without_timeout).accept("text/html").await.status, 406);
    assert_eq!(api.get(&without_timeout).await.status, 400);
}

#[tokio::test]
async fn c015_c016_what_may_be_done_where() {
    let api = TestApi::new();
    put(&api.store, package("p")).await;
    put(&api.store, source("s")).await;
    for path in [
        PACKAGES.to_owned(),
        ALL_PACKAGES.to_owned(),
        format!("{PACKAGES}/p"),
        SOURCES.to_owned(),
        format!("{GROUP}/catalogsources"),
        format!("{SOURCES}/s"),
        format!("{SOURCES}/s/status"),
        format!("{GROUP}/catalogcaches"),
        format!("{GROUP}/namespaces/test/catalogcaches"),
        format!("{GROUP}/bundlemetadata"),
        // A slash more changes nothing, and never redirects (C262).
        format!("{PACKAGES}/"),
    ] {
        assert_eq!(api.get(&path).await.status, 200, "{path}");
    }
    assert_eq!(api.get(&format!("{PACKAGES}?watch=1&timeoutSeconds=1")).response().await.status(), 200);
    assert_eq!(api.get(&format!("{PACKAGES}/p/status")).await.status, 404);
}

/// Allows everything, and remembers what it was asked.
#[derive(Default)]
struct Recorder(Mutex<Vec<Attributes>>);

#[async_trait]
impl Authorizer for Recorder {
    async fn authorize(&self, _: &User, attributes: &Attributes) -> Result<Decision, String> {
        self.0.lock().unwrap().push(attributes.clone());
        Ok(Decision::Allow)
    }
}

#[tokio::test]
async fn c018_c019_c020_who_decides_is_told_everything() {
    let recorder = Arc::new(Recorder::default());
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let api = TestApi::with(store, Arc::clone(&recorder) as Arc<dyn Authorizer>);
    for (method, path, expected) in [
        (Method::GET, PACKAGES.to_owned(), "list packages test//"),
        (Method::GET, ALL_PACKAGES.to_owned(), "list packages //"),
        (Method::GET, format!("{PACKAGES}?watch=true&timeoutSeconds=1"), "watch packages test//"),
        (Method::GET, format!("{PACKAGES}/p?watch=true"), "get packages test/p/"),
        (Method::POST, SOURCES.to_owned(), "create catalogsources test//"),
        (Method::PUT, format!("{SOURCES}/s"), "update catalogsources test/s/"),
        (Method::PATCH, format!("{SOURCES}/s/status"), "patch catalogsources test/s/status"),
        (Method::DELETE, format!("{SOURCES}/s"), "delete catalogsources test/s/"),
        (Method::DELETE, SOURCES.to_owned(), "deletecollection catalogsources test//"),
        (Method::GET, format!("{PACKAGES}?fieldSelector=metadata.name%3Dx"), "list packages test/x/"),
        (
            Method::GET,
            format!("{PACKAGES}?watch&timeoutSeconds=1&fieldSelector=metadata.name%3Dx"),
            "watch packages test/x/",
        ),
        (
            Method::DELETE,
            format!("{SOURCES}?fieldSelector=metadata.name%3Dx"),
            "deletecollection catalogsources test/x/",
        ),
    ] {
        drop(api.call(method, &path).json(&json!({})).response().await);
        let asked = recorder.0.lock().unwrap().pop().expect("it was asked");
        let Attributes { verb, resource, namespace, name, subresource, group, version, .. } = &asked;
        assert_eq!(format!("{verb} {resource} {namespace}/{name}/{subresource}"), expected, "{path}");
        assert_eq!((group.as_str(), version.as_str()), ("core.rukpak.io", "v1beta1"));
    }
    api.get(&format!("{PACKAGES}?labelSelector=a%20in%20(x,y),!b&fieldSelector=spec.catalogSource!%3Dc"))
        .await
        .expect(200);
    let asked = recorder.0.lock().unwrap().pop().expect("it was asked");
    let terms: Vec<_> =
        asked.label_selector.iter().map(|term| (&*term.key, term.operator, term.values.len())).collect();
    assert_eq!(terms, [("a", Operator::In, 2), ("b", Operator::DoesNotExist, 0)]);
    let [term] = &asked.field_selector[..] else { panic!("{asked:?}") };
    assert_eq!(
        (&*term.key, term.operator, &term.values[..]),
        ("spec.catalogSource", Operator::NotIn, &["c".to_owned()][..])
    );
}

/// Allows one verb.
struct Only(&'static str);

#[async_trait]
impl Authorizer for Only {
    async fn authorize(&self, _: &User, attributes: &Attributes) -> Result<Decision, String> {
        let allowed = attributes.verb == self.0;
        Ok(if allowed { Decision::Allow } else { Decision::Deny(String::new()) })
    }
}

#[tokio::test]
async fn c282_each_verb_is_a_right_of_its_own() {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let may = |verb| TestApi::with(Arc::clone(&store), Arc::new(Only(verb)));
    let created = may("create").post(SOURCES, &source("s")).await.expect(201);
    let path = format!("{SOURCES}/s");
    // Neither needs to read.
    may("update").put(&path, &created).await.expect(200);
    may("patch").patch(&path, "merge-patch+json", &json!({"spec": {"publisher": "p"}})).await.expect(200);
    for verb in ["get", "list", "watch", "create", "patch", "delete", "deletecollection"] {
        may(verb).put(&path, &created).await.expect(403);
    }
    // What is not there is not created by an update, whoever asks.
    let mut other = created.clone();
    other["metadata"]["name"] = json!("other");
    may("update").put(&format!("{SOURCES}/other"), &other).await.expect(404);
    may("delete").delete(SOURCES).await.expect(403);
    may("deletecollection").delete(&path).await.expect(403);
    may("deletecollection").delete(SOURCES).await.expect(200);
}

#[tokio::test]
async fn c262_nobody_is_sent_elsewhere() {
    let api = TestApi::new();
    put(&api.store, package("p")).await;
    for path in [
        "/",
        "//",
        "/api",
        "/apis/",
        "/apis/core.rukpak.io/",
        "/openapi/v2/",
        "/openapi/v3/",
        "/livez/",
        "/openapi/v3/apis/core.rukpak.io/v1beta1?hash=0000",
        "/metrics/",
        "/version/",
        &format!("{GROUP}/"),
        &format!("{PACKAGES}/"),
        &format!("{PACKAGES}//p"),
        &format!("{PACKAGES}/p/"),
        &format!("{PACKAGES}/../packages"),
    ] {
        let answer = api.get(path).await;
        assert!(!answer.status.is_redirection(), "{path}: {}", answer.status);
        assert_eq!(answer.headers("location"), [""; 0], "{path}");
    }
}

#[tokio::test]
async fn c021_c022_booleans_and_numbers() {
    let api = TestApi::new();
    for (query, is_watch) in [
        ("watch=1", true),
        ("watch", true),
        ("watch=", true),
        ("watch=no", true),
        ("watch=0", false),
        ("watch=False", false),
        ("", false),
    ] {
        let response = api.get(&format!("{PACKAGES}?timeoutSeconds=1&{query}")).response().await;
        let has_length = axum::body::HttpBody::size_hint(response.body()).exact().is_some();
        assert_eq!(has_length, !is_watch, "{query}");
    }
    for query in ["limit=x", "limit=1.5", "timeoutSeconds=x", "limit=99999999999999999999"] {
        let body = api.get(&format!("{PACKAGES}?{query}")).await.expect(400);
        status(&body, 400, "BadRequest");
    }
}

#[tokio::test]
async fn c023_unknown_parameters_are_ignored_and_export_is_gone() {
    let api = TestApi::new();
    put(&api.store, package("p")).await;
    api.get(&format!("{PACKAGES}?unknown=x&exact=1")).await.expect(200);
    for path in [PACKAGES.to_owned(), format!("{PACKAGES}/p")] {
        api.get(&format!("{path}?export=false")).await.expect(200);
        let body = status(&api.get(&format!("{path}?export=true")).await.expect(400), 400, "BadRequest");
        assert!(body["message"].as_str().unwrap().contains("export"));
    }
}

#[tokio::test(start_paused = true)]
async fn c024_c226_a_request_has_its_time() {
    let store = HookedStore::in_memory();
    let api = TestApi::over(Arc::clone(&store) as Arc<dyn Store>);
    for text in ["x", "5", "-5s", "1d"] {
        let answer = api.get(&format!("{PACKAGES}?timeout={text}")).await;
        let body = status(&answer.expect(400), 400, "BadRequest");
        assert!(body["message"].as_str().unwrap().contains("invalid timeout specified in the request URL"));
    }
    store.set(Fault::Slow(Duration::from_secs(1000)));
    let create = || api.post(SOURCES, &json!({"metadata": {"name": "x"}, "spec": {"image": "a/b:c"}}));
    let with = |query: &str| api.get(&format!("{PACKAGES}?{query}"));
    for (call, seconds) in [
        (with("timeout=5s"), 5),
        (with("timeout=1.5m"), 60),
        (with("timeout=0s"), 60),
        (with(""), 60),
        (create(), 34),
        (api.delete(&format!("{SOURCES}/x")), 34),
        (api.delete(SOURCES), 60),
    ] {
        let start = tokio::time::Instant::now();
        let body = status(&call.await.expect(504), 504, "Timeout");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains("request did not complete within requested timeout"), "{message}");
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
    store.set(Fault::Slow(Duration::from_secs(4)));
    with("timeout=5s").await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn c025_lists_have_no_use_for_timeout_seconds_and_watches_none_for_timeout() {
    let api = TestApi::new();
    api.get(&format!("{PACKAGES}?timeoutSeconds=1")).await.expect(200);
    let start = tokio::time::Instant::now();
    let answer = api.get(&format!("{PACKAGES}?watch=1&timeout=1s&timeoutSeconds=300")).await;
    assert_eq!((answer.status.as_u16(), start.elapsed().as_secs()), (200, 300));
    assert_eq!(api.get(&format!("{PACKAGES}?watch=1&timeout=nonsense&timeoutSeconds=1")).await.status, 200);
}

#[tokio::test]
async fn c026_people_get_it_indented() {
    let api = TestApi::new();
    put(&api.store, package("p")).await;
    let item = format!("{PACKAGES}/p");
    let plain = api.get(&item).await;
    assert!(!plain.text().contains('\n'));
    let asked = api.get(&format!("{item}?pretty=1")).await;
    assert!(
        asked
            .text()
            .starts_with("{\n  \"apiVersion\": \"core.rukpak.io/v1beta1\",\n  \"kind\": \"Package\",\n"),
        "{}",
        asked.text()
    );
    assert_eq!(asked.json(), plain.json());
    for agent in ["curl/8.5.0", "Wget/1.21", "Mozilla/5.0 (X11)"] {
        assert_eq!(api.get(&item).header("user-agent", agent).await.text(), asked.text(), "{agent}");
    }
    let refused = api.get(&format!("{item}?pretty=false")).header("user-agent", "curl/8.5.0").await;
    assert_eq!(refused.text(), plain.text());
    assert_eq!(api.get(&item).header("user-agent", "kubectl/v1.32.4").await.text(), plain.text());
    let list = api.get(&format!("{PACKAGES}?pretty=true")).await;
    assert!(list.text().starts_with("{\n  \"kind\": \"PackageList\",\n"), "{}", list.text());
    let watch = api.get(&format!("{PACKAGES}?watch=1&timeoutSeconds=1&pretty=1")).await;
    assert_eq!(watch.text().lines().count(), 1, "{}", watch.text());
}

#[tokio::test]
async fn c027_every_answer_has_an_id_and_is_not_kept() {
    let api = TestApi::new();
    for path in [PACKAGES, ALL_PACKAGES, "/version", "/livez", "/nothing"] {
        let answer = api.get(path).await;
        assert_eq!(answer.headers("cache-control"), ["no-cache, private"], "{path}");
        assert_eq!(answer.headers("audit-id")[0].len(), 36, "{path}");
    }
    let answer = api.get(PACKAGES).header("audit-id", "given-by-the-aggregator").await;
    assert_eq!(answer.headers("audit-id"), ["given-by-the-aggregator"]);
    let answer = api.get(PACKAGES).header("audit-id", "x".repeat(65)).await;
    assert_eq!(answer.headers("audit-id")[0].len(), 36);
    assert_eq!(api.get(PACKAGES).user(None).await.headers("audit-id").len(), 1);
}
