//! Secrets and ConfigMaps that a CatalogSource names are read where it is, with what the controller may; and what becomes of
//! it is told in Events.

use serde_json::{Value, json};

use crate::installation::{Installation, Kind};
use crate::support::catalog::CatalogBuilder;
use crate::support::eventually;
use crate::support::registry::{PASSWORD, Protection, Registry, USER};

#[tokio::test(flavor = "multi_thread")]
async fn a_private_registry_is_read_with_what_the_namespace_holds_for_it() {
    let registry = Registry::start_with(Protection { tls: true, users: true }).await;
    registry.push("acme/catalog", "v1", &CatalogBuilder::default().package("one", 2).image()).await;
    let installation = Installation::start(Kind::Full).await;
    let kubectl = installation.kubectl();
    for namespace in ["test", "elsewhere"] {
        kubectl.run(&format!("create namespace {namespace}"));
    }
    let source = json!({
        "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {"name": "private", "namespace": "test"},
        "spec": {
            "image": registry.reference("acme/catalog", "v1"), "pullSecret": "pull", "caBundle": {"name": "authority"},
        },
    });
    // What another namespace has is no help.
    let hold = |namespace: &str| {
        let auths = json!({"auths": {registry.address(): {"username": USER, "password": PASSWORD}}});
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull", "namespace": namespace},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": auths.to_string()},
        });
        let authority = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authority", "namespace": namespace},
            "data": {"ca.crt": registry.authority()},
        });
        for object in [secret, authority] {
            kubectl.run_with("apply -f -", &object.to_string());
        }
    };
    hold("elsewhere");
    kubectl.run_with("apply -f -", &source.to_string());
    let events = |reason: &str| {
        let selector = format!("--field-selector=reason={reason},involvedObject.name=private");
        let listed = kubectl.run(&format!("get events -n test {selector} -o json"));
        serde_json::from_str::<Value>(&listed).unwrap()["items"].as_array().unwrap().clone()
    };
    eventually("an Event that says what is missing", || {
        let found = events("ReferenceNotFound");
        async move {
            let message = found.first()?["message"].as_str()?;
            assert!(message.contains("Secret `test/pull` is not in the cluster"), "{message}");
            Some(())
        }
    })
    .await;

    hold("test");
    kubectl.run("annotate catalogsource private -n test core.rukpak.io/refresh-requested-at=now");
    kubectl.run("wait catalogsource/private -n test --for=condition=Ready --timeout=120s");
    assert_eq!(kubectl.run("get packages -n test -o name"), "package.core.rukpak.io/one\n");
    eventually("an Event that says what was read", || {
        let found = events("Ingested");
        async move {
            let message = found.first()?["message"].as_str()?;
            assert!(message.starts_with("1 packages and 2 bundles: "), "{message}");
            assert_eq!(found[0]["type"], "Normal");
            Some(())
        }
    })
    .await;
    // The password is nowhere but in the Secret.
    let told = kubectl.run("get events,catalogsources -n test -o yaml") + &installation.logs();
    assert!(!told.contains(PASSWORD));
}
