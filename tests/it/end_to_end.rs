//! From a registry to kubectl: the real program, a real registry, the real kubectl.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::image::Image;
use crate::support::registry::Registry;
use crate::support::server::{Kind, Server, get};
use crate::support::{catalog, eventually, rounds};

const API: &str = "/apis/core.rukpak.io/v1beta1/namespaces/test";

/// Runs every test on one kind of installation: nothing that a client can see differs.
macro_rules! end_to_end {
    ($name:ident, $kind:expr) => {
        mod $name {
            end_to_end!($kind => [
                a_catalog_applied_with_kubectl_is_served
                real_catalogs_are_served_whole
                a_large_real_catalog_is_served_whole
                a_refresh_brings_what_differs_and_every_event_can_be_resumed_from
                a_refresh_of_an_unchanged_image_is_one_head_and_no_event
                a_killed_ingest_ends_in_the_state_of_an_undisturbed_one
                what_was_served_is_served_at_once_after_a_restart
                a_deleted_catalog_source_leaves_nothing_behind
                sigterm_ends_the_server_cleanly
            ]);
        }
    };
    ($kind:expr => [$($test:ident)*]) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            super::$test($kind).await;
        }
    )*};
}

end_to_end!(up, super::Kind::Up);
end_to_end!(on_etcd, super::Kind::OnEtcd);
end_to_end!(replicated, super::Kind::Replicated);

fn manifest(name: &str, image: &str) -> String {
    json!({
        "apiVersion": "core.rukpak.io/v1beta1",
        "kind": "CatalogSource",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {"image": image},
    })
    .to_string()
}

