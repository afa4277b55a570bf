//! What people type at kubectl, through a kube-apiserver: the same is to be seen as at a server that stands alone.

use std::path::Path;

use insta::{assert_snapshot, with_settings};

use serde_json::{Value, json};

use crate::installation::{Installation, Kind, catalog_source};
use crate::support::catalog::CatalogBuilder;
use crate::support::kubectl::Kubectl;
use crate::support::process::Process;
use crate::support::{eventually, reading, writing};

/// Compares with what is to be seen at a server that stands alone.
macro_rules! assert_same {
    ($module:literal, $name:literal, $seen:expr) => {
        with_settings!({snapshot_path => "../it/snapshots", prepend_module_to_snapshot => false}, {
            assert_snapshot!(concat!("it__", $module, "__", $name), $seen);
        });
    };
}

/// Starts an installation that serves the catalogs that are read from, which lie in a directory.
async fn serving_catalogs(directory: &Path) -> Installation {
    reading::write_catalogs(directory);
    let root = format!("--allow-local-sources={}", directory.display());
    let installation = Installation::start_with(Kind::Small, &[&root]).await;
    let kubectl = installation.kubectl();
    kubectl.run("create namespace test");
    kubectl.run("create namespace other");
    reading::serve_catalogs(&kubectl);
    installation
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_is_the_same_through_a_kube_apiserver() {
    let directory = tempfile::tempdir().unwrap();
    let installation = serving_catalogs(directory.path()).await;
    let kubectl = installation.kubectl();
    let seen = reading::script(&kubectl, reading::GET);
    assert_same!("kubectl_reads", "c048_c052_c293_c294_get_in_all_its_forms", seen);
    installation.described().await;
    let seen = reading::script(&kubectl, reading::EXPLAIN);
    // A cluster has Events, and shows them.
    let seen = without_events(&seen);
    assert_same!("kubectl_reads", "c296_c297_describe_and_explain", seen);
}

/// Takes the table of Events off what `describe` prints, after a look whether there are any that should be there.
fn without_events(seen: &str) -> String {
    let mut shown = Vec::new();
    let mut lines = seen.lines().peekable();
    let mut events = String::new();
    while let Some(line) = lines.next() {
        shown.push(line.to_owned());
        if line == "Events:" {
            shown.pop();
            shown.push("Events:  <none>".to_owned());
            while let Some(row) = lines.next_if(|row| row.starts_with(' ')) {
                events.push_str(row);
                events.push('\n');
            }
        }
    }
    assert!(events.contains("Ingested") && events.contains("packageserver"), "{events}");
    shown.join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_and_waiting_work_through_a_kube_apiserver() {
    let directory = tempfile::tempdir().unwrap();
    let installation = serving_catalogs(directory.path()).await;
    let kubectl = installation.kubectl();
    let start = |name: &str, command: &str| kubectl.start(command, &directory.path().join(name));
    let mut all = start("all", "get packages -n test -w --no-headers --output-watch-events");
    let mut selected =
        start("selected", "get bundlemetadata -n test -l core.rukpak.io/package=lamp -w -o name");
    let mut only = start("only", "get packages -n test --watch-only -o name");
    let mut deleted = start("deleted", "wait package/greeter -n test --for=delete --timeout=60s");
    let mut created = start("created", "wait package/zebra -n test --for=create --timeout=60s");
    printed(&mut all, "ADDED").await;
    printed(&mut selected, "lamp.v1.0.2").await;
    // What only watches says nothing until something happens, so something happens until it does.
    let tools = directory.path().join("tools");
    let mut round = 0;
    while !only.log().contains("canary") {
        round += 1;
        CatalogBuilder::default()
            .package("greeter", 2)
            .package("lamp", 3)
            .package("canary", round)
            .write(&tools);
        refresh(&kubectl, &format!("canary{round}"));
    }
    std::fs::remove_dir_all(&tools).unwrap();
    CatalogBuilder::default().package("lamp", 4).package("zebra", 1).write(&tools);
    refresh(&kubectl, "last");
    for (event, name) in [("DELETED", "greeter"), ("MODIFIED", "lamp"), ("ADDED", "zebra")] {
        eventually(&format!("{name} to be {event}"), || {
            let log = all.log();
            let is_it = |line: &str| line.split_whitespace().take(2).eq([event, name]);
            async move { log.lines().any(is_it).then_some(()) }
        })
        .await;
    }
    printed(&mut selected, "lamp.v1.0.3").await;
    printed(&mut only, "zebra").await;
    assert!(deleted.ended().await.success() && created.ended().await.success());
    for watch in [&mut all, &mut selected, &mut only] {
        watch.kill();
    }
    // A list of objects of several kinds, which only a whole cluster knows.
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        serde_json::from_str::<Value>(&catalog_source("other", "listed", "example.com/a:b")).unwrap(),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "listed", "namespace": "other"}},
    ]});
    let applied = kubectl.run_with("apply -f -", &list.to_string());
    assert_eq!(applied, "catalogsource.core.rukpak.io/listed created\nconfigmap/listed created\n");
}

/// Asks for a refresh, and waits until it is done.
fn refresh(kubectl: &Kubectl, asked: &str) {
    kubectl.run(&format!(
        "annotate --overwrite catalogsource tools -n test core.rukpak.io/refresh-requested-at={asked}"
    ));
    kubectl.run(&format!(
        "wait catalogsource/tools -n test --for=jsonpath={{.status.observedRefresh}}={asked} --timeout=60s"
    ));
}

/// Waits until a process has printed something.
async fn printed(process: &mut Process, text: &str) {
    eventually(&format!("`{text}` to be printed"), || {
        let has = process.log().contains(text);
        async move { has.then_some(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_is_the_same_through_a_kube_apiserver() {
    let directory = tempfile::tempdir().unwrap();
    let root = format!("--allow-local-sources={}", directory.path().display());
    let installation = Installation::start_with(Kind::Small, &[&root]).await;
    let kubectl = installation.kubectl();
    kubectl.run("create namespace test");
    let seen = writing::session(&kubectl, &directory.path().join("catalog"), false).await;
    let alone = include_str!(
        "../it/snapshots/it__kubectl_writes__c192_c298_to_c301_c303_people_write_with_kubectl.snap"
    );
    let (_, alone) = alone.split_once("\n---\n").unwrap();
    let (alone, _) = alone.split_once("\n# Delete\n").unwrap();
    assert_eq!(seen.trim_end(), alone.trim_end());
    kubectl.run("delete catalogsource demo -n test --wait --timeout=60s");
}
