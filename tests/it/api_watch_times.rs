//! watch: when bookmarks come, and when it ends (C100, C101, C107, C113, C118, C234).

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::support::objects::{
    NAMESPACE, PACKAGES, Write, commit, current, delete, package, package_in, put, version,
};
use crate::support::router::TestApi;
use crate::support::watching::{Watch, brief};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn c100_c101_bookmarks_come_each_minute_and_never_overtake() {
    let api = TestApi::new();
    let from = put(&api.store, package("a")).await;
    let path =
        format!("{PACKAGES}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1000&resourceVersion={from}");
    let mut watch = Watch::open(&api, &path).await;
    let start = Instant::now();
    let (mut last, mut bookmarks) = (from, Vec::new());
    for minute in 1..=5_u64 {
        // What happens elsewhere moves the bookmark, too.
        put(&api.store, package_in("other", &format!("x{minute}"))).await;
        let added = put(&api.store, package(&format!("b{minute}"))).await;
        let elsewhere = put(&api.store, package_in("other", &format!("y{minute}"))).await;
        let event = watch.next().await.unwrap();
        assert_eq!(brief(&event), format!("ADDED b{minute} {added}"));
        let bookmark = watch.next().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 60 * minute);
        let at = version(&bookmark["object"]);
        assert_eq!(bookmark["type"], "BOOKMARK");
        assert_eq!(bookmark["object"]["metadata"].as_object().unwrap().len(), 1);
        assert!(at > last && at >= elsewhere, "{at}");
        last = at;
        bookmarks.push((at, minute));
    }
    // Whoever resumes from a bookmark misses nothing and gets nothing twice.
    for (at, minute) in bookmarks {
        let path = format!("{PACKAGES}?watch=1&timeoutSeconds=1&resourceVersion={at}");
        let rest = Watch::open(&api, &path).await.rest().await;
        let names: Vec<_> = rest.iter().map(|event| event["object"]["metadata"]["name"].clone()).collect();
        let expected: Vec<_> = (minute + 1..=5).map(|minute| format!("b{minute}")).collect();
        assert_eq!(names, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn c100_a_quiet_watch_still_says_where_it_is() {
    let api = TestApi::new();
    put(&api.store, package("a")).await;
    let now = current(&api.store).await;
    let path =
        format!("{PACKAGES}?watch=1&allowWatchBookmarks=true&timeoutSeconds=250&resourceVersion={now}");
    let start = Instant::now();
    let mut watch = Watch::open(&api, &path).await;
    let mut times = Vec::new();
    while let Some(event) = watch.next().await {
        assert_eq!(brief(&event), format!("BOOKMARK {now}"));
        times.push(start.elapsed().as_secs());
    }
    // Each minute, and once more shortly before the end.
    assert_eq!(times, [60, 120, 180, 240, 248]);
    assert_eq!(start.elapsed().as_secs(), 250);
}

#[tokio::test(start_paused = true)]
async fn c101_a_bookmark_between_the_events_of_a_batch_claims_no_more_than_was_sent() {
    let api = TestApi::new();
    let from = current(&api.store).await;
    let path =
        format!("{PACKAGES}?watch=1&allowWatchBookmarks=true&timeoutSeconds=200&resourceVersion={from}");
    let mut watch = Watch::open(&api, &path).await;
    let versions =
        commit(&api.store, (0..150).map(|n| Write::Put(package(&format!("p{n:03}")))).collect()).await;
    // The reader pauses in the middle of the batch for longer than a minute: a bookmark is due at once.
    for expected in &versions[..70] {
        assert_eq!(version(&watch.next().await.unwrap()["object"]), *expected);
    }
    tokio::time::advance(MINUTE + Duration::from_secs(1)).await;
    let mut seen = versions[69];
    let mut has_bookmark = false;
    for event in watch.rest().await {
        let at = version(&event["object"]);
        if event["type"] == "BOOKMARK" {
            has_bookmark |= seen < versions[149];
            assert!(at == seen || seen == versions[149], "a bookmark at {at} behind event {seen}");
        } else {
            assert!(at > seen);
            seen = at;
        }
    }
    assert_eq!(seen, versions[149]);
    assert!(has_bookmark, "there was one in the middle");
}

#[tokio::test(start_paused = true)]
async fn c107_bookmarks_are_for_those_who_ask() {
    let api = TestApi::new();
    put(&api.store, package("a")).await;
    for query in
        ["", "&allowWatchBookmarks=false", "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"]
    {
        let mut watch = Watch::open(&api, &format!("{PACKAGES}?watch=1&timeoutSeconds=1000{query}")).await;
        let kinds: Vec<_> = watch.rest().await.iter().map(|event| event["type"].clone()).collect();
        assert_eq!(kinds, ["ADDED"], "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn c113_c118_a_watch_ends_when_it_was_asked_to_and_not_before() {
    let api = TestApi::new();
    for seconds in [1_u64, 7, 300, 5000] {
        let start = Instant::now();
        let mut watch = Watch::open(&api, &format!("{PACKAGES}?watch=1&timeoutSeconds={seconds}")).await;
        assert!(watch.rest().await.is_empty(), "a clean end has no last word");
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
    // Without a wish, at some time between half an hour and an hour, and not all at the same time.
    let mut ends = Vec::new();
    for query in ["", "&timeoutSeconds=0", "&timeoutSeconds=", "&timeoutSeconds=-5", "&timeout=1s"] {
        let start = Instant::now();
        let mut watch = Watch::open(&api, &format!("{PACKAGES}?watch=1{query}")).await;
        assert!(watch.rest().await.is_empty());
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        assert!((30.0..=60.01).contains(&minutes), "{minutes}");
        ends.push(start.elapsed());
    }
    ends.sort();
    ends.dedup();
    assert_eq!(ends.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn c113_events_do_not_keep_a_watch_open() {
    let api = TestApi::new();
    let store = std::sync::Arc::clone(&api.store);
    let writer = tokio::spawn(async move {
        for number in 0.. {
            put(&store, package(&format!("p{number}"))).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let start = Instant::now();
    let events = Watch::open(&api, &format!("{PACKAGES}?watch=1&timeoutSeconds=3")).await.rest().await;
    assert_eq!(start.elapsed().as_secs(), 3);
    assert!(events.len() > 20, "{}", events.len());
    writer.abort();
}

#[tokio::test(start_paused = true)]
async fn c234_watches_end_cleanly_when_the_server_stops() {
    let api = TestApi::new();
    put(&api.store, package("a")).await;
    let mut watches = Vec::new();
    for query in ["", "&allowWatchBookmarks=1", "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"] {
        let mut watch = Watch::open(&api, &format!("{PACKAGES}?watch=1{query}")).await;
        watch.next().await.unwrap();
        watches.push(watch);
    }
    api.stopping.cancel();
    watches[0].is_silent_for(Duration::from_secs(1)).await;
    api.draining.cancel();
    let last = current(&api.store).await;
    for watch in &mut watches {
        let rest = watch.rest().await;
        assert!(rest.iter().all(|event| event["type"] == "BOOKMARK"), "{rest:?}");
    }
    // Elsewhere the same version goes on.
    let elsewhere = TestApi::over(api.store);
    let deleted = delete(&elsewhere.store, "a").await;
    let path = format!("{PACKAGES}?watch=1&timeoutSeconds=1&resourceVersion={last}");
    let events = Watch::open(&elsewhere, &path).await.rest().await;
    assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), [format!("DELETED a {deleted}")]);
    assert_eq!(events[0]["object"]["metadata"]["namespace"], Value::from(NAMESPACE));
}
