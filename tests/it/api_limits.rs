//! Limits, overload, the end, health, version and metrics (C224–C242).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Method;
use packageserver::api::ApiOptions;
use packageserver::api::auth::{Attributes, Authorizer, Decision, User};
use packageserver::api::health::ReadinessCheck;
use packageserver::store::Store;
use packageserver::telemetry::metrics::names as metric;
use serde_json::{Value, json};

use crate::support::hooked_store::{Fault, HookedStore};
use crate::support::objects::{PACKAGES, SOURCES, package, put};
use crate::support::router::{Answer, TestApi};
use crate::support::watching::Watch;

const MAX_BODY: usize = 3_145_728;

/// Allows everything.
struct Anybody;

#[async_trait]
impl Authorizer for Anybody {
    async fn authorize(&self, _: &User, _: &Attributes) -> Result<Decision, String> {
        Ok(Decision::Allow)
    }
}

fn somebody() -> Option<User> {
    Some(User { name: "somebody".to_owned(), ..User::default() })
}

#[tokio::test]
async fn c224_a_body_of_three_mebibytes_and_no_more() {
    let api = TestApi::new();
    let sized = |bytes: usize, name: &str| {
        let object = |filling: &str| {
            json!({"metadata": {"name": name}, "spec": {"image": "example.com/a:b", "publisher": filling}})
                .to_string()
        };
        object(&"x".repeat(bytes - object("").len()))
    };
    let too_large = |answer: Answer| {
        let body = answer.expect(413);
        assert_eq!(body["reason"], "RequestEntityTooLarge");
        assert!(body["message"].as_str().unwrap().contains("limit is 3145728"), "{body}");
    };
    for (bytes, fits) in [(MAX_BODY - 1, true), (MAX_BODY, true), (MAX_BODY + 1, false)] {
        let name = format!("s{bytes}");
        let created = api.call(Method::POST, SOURCES).body("application/json", sized(bytes, &name)).await;
        let item = format!("{SOURCES}/s{}", MAX_BODY - 1);
        let put = api.call(Method::PUT, &item).body("application/json", sized(bytes, &name)).await;
        let patch =
            api.call(Method::PATCH, &item).body("application/merge-patch+json", sized(bytes, &name)).await;
        let delete = api
            .call(Method::DELETE, &format!("{SOURCES}/none"))
            .body("application/json", sized(bytes, &name))
            .await;
        if fits {
            created.expect(201);
            for answer in [put, patch, delete] {
                assert_ne!(answer.status, 413, "{bytes}");
            }
        } else {
            [created, put, patch, delete].into_iter().for_each(too_large);
        }
    }
}

#[tokio::test]
async fn c225_an_object_that_is_too_large_for_the_store_is_refused() {
    let store = HookedStore::in_memory();
    let api = TestApi::over(Arc::clone(&store) as Arc<dyn Store>);
    store.set(Fault::TooLarge);
    let object = json!({"metadata": {"name": "s"}, "spec": {"image": "example.com/a:b"}});
    let body = api.post(SOURCES, &object).await.expect(413);
    assert_eq!((&body["kind"], &body["reason"]), (&json!("Status"), &json!("RequestEntityTooLarge")));
}

#[tokio::test(start_paused = true)]
async fn c227_c229_too_many_at_a_time_are_sent_away() {
    let store = HookedStore::in_memory();
    let options =
        ApiOptions { max_requests_inflight: 3, max_mutating_requests_inflight: 2, ..ApiOptions::default() };
    let api = TestApi::with_options(Arc::clone(&store) as Arc<dyn Store>, Arc::new(Anybody), options);
    store.set(Fault::Slow(Duration::from_secs(10)));
    let read = || api.get(PACKAGES).user(somebody());
    let write = || api.delete(&format!("{SOURCES}/x")).user(somebody());
    let mut reads = (0..3).map(|_| tokio::spawn(read().response())).collect::<Vec<_>>();
    let writes = (0..2).map(|_| tokio::spawn(write().response())).collect::<Vec<_>>();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for call in [read(), write()] {
        let answer = call.await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (429, "Too many requests, please try again later.".to_owned())
        );
        assert_eq!(answer.headers("retry-after"), ["1"]);
    }
    let inflight = |kind: &str| format!("{}{{request_kind=\"{kind}\"}}", metric::INFLIGHT);
    let (text, _) = api.metrics.text();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!("{} 3\n", inflight("readOnly"))), "{text}");
    assert!(text.contains(&format!("{} 2\n", inflight("mutating"))), "{text}");
    assert!(text.contains(metric::TERMINATIONS), "{text}");
    // Watches have a limit of their own, administrators and health checks none.
    let watch = api.get(&format!("{PACKAGES}?watch=1&timeoutSeconds=1")).user(somebody()).await;
    assert_eq!(watch.status, 200);
    assert_eq!(api.get("/livez").user(None).await.status, 200);
    assert_eq!(api.get("/version").await.status, 200);
    // A place is free again when the answer was sent, or is not wanted any more.
    let answered = reads.remove(0).await.unwrap();
    assert_eq!(answered.status(), 200);
    drop(answered);
    for other in &reads {
        other.abort();
    }
    for write in writes {
        assert_eq!(write.await.unwrap().status(), 404);
    }
    store.set(Fault::None);
    assert_eq!(read().await.status, 200);
    assert_eq!(write().await.status, 404);
}

