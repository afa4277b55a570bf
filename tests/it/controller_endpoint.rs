//! What a `controller` says of itself over HTTP: whether it lives, whether it does its work, and what it counts.

use serde_json::json;

use crate::support::catalog::CatalogBuilder;
use crate::support::etcd::{Etcd, Version};
use crate::support::eventually;
use crate::support::image::Image;
use crate::support::registry::Registry;
use crate::support::server::{Kind, Server};

fn source(name: &str, image: &str) -> String {
    json!({
        "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {"image": image},
    })
    .to_string()
}

/// Returns what a metric with some labels counts; nothing where it is not there.
fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_counts_its_ingests_and_why_some_fail() {
    let registry = Registry::start().await;
    let directory = tempfile::tempdir().unwrap();
    CatalogBuilder::default().package("one", 3).write(directory.path());
    registry.push("catalog", "v1", &Image::of_catalog(directory.path())).await;
    let server = Server::start_as(Kind::OnEtcd, &[]).await;
    let kubectl = server.kubectl();
    kubectl.run_with("apply -f -", &source("good", &registry.reference("catalog", "v1")));
    kubectl.run_with("apply -f -", &source("missing", &registry.reference("catalog", "v2")));
    for (name, condition) in [("good", "Ready"), ("missing", "Degraded")] {
        kubectl.run(&format!("wait catalogsource/{name} -n test --for=condition={condition} --timeout=60s"));
    }
    kubectl.run("annotate catalogsource good -n test core.rukpak.io/refresh-requested-at=now");
    let controller = server.numbers("controller")[0];
    let metrics = eventually("three attempts to be counted", || async {
        let (_, metrics) = server.ask(controller, "/metrics").await?;
        value(&metrics, "packageserver_ingests_total{result=\"unchanged\"}").map(|_| metrics)
    })
    .await;
    for (name, expected) in [
        ("packageserver_ingests_total{result=\"ingested\"}", 1.0),
        ("packageserver_ingests_total{result=\"unchanged\"}", 1.0),
        ("packageserver_ingest_events_total{change=\"added\"}", 4.0),
        ("packageserver_ingests_running", 0.0),
        ("packageserver_catalogsources_held", 2.0),
        ("packageserver_ingest_duration_seconds_count{result=\"ingested\"}", 1.0),
    ] {
        assert_eq!(value(&metrics, name), Some(expected), "{name}: {metrics}");
    }
    for name in [
        "packageserver_ingest_failures_total{reason=\"ImageNotFound\"}",
        "packageserver_ingest_bytes_total",
        "etcd_requests_total{operation=\"append\",resource=\"catalogsources\"}",
        "etcd_requests_total{operation=\"watch\",resource=\"catalogsources\"}",
        "etcd_request_duration_seconds_count{operation=\"append\",resource=\"bundlemetadata\"}",
        "process_resident_memory_bytes",
    ] {
        assert!(value(&metrics, name).is_some_and(|value| value > 0.0), "{name}: {metrics}");
    }
    let served = kubectl.run("get --raw /metrics");
    let reads = "etcd_requests_total{operation=\"watch\",resource=\"\"}";
    assert!(value(&served, reads).is_some_and(|value| value > 0.0), "{served}");
    assert_eq!(server.ask(controller, "/elsewhere").await.unwrap().0, 404);
}

/// Waits until a controller answers with a status, and returns what it says.
async fn health(server: &Server, controller: usize, path: &str, status: u16) -> String {
    eventually(&format!("{path} to be {status}"), || async {
        server.ask(controller, path).await.filter(|(found, _)| *found == status).map(|(_, text)| text)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_is_ready_while_it_follows_the_catalog_sources() {
    let etcd = Etcd::start(Version::Built).await;
    let endpoints = etcd.endpoints();
    let mut server = Server::start_on(Some(etcd), 0, &[]).await;
    server.etcd().kill(0);
    let controller = server.add_controller(&endpoints, &["--etcd-timeout=2s"]);
    // It is there, though etcd is not; a restart would not help.
    let said = health(&server, controller, "/readyz", 500).await;
    assert_eq!(said, "[-]etcd failed: the CatalogSources are not followed\n");
    for path in ["/livez", "/healthz"] {
        assert_eq!(health(&server, controller, path, 200).await, "ok");
    }
    let failed = eventually("the failures to be counted", || async {
        let (_, metrics) = server.ask(controller, "/metrics").await?;
        let kinds = ["Unavailable", "Unknown"].map(|kind| {
            let name = "etcd_request_errors_total";
            let labels = format!("{{error=\"{kind}\",operation=\"list\",resource=\"catalogsources\"}}");
            value(&metrics, &format!("{name}{labels}"))
        });
        kinds.into_iter().flatten().next()
    })
    .await;
    assert!(failed > 0.0);
    server.etcd().restart(0).await;
    assert_eq!(health(&server, controller, "/readyz", 200).await, "ok");
}
