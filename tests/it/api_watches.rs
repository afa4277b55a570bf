//! watch: what is sent, in which order, and where it begins (C84–C99, C101–C112, C115–C118, C121, C124).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use packageserver::api::auth::{Attributes, Authorizer, Decision, User};
use packageserver::sink::EmbeddedStore;
use packageserver::store::{Revision, Store};
use serde_json::{Value, json};

use crate::support::hooked_store::{Fault, HookedStore};
use crate::support::objects::{
    ALL_PACKAGES, NAMESPACE, PACKAGES, SOURCES, Write, commit, current, delete, labelled, names, package,
    package_in, put, source, version,
};
use crate::support::router::TestApi;
use crate::support::watching::{Watch, brief};

/// The parameters of a streaming list.
const STREAMING: &str =
    "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

/// Two packages, each in a batch of its own.
async fn filled() -> TestApi {
    let api = TestApi::new();
    put(&api.store, package("a")).await;
    put(&api.store, package("b")).await;
    api
}

fn is_initial_end(event: &Value) -> bool {
    event["object"]["metadata"]["annotations"] == json!({"k8s.io/initial-events-end": "true"})
}

#[tokio::test]
async fn c084_c085_a_watch_is_a_stream_of_lines() {
    let api = filled().await;
    let path = format!("{PACKAGES}?watch=true&timeoutSeconds=1");
    for accept in
        ["application/json", "application/json;stream=watch", "*/*", "", "application/yaml,application/json"]
    {
        let answer = api.get(&path).accept(accept).await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers("content-type")),
            (200, vec!["application/json"]),
            "{accept}"
        );
        assert!(answer.headers("content-length").is_empty());
        let text = answer.text();
        assert!(text.ends_with("}\n"));
        for line in text.lines() {
            assert!(line.starts_with("{\"type\":\"ADDED\",\"object\":{\"apiVersion\":"), "{line}");
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event.as_object().unwrap().len(), 2);
        }
    }
    let answer = api.get(&path).accept("application/yaml").await;
    assert_eq!((answer.status.as_u16(), answer.headers("content-type")), (406, vec!["application/yaml"]));
    assert!(
        answer.text().contains("only the following media types are accepted: application/json\""),
        "{}",
        answer.text()
    );
    assert_eq!(api.get("/apis/core.rukpak.io/v1beta1/watch/packages").await.status, 404);
}

#[tokio::test]
async fn c086_c088_c089_events_come_in_order_and_say_what_happened() {
    let api = filled().await;
    let start = current(&api.store).await;
    let path = format!("{PACKAGES}?watch=1&resourceVersion={start}");
    let (mut one, mut other) = (Watch::open(&api, &path).await, Watch::open(&api, &path).await);
    let added = put(&api.store, package("c")).await;
    let mut changed = package("a");
    changed["spec"]["displayName"] = json!("changed");
    let modified = put(&api.store, changed.clone()).await;
    let batch = commit(
        &api.store,
        vec![
            Write::Put(package("d")),
            Write::Delete("packages", NAMESPACE, "a".to_owned()),
            Write::Put(package("c")),
        ],
    )
    .await;
    let expected = [
        format!("ADDED c {added}"),
        format!("MODIFIED a {modified}"),
        format!("ADDED d {}", batch[0]),
        format!("DELETED a {}", batch[1]),
        format!("MODIFIED c {}", batch[2]),
    ];
    let mut events = Vec::new();
    for _ in 0..expected.len() {
        events.push(one.next().await.unwrap());
    }
    assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), expected);
    assert_eq!(other.briefs(expected.len()).await, expected);
    // What was deleted is shown as it was last, under the version of its deletion.
    let mut last = events[3]["object"].clone();
    assert_eq!(version(&last), batch[1]);
    last["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(last, changed);

    // From every version, and from in between, exactly the rest comes.
    let versions: Vec<_> = events.iter().map(|event| version(&event["object"])).collect();
    for (from, rest) in
        versions.iter().enumerate().map(|(index, at)| (*at, index + 1)).chain([(start, 0), (batch[0] - 1, 2)])
    {
        let path = format!("{PACKAGES}?watch=1&timeoutSeconds=1&resourceVersion={from}");
        let resumed: Vec<_> = Watch::open(&api, &path).await.rest().await.iter().map(brief).collect();
        assert_eq!(resumed, expected[rest..], "from {from}");
    }
}

