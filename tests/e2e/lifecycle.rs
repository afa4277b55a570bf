//! Namespaces and owners that go, and what goes with them.

use crate::installation::{Installation, Kind, catalog_source};
use crate::support::catalog::CatalogBuilder;
use crate::support::eventually;
use crate::support::image::Image;
use crate::support::registry::Registry;

async fn namespaces(kind: Kind) {
    let directory = tempfile::tempdir().unwrap();
    CatalogBuilder::default().package("one", 3).package("two", 150).write(directory.path());
    let registry = Registry::start().await;
    registry.push("catalog", "v1", &Image::of_catalog(directory.path())).await;
    let mut installation = Installation::start(kind).await;
    let kubectl = installation.kubectl();

    let missing = kubectl.try_run("create -f -", &catalog_source("nowhere", "x", "localhost/x:y"));
    assert!(missing.stderr.contains("namespaces \"nowhere\" not found"), "{missing:?}");

    kubectl.run("create namespace test");
    let image = registry.reference("catalog", "v1");
    kubectl.run_with("apply -f -", &catalog_source("test", "catalog", &image));
    kubectl.run("wait catalogsource/catalog -n test --for=condition=Ready --timeout=120s");
    assert_eq!(kubectl.run("get packages,bundlemetadata -n test -o name").lines().count(), 155);
    // The namespace goes, and what is in it soon after.
    kubectl.run("delete namespace test --timeout=120s");
    for resource in ["catalogsources", "catalogcaches", "packages", "bundlemetadata"] {
        eventually(&format!("{resource} to be gone"), || {
            let left = kubectl.run(&format!("get {resource} -A -o name"));
            async move { left.is_empty().then_some(()) }
        })
        .await;
    }
    eventually("nothing to be left in etcd", || async {
        let left = installation.keys_in_etcd("/registry/core.rukpak.io/").await;
        (!left.iter().any(|key| key.contains("/test/"))).then_some(())
    })
    .await;

    // A CatalogSource goes with each propagation policy, and what came of it goes too.
    kubectl.run("create namespace policies");
    for policy in ["background", "foreground", "orphan"] {
        kubectl.run_with("apply -f -", &catalog_source("policies", policy, &image));
        kubectl.run(&format!("wait catalogsource/{policy} -n policies --for=condition=Ready --timeout=120s"));
        kubectl.run(&format!("delete catalogsource {policy} -n policies --cascade={policy} --timeout=120s"));
        eventually(&format!("packages to follow their owner ({policy})"), || {
            let left = kubectl.run("get packages -n policies -o name");
            async move { left.is_empty().then_some(()) }
        })
        .await;
    }

    // While a namespace goes, nothing comes into it; what is there can be changed and deleted.
    kubectl.run("create namespace held");
    for name in ["stays", "goes"] {
        let mut source: serde_json::Value =
            serde_json::from_str(&catalog_source("held", name, "127.0.0.1:1/no/such:image")).unwrap();
        source["metadata"]["finalizers"] = serde_json::json!(["example.com/hold"]);
        kubectl.run_with("create -f -", &source.to_string());
    }
    kubectl.run("delete namespace held --wait=false");
    let refused = eventually("the namespace to be going", || {
        let output = kubectl.try_run("create -f -", &catalog_source("held", "late", "localhost/x:y"));
        if output.success {
            kubectl.run("delete catalogsource late -n held");
        }
        async move { (!output.success).then_some(output) }
    })
    .await;
    assert!(refused.stderr.contains("because it is being terminated"), "{refused:?}");
    kubectl.run("annotate catalogsource stays -n held a=b");
    for name in ["goes", "stays"] {
        kubectl.run(&format!(
            "patch catalogsource {name} -n held --type=merge -p {{\"metadata\":{{\"finalizers\":null}}}}"
        ));
    }
    kubectl.run("wait namespace/held --for=delete --timeout=120s");

    // Somebody else's namespace goes while the server's own etcd is away.
    if kind == Kind::Full {
        kubectl.run("create namespace others");
        kubectl.run("create configmap x -n others");
        installation.stop_etcd();
        kubectl.run("delete namespace others --timeout=120s");
        installation.start_etcd();
    }
    // The garbage collector works on: it removes what a deleted owner of another kind leaves.
    kubectl.run("create configmap owner");
    let uid = kubectl.run("get configmap owner -o jsonpath={.metadata.uid}");
    let owned = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"owned","ownerReferences":[
            {{"apiVersion":"v1","kind":"ConfigMap","name":"owner","uid":"{uid}"}}]}}}}"#
    );
    kubectl.run_with("create -f -", &owned);
    let mut source: serde_json::Value =
        serde_json::from_str(&catalog_source("default", "owned", "127.0.0.1:1/no/such:image")).unwrap();
    source["metadata"]["ownerReferences"] =
        serde_json::json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]);
    kubectl.run_with("create -f -", &source.to_string());
    kubectl.run("delete configmap owner");
    eventually("the garbage collector to work", || {
        let left = kubectl.run("get configmap,catalogsource owned --ignore-not-found -o name");
        async move { left.is_empty().then_some(()) }
    })
    .await;
    assert!(installation.cluster.is_healthy());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_in_the_right_order_leaves_a_cluster_that_works() {
    let mut installation = Installation::start(Kind::Full).await;
    let kubectl = installation.kubectl();
    kubectl.run("create namespace test");
    // The worst case: nobody serves any more.
    installation.stop_serving();
    let removed = std::process::Command::new("make")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("undeploy")
        .env("KUBECONFIG", installation.cluster.directory.path().join("kubeconfig"))
        .output()
        .unwrap();
    assert!(removed.status.success(), "{removed:?}");
    for namespace in ["packageserver-system", "test"] {
        kubectl.run(&format!("delete namespace {namespace} --ignore-not-found --timeout=60s"));
    }
    assert!(!kubectl.run("api-versions").contains("core.rukpak.io"));
}

#[tokio::test(flavor = "multi_thread")]
async fn c216_to_c223_c284_to_c286_what_is_in_a_namespace_goes_with_it() {
    namespaces(Kind::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_namespace_goes_with_it_on_the_small_installation() {
    namespaces(Kind::Small).await;
}