/// Waits until a CatalogSource says that it is ready, and that it has followed everything that was asked for.
async fn settled(server: &Server, name: &str, digest: &str) -> Value {
    let client = server.client().await;
    let path = format!("{API}/catalogsources/{name}");
    eventually(&format!("{name} to serve {digest}"), || async {
        let source = get(&client, &path).await;
        let is_true = |kind: &str, status: &str| {
            let conditions = source["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == status)
        };
        let resolved = source["status"]["resolvedImage"].as_str().unwrap_or_default();
        (resolved.ends_with(digest) && is_true("Ready", "True") && is_true("Progressing", "False"))
            .then_some(source.clone())
    })
    .await
}

/// Everything a catalog is served as, without what differs from one ingest to the next.
async fn served(server: &Server) -> BTreeMap<String, Value> {
    let client = server.client().await;
    let mut objects = BTreeMap::new();
    for resource in ["packages", "bundlemetadata"] {
        let list = get(&client, &format!("{API}/{resource}")).await;
        for mut item in list["items"].as_array().expect("a list has items").clone() {
            let metadata = item["metadata"].as_object_mut().expect("objects have metadata");
            metadata.retain(|field, _| {
                !["uid", "resourceVersion", "creationTimestamp", "ownerReferences"].contains(&&**field)
            });
            objects.insert(
                format!("{resource}/{}", metadata["name"].as_str().expect("objects have names")),
                item,
            );
        }
    }
    objects
}

/// Ingests an image of a catalog and checks what kubectl lists.
async fn is_served(kind: Kind, image: &Image, packages: usize, bundles: usize) {
    let registry = Registry::start().await;
    let digest = registry.push("catalog", "v1", image).await;
    let server = Server::start_as(kind, &[]).await;
    let kubectl = server.kubectl();
    kubectl.run_with("apply -f -", &manifest("catalog", &registry.reference("catalog", "v1")));
    settled(&server, "catalog", digest.as_str()).await;
    let names = |resources: &str| {
        let printed = kubectl.run(&format!("get {resources} -n test -o name"));
        printed.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let listed = names("catalogsource,catalogcache,packages");
    let count = |kind: &str| listed.iter().filter(|name| name.starts_with(kind)).count();
    assert_eq!(count("catalogsource."), 1);
    assert_eq!(count("catalogcache."), 1);
    assert_eq!(count("package."), packages);
    assert_eq!(names("bundlemetadata").len(), bundles);
    let cache = server.get(&format!("{API}/catalogcaches/catalog")).await;
    assert_eq!(cache["spec"]["operators"].as_array().expect("operators are listed").len(), bundles);
}

async fn a_catalog_applied_with_kubectl_is_served(kind: Kind) {
    let pair = catalog::pair();
    let metas = catalog::metas(&pair.new);
    let is_bundle = |meta: &&Value| meta["schema"] == "olm.bundle";
    let bundles = metas.values().flatten().filter(is_bundle).count();
    is_served(kind, &Image::of_catalog(&pair.new), metas.len(), bundles).await;
}

async fn real_catalogs_are_served_whole(kind: Kind) {
    for (name, packages, bundles) in
        [("community-v4.20", 37, 803), ("certified-v4.20", 59, 676), ("certified-v4.12", 36, 254)]
    {
        if let Some(directory) = catalog::real(name) {
            is_served(kind, &Image::of_catalog(&directory), packages, bundles).await;
        }
    }
}

async fn a_large_real_catalog_is_served_whole(kind: Kind) {
    let large = catalog::large();
    is_served(kind, &large.image, large.packages, large.bundles).await;
}

/// Reads the events of a watch until the server ends it.
async fn events(client: &kube::Client, path: &str) -> Vec<Value> {
    let request = http::Request::get(path).body(Vec::new()).expect("a path is a URL");
    let text = client.request_text(request).await.expect("a watch is answered");
    text.lines().map(|line| serde_json::from_str(line).expect("events are JSON")).collect()
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|version| version.parse().ok())
        .expect("a version")
}

fn describe(event: &Value) -> String {
    let object = &event["object"];
    format!(
        "{} {} {}",
        event["type"].as_str().unwrap_or_default(),
        object["kind"],
        object["metadata"]["name"]
    )
}

/// Reads from two catalog directories, without the code under test, which objects a refresh has to change.
fn expected_changes(old: &Path, new: &Path) -> BTreeSet<String> {
    let (old, new) = (catalog::metas(old), catalog::metas(new));
    let bundles = |metas: &BTreeMap<String, Vec<Value>>| {
        let mut bundles = BTreeMap::new();
        for (package, metas) in metas {
            // What a BundleMetadata says: the bundle itself, its channels, its deprecation.
            for bundle in metas.iter().filter(|meta| meta["schema"] == "olm.bundle") {
                let name = &bundle["name"];
                let channels: BTreeSet<_> = metas
                    .iter()
                    .filter(|meta| meta["schema"] == "olm.channel")
                    .filter(|channel| {
                        channel["entries"]
                            .as_array()
                            .is_some_and(|all| all.iter().any(|entry| entry["name"] == *name))
                    })
                    .map(|channel| channel["name"].to_string())
                    .collect();
                let deprecations: Vec<_> = metas
                    .iter()
                    .filter(|meta| meta["schema"] == "olm.deprecations")
                    .flat_map(|meta| meta["entries"].as_array().cloned().unwrap_or_default())
                    .filter(|entry| entry["reference"]["name"] == *name)
                    .collect();
                let said = json!([package, bundle, channels, deprecations]).to_string();
                bundles.insert(name.as_str().expect("bundles have names").to_owned(), said);
            }
        }
        bundles
    };
    let packages = |metas: &BTreeMap<String, Vec<Value>>| -> BTreeMap<String, String> {
        // What a Package says: everything but the bundles, their versions, and what the head bundle says of it.
        let said = |metas: &Vec<Value>| {
            let is_small = |meta: &&Value| meta["schema"] != "olm.bundle";
            let small: BTreeSet<_> = metas.iter().filter(is_small).map(Value::to_string).collect();
            let versions: BTreeSet<_> =
                metas.iter().filter(|meta| !is_small(meta)).map(|meta| meta["name"].to_string()).collect();
            let head = head(metas)
                .map(|head| metas.iter().find(|meta| meta["schema"] == "olm.bundle" && meta["name"] == head));
            json!([small, versions, head]).to_string()
        };
        metas.iter().map(|(name, metas)| (name.clone(), said(metas))).collect()
    };
    let mut changes = BTreeSet::new();
    for (kind, before, after) in
        [("Package", packages(&old), packages(&new)), ("BundleMetadata", bundles(&old), bundles(&new))]
    {
        for name in before.keys().chain(after.keys()) {
            let change = match (before.get(name), after.get(name)) {
                (Some(before), Some(after)) if before == after => continue,
                (Some(_), Some(_)) => "MODIFIED",
                (Some(_), None) => "DELETED",
                (None, _) => "ADDED",
            };
            changes.insert(format!("{change} {kind:?} {name:?}"));
        }
    }
    changes
}

/// Returns the name of the bundle at the head of the default channel.
fn head(metas: &[Value]) -> Option<String> {
    let package = metas.iter().find(|meta| meta["schema"] == "olm.package")?;
    let is_default =
        |meta: &&Value| meta["schema"] == "olm.channel" && meta["name"] == package["defaultChannel"];
    let entries = metas.iter().find(is_default)?["entries"].as_array()?;
    let replaced: BTreeSet<_> = entries
        .iter()
        .flat_map(|entry| {
            let skips = entry["skips"].as_array().cloned().unwrap_or_default();
            std::iter::once(entry["replaces"].clone()).chain(skips)
        })
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let names = entries.iter().filter_map(|entry| entry["name"].as_str());
    names.map(str::to_owned).find(|name| !replaced.contains(name))
}

async fn a_refresh_brings_what_differs_and_every_event_can_be_resumed_from(kind: Kind) {
    let pair = catalog::pair();
    let registry = Registry::start().await;
    let old = registry.push("catalog", "latest", &Image::of_catalog(&pair.old)).await;
    let server = Server::start_as(kind, &[]).await;
    let kubectl = server.kubectl();
    let client = server.client().await;

    let record = server.kubeconfig().with_file_name("watch.log");
    let mut watch = kubectl.start("get packages -n test -w --no-headers", &record);
    kubectl.run_with("apply -f -", &manifest("catalog", &registry.reference("catalog", "latest")));
    settled(&server, "catalog", old.as_str()).await;
    let packages = catalog::metas(&pair.old);
    eventually("kubectl to print every package", || {
        let printed = watch.log();
        let names: BTreeSet<_> =
            printed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
        let expected: BTreeSet<_> = packages.keys().cloned().collect();
        async move { (names == expected).then_some(()) }
    })
    .await;
    watch.kill();

    // The tag moves, and a refresh is asked for.
    let before = BTreeMap::from_iter(
        join_all(["packages", "bundlemetadata"].map(|resource| {
            let client = &client;
            async move { (resource, version(&get(client, &format!("{API}/{resource}")).await)) }
        }))
        .await,
    );
    let new = registry.push("catalog", "latest", &Image::of_catalog(&pair.new)).await;
    kubectl.run("annotate catalogsource catalog -n test core.rukpak.io/refresh-requested-at=now");
    settled(&server, "catalog", new.as_str()).await;

    let mut changes = BTreeSet::new();
    for (resource, start) in before {
        let watch = |version: u64| {
            let (client, path) =
                (&client, format!("{API}/{resource}?watch=true&timeoutSeconds=1&resourceVersion={version}"));
            async move { events(client, &path).await }
        };
        let all = watch(start).await;
        let versions: Vec<_> = all.iter().map(|event| version(&event["object"])).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "versions rise, and none is there twice: {versions:?}");
        let resumed = join_all(versions.iter().map(|version| watch(*version))).await;
        for (index, rest) in resumed.into_iter().enumerate() {
            assert_eq!(rest, all[index + 1..], "resumed from {} of {resource}", versions[index]);
        }
        changes.extend(all.iter().map(describe));
    }
    assert_eq!(changes, expected_changes(&pair.old, &pair.new));
}