#[tokio::test]
async fn watches_have_a_room_of_their_own_and_each_user_a_part_of_it() {
    let options = ApiOptions { max_watches: 3, max_watches_per_user: 2, ..ApiOptions::default() };
    let api = TestApi::with_options(HookedStore::in_memory(), Arc::new(Anybody), options);
    let named = |name: &str| somebody().map(|user| User { name: name.to_owned(), ..user });
    let path = format!("{PACKAGES}?watch=1");
    let watch = async |name: &str| api.get(&path).user(named(name)).response().await;
    let mut mine = vec![watch("me").await, watch("me").await];
    assert!(mine.iter().all(|answer| answer.status() == 200));
    assert_eq!(watch("me").await.status(), 429);
    let others = watch("you").await;
    assert_eq!(others.status(), 200);
    let refused = watch("others").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().unwrap()));
    // Whoever mends things is let in, and what is no watch has room elsewhere.
    assert_eq!(api.get(&path).response().await.status(), 200);
    assert_eq!(api.get(PACKAGES).user(named("me")).response().await.status(), 200);
    // A place is free again when its watch is not read any more.
    drop(mine.pop());
    assert_eq!(watch("me").await.status(), 200);
}

#[tokio::test]
async fn c227_the_limits_are_those_of_kubernetes() {
    let ApiOptions { max_requests_inflight, max_mutating_requests_inflight, .. } = ApiOptions::default();
    assert_eq!((max_requests_inflight, max_mutating_requests_inflight), (400, 200));
}

