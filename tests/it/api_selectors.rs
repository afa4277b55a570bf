//! Label and field selectors, in lists and in watches (C28–C34).

use serde_json::json;

use crate::support::objects::{self, ALL_PACKAGES, PACKAGES, SOURCES, labelled, package_in, put};
use crate::support::router::TestApi;
use crate::support::watching::Watch;

/// Percent-encodes a parameter.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

async fn api() -> TestApi {
    let api = TestApi::new();
    for (name, labels) in [
        ("a", &[("tier", "gold"), ("n", "5")][..]),
        ("b", &[("tier", "silver"), ("n", "10"), ("example.com/x", "")]),
        ("c", &[("n", "many")]),
        ("d", &[]),
    ] {
        let mut object = labelled(name, labels);
        object["spec"]["catalogSource"] = json!(if name < "c" { "one" } else { "two" });
        object["spec"]["packageName"] = json!("odd=,\\name");
        put(&api.store, object).await;
    }
    put(&api.store, package_in("other", "e")).await;
    api
}

/// Asserts what a selector selects, in a list and in the beginning of a watch.
async fn selects(api: &TestApi, path: &str, query: &str, expected: &[&str]) {
    let list = api.get(&format!("{path}?{query}")).await.expect(200);
    assert_eq!(objects::names(&list), expected, "{query}");
    // However small the pages.
    let mut paged = Vec::new();
    let mut token = String::new();
    loop {
        let page = api.get(&format!("{path}?{query}&limit=1&continue={token}")).await.expect(200);
        paged.extend(objects::names(&page).into_iter().map(str::to_owned));
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(paged, expected, "{query}");
    let events = Watch::open(api, &format!("{path}?watch=1&timeoutSeconds=1&{query}")).await.rest().await;
    let added: Vec<_> =
        events.iter().map(|event| event["object"]["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(added, expected, "{query}");
}

#[tokio::test(start_paused = true)]
async fn c028_c030_c031_c034_field_selectors() {
    let api = api().await;
    for (selector, expected) in [
        ("metadata.name=a", &["a"][..]),
        ("metadata.name==a", &["a"]),
        ("metadata.name!=a", &["b", "c", "d"]),
        ("metadata.name!=a,metadata.name!=b", &["c", "d"]),
        ("metadata.name=a,metadata.name=b", &[]),
        ("metadata.name=a,metadata.name!=a", &[]),
        ("metadata.name=x", &[]),
        ("metadata.name=", &[]),
        ("metadata.namespace=test,metadata.name=a", &["a"]),
        ("metadata.namespace=other", &[]),
        ("metadata.namespace!=other,metadata.name=a", &["a"]),
        ("spec.catalogSource=one", &["a", "b"]),
        ("spec.catalogSource!=one", &["c", "d"]),
        ("spec.catalogSource=one,metadata.name=b", &["b"]),
        (r"spec.packageName=odd\=\,\\name,spec.catalogSource=two", &["c", "d"]),
        ("spec.packageName=", &[]),
        ("", &["a", "b", "c", "d"]),
    ] {
        selects(&api, PACKAGES, &format!("fieldSelector={}", encoded(selector)), expected).await;
    }
    for (selector, expected) in [
        ("metadata.namespace=other", &["e"][..]),
        ("metadata.namespace=other,metadata.name=a", &[]),
        ("metadata.namespace=other,metadata.namespace=test", &[]),
        ("metadata.name=e", &["e"]),
        ("metadata.namespace!=test", &["e"]),
    ] {
        selects(&api, ALL_PACKAGES, &format!("fieldSelector={}", encoded(selector)), expected).await;
    }
    for selector in ["metadata.name", "metadata.name=a=b", r"metadata.name=\a", "=a", "metadata.name>a"] {
        for watch in ["", "&watch=1"] {
            let answer = api.get(&format!("{PACKAGES}?fieldSelector={}{watch}", encoded(selector))).await;
            assert_eq!(answer.expect(400)["reason"], "BadRequest", "{selector}");
        }
    }
}

#[tokio::test]
async fn c029_fields_that_are_not_declared_are_refused_and_named() {
    let api = api().await;
    for path in [PACKAGES.to_owned(), format!("{PACKAGES}?watch=1"), SOURCES.to_owned()] {
        let separator = if path.contains('?') { '&' } else { '?' };
        let body = api.get(&format!("{path}{separator}fieldSelector=spec.x%3D1")).await.expect(400);
        let message = body["message"].as_str().unwrap();
        let expected =
            r#""spec.x" is not a known field selector: only "metadata.name", "metadata.namespace""#;
        assert!(message.contains(expected), "{message}");
    }
    api.delete(&format!("{SOURCES}?fieldSelector=spec.x%3D1")).await.expect(400);
}

#[tokio::test(start_paused = true)]
async fn c032_c033_c034_label_selectors() {
    let api = api().await;
    for (selector, expected) in [
        ("tier=gold", &["a"][..]),
        ("tier==gold", &["a"]),
        ("tier!=gold", &["b", "c", "d"]),
        ("tier in (gold,silver)", &["a", "b"]),
        ("tier notin (gold)", &["b", "c", "d"]),
        ("tier notin (gold, silver)", &["c", "d"]),
        ("tier", &["a", "b"]),
        ("!tier", &["c", "d"]),
        ("n>5", &["b"]),
        ("n<6", &["a"]),
        ("n>4,n<11,tier", &["a", "b"]),
        ("n>0,!tier", &[]),
        ("example.com/x=", &["b"]),
        ("example.com/x in (,y)", &["b"]),
        ("tier=gold,tier=silver", &[]),
        (" tier = gold ", &["a"]),
    ] {
        selects(&api, PACKAGES, &format!("labelSelector={}", encoded(selector)), expected).await;
    }
    selects(&api, PACKAGES, "labelSelector=tier&fieldSelector=metadata.name%3Db", &["b"]).await;
    for selector in [
        "tier=gold,",
        "tier gold",
        "tier in gold",
        "tier in (gold",
        "n>x",
        "n<1.5",
        "=gold",
        "!",
        "-x=1",
        "a=b=c",
        "a==b==c",
        "a=b||c",
    ] {
        for watch in ["", "&watch=1"] {
            let answer = api.get(&format!("{PACKAGES}?labelSelector={}{watch}", encoded(selector))).await;
            let body = answer.expect(400);
            let message = body["message"].as_str().unwrap();
            assert!(message.contains("unable to parse requirement"), "{selector}: {message}");
        }
    }
}
