//! Wall clocks that are set forward and back while everything runs: locks, polls, ingests and watches do not care.

use futures::future::join;
use packageserver::store::{Key, Store};
use serde_json::{Value, json};

use crate::support::catalog::CatalogBuilder;
use crate::support::clock::Clock;
use crate::support::etcd::{Etcd, Version};
use crate::support::eventually;
use crate::support::fake_registry::FakeRegistry;
use crate::support::record::{Recorder, watch_once};
use crate::support::server::{Server, get};

const HEADS: &str = "HEAD /v2/catalog/manifests/";

fn source(registry: &FakeRegistry, name: &str, interval: &str) -> String {
    json!({
        "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {"image": registry.reference("catalog", name), "pollingInterval": interval},
    })
    .to_string()
}

/// Returns how often a tag was asked for.
fn polls(registry: &FakeRegistry, tag: &str) -> usize {
    let wanted = format!("{HEADS}{tag}");
    registry.requests().iter().filter(|request| **request == wanted).count()
}

async fn is_polled_again(registry: &FakeRegistry, tag: &str, what: &str) {
    let before = polls(registry, tag);
    eventually(&format!("polls after {what}"), || async {
        (polls(registry, tag) >= before + 3).then_some(())
    })
    .await;
}

/// Puts a catalog of so many bundles under a tag.
fn push(registry: &FakeRegistry, tag: &str, bundles: usize) -> String {
    let image = CatalogBuilder::default().package("one", bundles).image();
    registry.push("catalog", tag, &image).as_str().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_whose_clock_is_set_keeps_its_locks_and_polls_and_ingests_as_before() {
    let etcd = Etcd::start(Version::Built).await;
    let (store, endpoints) = (etcd.store(), etcd.endpoints());
    let mut server = Server::start_on(Some(etcd), 0, &[]).await;
    server.add_apiserver(&endpoints, &["--min-polling-interval=1s"]);
    let clock = Clock::new();
    let arguments = ["--min-polling-interval=1s", "--lease-duration=5s"];
    let controller = server.add_controller(&endpoints, &arguments);
    server.restart_with(controller, &clock);
    server.ready().await;
    let registry = FakeRegistry::start().await;
    push(&registry, "often", 1);
    push(&registry, "seldom", 1);
    let kubectl = server.kubectl();
    kubectl.run_with("apply -f -", &source(&registry, "often", "1s"));
    kubectl.run_with("apply -f -", &source(&registry, "seldom", "24h"));
    kubectl.run("wait catalogsource/often catalogsource/seldom -n test --for=condition=Ready --timeout=60s");
    let seldom = polls(&registry, "seldom");
    let key = Key::new("catalogsources", "test", "often");
    let read = async || -> Value {
        let stored = store.get(&key).await.expect("etcd answers").expect("it is there");
        serde_json::from_slice(stored.object.head()).expect("objects are JSON")
    };
    for (round, offset) in ["+3650d", "-3650d", "+50m", "+0"].into_iter().enumerate() {
        clock.set(offset);
        is_polled_again(&registry, "often", offset).await;
        let digest = push(&registry, "often", round + 2);
        let found = eventually(&format!("an ingest at {offset}"), || async {
            let source = read().await;
            source["status"]["resolvedImage"].as_str()?.ends_with(&digest).then_some(source)
        })
        .await;
        assert_eq!(found["status"]["bundles"], round + 2);
        let time = |name: &str| found["status"]["lastIngest"][name].as_str().map(str::to_owned);
        assert!(time("startedAt") <= time("completedAt"), "{found}");
    }
    // What is asked for once a day was not asked for because the clock said that days had passed.
    assert_eq!(polls(&registry, "seldom"), seldom);
    let log = server.processes().nth(controller).expect("it was started").log();
    for lost in ["the lease of this process is over", "the lock was lost", "cannot ingest", "panicked"] {
        assert!(!log.contains(lost), "{lost}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_set_goes_on_serving_and_its_watches_do_too() {
    let mut server = Server::start(&["--min-polling-interval=1s"]).await;
    let clock = Clock::new();
    server.restart_with(0, &clock);
    server.ready().await;
    let registry = FakeRegistry::start().await;
    push(&registry, "often", 1);
    let client = server.client().await;
    let path = "/apis/core.rukpak.io/v1beta1/namespaces/test/bundlemetadata";
    let start = get(&client, path).await["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let recorder = Recorder::start(vec![server.kubeconfig()], path, start, 300);
    server.kubectl().run_with("apply -f -", &source(&registry, "often", "1s"));
    // Certificates are good from an hour before they were made, and for a year: within that nobody is refused.
    let offsets = ["+300d", "-50m", "+1h", "+0"];
    for (round, offset) in offsets.into_iter().enumerate() {
        clock.set(offset);
        push(&registry, "often", round + 2);
        let seen = recorder.until(round + 2).await;
        assert!(seen.iter().all(|(_, kind, _)| kind == "ADDED"), "{offset}: {seen:?}");
        assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "{offset}: {seen:?}");
        // History is counted in time that has passed, and all of it is held.
        let client = server.client().await;
        let (log, list) = join(watch_once(&client, path, start, 1), get(&client, path)).await;
        assert_eq!(log.expect("the history is there"), seen, "{offset}");
        assert_eq!(list["items"].as_array().unwrap().len(), round + 2);
    }
}