#[tokio::test]
async fn c228_there_are_no_priority_levels_and_no_header_claims_any() {
    let api = TestApi::new();
    for path in [PACKAGES, "/version"] {
        let answer = api.get(path).await;
        let names: Vec<_> = answer.headers.keys().map(|name| name.as_str()).collect();
        assert!(names.iter().all(|name| !name.starts_with("x-kubernetes-pf")), "{names:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn c226_a_list_that_is_read_too_slowly_is_given_up() {
    let api = TestApi::new();
    for batch in 0..12 {
        let writes = (0..100)
            .map(|number| crate::support::objects::Write::Put(package(&format!("p{batch}-{number}"))));
        crate::support::objects::commit(&api.store, writes.collect()).await;
    }
    let response = api.get(&format!("{PACKAGES}?timeout=10s")).response().await;
    let mut body = response.into_body().into_data_stream();
    let mut read = 0;
    let error = loop {
        match futures::StreamExt::next(&mut body).await.expect("it does not end as if it were whole") {
            Ok(data) => read += data.len(),
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_secs(9)).await;
    };
    assert!(read > 0);
    assert!(error.to_string().contains("did not complete"), "{error}");
}

#[tokio::test]
async fn c232_a_server_that_stops_is_not_ready_and_still_answers() {
    let api = TestApi::new();
    assert_eq!(api.get("/readyz").await.text(), "ok");
    api.stopping.cancel();
    let answer = api.get("/readyz").await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("[-]shutdown failed: reason withheld\n"), "{}", answer.text());
    assert!(answer.text().ends_with("readyz check failed\n"));
    assert_eq!(api.get("/livez").await.status, 200);
    assert_eq!(api.get(PACKAGES).await.status, 200);
}

#[tokio::test]
async fn c233_late_requests_are_sent_elsewhere() {
    let api = TestApi::new();
    api.stopping.cancel();
    api.draining.cancel();
    for path in [PACKAGES, "/version", "/nothing"] {
        let answer = api.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (429, "The apiserver is shutting down, please try again later.".to_owned())
        );
        assert_eq!((answer.headers("retry-after"), answer.headers("connection")), (vec!["5"], vec!["close"]));
    }
    assert_eq!(api.get("/livez").await.status, 200);
    assert_eq!(api.get("/readyz").await.status, 500);
    assert_eq!(api.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn c236_c238_health_in_few_words_and_in_many() {
    let api = TestApi::new();
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = api.get(path).user(None).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "ok".to_owned()));
        assert_eq!(answer.headers("content-type"), ["text/plain; charset=utf-8"]);
        for query in ["verbose", "verbose=true", "verbose=1"] {
            let text = api.get(&format!("{path}?{query}")).await.text();
            assert!(text.starts_with("[+]ping ok\n[+]log ok\n"), "{text}");
            assert!(text.ends_with(&format!("{} check passed\n", &path[1..])), "{text}");
        }
        assert_eq!(api.get(&format!("{path}/ping")).await.text(), "ok");
        assert_eq!(api.get(&format!("{path}/nothing")).await.status, 404);
        // Only the whole is for everybody (C277).
        assert_eq!(api.get(&format!("{path}/ping")).user(None).await.status, 401);
    }
    let text = api.get("/readyz?verbose&exclude=etcd&exclude=nothing&exclude=log").await.text();
    assert_eq!(
        text,
        "[+]ping ok\n[+]log excluded: ok\n[+]etcd excluded: ok\n[+]shutdown ok\n\
         warn: some health checks cannot be excluded: no matches for \"nothing\"\nreadyz check passed\n"
    );
    assert_eq!(api.get("/readyz?exclude=nothing").await.text(), "ok");
    api.stopping.cancel();
    assert_eq!(api.get("/readyz?exclude=shutdown").await.status, 200);
    assert_eq!(api.get("/readyz/shutdown").await.status, 500);
    assert_eq!(api.get("/livez/shutdown").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn c237_c239_a_server_without_its_store_or_its_checks_is_not_ready() {
    let store = HookedStore::in_memory();
    let synced = Arc::new(AtomicBool::new(false));
    let check = {
        let synced = Arc::clone(&synced);
        ReadinessCheck { name: "informer-sync", is_ready: Box::new(move || synced.load(Ordering::SeqCst)) }
    };
    let options = ApiOptions { readiness: vec![check], ..ApiOptions::default() };
    let api = TestApi::with_options(Arc::clone(&store) as Arc<dyn Store>, Arc::new(Anybody), options);
    for fault in [Fault::Unavailable, Fault::Slow(Duration::from_secs(60))] {
        store.set(fault);
        let answer = api.get("/readyz").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (
                500,
                "[+]ping ok\n[+]log ok\n[-]etcd failed: reason withheld\n\
                   [-]informer-sync failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n"
                    .to_owned()
            )
        );
        assert_eq!(api.get("/livez").await.status, 200);
        assert_eq!(api.get("/livez?verbose").await.text(), "[+]ping ok\n[+]log ok\nlivez check passed\n");
    }
    store.set(Fault::None);
    synced.store(true, Ordering::SeqCst);
    assert_eq!(api.get("/readyz").await.text(), "ok");
    // What was once there is served from memory: an absent store is no reason to send clients away.
    store.set(Fault::Unavailable);
    assert_eq!(api.get("/readyz").await.text(), "ok");
}

#[tokio::test]
async fn c240_version_and_paths() {
    let api = TestApi::new();
    let version = api.get("/version").await.expect(200);
    for field in [
        "major",
        "minor",
        "gitVersion",
        "gitCommit",
        "gitTreeState",
        "buildDate",
        "goVersion",
        "compiler",
        "platform",
    ] {
        assert!(version[field].is_string(), "{field}");
    }
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1."), "{version}");
    let paths = api.get("/").await.expect(200);
    let paths: Vec<_> =
        paths["paths"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert!(paths.is_sorted());
    for path in &paths {
        assert_eq!(api.get(path).await.status, 200, "{path}");
    }
    for path in ["/apis/core.rukpak.io/v1beta1", "/openapi/v2", "/openapi/v3", "/readyz/etcd", "/metrics"] {
        assert!(paths.contains(&path), "{path}");
    }
}

/// Returns the value of a metric whose labels include these.
fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let has = |line: &&str| {
        line.split(['{', ' ']).next() == Some(name)
            && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    };
    text.lines().find(has)?.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test]
