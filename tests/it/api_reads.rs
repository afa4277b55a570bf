//! get and list: which state, how much of it, and where the rest is (C53–C83).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use packageserver::store::{Revision, Store};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::objects::{
    self, ALL_PACKAGES, NAMESPACE, PACKAGES, SOURCES, Write, commit, current, delete, labelled, names,
    package, package_in, put, source, version,
};
use crate::support::router::{Answer, TestApi};

/// The packages `p00`, `p01`, … in a batch of their own each.
async fn filled(count: usize) -> TestApi {
    let api = TestApi::new();
    for number in 0..count {
        put(&api.store, package(&format!("p{number:02}"))).await;
    }
    api
}

fn token(list: &Value) -> Option<&str> {
    list["metadata"]["continue"].as_str()
}

async fn compact(store: &Arc<dyn Store>, version: u64) {
    store.compact(Revision::new(version / 1000)).await.expect("history can be dropped");
}

#[track_caller]
fn is_too_large(answer: &Answer, requested: u64, current: u64) {
    let body = answer.expect(504);
    assert_eq!(body["reason"], "Timeout");
    let message = body["message"].as_str().unwrap();
    let expected = format!("Too large resource version: {requested}, current: {current}");
    assert!(message.contains(&expected), "{message}");
    assert_eq!(body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!(body["details"]["causes"][0]["message"], "Too large resource version");
    assert_eq!(body["details"]["retryAfterSeconds"], 1);
    assert_eq!(answer.headers("retry-after"), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn c053_c054_c055_get_at_least_as_new_as() {
    let api = filled(1).await;
    let item = format!("{PACKAGES}/p00");
    let written = version(&api.get(&item).await.expect(200));
    let now = current(&api.store).await;
    for asked in ["".to_owned(), "0".to_owned(), "1".to_owned(), written.to_string(), now.to_string()] {
        let got = api.get(&format!("{item}?resourceVersion={asked}")).await.expect(200);
        assert_eq!(version(&got), written, "{asked}");
    }
    // One that is not there yet is waited for.
    let start = Instant::now();
    is_too_large(&api.get(&format!("{item}?resourceVersion={}", now + 1)).await, now + 1, now);
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    let (waiting, ()) =
        tokio::join!(async { api.get(&format!("{item}?resourceVersion={}", now + 1000)).await }, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut changed = package("p00");
            changed["spec"]["displayName"] = json!("changed");
            put(&api.store, changed).await;
        });
    assert_eq!(waiting.expect(200)["spec"]["displayName"], "changed");
    for asked in ["x", "-1", "1.5", "99999999999999999999999"] {
        assert_eq!(
            api.get(&format!("{item}?resourceVersion={asked}")).await.expect(400)["reason"],
            "BadRequest"
        );
    }
}

#[tokio::test]
async fn c056_an_object_says_what_it_is() {
    let api = filled(1).await;
    let got = api.get(&format!("{PACKAGES}/p00")).await.expect(200);
    assert_eq!((&got["kind"], &got["apiVersion"]), (&json!("Package"), &json!("core.rukpak.io/v1beta1")));
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        assert!(got["metadata"][field].is_string(), "{field}");
    }
    let created = api
        .post(SOURCES, &json!({"metadata": {"name": "s"}, "spec": {"image": "example.com/a:b"}}))
        .await
        .expect(201);
    let timestamp = created["metadata"]["creationTimestamp"].as_str().unwrap();
    assert!(timestamp.len() == 20 && timestamp.ends_with('Z'), "{timestamp}");
    assert!(timestamp.parse::<jiff::Timestamp>().is_ok());
}

#[tokio::test]
async fn c057_c058_c082_a_list_is_sorted_complete_and_as_new_as_the_store() {
    let api = TestApi::new();
    let empty = api.get(PACKAGES).await.expect(200);
    assert_eq!((&empty["kind"], &empty["items"]), (&json!("PackageList"), &json!([])));
    assert_eq!(empty["apiVersion"], "core.rukpak.io/v1beta1");
    assert!(version(&empty) > 0);

    for (namespace, name) in [("b", "x"), ("a", "y"), ("a", "x"), ("a-b", "x"), ("a", "x-y"), ("a", "x.y")] {
        put(&api.store, package_in(namespace, name)).await;
    }
    let list = api.get(ALL_PACKAGES).await.expect(200);
    let keys = list["items"].as_array().unwrap().iter().map(|item| {
        let text = |field: &str| item["metadata"][field].as_str().unwrap().to_owned();
        format!("{}/{}", text("namespace"), text("name"))
    });
    let keys: Vec<_> = keys.collect();
    assert_eq!(keys, ["a-b/x", "a/x", "a/x-y", "a/x.y", "a/y", "b/x"]);
    assert!(list["items"].as_array().unwrap().iter().all(|item| version(item) <= version(&list)));

    let nowhere = "/apis/core.rukpak.io/v1beta1/namespaces/nowhere/packages";
    let before = api.get(nowhere).await.expect(200);
    assert_eq!(before["items"], json!([]));
    put(&api.store, source("elsewhere")).await;
    assert!(
        version(&api.get(nowhere).await.expect(200)) > version(&before),
        "it is the version of the whole store"
    );
}

/// The whole matrix of version, match, limit and continue (C59–C64, C72).
#[tokio::test(start_paused = true)]
async fn c059_to_c064_every_way_to_ask_for_a_state() {
    let api = TestApi::new();
    let old = put(&api.store, package("a")).await;
    put(&api.store, package("b")).await;
    compact(&api.store, old + 1000).await;
    // From here on history is kept: one state with a, b, and one with c beside them.
    let before = current(&api.store).await;
    put(&api.store, package("c")).await;
    let now = current(&api.store).await;
    let future = now + 5000;
    let continued = {
        let first = api.get(&format!("{PACKAGES}?limit=1")).await.expect(200);
        token(&first).unwrap().to_owned()
    };

    /// What is expected of a list.
    enum Expect {
        /// These names, in any state at least as new.
        AtLeast(u64, &'static [&'static str]),
        /// These names, in exactly this state.
        Exactly(u64, &'static [&'static str]),
        Expired,
        TooLarge,
        Bad,
        Invalid,
    }
    use Expect::*;
    let all: &'static [&'static str] = &["a", "b", "c"];
    let two: &'static [&'static str] = &["a", "b"];
    let rv = |version: u64| format!("resourceVersion={version}");
    let cases = [
        // No version: the newest state.
        (String::new(), AtLeast(now, all)),
        ("limit=2".to_owned(), AtLeast(now, two)),
        ("limit=0".to_owned(), AtLeast(now, all)),
        ("limit=-1".to_owned(), AtLeast(now, all)),
        ("resourceVersion=".to_owned(), AtLeast(now, all)),
        // 0: any state.
        (rv(0), AtLeast(0, all)),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan".to_owned(), AtLeast(0, all)),
        ("resourceVersion=0&resourceVersionMatch=Exact".to_owned(), Invalid),
        // N: at least as new, without a limit.
        (rv(before), AtLeast(before, all)),
        (rv(1), AtLeast(1, all)),
        (rv(old), AtLeast(old, all)),
        (rv(future), TooLarge),
        // N with a limit: that state.
        (rv(before) + "&limit=10", Exactly(before, two)),
        (rv(before) + "&limit=1", Exactly(before, &["a"])),
        (rv(now) + "&limit=10", Exactly(now, all)),
        (rv(old) + "&limit=10", Expired),
        (rv(1) + "&limit=10", Expired),
        (rv(future) + "&limit=10", TooLarge),
        // NotOlderThan, with and without.
        (rv(before) + "&resourceVersionMatch=NotOlderThan", AtLeast(before, all)),
        (rv(old) + "&resourceVersionMatch=NotOlderThan", AtLeast(old, all)),
        (rv(before) + "&resourceVersionMatch=NotOlderThan&limit=2", AtLeast(before, two)),
        (rv(future) + "&resourceVersionMatch=NotOlderThan", TooLarge),
        (rv(future) + "&resourceVersionMatch=NotOlderThan&limit=2", TooLarge),
        // Exact.
        (rv(before) + "&resourceVersionMatch=Exact", Exactly(before, two)),
        (rv(before) + "&resourceVersionMatch=Exact&limit=1", Exactly(before, &["a"])),
        (rv(now) + "&resourceVersionMatch=Exact", Exactly(now, all)),
        (rv(old) + "&resourceVersionMatch=Exact", Expired),
        (rv(future) + "&resourceVersionMatch=Exact", TooLarge),
        // Continued.
        (format!("continue={continued}"), Exactly(now, &["b", "c"])),
        (format!("continue={continued}&limit=1"), Exactly(now, &["b"])),
        (format!("continue={continued}&resourceVersion=0"), Exactly(now, &["b", "c"])),
        (format!("continue={continued}&") + &rv(now), Bad),
        (format!("continue={continued}&resourceVersion=x"), Bad),
        (format!("continue={continued}&resourceVersionMatch=Exact&") + &rv(now), Invalid),
        (format!("continue={continued}&resourceVersionMatch=NotOlderThan"), Invalid),
        // What makes no sense, in the order in which it is noticed.
        ("resourceVersion=x".to_owned(), Bad),
        ("resourceVersion=x&limit=1".to_owned(), Bad),
        ("resourceVersion=x&resourceVersionMatch=Exact".to_owned(), Bad),
        ("resourceVersion=x&resourceVersionMatch=Sometimes".to_owned(), Invalid),
        ("resourceVersionMatch=Exact".to_owned(), Invalid),
        ("resourceVersionMatch=NotOlderThan&limit=1".to_owned(), Invalid),
    ];
    for (query, expected) in cases {
        for path in [PACKAGES, ALL_PACKAGES] {
            let answer = api.get(&format!("{path}?{query}")).await;
            match expected {
                AtLeast(least, expected) => {
                    let list = answer.expect(200);
                    assert_eq!(names(&list), expected, "{query}");
                    assert!(version(&list) >= least, "{query}");
                }
                Exactly(at, expected) => {
                    let list = answer.expect(200);
                    assert_eq!(names(&list), expected, "{query}");
                    assert_eq!(version(&list), at, "{query}");
                }
                Expired => {
                    let body = answer.expect(410);
                    assert_eq!(body["reason"], "Expired", "{query}");
                    assert_eq!(body["message"], "The resourceVersion for the provided list is too old.");
                }
                TooLarge => is_too_large(&answer, future, now),
                Bad => assert_eq!(answer.expect(400)["reason"], "BadRequest", "{query}"),
                Invalid => assert_eq!(answer.expect(422)["reason"], "Invalid", "{query}"),
            }
        }
    }
}