#[tokio::test(start_paused = true)]
async fn c087_to_a_selection_objects_come_and_go() {
    let api = TestApi::new();
    let gold = |name: &str, tier: &str| labelled(name, &[("tier", tier)]);
    put(&api.store, gold("in", "gold")).await;
    put(&api.store, gold("out", "silver")).await;
    let path = format!("{PACKAGES}?watch=1&labelSelector=tier%3Dgold");
    let mut watch = Watch::open(&api, &path).await;
    assert_eq!(watch.brief().await.split(' ').take(2).collect::<Vec<_>>(), ["ADDED", "in"]);

    let mut previous = gold("in", "gold");
    previous["spec"]["displayName"] = json!("still");
    let stays = put(&api.store, previous.clone()).await;
    put(&api.store, gold("out", "bronze")).await;
    let comes = put(&api.store, gold("out", "gold")).await;
    let goes = put(&api.store, gold("in", "silver")).await;
    put(&api.store, gold("in", "bronze")).await;
    delete(&api.store, "in").await;
    let dies = delete(&api.store, "out").await;
    assert_eq!(watch.brief().await, format!("MODIFIED in {stays}"));
    assert_eq!(watch.brief().await, format!("ADDED out {comes}"));
    let left = watch.next().await.unwrap();
    assert_eq!(brief(&left), format!("DELETED in {goes}"));
    // As it was while it was selected.
    assert_eq!(left["object"]["metadata"]["labels"], json!({"tier": "gold"}));
    assert_eq!(left["object"]["spec"], previous["spec"]);
    assert_eq!(watch.brief().await, format!("DELETED out {dies}"));
    watch.is_silent_for(Duration::from_secs(30)).await;

    // The other way round for who watches the rest, and by fields as by labels.
    let mut rest =
        Watch::open(&api, &format!("{PACKAGES}?watch=1&labelSelector=tier!%3Dgold&resourceVersion={stays}"))
            .await;
    let kinds: Vec<_> =
        rest.briefs(5).await.iter().map(|event| event.rsplit_once(' ').unwrap().0.to_owned()).collect();
    assert_eq!(kinds, ["MODIFIED out", "DELETED out", "ADDED in", "MODIFIED in", "DELETED in"]);
    let mut moved = package("m");
    let query = format!(
        "watch=1&fieldSelector=spec.catalogSource%3Dnew&resourceVersion={}",
        current(&api.store).await
    );
    let mut fields = Watch::open(&api, &format!("{PACKAGES}?{query}")).await;
    put(&api.store, moved.clone()).await;
    moved["spec"]["catalogSource"] = json!("new");
    let comes = put(&api.store, moved).await;
    let goes = put(&api.store, package("m")).await;
    assert_eq!(fields.briefs(2).await, [format!("ADDED m {comes}"), format!("DELETED m {goes}")]);
}

