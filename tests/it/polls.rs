//! Polls that find nothing new: one HEAD each, and nothing is written.

use serde_json::json;

use crate::support::catalog::CatalogBuilder;
use crate::support::etcd::{Etcd, Version};
use crate::support::eventually;
use crate::support::image::Image;
use crate::support::registry::Registry;
use crate::support::server::Server;
use packageserver::store::Store;

/// Locks are written too when they change hands: here nobody is so slow that they do.
const PATIENT: &str = "--lease-duration=10s";

const HEAD: &str = "HEAD /v2/catalog/manifests/latest 200";

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_of_an_unchanged_tag_is_one_head_and_no_write() {
    let directory = tempfile::tempdir().unwrap();
    CatalogBuilder::default().package("one", 3).write(directory.path());
    let registry = Registry::start().await;
    registry.push("catalog", "latest", &Image::of_catalog(directory.path())).await;
    let etcd = Etcd::start(Version::Built).await;
    let (store, endpoints) = (etcd.store(), etcd.endpoints());
    let mut server = Server::start_on(Some(etcd), 0, &[]).await;
    server.add_apiserver(&endpoints, &["--min-polling-interval=1s"]);
    let controller = server.add_controller(&endpoints, &["--min-polling-interval=1s", PATIENT]);
    server.ready().await;
    let source = json!({
        "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {"name": "catalog", "namespace": "test"},
        "spec": {"image": registry.reference("catalog", "latest"), "pollingInterval": "1s"},
    });
    let kubectl = server.kubectl();
    kubectl.run_with("apply -f -", &source.to_string());
    kubectl.run("wait catalogsource/catalog -n test --for=condition=Ready --timeout=60s");

    let (revision, asked) = (store.current().await.unwrap(), registry.requests().len());
    // The time of a poll is noted once a minute, so all of these are within the first one.
    let polls = eventually("five polls", || {
        let polls = registry.requests()[asked..].to_vec();
        async move { (polls.len() >= 5).then_some(polls) }
    })
    .await;
    assert!(polls.iter().all(|request| request == HEAD), "{polls:?}");
    assert_eq!(store.current().await.unwrap(), revision);
    let (_, metrics) = server.ask(controller, "/metrics").await.unwrap();
    assert!(metrics.contains("packageserver_ingests_total{result=\"ingested\"} 1\n"), "{metrics}");
}