#[tokio::test]
async fn c060_a_state_in_the_middle_of_a_batch_is_a_state_too() {
    let api = filled(2).await;
    let versions = commit(
        &api.store,
        vec![
            Write::Put(package("x")),
            Write::Delete("packages", NAMESPACE, "p00".to_owned()),
            Write::Put(package("y")),
        ],
    )
    .await;
    for (at, expected) in [
        (versions[0] - 1, &["p00", "p01"][..]),
        (versions[0], &["p00", "p01", "x"]),
        (versions[1], &["p01", "x"]),
        (versions[2], &["p01", "x", "y"]),
    ] {
        let list =
            api.get(&format!("{PACKAGES}?resourceVersion={at}&resourceVersionMatch=Exact")).await.expect(200);
        assert_eq!((names(&list), version(&list)), (expected.to_vec(), at));
        // And so on every page of it.
        let mut token = String::new();
        let mut paged = Vec::new();
        loop {
            let query = match &*token {
                "" => format!("limit=1&resourceVersion={at}&resourceVersionMatch=Exact"),
                token => format!("limit=1&continue={token}"),
            };
            let page = api.get(&format!("{PACKAGES}?{query}")).await.expect(200);
            assert_eq!(version(&page), at);
            paged.extend(names(&page).into_iter().map(str::to_owned));
            match page["metadata"]["continue"].as_str() {
                Some(next) => token = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(paged, expected);
    }
}

#[tokio::test]
async fn c065_to_c070_options_that_contradict_each_other() {
    let api = filled(1).await;
    let (forbidden, unsupported) = ("FieldValueForbidden", "FieldValueNotSupported");
    let field = "resourceVersionMatch";
    for (query, causes) in [
        ("resourceVersionMatch=Exact", vec![(forbidden, field)]),
        ("resourceVersionMatch=NotOlderThan", vec![(forbidden, field)]),
        ("resourceVersionMatch=NotOlderThan&continue=x", vec![(forbidden, field), (forbidden, field)]),
        ("resourceVersionMatch=Exact&resourceVersion=1&continue=x", vec![(forbidden, field)]),
        ("resourceVersionMatch=Sometimes&resourceVersion=1", vec![(unsupported, field)]),
        ("resourceVersionMatch=Sometimes", vec![(forbidden, field), (unsupported, field)]),
        ("resourceVersionMatch=Exact&resourceVersion=0", vec![(forbidden, field)]),
        ("sendInitialEvents=true", vec![(forbidden, "sendInitialEvents")]),
        ("sendInitialEvents=false", vec![(forbidden, "sendInitialEvents")]),
    ] {
        let body = api.get(&format!("{PACKAGES}?{query}")).await.expect(422);
        assert!(
            body["message"].as_str().unwrap().starts_with("ListOptions.meta.k8s.io \"\" is invalid"),
            "{body}"
        );
        assert_eq!(
            (&body["details"]["group"], &body["details"]["kind"]),
            (&json!("meta.k8s.io"), &json!("ListOptions"))
        );
        let found = body["details"]["causes"].as_array().unwrap().iter();
        let found: Vec<_> = found
            .map(|cause| (cause["reason"].as_str().unwrap(), cause["field"].as_str().unwrap()))
            .collect();
        assert_eq!(found, causes, "{query}");
    }
}

#[tokio::test]
async fn c071_c072_versions_that_cannot_be_meant() {
    let api = filled(2).await;
    for query in ["resourceVersion=x", "resourceVersion=-1", "resourceVersion=1e3"] {
        let body = api.get(&format!("{PACKAGES}?{query}")).await.expect(400);
        assert!(body["message"].as_str().unwrap().contains("invalid resource version"), "{body}");
    }
    let first = api.get(&format!("{PACKAGES}?limit=1")).await.expect(200);
    let continued = format!("{PACKAGES}?continue={}", token(&first).unwrap());
    let body = api.get(&format!("{continued}&resourceVersion=5")).await.expect(400);
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("specifying resource version is not allowed when using continue"), "{message}");
    api.get(&format!("{continued}&resourceVersion=0")).await.expect(200);
}

#[tokio::test]
async fn c073_c074_c075_pages_of_one_state() {
    let api = filled(25).await;
    for limit in [1, 7, 24, 25, 26, 1000] {
        let first = api.get(&format!("{PACKAGES}?limit={limit}")).await.expect(200);
        let at = version(&first);
        let mut seen: Vec<_> = names(&first).into_iter().map(str::to_owned).collect();
        let mut page = first;
        let mut round = 0;
        while let Some(next) = token(&page).map(str::to_owned) {
            assert_eq!(names(&page).len(), limit);
            assert_eq!(page["metadata"]["remainingItemCount"], 25 - seen.len());
            // What is written in between is not seen: not in front, not behind, not instead.
            round += 1;
            put(&api.store, package(&format!("a{limit}-{round}"))).await;
            put(&api.store, package(&format!("z{limit}-{round}"))).await;
            let mut changed = package("p24");
            changed["spec"]["displayName"] = json!(format!("{limit}-{round}"));
            put(&api.store, changed).await;
            page = api.get(&format!("{PACKAGES}?limit={limit}&continue={next}")).await.expect(200);
            assert_eq!(version(&page), at);
            assert!(page["items"].as_array().unwrap().iter().all(|item| version(item) <= at));
            seen.extend(names(&page).into_iter().map(str::to_owned));
        }
        assert_eq!(token(&page), None);
        assert_eq!(page["metadata"]["remainingItemCount"], Value::Null);
        let expected: Vec<_> = (0..25).map(|number| format!("p{number:02}")).collect();
        assert_eq!(seen, expected, "{limit}");
        for name in names(&api.get(PACKAGES).await.expect(200)) {
            if !name.starts_with('p') {
                delete(&api.store, name).await;
            }
        }
    }
}

#[tokio::test]
async fn c073_c076_filtered_pages_are_filled_and_never_empty() {
    let api = TestApi::new();
    for batch in 0..12 {
        let writes = (0..100).map(|number| {
            let number = batch * 100 + number;
            let rare = if number % 400 == 399 { "yes" } else { "no" };
            Write::Put(labelled(&format!("p{number:04}"), &[("rare", rare)]))
        });
        commit(&api.store, writes.collect()).await;
    }
    for (limit, sizes) in [(1, vec![1, 1, 1]), (2, vec![2, 1]), (3, vec![3]), (10, vec![3])] {
        let (mut found, mut query) = (Vec::new(), String::new());
        loop {
            let path = format!("{PACKAGES}?limit={limit}&labelSelector=rare%3Dyes{query}");
            let page = api.get(&path).await.expect(200);
            assert_eq!(
                page["metadata"]["remainingItemCount"],
                Value::Null,
                "nobody counted what is selected"
            );
            found.push(names(&page).len());
            match token(&page) {
                Some(token) => query = format!("&continue={token}"),
                None => break,
            }
        }
        assert_eq!(found, sizes, "{limit}");
    }
    let none = api.get(&format!("{PACKAGES}?limit=5&labelSelector=rare%3Dnever")).await.expect(200);
    assert_eq!((&none["items"], token(&none)), (&json!([]), None));
}

#[tokio::test]
async fn c077_c078_tokens_are_opaque_and_stay_in_their_list() {
    let api = filled(3).await;
    put(&api.store, source("s")).await;
    let first = api.get(&format!("{PACKAGES}?limit=1")).await.expect(200);
    let decoded: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token(&first).unwrap()).unwrap()).unwrap();
    assert_eq!(decoded["v"], "meta.k8s.io/v1");
    assert_eq!(decoded["rv"], version(&first));
    assert!(decoded["start"].as_str().unwrap().ends_with("p00\0"), "{decoded}");

    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let with = |field: &str, value: Value| {
        let mut changed = decoded.clone();
        changed[field] = value;
        encode(changed)
    };
    let start = decoded["start"].as_str().unwrap();
    for garbage in [
        "x".to_owned(),
        "%21%21".to_owned(),
        encode(json!({})),
        encode(json!([])),
        with("v", json!("meta.k8s.io/v2")),
        with("rv", json!(0)),
        with("rv", json!(-2)),
        with("rv", json!("1")),
        with("start", json!("")),
        with("start", json!(start.replace("packages", "catalogsources"))),
        with("start", json!(start.replace("test", "other"))),
        with("start", json!("packages/test/../../catalogsources/test/s\0")),
        with("start", json!("packages/test/../other/x\0")),
        with("start", json!("../catalogsources/test/s\0")),
    ] {
        let body = api.get(&format!("{PACKAGES}?limit=1&continue={garbage}")).await.expect(400);
        assert!(body["message"].as_str().unwrap().contains("invalid continue token"), "{garbage}: {body}");
    }
    // One that goes on without a state goes on with what is there.
    let inconsistent = with("rv", json!(-1));
    let rest = api.get(&format!("{PACKAGES}?continue={inconsistent}")).await.expect(200);
    assert_eq!(names(&rest), ["p01", "p02"]);
}