async fn a_refresh_of_an_unchanged_image_is_one_head_and_no_event(kind: Kind) {
    let directory = tempfile::tempdir().unwrap();
    catalog::CatalogBuilder::default().package("one", 3).write(directory.path());
    let registry = Registry::start().await;
    let digest = registry.push("catalog", "latest", &Image::of_catalog(directory.path())).await;
    let server = Server::start_as(kind, &[]).await;
    let kubectl = server.kubectl();
    kubectl.run_with("apply -f -", &manifest("catalog", &registry.reference("catalog", "latest")));
    settled(&server, "catalog", digest.as_str()).await;
    let before = served(&server).await;
    let seen = registry.requests().len();
    kubectl.run("annotate catalogsource catalog -n test core.rukpak.io/refresh-requested-at=now");
    let client = server.client().await;
    let path = format!("{API}/catalogsources/catalog");
    eventually("the refresh to be followed", || async {
        (get(&client, &path).await["status"]["observedRefresh"] == "now").then_some(())
    })
    .await;
    let requests = registry.requests();
    assert_eq!(requests[seen..], ["HEAD /v2/catalog/manifests/latest 200"], "{requests:?}");
    assert_eq!(served(&server).await, before);
}

async fn a_killed_ingest_ends_in_the_state_of_an_undisturbed_one(kind: Kind) {
    let pair = catalog::pair();
    let registry = Registry::start().await;
    let old = registry.push("catalog", "old", &Image::of_catalog(&pair.old)).await;
    let new = registry.push("catalog", "new", &Image::of_catalog(&pair.new)).await;

    let undisturbed = Server::start_as(kind, &[]).await;
    let kubectl = undisturbed.kubectl();
    let start = std::time::Instant::now();
    kubectl.run_with("apply -f -", &manifest("catalog", &registry.reference("catalog", "old")));
    settled(&undisturbed, "catalog", old.as_str()).await;
    let duration = start.elapsed();
    let expected_old = served(&undisturbed).await;
    kubectl.run_with("apply -f -", &manifest("catalog", &registry.reference("catalog", "new")));
    settled(&undisturbed, "catalog", new.as_str()).await;
    let expected_new = served(&undisturbed).await;
    assert_ne!(expected_old, expected_new);

    let mut server = Server::start_as(kind, &[]).await;
    let rounds = match kind {
        Kind::Up => 20,
        // Each takes as long as a lease.
        _ => rounds(4, 20),
    };
    for round in 0..rounds {
        let (tag, digest, expected) =
            if round % 2 == 0 { ("old", &old, &expected_old) } else { ("new", &new, &expected_new) };
        server.kubectl().run_with("apply -f -", &manifest("catalog", &registry.reference("catalog", tag)));
        // The kills are spread over the time an ingest takes.
        tokio::time::sleep(duration.mul_f64(f64::from(round) / f64::from(rounds))).await;
        server.restart().await;
        settled(&server, "catalog", digest.as_str()).await;
        let found = served(&server).await;
        let differing: Vec<_> =
            expected.keys().chain(found.keys()).filter(|key| expected.get(*key) != found.get(*key)).collect();
        assert!(differing.is_empty(), "round {round}: {differing:?}");
    }
}

