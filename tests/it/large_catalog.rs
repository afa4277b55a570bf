//! A large catalog on etcd: what its events can be resumed from, what room it takes, and what a refresh of it writes.

use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use packageserver::store::{Key, Range, Store};
use serde_json::{Value, json};

use crate::support::catalog::LargePair;
use crate::support::ingest::changes;
use crate::support::record::Seen;
use crate::support::registry::Registry;
use crate::support::server::{Kind, Server, get};
use crate::support::{catalog, eventually, rounds};

const API: &str = "/apis/core.rukpak.io/v1beta1/namespaces/test";

/// What etcd's database may take.
const ROOM: i64 = 64 << 20;

/// Locks are written too when they change hands: here nobody is so slow that they do.
const PATIENT: &str = "--lease-duration=10s";

fn source(image: &str) -> String {
    json!({
        "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {"name": "large", "namespace": "test"},
        "spec": {"image": image},
    })
    .to_string()
}

/// Waits until a CatalogSource says that a refresh was followed, and that an image of this digest is served.
async fn settled(store: &dyn Store, digest: &str, refresh: Option<&str>) -> Value {
    let key = Key::new("catalogsources", "test", "large");
    eventually(&format!("{digest} to be served"), || async {
        let stored = store.get(&key).await.ok()??;
        let source: Value = serde_json::from_slice(stored.object.head()).expect("objects are JSON");
        let status = &source["status"];
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let is_idle = conditions
            .iter()
            .any(|condition| condition["type"] == "Progressing" && condition["status"] == "False");
        let is_served = status["resolvedImage"].as_str().unwrap_or_default().ends_with(digest);
        let is_followed = status["observedRefresh"].as_str() == refresh;
        (is_idle && is_served && is_followed).then(|| source.clone())
    })
    .await
}