#[tokio::test]
async fn c079_a_token_of_a_state_that_is_gone_is_changed_for_a_fresh_one() {
    let api = filled(4).await;
    let first = api.get(&format!("{PACKAGES}?limit=2")).await.expect(200);
    delete(&api.store, "p02").await;
    put(&api.store, package("p05")).await;
    put(&api.store, package("a")).await;
    compact(&api.store, current(&api.store).await).await;

    let old = token(&first).unwrap();
    let answer = api.get(&format!("{PACKAGES}?limit=2&continue={old}")).await;
    let body = answer.expect(410);
    assert_eq!(body["reason"], "Expired");
    assert!(body["message"].as_str().unwrap().contains("continue parameter is too old"), "{body}");
    let fresh = token(&body).expect("a fresh token");
    let decoded: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(fresh).unwrap()).unwrap();
    assert_eq!(decoded["rv"], -1);

    let rest = api.get(&format!("{PACKAGES}?limit=1&continue={fresh}")).await.expect(200);
    assert_eq!(names(&rest), ["p03"]);
    assert!(version(&rest) > version(&first));
    // From here on it is one state again.
    let at = version(&rest);
    put(&api.store, package("p06")).await;
    let last = api.get(&format!("{PACKAGES}?limit=1&continue={}", token(&rest).unwrap())).await.expect(200);
    assert_eq!((names(&last), version(&last), token(&last)), (vec!["p05"], at, None));
}