async fn what_was_served_is_served_at_once_after_a_restart(kind: Kind) {
    let directory = tempfile::tempdir().unwrap();
    catalog::CatalogBuilder::default().package("one", 3).package("two", 40).write(directory.path());
    let registry = Registry::start().await;
    registry.push("catalog", "v1", &Image::of_catalog(directory.path())).await;
    let mut server = Server::start_as(kind, &[]).await;
    let kubectl = server.kubectl();
    kubectl.run_with("apply -f -", &manifest("catalog", &registry.reference("catalog", "v1")));
    kubectl.run("wait catalogsource/catalog -n test --for=condition=Ready --timeout=60s");
    let path = format!("{API}/catalogsources/catalog");
    let (before, source) = (served(&server).await, server.get(&path).await);
    assert_eq!(before.len(), 45);
    // The registry is not there to be asked.
    drop(registry);
    server.restart().await;
    assert_eq!(served(&server).await, before);
    assert_eq!(server.get(&path).await, source);
    server.kubectl().run("wait catalogsource/catalog -n test --for=condition=Ready --timeout=1s");
}

async fn a_deleted_catalog_source_leaves_nothing_behind(kind: Kind) {
    let directory = tempfile::tempdir().unwrap();
    catalog::CatalogBuilder::default()
        .package("one", 3)
        .package("two", 200)
        .write(&directory.path().join("catalog"));
    let root = directory.path().to_str().unwrap();
    let mut server = Server::start_as(kind, &["--allow-local-sources", root]).await;
    let kubectl = server.kubectl();
    for round in 0..2 {
        kubectl.run_with("apply -f -", &manifest("local", "fbc:catalog"));
        kubectl.run("wait catalogsource/local -n test --for=condition=Ready --timeout=60s");
        assert_eq!(served(&server).await.len(), 205);
        kubectl.run("delete catalogsource local -n test --timeout=60s");
        if round == 1 {
            // Also when the process dies before it comes to it.
            server.restart().await;
        }
        let client = server.client().await;
        for resource in ["packages", "bundlemetadata", "catalogcaches"] {
            let path = format!("{API}/{resource}");
            eventually(&format!("{resource} to be gone"), || async {
                get(&client, &path).await["items"].as_array().is_some_and(Vec::is_empty).then_some(())
            })
            .await;
        }
    }
}

async fn sigterm_ends_the_server_cleanly(kind: Kind) {
    let mut server = Server::start_as(kind, &[]).await;
    let record = server.kubeconfig().with_file_name("watch.log");
    let mut watch =
        server.kubectl().start("get --raw /apis/core.rukpak.io/v1beta1/packages?watch=true", &record);
    eventually("the watch to be open", || {
        let running = watch.is_running();
        async move { running.then_some(()) }
    })
    .await;
    server.process().signal("TERM");
    assert!(server.process().ended().await.success());
    // A clean end of the stream is no error for its reader.
    watch.ended().await;
}
