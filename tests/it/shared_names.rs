//! Two catalogs with the same packages, ingested at the same time by two controllers: each name has one owner, and each
//! object is there once.

use std::collections::{BTreeMap, BTreeSet};

use packageserver::store::{Range, ResourceVersion};
use serde_json::{Value, json};

use crate::support::catalog::CatalogBuilder;
use crate::support::etcd::{Etcd, Version};
use crate::support::ingest::changes;
use crate::support::registry::Registry;
use crate::support::server::Server;
use crate::support::{eventually, rounds};

const PACKAGES: usize = 40;
const BUNDLES: usize = 3;

fn source(namespace: &str, name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"image": image},
    })
}

/// Returns the process that holds the lock of a CatalogSource.
async fn holder(client: &etcd_client::Client, namespace: &str, name: &str) -> String {
    let lock = format!("/registry/core.rukpak.io.internal/locks/catalogsources/{namespace}/{name}");
    eventually("a controller to take the lock", || {
        let (mut client, lock) = (client.clone(), lock.clone());
        async move {
            let found = client.get(lock, None).await.ok()?;
            found.kvs().first()?.value_str().ok()?.split(' ').nth(1).map(str::to_owned)
        }
    })
    .await
}

/// Returns the names of objects by the CatalogSource they are of.
async fn names(server: &Server, namespace: &str, resource: &str) -> BTreeMap<String, BTreeSet<String>> {
    let list = server.get(&format!("/apis/core.rukpak.io/v1beta1/namespaces/{namespace}/{resource}")).await;
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for item in list["items"].as_array().unwrap() {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        names
            .entry(text(&item["spec"]["catalogSource"]))
            .or_default()
            .insert(text(&item["metadata"]["name"]));
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_controllers_that_race_for_a_name_one_gets_it() {
    let registry = Registry::start().await;
    let catalog = (0..PACKAGES).fold(CatalogBuilder::default(), |catalog, number| {
        catalog.package(&format!("operator-{number:02}"), BUNDLES)
    });
    registry.push("catalog", "v1", &catalog.image()).await;
    let image = registry.reference("catalog", "v1");
    let etcd = Etcd::start(Version::Built).await;
    let (store, client) = (etcd.store(), etcd.client().await);
    let server = Server::start_on(Some(etcd), 2, &[]).await;
    let kubectl = server.kubectl();
    let (mut races, mut shared) = (0, 0);
    // Who gets which lock is a matter of luck.
    for round in 0..40 {
        let namespace = format!("round-{round}");
        let manifests = ["x", "y"].map(|name| source(&namespace, name, &image).to_string());
        kubectl.run_with("apply -f -", &manifests.join("\n"));
        let holders = [holder(&client, &namespace, "x").await, holder(&client, &namespace, "y").await];
        kubectl.run(&format!("wait catalogsources --all -n {namespace} --for=condition=Ready --timeout=60s"));
        // Each package and bundle is there once for each catalog: one has the plain name, the other one says whose it is.
        for (resource, count) in [("packages", PACKAGES), ("bundlemetadata", PACKAGES * BUNDLES)] {
            let names = names(&server, &namespace, resource).await;
            let [x, y] = ["x", "y"].map(|source| &names[source]);
            assert_eq!((x.len(), y.len()), (count, count), "{namespace}: {resource}");
            let plain = |names: &BTreeSet<String>, source: &str| -> BTreeSet<String> {
                let suffix = format!(".{source}");
                names.iter().filter(|name| !name.ends_with(&suffix)).cloned().collect()
            };
            let (plain_x, plain_y) = (plain(x, "x"), plain(y, "y"));
            assert_eq!(plain_x.len() + plain_y.len(), count, "{namespace}: {resource}");
            assert!(plain_x.is_disjoint(&plain_y), "{namespace}: {resource}");
            shared += usize::from(!plain_x.is_empty() && !plain_y.is_empty());
            // Nobody wrote over what was another one's, and nothing was written twice.
            let log =
                changes(&store, Range::namespace(resource, &namespace), ResourceVersion::default()).await;
            assert_eq!(log.len(), 2 * count, "{namespace}: {resource}");
            assert!(log.iter().all(|change| change.before.is_none()), "{namespace}: {resource}");
        }
        races += usize::from(holders[0] != holders[1]);
        if races == rounds(3, 20) as usize {
            break;
        }
    }
    eprintln!("{races} races of two controllers, {shared} lists with names of either");
    assert!(races > 0, "one controller had both catalogs in every round");

    // When the owner of a name goes, the other one keeps the name that it is known by.
    let before = names(&server, "round-0", "packages").await;
    kubectl.run("delete catalogsource x -n round-0");
    eventually("the packages of the other one to be alone", || async {
        let names = names(&server, "round-0", "packages").await;
        (!names.contains_key("x")).then_some(names)
    })
    .await;
    assert_eq!(names(&server, "round-0", "packages").await["y"], before["y"]);
}
