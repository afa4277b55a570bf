//! What there is, and what it looks like: discovery and OpenAPI (C243–C258).

use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::objects::SOURCES;
use crate::support::router::TestApi;

const GROUP: &str = "/apis/core.rukpak.io";
const VERSION: &str = "/apis/core.rukpak.io/v1beta1";
const OPENAPI: &str = "/openapi/v3/apis/core.rukpak.io/v1beta1";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

#[tokio::test]
async fn c243_groups_versions_and_resources() {
    let api = TestApi::new();
    let version = json!({"groupVersion": "core.rukpak.io/v1beta1", "version": "v1beta1"});
    let group = json!({"name": "core.rukpak.io", "versions": [version], "preferredVersion": version});
    let groups = api.get("/apis").await.expect(200);
    assert_eq!(groups, json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}));
    let mut single = api.get(GROUP).await.expect(200);
    assert_eq!((single["kind"].take(), single["apiVersion"].take()), (json!("APIGroup"), json!("v1")));
    single.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    assert_eq!(single, group);
    let list = api.get(VERSION).await.expect(200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("APIResourceList"), &json!("v1")));
    assert_eq!(list["groupVersion"], "core.rukpak.io/v1beta1");
    assert_eq!(api.get("/api").await.status, 404);
}

#[tokio::test]
async fn c244_resources_say_what_may_be_done() {
    let list = TestApi::new().get(VERSION).await.expect(200);
    let of = |name: &str| {
        let resources = list["resources"].as_array().unwrap();
        resources.iter().find(|resource| resource["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    let read = json!(["get", "list", "watch"]);
    let write = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
    for (name, singular, kind, verbs) in [
        ("catalogsources", "catalogsource", "CatalogSource", &write),
        ("catalogcaches", "catalogcache", "CatalogCache", &read),
        ("packages", "package", "Package", &read),
        ("bundlemetadata", "bundlemetadata", "BundleMetadata", &read),
    ] {
        let resource = of(name);
        assert_eq!((&resource["singularName"], &resource["kind"]), (&json!(singular), &json!(kind)));
        assert_eq!((&resource["verbs"], &resource["namespaced"]), (verbs, &json!(true)), "{name}");
        // Eight bytes, in base64.
        assert_eq!(resource["storageVersionHash"].as_str().unwrap().len(), 12);
    }
    assert_eq!(of("catalogsources/status")["verbs"], json!(["get", "patch", "update"]));
    assert_eq!(of("packages/icon")["verbs"], json!(["get"]));
    assert_eq!(of("packages")["shortNames"], json!(["pkg"]));
    // The first eight bytes of the SHA-256 of "core.rukpak.io/v1beta1/Package".
    use base64::Engine;
    use sha2::Digest;
    let hash = sha2::Sha256::digest("core.rukpak.io/v1beta1/Package");
    let expected = base64::engine::general_purpose::STANDARD.encode(&hash[..8]);
    assert_eq!(of("packages")["storageVersionHash"], expected);
}

#[tokio::test]
async fn c245_c246_c247_aggregated_discovery() {
    let api = TestApi::new();
    let client_go = format!(
        "{AGGREGATED},application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
    );
    for accept in [AGGREGATED, &client_go] {
        let answer = api.get("/apis").accept(accept).await;
        assert_eq!(answer.headers("content-type"), [AGGREGATED]);
        assert_eq!(
            (answer.headers("vary"), answer.headers("cache-control")),
            (vec!["Accept"], vec!["public"])
        );
        let etag = answer.headers("etag")[0].to_owned();
        assert_eq!(etag.len(), 130);
        assert!(
            etag.starts_with('"')
                && etag[1..129].bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
        );
        let list = answer.expect(200);
        assert_eq!(
            (&list["kind"], &list["apiVersion"]),
            (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
        );
        let [item] = &list["items"].as_array().unwrap()[..] else { panic!("{list}") };
        assert_eq!(item["metadata"]["name"], "core.rukpak.io");
        let version = &item["versions"][0];
        assert_eq!((&version["version"], &version["freshness"]), (&json!("v1beta1"), &json!("Current")));
        let resources = version["resources"].as_array().unwrap();
        let source = resources.iter().find(|resource| resource["resource"] == "catalogsources").unwrap();
        let kind = json!({"group": "core.rukpak.io", "version": "v1beta1", "kind": "CatalogSource"});
        assert_eq!(
            *source,
            json!({
                "resource": "catalogsources", "responseKind": kind, "scope": "Namespaced",
                "singularResource": "catalogsource", "shortNames": ["catsrc"],
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"]}],
            })
        );
        assert!(resources.iter().all(|resource| resource["responseKind"]["kind"].is_string()));

        let same = api.get("/apis").accept(accept).header("if-none-match", &etag).await;
        assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
        assert_eq!(same.headers("etag"), [&*etag]);
        let other = api.get("/apis").accept(accept).header("if-none-match", "\"X\"").await;
        assert_eq!(other.status, 200);
    }
    for accept in ["application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList", "*/*", ""] {
        let answer = api.get("/apis").accept(accept).await;
        assert_eq!(answer.headers("content-type"), ["application/json"], "{accept}");
        assert_eq!(answer.expect(200)["kind"], "APIGroupList");
    }
    api.get("/apis").accept("application/vnd.kubernetes.protobuf").await.expect(406);
}

#[tokio::test]
async fn c248_what_an_aggregator_falls_back_to_is_there() {
    let api = TestApi::new();
    let aggregator = packageserver::api::auth::User {
        name: "system:kube-aggregator".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..Default::default()
    };
    for path in ["/apis", VERSION, "/openapi/v2", "/openapi/v3"] {
        assert_eq!(api.get(path).user(Some(aggregator.clone())).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn c249_c254_a_patch_takes_what_its_description_says() {
    let api = TestApi::new();
    let document = api.get(OPENAPI).await.expect(200);
    let item = &document["paths"][&format!("{VERSION}/namespaces/{{namespace}}/catalogsources/{{name}}")];
    let patch = &item["patch"];
    let described: BTreeSet<_> =
        patch["requestBody"]["content"].as_object().unwrap().keys().cloned().collect();
    assert!(!described.contains("application/strategic-merge-patch+json"));
    for media_type in [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
        "application/strategic-merge-patch+json",
        "application/json",
        "application/apply-patch+cbor",
    ] {
        let body = if media_type.ends_with("json-patch+json") { "[]" } else { "{}" };
        let answer = api.call(Method::PATCH, &format!("{SOURCES}/none")).body(media_type, body).await;
        assert_eq!(answer.status != 415, described.contains(media_type), "{media_type}: {}", answer.text());
    }
    // At the operation, not at the path: that is where kubectl looks.
    let names = |parameters: &Value| {
        let parameters = parameters.as_array().into_iter().flatten();
        parameters.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for name in ["fieldValidation", "dryRun", "fieldManager", "force"] {
        assert!(names(&patch["parameters"]).contains(&name.to_owned()), "{name}");
        assert!(!names(&item["parameters"]).contains(&name.to_owned()), "{name}");
    }
}

#[tokio::test]
async fn c250_c251_openapi_v3_is_found_by_its_hash() {
    let api = TestApi::new();
    let index = api.get("/openapi/v3").await;
    let etag = index.headers("etag")[0].to_owned();
    let index = index.expect(200);
    let url = index["paths"]["apis/core.rukpak.io/v1beta1"]["serverRelativeURL"].as_str().unwrap();
    let hash = url.strip_prefix(&format!("{OPENAPI}?hash=")).unwrap();
    assert!(
        hash.len() == 128 && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
    );
    assert_eq!(api.get("/openapi/v3").header("if-none-match", &etag).await.status, 304);
    api.get("/openapi/v3").accept("application/xml").await.expect(406);

    let right = api.get(url).await;
    assert_eq!(right.status, 200);
    assert_eq!(right.headers("cache-control"), ["public, immutable"]);
    let expires = right.headers("expires")[0];
    let expires =
        httpdate::parse_http_date(expires).unwrap().duration_since(std::time::SystemTime::now()).unwrap();
    assert_eq!(expires.as_secs().div_ceil(86_400), 365);
    {
        use sha2::Digest;
        let digest = sha2::Sha512::digest(&right.body);
        assert_eq!(digest.iter().map(|byte| format!("{byte:02X}")).collect::<String>(), hash);
    }
    for path in [OPENAPI.to_owned(), format!("{OPENAPI}?hash=WRONG")] {
        let answer = api.get(&path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers("cache-control")),
            (200, vec!["no-cache, private"])
        );
        assert!(answer.headers("location").is_empty());
        let etag = answer.headers("etag")[0].to_owned();
        assert_eq!(etag, format!("\"{hash}\""));
        assert_eq!(answer.body, right.body);
        assert_eq!(api.get(&path).header("if-none-match", &etag).await.status, 304);
    }
    for (accept, status) in [
        ("application/json", 200),
        ("*/*", 200),
        ("application/com.github.proto-openapi.spec.v3.v1.0+protobuf", 406),
        ("application/com.github.proto-openapi.spec.v3.v1.0+protobuf,application/json", 200),
    ] {
        assert_eq!(api.get(OPENAPI).accept(accept).await.status, status, "{accept}");
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn c252_c256_every_kind_is_described_and_every_reference_resolves() {
    let api = TestApi::new();
    for (path, schemas, prefix) in [
        (OPENAPI, "/components/schemas", "#/components/schemas/"),
        ("/openapi/v2", "/definitions", "#/definitions/"),
    ] {
        let document = api.get(path).await.expect(200);
        let definitions = document.pointer(schemas).unwrap();
        for kind in ["CatalogSource", "CatalogCache", "Package", "BundleMetadata"] {
            for kind in [kind.to_owned(), format!("{kind}List")] {
                let definition = &definitions[&format!("io.rukpak.core.v1beta1.{kind}")];
                let expected = json!([{"group": "core.rukpak.io", "version": "v1beta1", "kind": kind}]);
                assert_eq!(definition["x-kubernetes-group-version-kind"], expected, "{kind}");
            }
        }
        for kind in ["ObjectMeta", "ListMeta", "DeleteOptions", "Patch", "Status", "WatchEvent"] {
            assert!(definitions[&format!("{META}.{kind}")].is_object(), "{kind}");
        }
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let name = reference.strip_prefix(prefix).unwrap_or_else(|| panic!("{reference}"));
            assert!(definitions[name].is_object(), "{name}");
        }
    }
}

#[tokio::test]
async fn c253_operations_say_of_what_and_for_what_they_are() {
    let api = TestApi::new();
    for path in [OPENAPI, "/openapi/v2"] {
        let document = api.get(path).await.expect(200);
        for (plural, kind, on_collection, on_item) in [
            (
                "catalogsources",
                "CatalogSource",
                &[("get", "list"), ("post", "post"), ("delete", "deletecollection")][..],
                &[("get", "get"), ("put", "put"), ("patch", "patch"), ("delete", "delete")][..],
            ),
            ("packages", "Package", &[("get", "list")], &[("get", "get")]),
            ("catalogcaches", "CatalogCache", &[("get", "list")], &[("get", "get")]),
            ("bundlemetadata", "BundleMetadata", &[("get", "list")], &[("get", "get")]),
        ] {
            let collection = format!("{VERSION}/namespaces/{{namespace}}/{plural}");
            let expected = json!({"group": "core.rukpak.io", "version": "v1beta1", "kind": kind});
            for (path, operations) in [
                (format!("{collection}/{{name}}"), on_item),
                (collection, on_collection),
                (format!("{VERSION}/{plural}"), &[("get", "list")]),
            ] {
                let item = document["paths"][&path].as_object().unwrap_or_else(|| panic!("{path}"));
                let methods: BTreeSet<_> =
                    item.keys().filter(|name| *name != "parameters").cloned().collect();
                assert_eq!(
                    methods,
                    operations.iter().map(|(method, _)| (*method).to_owned()).collect(),
                    "{path}"
                );
                for (method, action) in operations {
                    assert_eq!(item[*method]["x-kubernetes-group-version-kind"], expected, "{method} {path}");
                    assert_eq!(item[*method]["x-kubernetes-action"], *action, "{method} {path}");
                }
            }
        }
        let mut ids = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in
                item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters")
            {
                if let Some(id) = operation["operationId"].as_str() {
                    assert!(ids.insert(id.to_owned()), "{id} of {method} {path} is there twice");
                }
            }
        }
        assert!(ids.len() > 10);
    }
}

#[tokio::test]
async fn c255_c256_c257_openapi_v2_for_those_who_fall_back() {
    let api = TestApi::new();
    let answer = api.get("/openapi/v2").await;
    assert_eq!(answer.headers("content-type"), ["application/json"]);
    assert!(answer.headers("vary").contains(&"Accept"));
    let etag = answer.headers("etag")[0].to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'));
    let document = answer.expect(200);
    assert_eq!(document["swagger"], "2.0");
    assert!(document["paths"].as_object().unwrap().keys().all(|path| path.starts_with(VERSION)));
    let same = api.get("/openapi/v2").header("if-none-match", &etag).await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
    for (accept, status) in [
        ("application/com.github.proto-openapi.spec.v2.v1.0+protobuf", 406),
        ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", 406),
        ("application/com.github.proto-openapi.spec.v2.v1.0+protobuf,application/json;q=0.5", 200),
        ("*/*", 200),
    ] {
        assert_eq!(api.get("/openapi/v2").accept(accept).await.status, status, "{accept}");
    }
    // Names carry the group, so that they clash with nobody's.
    for name in document["definitions"].as_object().unwrap().keys() {
        assert!(name.starts_with("io.rukpak.core.") || name.starts_with(META), "{name}");
    }
}

#[tokio::test]
async fn c258_lists_say_how_they_are_merged() {
    let document = TestApi::new().get(OPENAPI).await.expect(200);
    let schemas = &document["components"]["schemas"];
    let of = |kind: &str, field: &str| schemas[kind]["properties"][field].clone();
    let channels = of("io.rukpak.core.v1beta1.PackageSpec", "channels");
    assert_eq!(
        (&channels["x-kubernetes-list-type"], &channels["x-kubernetes-list-map-keys"]),
        (&json!("map"), &json!(["name"]))
    );
    let conditions = of("io.rukpak.core.v1beta1.CatalogSourceStatus", "conditions");
    assert_eq!(
        (&conditions["x-kubernetes-list-type"], &conditions["x-kubernetes-list-map-keys"]),
        (&json!("map"), &json!(["type"]))
    );
    let owners = of(&format!("{META}.ObjectMeta"), "ownerReferences");
    assert_eq!(
        (&owners["x-kubernetes-list-type"], &owners["x-kubernetes-list-map-keys"]),
        (&json!("map"), &json!(["uid"]))
    );
    // Every list says so: none is left to be guessed.
    for (name, schema) in
        schemas.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("io.rukpak"))
    {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            if property["type"] == "array" && field != "items" {
                assert!(property["x-kubernetes-list-type"].is_string(), "{name}.{field}");
            }
        }
    }
}

#[tokio::test]
async fn c254_openapi_is_compressed_like_everything_that_is_large() {
    let api = TestApi::new();
    let plain = api.get("/openapi/v2").await;
    let packed = api.get("/openapi/v2").header("accept-encoding", "gzip").await;
    let is_large = plain.body.len() > 131_072;
    assert_eq!(packed.headers("content-encoding") == ["gzip"], is_large);
    assert_eq!(packed.headers("etag"), plain.headers("etag"));
}
