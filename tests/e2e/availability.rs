//! What goes on when parts are away, and what `doctor` says of it.

use std::process::Command;

use serde_json::Value;

use crate::installation::{API_SERVICE, Installation, Kind, catalog_source};
use crate::support::catalog::CatalogBuilder;
use crate::support::eventually;
use crate::support::image::Image;
use crate::support::registry::Registry;

/// Runs `doctor`, and returns its exit code and its findings.
fn doctor(installation: &Installation) -> (i32, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_packageserver"))
        .args(["doctor", "--output=json", "--log-level=error"])
        .arg(format!("--kubeconfig={}", installation.cluster.directory.path().join("kubeconfig").display()))
        .output()
        .unwrap();
    let findings = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), findings)
}

fn find<'a>(findings: &'a [Value], check: &str) -> Vec<&'a Value> {
    findings.iter().filter(|finding| finding["check"] == check).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn c223_c259_c304_reads_go_on_without_etcd_and_the_api_stays_available() {
    let directory = tempfile::tempdir().unwrap();
    CatalogBuilder::default().package("one", 3).write(directory.path());
    let registry = Registry::start().await;
    registry.push("catalog", "v1", &Image::of_catalog(directory.path())).await;
    let mut installation = Installation::start(Kind::Full).await;
    let kubectl = installation.kubectl();
    kubectl.run("create namespace test");
    kubectl.run_with("apply -f -", &catalog_source("test", "catalog", &registry.reference("catalog", "v1")));
    kubectl
        .run_with("apply -f -", &catalog_source("test", "broken", &registry.reference("no-such", "catalog")));
    kubectl.run("wait catalogsource/catalog -n test --for=condition=Ready --timeout=120s");
    kubectl.run("wait catalogsource/broken -n test --for=condition=Degraded --timeout=120s");
    for (source, told) in [("catalog", "Normal"), ("broken", "Warning")] {
        eventually(&format!("an Event about {source}"), || {
            let events = kubectl.run(&format!("events --for=catalogsource/{source} -n test --no-headers"));
            async move { events.contains(told).then_some(()) }
        })
        .await;
    }
    // A broken catalog is a broken catalog, and nothing else.
    installation.available().await;
    installation.described().await;

    installation.stop_etcd();
    for _ in 0..3 {
        assert_eq!(kubectl.run("get packages -n test -o name").trim(), "package.core.rukpak.io/one");
        kubectl.run("api-resources --api-group=core.rukpak.io");
        kubectl.run("explain package.spec");
        installation.available().await;
    }
    let refused = kubectl.try_run("annotate catalogsource catalog -n test a=b", "");
    assert!(!refused.success, "nothing is accepted that cannot be kept");
    installation.start_etcd();
    eventually("writes to work again", || {
        let output = kubectl.try_run("annotate catalogsource catalog -n test a=b --overwrite", "");
        async move { output.success.then_some(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_wrong_and_what_to_do() {
    let mut installation = Installation::start(Kind::Full).await;
    let kubectl = installation.kubectl();
    let (_, findings) = doctor(&installation);
    // No pods stand behind a Service of type ExternalName; everything else is as it should be.
    let others: Vec<_> = findings.iter().filter(|finding| finding["check"] != "endpoints").collect();
    assert!(others.iter().all(|finding| finding["severity"] == "ok"), "{findings:?}");

    kubectl.run("delete clusterrolebinding packageserver:auth-delegator");
    let (code, findings) = doctor(&installation);
    assert_eq!(code, 2);
    let rights = find(&findings, "rights");
    let broken = rights.iter().find(|finding| finding["severity"] == "error").expect("a finding");
    assert!(broken["message"].as_str().unwrap().contains("create tokenreviews"), "{broken}");
    assert!(broken["mend"].as_str().unwrap().contains("kubectl apply -f config/rbac.yaml"));

    // The server is gone: namespaces hang, and there is a way out.
    installation.stop_serving();
    installation.unavailable().await;
    kubectl.run("create namespace hanging");
    kubectl.run("delete namespace hanging --wait=false");
    let hanging = eventually("doctor to see what hangs", || {
        let (code, findings) = doctor(&installation);
        assert_eq!(code, 2);
        let found = find(&findings, "namespaces").first().map(|finding| (*finding).clone());
        async move { found }
    })
    .await;
    assert!(hanging["message"].as_str().unwrap().contains("hanging"), "{hanging}");
    let mend = hanging["mend"].as_str().unwrap();
    assert!(mend.contains(&format!("kubectl delete apiservice {API_SERVICE}")), "{mend}");
    // The definitions of the quickstart would take over the group: they go as well, and then everything goes.
    kubectl.run("delete crd --all");
    kubectl.run(&format!("delete apiservice {API_SERVICE} --ignore-not-found"));
    kubectl.run("wait namespace/hanging --for=delete --timeout=120s");
}