#[tokio::test(start_paused = true)]
async fn c086_other_namespaces_and_resources_are_not_told() {
    let api = filled().await;
    let start = current(&api.store).await;
    let mut watch = Watch::open(&api, &format!("{PACKAGES}?watch=1&resourceVersion={start}")).await;
    let mut all = Watch::open(&api, &format!("{ALL_PACKAGES}?watch=1&resourceVersion={start}")).await;
    put(&api.store, package_in("other", "x")).await;
    put(&api.store, package_in("test-2", "x")).await;
    put(&api.store, source("x")).await;
    watch.is_silent_for(Duration::from_secs(10)).await;
    assert_eq!(all.briefs(2).await.len(), 2);
    all.is_silent_for(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn c090_c091_c092_c094_c096_a_watch_begins_with_what_is_there() {
    let api = filled().await;
    let versions: Vec<_> =
        api.get(PACKAGES).await.expect(200)["items"].as_array().unwrap().iter().map(version).collect();
    // The newest events are of other namespaces and resources: they count, too.
    put(&api.store, package_in("other", "x")).await;
    put(&api.store, source("x")).await;
    let now = current(&api.store).await;
    let initial = [format!("ADDED a {}", versions[0]), format!("ADDED b {}", versions[1])];
    for query in [
        "watch=1",
        "watch=1&resourceVersion=0",
        "watch=1&resourceVersion=",
        "watch=1&allowWatchBookmarks=1",
        "watch=1&allowWatchBookmarks=true&resourceVersion=0",
        STREAMING,
        &format!("{STREAMING}&resourceVersion=0"),
        &format!("{STREAMING}&resourceVersion=1"),
        &format!("{STREAMING}&resourceVersion={now}"),
        // C107: no bookmarks for those who did not ask for them.
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
    ] {
        let mut watch = Watch::open(&api, &format!("{PACKAGES}?{query}")).await;
        assert_eq!(watch.briefs(2).await, initial, "{query}");
        if query.contains("allowWatchBookmarks") {
            let bookmark = watch.next().await.unwrap();
            assert_eq!(brief(&bookmark), format!("BOOKMARK {now}"), "{query}");
            assert!(is_initial_end(&bookmark), "{bookmark}");
        }
        watch.is_silent_for(Duration::from_secs(30)).await;
    }
    // And then comes what happens.
    let mut watches = Vec::new();
    for query in ["watch=1", STREAMING] {
        let mut watch = Watch::open(&api, &format!("{PACKAGES}?{query}")).await;
        watch.briefs(if query == STREAMING { 3 } else { 2 }).await;
        watches.push(watch);
    }
    let added = put(&api.store, package("c")).await;
    for watch in &mut watches {
        assert_eq!(watch.brief().await, format!("ADDED c {added}"));
    }
}

#[tokio::test(start_paused = true)]
async fn c093_a_state_that_is_not_there_yet_is_waited_for() {
    let api = filled().await;
    let now = current(&api.store).await;
    let path = format!("{PACKAGES}?{STREAMING}&resourceVersion={}", now + 1000);
    let store = Arc::clone(&api.store);
    let writer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        put(&store, package("c")).await
    });
    let mut watch = Watch::open(&api, &path).await;
    let start = tokio::time::Instant::now();
    let events = watch.briefs(4).await;
    let added = writer.await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    assert_eq!(events[2..], [format!("ADDED c {added}"), format!("BOOKMARK {}", now + 1000)]);
}

#[tokio::test(start_paused = true)]
async fn c095_a_watch_that_begins_now() {
    let api = filled().await;
    let base = "watch=1&allowWatchBookmarks=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    for query in [base.to_owned(), format!("{base}&resourceVersion="), format!("{base}&resourceVersion=0")] {
        let mut watch = Watch::open(&api, &format!("{PACKAGES}?{query}")).await;
        watch.is_silent_for(Duration::from_secs(10)).await;
        let added = put(&api.store, package("c")).await;
        assert_eq!(watch.brief().await, format!("ADDED c {added}"));
        delete(&api.store, "c").await;
    }
    let since = put(&api.store, package("c")).await;
    let modified = put(&api.store, package("c")).await;
    let mut watch = Watch::open(&api, &format!("{PACKAGES}?{base}&resourceVersion={since}")).await;
    assert_eq!(watch.brief().await, format!("MODIFIED c {modified}"));
}

