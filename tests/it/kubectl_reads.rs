//! The reading commands of kubectl, and what they print (C48, C52, C116, C235, C249–C254, C293–C297, C302).

use insta::assert_snapshot;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::catalog::CatalogBuilder;
use crate::support::eventually;
use crate::support::golden::golden;
use crate::support::kubectl::Kubectl;
use crate::support::process::Process;
use crate::support::reading;
use crate::support::server::Server;

/// A server of the two catalogs.
struct World {
    server: Server,
    directory: TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        reading::write_catalogs(directory.path());
        let root = directory.path().to_str().expect("the path is text");
        let server = Server::start(&["--allow-local-sources", root]).await;
        reading::serve_catalogs(&server.kubectl());
        World { server, directory }
    }

    fn kubectl(&self) -> Kubectl {
        self.server.kubectl()
    }

    fn script(&self, commands: &[&str]) -> String {
        reading::script(&self.kubectl(), commands)
    }

    /// Changes the catalog in namespace `test`, and waits until that is served.
    async fn refresh(&self, catalog: CatalogBuilder, asked: &str) {
        let path = self.directory.path().join("tools");
        std::fs::remove_dir_all(&path).expect("the catalog is there");
        catalog.write(&path);
        let kubectl = self.kubectl();
        kubectl.run(&format!(
            "annotate --overwrite catalogsource tools -n test core.rukpak.io/refresh-requested-at={asked}"
        ));
        // C302 once more, with a path to a value.
        kubectl.run(&format!("wait catalogsource/tools -n test --for=jsonpath={{.status.observedRefresh}}={asked} --timeout=60s"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c048_c052_c293_c294_get_in_all_its_forms() {
    let world = World::new().await;
    assert_snapshot!(world.script(reading::GET));
    // What is said of a whole server, of which a kube-apiserver has more to say.
    assert_snapshot!(
        "of_the_server",
        world.script(&[
            "get nothing",
            "api-resources --verbs=delete -o name",
            "api-versions",
            "get --raw /apis/core.rukpak.io",
            "get --raw /livez",
            "get --raw /readyz?verbose",
        ])
    );
    // All forms say the same.
    let kubectl = world.kubectl();
    let list: Value = serde_json::from_str(&kubectl.run("get packages -n test -o json")).unwrap();
    let names: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["greeter", "lamp"]);
    let yaml: Value = serde_saphyr::from_str(&kubectl.run("get packages -n test -o yaml")).unwrap();
    assert_eq!(yaml, list);
}

#[tokio::test(flavor = "multi_thread")]
async fn c296_c297_describe_and_explain() {
    let world = World::new().await;
    assert_snapshot!(world.script(reading::EXPLAIN));
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
async fn c116_c290_c295_c302_watches_and_waits() {
    let world = World::new().await;
    let kubectl = world.kubectl();
    let log = |name: &str| world.directory.path().join(name);
    let mut watches = Vec::new();
    for (name, command) in [
        ("all", "get packages -n test -w --no-headers --output-watch-events"),
        ("only", "get packages -n test --watch-only --no-headers --output-watch-events"),
        ("one", "get package lamp -n test -w --no-headers --output-watch-events"),
        (
            "selected",
            "get bundlemetadata -n test -l core.rukpak.io/package=lamp -w --no-headers --output-watch-events",
        ),
        ("json", "get packages -n test --watch-only -o json --output-watch-events"),
    ] {
        watches.push((name, command, kubectl.start(command, &log(name))));
    }
    let mut deleted =
        kubectl.start("wait package/greeter -n test --for=delete --timeout=60s", &log("deleted"));
    let mut created = kubectl.start("wait package/zebra -n test --for=create --timeout=60s", &log("created"));
    for (name, _, watch) in &mut watches {
        if let Some(first) =
            [("all", "lamp"), ("one", "lamp"), ("selected", "lamp.v1.0.2")].iter().find(|one| one.0 == *name)
        {
            printed(watch, first.1).await;
        }
    }
    // The others say nothing until something happens, so they are told something until they do.
    let mut round = 0;
    loop {
        round += 1;
        world
            .refresh(
                CatalogBuilder::default().package("greeter", 2).package("lamp", 3).package("canary", round),
                &format!("canary{round}"),
            )
            .await;
        if watches
            .iter()
            .filter(|(name, ..)| matches!(*name, "only" | "json"))
            .all(|(.., watch)| watch.log().contains("canary"))
        {
            break;
        }
    }
    world.refresh(CatalogBuilder::default().package("lamp", 4).package("zebra", 1), "last").await;
    for (name, _, watch) in &mut watches {
        let last = match *name {
            "selected" => "lamp.v1.0.3",
            "one" => "1.0.3",
            _ => "zebra",
        };
        printed(watch, last).await;
    }
    assert!(deleted.ended().await.success());
    assert!(created.ended().await.success());

    let mut text = String::new();
    for (name, command, watch) in &mut watches {
        watch.kill();
        let printed = watch.log();
        if *name == "json" {
            let events: Vec<_> = serde_json::Deserializer::from_str(&printed)
                .into_iter::<Value>()
                .map_while(Result::ok)
                .map(|event| format!("{} {}\n", event["type"], event["object"]["metadata"]["name"]))
                .filter(|line| !line.contains("canary"))
                .collect();
            text.push_str(&format!("$ kubectl {command}\n{}\n", events.concat()));
            continue;
        }
        // How often the canary was seen differs; what happened behind it does not.
        let lines: String =
            printed.lines().filter(|line| !line.contains("canary")).map(|line| format!("{line}\n")).collect();
        text.push_str(&format!("$ kubectl {command}\n{}\n", golden(&lines)));
    }
    assert_snapshot!(text);
}

#[tokio::test(flavor = "multi_thread")]
async fn c249_c254_apply_is_validated_by_the_server() {
    let world = World::new().await;
    let kubectl = world.kubectl();
    let source = |spec: Value| {
        let metadata = json!({"name": "checked", "namespace": "test"});
        json!({"apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource", "metadata": metadata, "spec": spec}).to_string()
    };
    let refused = kubectl.try_run("apply -f -", &source(json!({"image": "a/b:c", "imagee": "x"})));
    assert!(!refused.success);
    assert!(refused.stderr.contains("unknown field \"spec.imagee\""), "{}", refused.stderr);
    let refused = kubectl.try_run("apply -f -", &source(json!({"image": 5})));
    assert!(!refused.success && refused.stderr.contains("spec.image"), "{}", refused.stderr);
    let warned = kubectl.try_run(
        "apply --validate=warn --dry-run=server -f -",
        &source(json!({"image": "a/b:c", "imagee": "x"})),
    );
    assert!(warned.success && warned.stderr.contains("unknown field"), "{}{}", warned.stdout, warned.stderr);
    let applied =
        kubectl.run_with("apply --dry-run=server -f -", &source(json!({"image": "example.com/b:c"})));
    assert_eq!(applied, "catalogsource.core.rukpak.io/checked created (server dry run)\n");
    assert_eq!(kubectl.run("get catalogsources -n test -o name"), "catalogsource.core.rukpak.io/tools\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn c235_versions_outlive_the_process() {
    let mut world = World::new().await;
    let path = "/apis/core.rukpak.io/v1beta1/namespaces/test/packages";
    let version =
        |list: &Value| list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    let before = version(&world.server.get(path).await);
    world.refresh(CatalogBuilder::default().package("lamp", 4), "before").await;
    let after = version(&world.server.get(path).await);
    world.server.restart().await;
    let list = world.server.get(path).await;
    assert!(version(&list) >= after && after > before);
    // What happened before the end can be watched after it.
    let client = world.server.client().await;
    let request = http::Request::get(format!("{path}?watch=1&timeoutSeconds=1&resourceVersion={before}"));
    let text = client.request_text(request.body(Vec::new()).unwrap()).await.unwrap();
    let mut events: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|event| {
            format!(
                "{} {}",
                event["type"].as_str().unwrap(),
                event["object"]["metadata"]["name"].as_str().unwrap()
            )
        })
        .collect();
    events.sort();
    assert_eq!(events, ["DELETED greeter", "MODIFIED lamp"]);
    world.refresh(CatalogBuilder::default().package("lamp", 5), "after").await;
    assert!(version(&world.server.get(path).await) > version(&list));
}