#[tokio::test]
async fn c080_c081_pages_of_another_size_and_of_none() {
    let api = filled(9).await;
    let first = api.get(&format!("{PACKAGES}?limit=2")).await.expect(200);
    let next = token(&first).unwrap();
    for (query, expected) in [("&limit=5", 5), ("&limit=100", 7), ("", 7), ("&limit=0", 7), ("&limit=-3", 7)]
    {
        let page = api.get(&format!("{PACKAGES}?continue={next}{query}")).await.expect(200);
        assert_eq!(names(&page).len(), expected, "{query}");
    }
    // Other selectors are nobody's intention, and nobody's harm.
    for query in ["labelSelector=core.rukpak.io/package%3Dp05", "fieldSelector=spec.catalogSource%3Dx"] {
        api.get(&format!("{PACKAGES}?continue={next}&{query}")).await.expect(200);
    }
    api.get(&format!("{PACKAGES}?continue={next}&fieldSelector=metadata.name%3Dp05")).await.expect(400);
    assert_eq!(names(&api.get(&format!("{PACKAGES}?limit=-5")).await.expect(200)).len(), 9);
}

#[tokio::test]
async fn c083_after_an_expired_page_a_whole_list_is_there() {
    let api = filled(5).await;
    let first = api.get(&format!("{PACKAGES}?limit=2&resourceVersion=0")).await.expect(200);
    put(&api.store, package("p05")).await;
    compact(&api.store, current(&api.store).await).await;
    // What client-go's pager does: it gives up on the pages, and asks once more for everything.
    let expired = api.get(&format!("{PACKAGES}?limit=2&continue={}", token(&first).unwrap())).await;
    assert_eq!(expired.expect(410)["reason"], "Expired");
    let whole = api.get(&format!("{PACKAGES}?limit=0&resourceVersion=")).await.expect(200);
    assert_eq!((names(&whole).len(), token(&whole)), (6, None));
}

#[tokio::test]
async fn parts_of_objects_are_read_beside_them() {
    use packageserver::store::{Batch, Key, Object, Operation, Tail};
    let api = filled(1).await;
    let head = r#"{"mediatype":"image/svg+xml","digest":"sha256:1"}"#;
    let icon = Object::cut(head, Tail::Plain(bytes::Bytes::from_static(b"<svg/>")));
    let operation = Operation::create(Key::new("icons", NAMESPACE, "p00"), icon);
    api.store.append(Batch::of(operation)).await.unwrap();
    let path = format!("{PACKAGES}/p00/icon");
    let answer = api.get(&path).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "<svg/>".to_owned()));
    assert_eq!(answer.headers("content-type"), ["image/svg+xml"]);
    let etag = answer.headers("etag")[0].to_owned();
    assert_eq!(api.get(&path).header("if-none-match", &etag).await.status, 304);
    assert_eq!(api.get(&format!("{PACKAGES}/p01/icon")).await.status, 404);
    assert_eq!(api.delete(&path).await.status, 405);
    assert_eq!(objects::names(&api.get(PACKAGES).await.expect(200)), ["p00"]);
}