/// Reads so many events of a resource after a version, as the API sends them to a client that wants no more than metadata.
async fn events(client: &kube::Client, resource: &str, after: u64, count: usize) -> Vec<Seen> {
    let path = format!("{API}/{resource}?watch=true&resourceVersion={after}&timeoutSeconds=300");
    let request = http::Request::get(path)
        .header("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        .body(Vec::new())
        .expect("a path is a URL");
    let lines = client.request_stream(request).await.expect("a watch is answered").lines();
    let seen = lines.take(count).map_ok(|line| {
        let event: Value = serde_json::from_str(&line).expect("events are JSON");
        let metadata = &event["object"]["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = text(&metadata["resourceVersion"]).parse().unwrap_or_else(|_| panic!("{event}"));
        (version, text(&event["type"]), text(&metadata["name"]))
    });
    let seen = tokio::time::timeout(Duration::from_secs(120), seen.try_collect()).await;
    seen.expect("the events come").expect("the watch goes on")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_a_large_ingest_can_be_resumed_from() {
    let large = catalog::large();
    let registry = Registry::start().await;
    let digest = registry.push("catalog", "v1", &large.image).await;
    let mut server = Server::start_as(Kind::OnEtcd, &[]).await;
    let store = server.etcd().store();
    let start = store.current().await.unwrap().get();
    server.kubectl().run_with("apply -f -", &source(&registry.reference("catalog", "v1")));
    settled(&store, digest.as_str(), None).await;

    let client = server.client().await;
    let packages = events(&client, "packages", start, large.packages).await;
    let bundles = events(&client, "bundlemetadata", start, large.bundles).await;
    for all in [&packages, &bundles] {
        assert!(all.is_sorted_by(|a, b| a.0 < b.0), "versions rise in the order of the watch");
        assert!(all.iter().all(|(_, kind, _)| kind == "ADDED"));
    }
    let mut versions: Vec<_> = packages.iter().chain(&bundles).map(|(version, ..)| *version).collect();
    versions.sort_unstable();
    assert!(versions.is_sorted_by(|a, b| a < b), "no two events share one");
    assert_eq!(versions.len(), large.packages + large.bundles);

    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut draw = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    // A batch has both, so that a version of the one is inside of what the other one has to resume from.
    let points: Vec<_> = (0..rounds(24, 500)).map(|_| versions[draw(versions.len())]).collect();
    let resume = |point: u64| {
        let (client, packages, bundles) = (&client, &packages, &bundles);
        async move {
            for (resource, all) in [("packages", packages), ("bundlemetadata", bundles)] {
                let rest = &all[all.partition_point(|(version, ..)| *version <= point)..];
                let resumed = events(client, resource, point, rest.len()).await;
                assert!(resumed == rest, "{resource} resumed from {point}");
            }
        }
    };
    stream::iter(points).map(resume).buffer_unordered(4).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_catalog_takes_little_room_and_what_is_stored_is_not_written_again() {
    let large = catalog::large();
    let registry = Registry::start().await;
    let digest = registry.push("catalog", "v1", &large.image).await;
    let mut server = Server::start_as(Kind::OnEtcd, &[PATIENT]).await;
    let store = server.etcd().store();
    server.kubectl().run_with("apply -f -", &source(&registry.reference("catalog", "v1")));
    settled(&store, digest.as_str(), None).await;

    for (refresh, restarts) in [("once", false), ("again", true)] {
        if restarts {
            server.etcd().restart(0).await;
            server.restart().await;
        }
        let before = store.current().await.unwrap();
        let (kubectl, asked) = (server.kubectl(), registry.requests().len());
        let annotate = "annotate catalogsource large -n test --overwrite core.rukpak.io/refresh-requested-at";
        kubectl.run(&format!("{annotate}={refresh}"));
        settled(&store, digest.as_str(), Some(refresh)).await;
        assert_eq!(registry.requests()[asked..], ["HEAD /v2/catalog/manifests/v1 200"]);
        // Of all there is, the CatalogSource alone was written since: the annotation, and the status.
        let written = changes(&store, Range::everything(), before).await;
        let written: Vec<_> = written.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(written, ["catalogsources/test/large"; 2]);
        // After a restart, the locks are written as well.
        let rise = store.current().await.unwrap().revision().get() - before.revision().get();
        assert!(rise == 2 || restarts, "{rise} revisions");
    }

    store.compact(store.current().await.unwrap().revision()).await.unwrap();
    let mut etcd = server.etcd().client().await;
    etcd.defragment().await.unwrap();
    let size = etcd.status().await.unwrap().db_size();
    assert!(size < ROOM, "{size} bytes");
    eprintln!("etcd's database with the large catalog: {:.1} MiB", size as f64 / f64::from(1 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_bundle_of_a_large_catalog_is_one_event() {
    let LargePair { old, new, bundle, image } = catalog::large_pair();
    let registry = Registry::start().await;
    let digest = registry.push("catalog", "latest", &old.image).await;
    let mut server = Server::start_as(Kind::OnEtcd, &[PATIENT]).await;
    let store = server.etcd().store();
    let kubectl = server.kubectl();
    kubectl.run_with("apply -f -", &source(&registry.reference("catalog", "latest")));
    settled(&store, digest.as_str(), None).await;

    let digest = registry.push("catalog", "latest", &new.image).await;
    let before = store.current().await.unwrap();
    kubectl.run("annotate catalogsource large -n test core.rukpak.io/refresh-requested-at=now");
    let settled = settled(&store, digest.as_str(), Some("now")).await;
    let summary = &settled["status"]["lastIngest"];
    let objects = new.packages + new.bundles;
    for (name, expected) in [("added", 0), ("modified", 1), ("deleted", 0), ("unchanged", objects - 1)] {
        assert_eq!(summary[name], expected, "{name}: {summary}");
    }
    let client = server.client().await;
    let mut changes = Vec::new();
    for resource in ["packages", "bundlemetadata"] {
        let path = format!("{API}/{resource}?watch=true&resourceVersion={before}&timeoutSeconds=1");
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        for event in client.request_text(request).await.unwrap().lines() {
            let event: Value = serde_json::from_str(event).unwrap();
            changes.push(format!("{} {}", event["type"], event["object"]["metadata"]["name"]));
        }
    }
    assert_eq!(changes, [format!("\"MODIFIED\" {:?}", bundle)]);
    let path = format!("{API}/bundlemetadata/{bundle}");
    assert_eq!(get(&client, &path).await["spec"]["image"], image);
    // One for the annotation; the rest is what the refresh may cost.
    let rise = store.current().await.unwrap().revision().get() - before.revision().get() - 1;
    assert!(rise <= 1 + 2, "{rise} revisions for one changed object");
}
