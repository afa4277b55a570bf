//! A hundred CatalogSources in one controller: the bad ones are said to be bad, and are in nobody's way.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::catalog::CatalogBuilder;
use crate::support::etcd::{Etcd, Version};
use crate::support::eventually;
use crate::support::fake_registry::{Answer, FakeRegistry};
use crate::support::registry::Registry;
use crate::support::server::Server;

/// MiB that a controller may take for a hundred small catalogs, in a build that is not optimised.
const MEMORY: u64 = 128;

const SOURCES: &str = "/apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources";

fn source(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {"image": image},
    })
}

fn condition<'s>(source: &'s Value, kind: &str) -> Option<&'s Value> {
    source["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_catalog_sources_two_bad_ones_are_in_nobodys_way() {
    let registry = Registry::start().await;
    let mut sources = Vec::new();
    for number in 0..98 {
        let catalog = CatalogBuilder::default().package(&format!("operator-{number:02}"), 20);
        let tag = format!("v{number}");
        registry.push("catalog", &tag, &catalog.image()).await;
        sources.push(source(&format!("catalog-{number:02}"), &registry.reference("catalog", &tag)));
    }
    let (silent, broken) = (FakeRegistry::start().await, FakeRegistry::start().await);
    silent.behave(|_| Answer::Silence);
    broken.push("catalog", "v1", &CatalogBuilder::default().package("broken", 50).image());
    // The layer breaks off in the middle, and there is no getting on from there.
    broken.behave(|asked| match (asked.is_blob(), asked.header("range")) {
        (true, "") => Answer::Cut(300),
        (true, _) => Answer::Cut(0),
        (false, _) => Answer::Proper,
    });
    // The bad ones are first in line.
    sources.insert(0, source("broken", &broken.reference("catalog", "v1")));
    sources.insert(0, source("silent", &silent.reference("catalog", "v1")));

    let etcd = Etcd::start(Version::Built).await;
    let endpoints = etcd.endpoints();
    let mut server = Server::start_on(Some(etcd), 0, &[]).await;
    server.add_apiserver(&endpoints, &[]);
    let controller = server.add_controller(&endpoints, &["--ingest-timeout=20s"]);
    server.ready().await;
    let manifests: Vec<_> = sources.iter().map(Value::to_string).collect();
    server.kubectl().run_with("apply -f -", &manifests.join("\n"));

    let client = server.client().await;
    let list = || crate::support::server::get(&client, SOURCES);
    let is = |source: &Value, kind: &str, status: &str| {
        condition(source, kind).is_some_and(|condition| condition["status"] == status)
    };
    eventually("98 catalogs to be ready", || async {
        let list = list().await;
        let ready = list["items"].as_array().unwrap().iter().filter(|source| is(source, "Ready", "True"));
        (ready.count() == 98).then_some(())
    })
    .await;
    // They did not wait for those that are bad: these are still being tried.
    for (name, registry, reason, says) in [
        ("silent", &silent, "TimedOut", "not done after 20 seconds"),
        ("broken", &broken, "RegistryUnavailable", "catalog:v1"),
    ] {
        let found = eventually(&format!("{name} to say what is wrong"), || async {
            let source =
                list().await["items"].as_array()?.iter().find(|it| it["metadata"]["name"] == name)?.clone();
            is(&source, "Degraded", "True").then_some(source)
        })
        .await;
        assert!(is(&found, "Ready", "False"), "{found}");
        let degraded = condition(&found, "Degraded").unwrap();
        let message = degraded["message"].as_str().unwrap();
        assert_eq!(degraded["reason"], reason, "{message}");
        assert!(message.contains(registry.address()) && message.contains(says), "{message}");
    }
    // And go on being tried, without harm to the others.
    let asked = broken.requests().len();
    eventually("the broken one to be tried again", || {
        let requests = broken.requests().len();
        async move { (requests > asked).then_some(()) }
    })
    .await;
    let ready = list().await["items"].as_array().unwrap().iter().filter(|it| is(it, "Ready", "True")).count();
    assert_eq!(ready, 98);
    let packages = server.get("/apis/core.rukpak.io/v1beta1/namespaces/test/packages?limit=1").await;
    assert_eq!(packages["metadata"]["remainingItemCount"], 97);
    let peak = server.processes().nth(controller).unwrap().peak_memory();
    eprintln!("the controller took {peak} MiB for a hundred CatalogSources");
    assert!(peak < MEMORY, "{peak} MiB");
    tokio::time::timeout(Duration::from_secs(5), server.ask(controller, "/readyz")).await.unwrap().unwrap();
}