#[tokio::test(start_paused = true)]
async fn c097_c098_the_bookmark_behind_nothing_comes_at_once() {
    let api = filled().await;
    let now = current(&api.store).await;
    let metadata =
        json!({"resourceVersion": now.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}});
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    for (path, accept, kind, api_version) in [
        (SOURCES, "application/json", "CatalogSource", "core.rukpak.io/v1beta1"),
        (
            "/apis/core.rukpak.io/v1beta1/namespaces/nowhere/packages",
            "application/json",
            "Package",
            "core.rukpak.io/v1beta1",
        ),
        (SOURCES, partial, "PartialObjectMetadata", "meta.k8s.io/v1"),
    ] {
        let start = tokio::time::Instant::now();
        let mut watch = Watch::of(api.get(&format!("{path}?{STREAMING}")).accept(accept)).await;
        let bookmark = watch.next().await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        assert_eq!(bookmark, json!({"type": "BOOKMARK", "object": object}));
    }
    let selected = format!("{PACKAGES}?{STREAMING}&labelSelector=no%3Dsuch");
    assert_eq!(Watch::open(&api, &selected).await.brief().await, format!("BOOKMARK {now}"));
}

#[tokio::test]
async fn c099_c102_to_c107_options_of_watches() {
    let api = filled().await;
    let (forbidden, unsupported) = ("FieldValueForbidden", "FieldValueNotSupported");
    for (query, causes) in [
        ("sendInitialEvents=true", vec![forbidden]),
        ("sendInitialEvents=false", vec![forbidden]),
        ("sendInitialEvents=true&resourceVersion=1", vec![forbidden]),
        ("resourceVersionMatch=NotOlderThan", vec![forbidden]),
        ("resourceVersionMatch=NotOlderThan&resourceVersion=1", vec![forbidden]),
        ("resourceVersionMatch=Exact&resourceVersion=1", vec![forbidden, unsupported]),
        ("sendInitialEvents=true&resourceVersionMatch=Exact", vec![forbidden, unsupported]),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x", vec![forbidden]),
    ] {
        let body = api.get(&format!("{PACKAGES}?watch=1&{query}")).await.expect(422);
        assert!(
            body["message"].as_str().unwrap().starts_with("ListOptions.meta.k8s.io \"\" is invalid"),
            "{body}"
        );
        let found = body["details"]["causes"].as_array().unwrap();
        assert!(found.iter().all(|cause| cause["field"] == "resourceVersionMatch"), "{query}: {body}");
        let found: Vec<_> = found.iter().map(|cause| cause["reason"].as_str().unwrap()).collect();
        assert_eq!(found, causes, "{query}");
    }
    // Streaming lists are always there: no client has to fall back (C106), none waits in vain (C99).
    let mut watch = Watch::open(&api, &format!("{PACKAGES}?{STREAMING}")).await;
    assert_eq!(watch.briefs(3).await.len(), 3);
}