async fn c241_c242_metrics_have_the_names_that_dashboards_know() {
    let store = HookedStore::in_memory();
    let api = TestApi::with(Arc::clone(&store) as Arc<dyn Store>, Arc::new(Anybody));
    put(&api.store, package("p")).await;
    let object = json!({"metadata": {"name": "s"}, "spec": {"image": "example.com/a:b"}});
    let item = format!("{SOURCES}/s");
    api.get(PACKAGES).await.expect(200);
    api.get(&format!("{PACKAGES}/p")).await.expect(200);
    api.post(SOURCES, &object).await.expect(201);
    api.post(
        &format!("{SOURCES}?dryRun=All"),
        &json!({"metadata": {"name": "t"}, "spec": {"image": "a/b:c"}}),
    )
    .await
    .expect(201);
    api.patch(&item, "merge-patch+json", &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    api.call(Method::PATCH, &item).body("application/apply-patch+yaml", "{}").await;
    let current = api.get(&item).await.expect(200);
    api.put(&format!("{item}/status"), &current).await.expect(200);
    api.delete(&item).await.expect(200);
    api.delete(SOURCES).await.expect(200);
    api.call(Method::OPTIONS, PACKAGES).await;
    api.get("/apis/core.rukpak.io/v1beta1/namespaces/x/unheard-of").await;
    api.get("/unheard/of").await;
    let mut watch = Watch::open(&api, &format!("{PACKAGES}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1")).await;
    watch.next().await.unwrap();
    watch.next().await.unwrap();
    store.set(Fault::Panic);
    api.get(PACKAGES).await;
    store.set(Fault::None);

    let answer = api.get("/metrics").await;
    assert_eq!(answer.headers("content-type"), ["text/plain; version=0.0.4"]);
    let text = answer.text();
    let packages = [("group", "core.rukpak.io"), ("version", "v1beta1"), ("resource", "packages")];
    let with = |more: &[(&'static str, &'static str)]| [&packages[..], more].concat();
    for (name, labels, expected) in [
        (
            metric::REQUESTS,
            with(&[
                ("verb", "LIST"),
                ("scope", "namespace"),
                ("component", "apiserver"),
                ("code", "200"),
                ("dry_run", ""),
            ]),
            1.0,
        ),
        (metric::REQUESTS, with(&[("verb", "GET"), ("scope", "resource"), ("code", "200")]), 1.0),
        (metric::REQUESTS, with(&[("verb", "LIST"), ("code", "500")]), 1.0),
        (metric::ABORTS, with(&[("verb", "LIST")]), 1.0),
        (metric::LONGRUNNING, with(&[("verb", "WATCH")]), 1.0),
        (metric::WATCH_EVENTS, with(&[("kind", "Package")]), 2.0),
        (metric::INIT_EVENTS, vec![("resource", "packages")], 1.0),
        (metric::RESOURCE_OBJECTS, vec![("resource", "packages")], 1.0),
        (metric::STORAGE_OBJECTS, vec![("resource", "packages.core.rukpak.io")], 1.0),
        (metric::AUTHORIZATIONS, vec![("result", "allowed")], 15.0),
    ] {
        let found = value(&text, name, &labels);
        let holds =
            if name == metric::AUTHORIZATIONS { found >= Some(expected) } else { found == Some(expected) };
        assert!(holds, "{name} {labels:?}: {found:?}\n{text}");
    }
    for verb in ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"] {
        let labels = [("verb", verb), ("resource", "catalogsources")];
        assert!(value(&text, metric::REQUESTS, &labels).is_some(), "{verb}");
    }
    assert!(value(&text, metric::REQUESTS, &[("verb", "POST"), ("dry_run", "All")]).is_some());
    assert!(value(&text, metric::REQUESTS, &[("verb", "PUT"), ("subresource", "status")]).is_some());
    assert!(value(&text, metric::REQUESTS, &[("verb", "other")]).is_some(), "{text}");
    // What nobody knows gets no name of its own.
    assert!(!text.contains("unheard"), "{text}");
    for name in [
        format!("{}_bucket", metric::REQUEST_DURATION),
        format!("{}_bucket", metric::REQUEST_SLI_DURATION),
        format!("{}_bucket", metric::RESPONSE_SIZES),
        format!("{}_count", metric::REQUEST_BODY_SIZES),
        format!("{}_count", metric::WATCH_EVENT_SIZES),
        format!("{}_count", metric::WATCH_LIST_DURATION),
        metric::INFLIGHT.to_owned(),
        metric::TLS_ERRORS.to_owned(),
        metric::AUDIT_EVENTS.to_owned(),
        format!("{}_count", metric::CERTIFICATE_EXPIRATION),
        metric::AUTHENTICATIONS.to_owned(),
        metric::USER_REQUESTS.to_owned(),
        "process_cpu_seconds_total".to_owned(),
        "process_resident_memory_bytes".to_owned(),
        "process_open_fds".to_owned(),
        "process_start_time_seconds".to_owned(),
    ] {
        assert!(value(&text, &name, &[]).is_some(), "{name}\n{text}");
    }
    drop(watch);
    let text = api.get("/metrics").await.text();
    assert_eq!(value(&text, metric::LONGRUNNING, &[("verb", "WATCH")]), Some(0.0));
    assert!(value(&text, metric::REQUESTS, &[("verb", "WATCH"), ("code", "200")]).is_some());
}

#[tokio::test]
async fn c241_metrics_are_not_for_everybody() {
    let api = TestApi::new();
    assert_eq!(api.get("/metrics").user(None).await.status, 401);
    let body: Value = api.get("/metrics").user(somebody()).await.expect(403);
    assert_eq!(body["message"], r#"forbidden: User "somebody" cannot get path "/metrics""#);
}
