//! What an answer looks like: JSON, YAML, tables, metadata, compressed (C35–C52).

use std::io::Read;

use axum::body::HttpBody;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::objects::{self, ALL_PACKAGES, PACKAGES, SOURCES, package, put, version};
use crate::support::router::{Answer, TestApi};
use crate::support::watching::Watch;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

/// What kubectl asks for.
const KUBECTL: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                       application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

async fn api() -> TestApi {
    let api = TestApi::new();
    for name in ["a", "b", "c"] {
        put(&api.store, package(name)).await;
    }
    api
}

fn media_type(answer: &Answer) -> &str {
    answer.headers("content-type")[0]
}

#[tokio::test]
async fn c035_c036_c050_the_first_format_that_there_is() {
    let api = api().await;
    let item = format!("{PACKAGES}/a");
    for (accept, expected) in [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json;charset=utf-8", "application/json"),
        ("application/yaml", "application/yaml"),
        ("application/yaml,application/json", "application/yaml"),
        ("application/yaml;q=0.5,application/json", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json"),
        ("application/json;q=0,application/yaml", "application/yaml"),
    ] {
        for path in [PACKAGES, &item] {
            let answer = api.get(path).accept(accept).await;
            assert_eq!((answer.status.as_u16(), media_type(&answer)), (200, expected), "{accept}");
        }
    }
    let yaml = api.get(&item).accept("application/yaml").await;
    let value: Value = serde_saphyr::from_str(&yaml.text()).unwrap();
    assert_eq!(value, api.get(&item).await.json());
    let yaml = api.get(PACKAGES).accept("application/yaml").await;
    let value: Value = serde_saphyr::from_str(&yaml.text()).unwrap();
    assert_eq!(value, api.get(PACKAGES).await.json());

    let body = api.get(PACKAGES).accept("text/html").await.expect(406);
    assert_eq!(
        body["message"],
        "only the following media types are accepted: application/json, application/yaml"
    );
}

#[tokio::test]
async fn c037_c038_binary_formats_fall_through() {
    let api = api().await;
    for format in ["application/vnd.kubernetes.protobuf", "application/cbor"] {
        api.get(PACKAGES).accept(format).await.expect(406);
        let answer = api.get(PACKAGES).accept(&format!("{format},application/json")).await;
        assert_eq!((answer.status.as_u16(), media_type(&answer)), (200, "application/json"));
        let metadata = format!(
            "{format};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{PARTIAL_LIST},application/json"
        );
        assert_eq!(
            api.get(PACKAGES).accept(&metadata).await.expect(200)["kind"],
            "PartialObjectMetadataList"
        );
        api.get(PACKAGES).accept(&format!("{format};as=Table;g=meta.k8s.io;v=v1")).await.expect(406);
    }
}

#[tokio::test]
async fn c039_c044_c046_c048_tables() {
    let api = api().await;
    let list = api.get(&format!("{PACKAGES}?limit=2")).accept(KUBECTL).await;
    assert_eq!(media_type(&list), "application/json");
    let list = list.expect(200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(version(&list), objects::current(&api.store).await);
    assert!(list["metadata"]["continue"].is_string());
    assert_eq!(list["metadata"]["remainingItemCount"], 1);
    let columns = list["columnDefinitions"].as_array().unwrap();
    assert_eq!(columns[0]["name"], "Name");
    assert_eq!(
        (&columns[0]["type"], &columns[0]["format"], &columns[0]["priority"]),
        (&json!("string"), &json!("name"), &json!(0))
    );
    for column in columns {
        assert_eq!(column.as_object().unwrap().len(), 5, "{column}");
        assert!(column["description"].as_str().is_some_and(|text| !text.is_empty()));
    }
    let named: Vec<_> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(
        named,
        [
            "Name",
            "Catalog",
            "Channel",
            "Version",
            "Age",
            "Display Name",
            "Provider",
            "Channels",
            "Bundles",
            "Deprecated"
        ]
    );
    let rows = list["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let cells = rows[0]["cells"].as_array().unwrap();
    assert_eq!(cells[..4], [json!("a"), json!("catalog"), json!("stable"), json!("2.0.0")]);
    assert_eq!(cells[5..], [json!("The a"), json!("Example"), json!("stable"), json!(2), json!("")]);

    let beta =
        api.get(PACKAGES).accept("application/json;as=Table;v=v1beta1;g=meta.k8s.io").await.expect(200);
    assert_eq!(beta["apiVersion"], "meta.k8s.io/v1beta1");
    let yaml = api.get(PACKAGES).accept("application/yaml;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(media_type(&yaml), "application/yaml");
    assert!(yaml.text().contains("kind: Table"));

    let single = api.get(&format!("{PACKAGES}/b")).accept(TABLE).await.expect(200);
    assert_eq!(single["rows"].as_array().unwrap().len(), 1);
    assert_eq!(single["rows"][0]["cells"][0], "b");
    assert_eq!(version(&single), version(&api.get(&format!("{PACKAGES}/b")).await.expect(200)));

    let empty = api.get(SOURCES).accept(TABLE).await.expect(200);
    assert_eq!(empty["rows"], json!([]));
    assert!(empty["columnDefinitions"].as_array().is_some_and(|columns| columns.len() > 3));
}

#[tokio::test]
async fn c040_c041_metadata_only() {
    let api = api().await;
    let mut object = package("d");
    object["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Apply"}]);
    object["metadata"]["annotations"] = json!({"x": "{\"metadata\":{}}"});
    put(&api.store, object).await;
    let item = format!("{PACKAGES}/d");

    let full = api.get(&item).await.expect(200);
    let partial = api.get(&item).accept(PARTIAL).await.expect(200);
    let expected = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": full["metadata"]});
    assert_eq!(partial, expected);

    let list = api.get(&format!("{PACKAGES}?limit=3")).accept(PARTIAL_LIST).await.expect(200);
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!(version(&list), objects::current(&api.store).await);
    assert!(list["metadata"]["continue"].is_string());
    assert_eq!(list["metadata"]["remainingItemCount"], 1);
    assert_eq!(objects::names(&list), ["a", "b", "c"]);
    assert!(list["items"].as_array().unwrap().iter().all(|item| item.as_object().unwrap().len() == 3));

    let beta = PARTIAL.replace("v=v1", "v=v1beta1");
    assert_eq!(api.get(&item).accept(&beta).await.expect(200)["apiVersion"], "meta.k8s.io/v1beta1");
    let watch = format!("{PACKAGES}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dd");
    let event = Watch::of(api.get(&watch).accept(PARTIAL)).await.next().await.unwrap();
    assert_eq!(event, json!({"type": "ADDED", "object": expected}));

    for (path, accept) in [
        (PACKAGES, PARTIAL),
        (&item, PARTIAL_LIST),
        (PACKAGES, "application/json;as=Table;g=meta.k8s.io;v=v2"),
        (PACKAGES, "application/json;as=Table;g=other;v=v1"),
        (PACKAGES, "application/json;as=Chair;g=meta.k8s.io;v=v1"),
        (&watch, PARTIAL_LIST),
    ] {
        api.get(path).accept(accept).await.expect(406);
        if path != watch {
            api.get(path).accept(&format!("{accept},application/json")).await.expect(200);
        }
    }
}

#[tokio::test]
async fn c042_what_a_write_answers_is_transformed_too() {
    let api = TestApi::new();
    let object = json!({"metadata": {"name": "s"}, "spec": {"image": "example.com/a:b"}});
    let created = api.post(SOURCES, &object).accept(TABLE).await.expect(201);
    assert_eq!((&created["kind"], &created["rows"][0]["cells"][0]), (&json!("Table"), &json!("s")));
    let item = format!("{SOURCES}/s");
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let patched = api.patch(&item, "merge-patch+json", &patch).accept(PARTIAL).await.expect(200);
    assert_eq!(
        (&patched["kind"], &patched["metadata"]["labels"]["a"]),
        (&json!("PartialObjectMetadata"), &json!("b"))
    );
    let deleted = api.delete(&item).accept(TABLE).await.expect(200);
    assert_eq!((&deleted["kind"], &deleted["status"]), (&json!("Status"), &json!("Success")));
}

#[tokio::test]
async fn c043_what_rows_carry() {
    let api = api().await;
    let row = async |query: &str| {
        let path = format!("{PACKAGES}?limit=1&{query}");
        api.get(&path).accept(TABLE).await.expect(200)["rows"][0]["object"].clone()
    };
    for query in ["", "includeObject=", "includeObject=Metadata"] {
        let object = row(query).await;
        assert_eq!(
            (&object["kind"], &object["apiVersion"]),
            (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1"))
        );
        assert_eq!(object["metadata"]["name"], "a");
        assert_eq!(object["spec"], Value::Null);
    }
    assert_eq!(row("includeObject=None").await, Value::Null);
    assert_eq!(row("includeObject=Object").await, api.get(&format!("{PACKAGES}/a")).await.json());
    for path in [PACKAGES.to_owned(), format!("{PACKAGES}/a"), format!("{PACKAGES}?watch=1")] {
        let separator = if path.contains('?') { '&' } else { '?' };
        api.get(&format!("{path}{separator}includeObject=Most")).accept(TABLE).await.expect(400);
    }
}

#[tokio::test]
async fn c045_ages_are_told_at_the_time_of_asking() {
    let api = TestApi::new();
    let mut fresh = package("fresh");
    fresh["metadata"]["creationTimestamp"] = json!(jiff::Timestamp::now().to_string());
    put(&api.store, fresh).await;
    let mut ageless = package("ageless");
    ageless["metadata"]["creationTimestamp"] = Value::Null;
    put(&api.store, ageless).await;
    let old = package("old");
    put(&api.store, old).await;
    let ages = async || {
        let table = api.get(PACKAGES).accept(TABLE).await.expect(200);
        let rows = table["rows"].as_array().unwrap().clone();
        rows.iter().map(|row| row["cells"][4].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = ages().await;
    assert_eq!(first[0], "<unknown>");
    assert!(first[1].ends_with('s'), "{first:?}");
    assert!(first[2].contains('y') || first[2].ends_with('d'), "{first:?}");
    // Cells are kept, ages are not.
    let start = std::time::Instant::now();
    while ages().await[1] == first[1] {
        assert!(start.elapsed() < crate::support::PATIENCE, "an age stands still");
    }
}

#[tokio::test]
async fn c047_a_watch_of_tables() {
    let api = api().await;
    let path = format!("{PACKAGES}?watch=1&allowWatchBookmarks=1&limit=500");
    let mut watch = Watch::of(api.get(&path).accept(KUBECTL)).await;
    for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
        let event = watch.next().await.unwrap();
        let table = &event["object"];
        assert_eq!((&event["type"], &table["kind"]), (&json!("ADDED"), &json!("Table")));
        assert_eq!(table["columnDefinitions"].is_array(), index == 0, "columns are in the first event");
        assert_eq!(table["rows"].as_array().unwrap().len(), 1);
        let row = &table["rows"][0];
        assert_eq!(
            (&row["cells"][0], &row["object"]["kind"]),
            (&json!(name), &json!("PartialObjectMetadata"))
        );
        assert_eq!(version(table), version(&row["object"]));
    }
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let row = &bookmark["object"]["rows"][0];
    assert_eq!(row["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(version(&row["object"]), objects::current(&api.store).await);
    assert_eq!(version(&bookmark["object"]), version(&row["object"]));
    assert_eq!(row["cells"].as_array().unwrap().len(), 10);

    let deleted = objects::delete(&api.store, "b").await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["rows"][0]["cells"][0]), (&json!("DELETED"), &json!("b")));
    assert_eq!(version(&event["object"]), deleted);

    // An error is a Status, whatever was asked for.
    let compacted = objects::current(&api.store).await / 1000;
    api.store.compact(packageserver::store::Revision::new(compacted)).await.unwrap();
    let mut expired =
        Watch::of(api.get(&format!("{PACKAGES}?watch=1&resourceVersion=1001")).accept(KUBECTL)).await;
    let event = expired.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ERROR"), &json!("Status")));
}

#[tokio::test]
async fn c049_bodies_in_formats_that_are_not_read() {
    let api = TestApi::new();
    let json = r#"{"metadata":{"name":"j"},"spec":{"image":"example.com/a:b"}}"#;
    let yaml = "metadata: {name: yaml}\nspec: {image: example.com/a:b}\n";
    let create = |media_type: &str, body: &'static str| {
        api.call(axum::http::Method::POST, SOURCES).body(media_type, body)
    };
    create("application/json", json).await.expect(201);
    create("application/yaml", yaml).await.expect(201);
    create("", r#"{"metadata":{"name":"n"},"spec":{"image":"example.com/a:b"}}"#).await.expect(201);
    let body = create("text/plain", json).await.expect(415);
    assert_eq!(body["reason"], "UnsupportedMediaType");
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("application/json") && message.contains("application/yaml"), "{message}");
}

/// A list of packages whose JSON has exactly so many bytes.
async fn sized(bytes: usize) -> TestApi {
    let api = TestApi::new();
    let mut object = package("p");
    object["spec"]["keywords"] = json!(["x"]);
    put(&api.store, object.clone()).await;
    let missing = bytes - api.get(ALL_PACKAGES).await.body.len();
    object["spec"]["keywords"] = json!(["x".repeat(missing + 1)]);
    put(&api.store, object).await;
    assert_eq!(api.get(ALL_PACKAGES).await.body.len(), bytes);
    api
}

fn unpacked(body: &Bytes) -> Vec<u8> {
    let mut text = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "a body of the test's own")]
    flate2::read::MultiGzDecoder::new(&body[..]).read_to_end(&mut text).expect("it is gzip");
    text
}

#[tokio::test]
async fn c051_large_answers_are_compressed_for_those_who_take_it() {
    const THRESHOLD: usize = 131_072;
    for (bytes, is_packed) in [(THRESHOLD - 1, false), (THRESHOLD, false), (THRESHOLD + 1, true)] {
        let api = sized(bytes).await;
        let plain = api.get(ALL_PACKAGES).await;
        assert!(plain.headers("content-encoding").is_empty());
        let answer = api.get(ALL_PACKAGES).header("accept-encoding", "deflate, gzip").await;
        if !is_packed {
            assert!(answer.headers("content-encoding").is_empty(), "{bytes}");
            assert_eq!(answer.body, plain.body);
            continue;
        }
        assert_eq!(answer.headers("content-encoding"), ["gzip"]);
        assert_eq!(answer.headers("vary"), ["Accept-Encoding"]);
        assert_eq!(answer.headers("content-type"), ["application/json"]);
        assert!(answer.body.len() < bytes / 10);
        assert_eq!(unpacked(&answer.body), plain.body);
        for encodings in ["gzip;q=1.0", "br", "deflate", "identity", "*"] {
            let answer = api.get(ALL_PACKAGES).header("accept-encoding", encodings).await;
            assert!(answer.headers("content-encoding").is_empty(), "{encodings}");
        }
        let watch = api
            .get(&format!("{ALL_PACKAGES}?watch=1&timeoutSeconds=1"))
            .header("accept-encoding", "gzip")
            .await;
        assert!(watch.headers("content-encoding").is_empty());
        assert!(watch.text().starts_with("{\"type\":\"ADDED\""));
    }
}

#[tokio::test]
async fn c051_c052_long_lists_are_streamed_and_compressed_in_one_shape() {
    let api = TestApi::new();
    for batch in 0..12 {
        let writes =
            (0..100).map(|number| objects::Write::Put(package(&format!("p{:04}", batch * 100 + number))));
        objects::commit(&api.store, writes.collect()).await;
    }
    let response = api.get(ALL_PACKAGES).response().await;
    assert_eq!(response.body().size_hint().exact(), None, "it is written while it is sent");
    let plain = api.get(ALL_PACKAGES).await;
    let text = plain.text();
    let head = format!(
        r#"{{"kind":"PackageList","apiVersion":"core.rukpak.io/v1beta1","metadata":{{"resourceVersion":"{}"}},"items":[{{"#,
        objects::current(&api.store).await
    );
    assert!(text.starts_with(&head), "{}", &text[..200]);
    assert!(text.ends_with("}}]}"));
    let list = plain.expect(200);
    assert_eq!(objects::names(&list).len(), 1200);
    let packed = api.get(ALL_PACKAGES).header("accept-encoding", "gzip").await;
    assert_eq!(packed.headers("content-encoding"), ["gzip"]);
    assert_eq!(unpacked(&packed.body), plain.body);
    // The same in the other forms.
    for accept in [TABLE, PARTIAL_LIST, "application/yaml"] {
        let plain = api.get(ALL_PACKAGES).accept(accept).await;
        let packed = api.get(ALL_PACKAGES).accept(accept).header("accept-encoding", "gzip").await;
        assert_eq!(packed.headers("content-encoding"), ["gzip"], "{accept}");
        assert_eq!(unpacked(&packed.body).len(), plain.body.len(), "{accept}");
    }
    let pretty = api.get(&format!("{ALL_PACKAGES}?pretty=1")).await;
    assert_eq!(pretty.json(), list);
}