#[tokio::test]
async fn c108_c109_what_history_no_longer_holds_is_expired_in_the_stream() {
    let api = filled().await;
    let old = current(&api.store).await;
    put(&api.store, package("c")).await;
    let kept = current(&api.store).await;
    put(&api.store, package("d")).await;
    api.store.compact(Revision::new(kept / 1000)).await.unwrap();
    for from in [1, old] {
        let events =
            Watch::open(&api, &format!("{PACKAGES}?watch=1&resourceVersion={from}")).await.rest().await;
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!(brief(event), "ERROR 410 Expired");
        let status = &event["object"];
        assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")));
        let message = status["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("too old resource version: {from} (")), "{message}");
    }
    // Everything since is there (C115).
    let path = format!("{PACKAGES}?watch=1&timeoutSeconds=1&resourceVersion={kept}");
    assert_eq!(Watch::open(&api, &path).await.rest().await.len(), 1);
}

#[tokio::test]
async fn c108_a_reader_that_history_overtakes_is_told_so() {
    let api = TestApi::new();
    for round in 0..3 {
        let writes = (0..90).map(|number| Write::Put(package(&format!("p{round}-{number}"))));
        commit(&api.store, writes.collect()).await;
    }
    let mut slow = Watch::open(&api, &format!("{PACKAGES}?watch=1&resourceVersion=1999")).await;
    slow.next().await.unwrap();
    let now = current(&api.store).await;
    api.store.compact(Revision::new(now / 1000)).await.unwrap();
    let rest = slow.rest().await;
    assert_eq!(brief(rest.last().unwrap()), "ERROR 410 Expired");
    // What came before came in order, and nothing came behind.
    let versions: Vec<_> = rest[..rest.len() - 1].iter().map(|event| version(&event["object"])).collect();
    assert!(versions.is_sorted_by(|a, b| a < b));
    assert!(versions.len() < 269);
}

#[tokio::test(start_paused = true)]
async fn c110_a_watch_from_the_future_waits_or_gives_up() {
    let api = filled().await;
    let now = current(&api.store).await;
    let (next, after_next) = (now + 1000, now + 2000);
    let query = format!("watch=1&allowWatchBookmarks=1&resourceVersion={next}");
    let mut watch = Watch::open(&api, &format!("{PACKAGES}?{query}")).await;
    // Not even a bookmark: it would claim what is not there.
    watch.is_silent_for(Duration::from_secs(300)).await;
    put(&api.store, package("c")).await;
    let second = put(&api.store, package("d")).await;
    assert_eq!(second, after_next - 998);
    assert_eq!(watch.brief().await, format!("ADDED d {second}"));

    let start = tokio::time::Instant::now();
    let path = format!("{PACKAGES}?{STREAMING}&resourceVersion={}", after_next + 1);
    let events = Watch::open(&api, &path).await.rest().await;
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(brief(event), "ERROR 504 Timeout");
    assert_eq!(event["object"]["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn c111_a_version_that_is_no_number() {
    let api = filled().await;
    for asked in ["x", "-1", "1.0"] {
        let body = api.get(&format!("{PACKAGES}?watch=1&resourceVersion={asked}")).await.expect(400);
        assert!(body["message"].as_str().unwrap().contains("invalid resource version"));
    }
}

#[tokio::test]
async fn c112_a_store_that_is_not_there_yet_is_no_stream() {
    let store = HookedStore::in_memory();
    let api = TestApi::over(Arc::clone(&store) as Arc<dyn Store>);
    store.set(Fault::Unavailable);
    let answer = api.get(&format!("{PACKAGES}?watch=1")).await;
    assert_eq!(answer.expect(429)["reason"], "TooManyRequests");
    assert_eq!(answer.headers("retry-after"), ["1"]);
    store.set(Fault::None);
    assert_eq!(api.get(&format!("{PACKAGES}?watch=1&timeoutSeconds=1")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn c116_one_object_is_watched_by_its_name() {
    let api = filled().await;
    let got = api.get(&format!("{PACKAGES}/a?watch=true")).await.expect(200);
    assert_eq!(got["kind"], "Package");
    for path in [PACKAGES, ALL_PACKAGES] {
        let mut watch =
            Watch::open(&api, &format!("{path}?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Da"))
                .await;
        assert_eq!(watch.brief().await, format!("ADDED a {}", version(&got)));
        put(&api.store, package("b")).await;
        watch.is_silent_for(Duration::from_secs(1)).await;
    }
    let mut watch = Watch::open(&api, &format!("{PACKAGES}?watch=1&fieldSelector=metadata.name%3Dnew")).await;
    let added = put(&api.store, package("new")).await;
    assert_eq!(watch.brief().await, format!("ADDED new {added}"));
}

#[tokio::test]
async fn c115_c117_any_version_that_was_given_can_be_watched_from() {
    let api = filled().await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let from = version(&api.get(&format!("{PACKAGES}?limit=500")).accept(table).await.expect(200));
    let paged = version(&api.get(&format!("{PACKAGES}?limit=1")).await.expect(200));
    let bookmark = {
        let mut watch = Watch::open(&api, &format!("{PACKAGES}?{STREAMING}")).await;
        version(&watch.briefs(2).await.pop().map(|_| watch).unwrap().next().await.unwrap()["object"])
    };
    let added = put(&api.store, package("c")).await;
    for from in [from, paged, bookmark] {
        let mut watch = Watch::open(&api, &format!("{PACKAGES}?watch=1&resourceVersion={from}")).await;
        assert_eq!(watch.brief().await, format!("ADDED c {added}"));
    }
}

#[tokio::test]
async fn c121_each_watcher_gets_its_own_form_of_the_same_event() {
    let api = filled().await;
    let start = current(&api.store).await;
    let path = format!("{PACKAGES}?watch=1&resourceVersion={start}");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let mut watches = Vec::new();
    for _ in 0..3 {
        for (accept, query) in [
            ("application/json", ""),
            (partial, ""),
            (table, ""),
            (table, "&includeObject=Object"),
            (table, "&includeObject=None"),
            (table, "&labelSelector=core.rukpak.io/package%3Dc"),
        ] {
            watches.push(Watch::of(api.get(&format!("{path}{query}")).accept(accept)).await);
        }
    }
    // Each event is read by one watcher after the other: who comes later finds it made.
    for round in 0..3 {
        let mut object = package("c");
        object["spec"]["displayName"] = json!(format!("round {round}"));
        let at = put(&api.store, object.clone()).await;
        object["metadata"]["resourceVersion"] = json!(at.to_string());
        let metadata = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
        let kind = if round == 0 { "ADDED" } else { "MODIFIED" };
        for (index, watch) in watches.iter_mut().enumerate() {
            let event = watch.next().await.unwrap();
            assert_eq!(event["type"], kind);
            let form = &event["object"];
            match index % 6 {
                0 => assert_eq!(*form, object),
                1 => assert_eq!(*form, metadata),
                within => {
                    assert_eq!(form["kind"], "Table");
                    assert_eq!(form["columnDefinitions"].is_array(), round == 0, "{index} {round}");
                    let row = &form["rows"][0];
                    assert_eq!(
                        (&row["cells"][0], &row["cells"][5]),
                        (&json!("c"), &object["spec"]["displayName"])
                    );
                    let expected = [&metadata, &object, &Value::Null, &metadata][within - 2];
                    assert_eq!(&row["object"], expected);
                }
            }
        }
    }
}

/// Allows until it no longer does.
struct Revocable(AtomicBool);

#[async_trait]
impl Authorizer for Revocable {
    async fn authorize(&self, _: &User, _: &Attributes) -> Result<Decision, String> {
        let allowed = self.0.load(Ordering::SeqCst);
        Ok(if allowed { Decision::Allow } else { Decision::Deny(String::new()) })
    }
}

#[tokio::test]
async fn c124_rights_are_looked_at_when_a_watch_is_opened() {
    let revocable = Arc::new(Revocable(AtomicBool::new(true)));
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let api = TestApi::with(store, Arc::clone(&revocable) as Arc<dyn Authorizer>);
    let mut watch = Watch::open(&api, &format!("{PACKAGES}?watch=1")).await;
    revocable.0.store(false, Ordering::SeqCst);
    assert_eq!(api.get(&format!("{PACKAGES}?watch=1")).await.status, 403);
    let added = put(&api.store, package("a")).await;
    assert_eq!(watch.brief().await, format!("ADDED a {added}"));
}

#[tokio::test]
async fn c088_many_watchers_of_many_writers_see_one_order() {
    let api = TestApi::new();
    let start = current(&api.store).await;
    let path = format!("{ALL_PACKAGES}?watch=1&resourceVersion={start}");
    let mut watches = Vec::new();
    for _ in 0..8 {
        watches.push(Watch::open(&api, &path).await);
    }
    let writers = (0..4).map(|writer| {
        let store = Arc::clone(&api.store);
        tokio::spawn(async move {
            for number in 0..25 {
                put(&store, package_in(&format!("ns{writer}"), &format!("p{number}"))).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let first = watches[0].briefs(100).await;
    for watch in &mut watches[1..] {
        assert_eq!(watch.briefs(100).await, first);
    }
    let list = api.get(ALL_PACKAGES).await.expect(200);
    assert_eq!(names(&list).len(), 100);
}
