//! `history` on what ingests have left: as a table and as JSON lines, between versions and between times.

use std::path::Path;
use std::process::Command;

use k8s_openapi::jiff::Timestamp;
use packageserver::store::{ResourceVersion, Store};
use serde_json::{Value, json};

use crate::support::catalog::{CatalogBuilder, Edit};
use crate::support::eventually;
use crate::support::server::{Kind, Server};

/// Runs `history` and returns whether it succeeded, what it printed, and what it logged.
fn history(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_packageserver")).arg("history").args(arguments).output();
    let output = output.expect("the program can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn printed(arguments: &[&str]) -> String {
    let (succeeded, printed, log) = history(arguments);
    assert!(succeeded, "{arguments:?}: {log}");
    printed
}

/// Returns the cells of a table without versions and times.
fn rows(table: &str) -> Vec<String> {
    let row = |line: &str| {
        let cells: Vec<_> = line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        cells[2..].join(" | ")
    };
    table.lines().map(row).collect()
}

fn write(directory: &Path, catalog: &CatalogBuilder) {
    let path = directory.join("catalog");
    let _ = std::fs::remove_dir_all(&path);
    catalog.write(&path);
}

/// A catalog that was ingested three times.
struct Past {
    server: Server,
    /// The version before the second and third ingest.
    versions: [String; 2],
    /// When the first and the second were complete.
    times: [String; 2],
    directory: tempfile::TempDir,
}

impl Past {
    async fn new(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let first = CatalogBuilder::default().package("one", 2).package("two", 1);
        let second = first.clone().package("one", 3).package("three", 1);
        let third = second.clone().without("two").edit("three", Edit::Icon);
        let root = directory.path().to_str().unwrap();
        let server = Server::start_as(kind, &["--allow-local-sources", root]).await;
        let kubectl = server.kubectl();
        let (mut versions, mut times) = (Vec::new(), Vec::new());
        let path = "/apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources/catalog";
        for (number, catalog) in [first, second, third].iter().enumerate() {
            write(directory.path(), catalog);
            let list = server.get("/apis/core.rukpak.io/v1beta1/packages?limit=1").await;
            versions.push(list["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
            let source = json!({
                "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
                "metadata": {"name": "catalog", "namespace": "test",
                             "annotations": {"core.rukpak.io/refresh-requested-at": number.to_string()}},
                "spec": {"image": "fbc:catalog"},
            });
            kubectl.run_with("apply -f -", &source.to_string());
            let status = eventually("the ingest to be complete", || async {
                let source = server.get_if_there(path).await?;
                let status = &source["status"];
                let is_done = status["observedRefresh"] == *number.to_string()
                    && status["lastIngest"]["completedAt"].is_string();
                is_done.then(|| status.clone())
            })
            .await;
            times.push(status["lastIngest"]["completedAt"].as_str().unwrap().to_owned());
        }
        let [_, second, third] = versions.try_into().unwrap();
        let [first_time, second_time, _] = times.try_into().unwrap();
        Past { server, versions: [second, third], times: [first_time, second_time], directory }
    }

    /// Checks what is printed, given where the log is.
    fn is_printed(&self, place: &[&str]) {
        let run = |more: &[&str]| printed(&[place, more].concat());
        let header = "NAMESPACE | CATALOG | PACKAGE | CHANGE | CHANNEL | HEAD";
        let one = "test | catalog | one | Modified | stable | one.v1.0.1 -> one.v1.0.2";
        let [first, second, third] = [
            vec![
                "test | catalog | one | Added | stable | one.v1.0.1",
                "test | catalog | two | Added | stable | two.v1.0.0",
            ],
            vec![one, "test | catalog | three | Added | stable | three.v1.0.0"],
            vec![
                "test | catalog | three | Modified | stable | three.v1.0.0",
                "test | catalog | two | Deleted | stable -> - | two.v1.0.0 -> -",
            ],
        ];
        let table = |parts: &[&Vec<&'static str>]| {
            let rows = parts.iter().flat_map(|part| part.iter().copied());
            std::iter::once(header).chain(rows).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(rows(&run(&[])), table(&[&first, &second, &third]));
        // Between versions, and between times: the same ingest.
        let [from, to] = &self.versions;
        assert_eq!(rows(&run(&["--from", from, "--to", to])), table(&[&second]));
        let [from_time, to_time] = &self.times;
        assert_eq!(rows(&run(&["--from", from_time, "--to", to_time])), table(&[&second]));
        assert_eq!(rows(&run(&["--from", to_time])), table(&[&third]));
        assert_eq!(rows(&run(&["--to", from])), table(&[&first]));
        assert_eq!(rows(&run(&["--namespace", "elsewhere"])), table(&[]));
        assert_eq!(rows(&run(&["--catalog-source", "another"])), table(&[]));

        let lines = run(&["--from", from, "--to", to, "--output", "jsonl"]);
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let versions: Vec<u64> =
            lines.iter().map(|line| line["resourceVersion"].as_str().unwrap().parse().unwrap()).collect();
        assert!(versions.len() == 2 && versions[0] < versions[1], "{versions:?}");
        assert!(versions[0] > from.parse().unwrap() && versions[1] <= to.parse().unwrap(), "{versions:?}");
        let state = |head: &str| json!({"defaultChannel": "stable", "head": head});
        let expected = [
            json!({
                "package": "one", "change": "Modified", "before": state("one.v1.0.1"), "after": state("one.v1.0.2"),
            }),
            json!({"package": "three", "change": "Added", "after": state("three.v1.0.0")}),
        ];
        for (mut line, expected) in lines.into_iter().zip(expected) {
            let time = line["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
            assert_eq!(time, to_time.parse().ok());
            assert_eq!((&line["namespace"], &line["catalogSource"]), (&json!("test"), &json!("catalog")));
            let fields = line.as_object_mut().unwrap();
            fields.retain(|name, _| {
                !["resourceVersion", "time", "namespace", "catalogSource"].contains(&&**name)
            });
            assert_eq!(line, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_on_etcd_is_read_while_servers_run_and_ends_where_it_is_compacted() {
    let mut past = Past::new(Kind::OnEtcd).await;
    let servers = format!("--etcd-servers={}", past.server.etcd().endpoints().join(","));
    past.is_printed(&[&servers]);

    // After compaction, what is left is printed, and what is not there is not passed over in silence.
    let store = past.server.etcd().store();
    let third: u64 = past.versions[1].parse().unwrap();
    store.compact(ResourceVersion::from_u64(third).revision()).await.unwrap();
    assert_eq!(rows(&printed(&[&servers])).len(), 3);
    let (succeeded, _, log) = history(&[&servers, "--from", &past.versions[0]]);
    assert!(!succeeded && log.contains("history goes back to version"), "{log}");
    let (succeeded, table, log) = history(&[&servers, "--from", &past.times[0]]);
    assert!(succeeded && log.contains("history goes back to a later time"), "{log}");
    assert_eq!(rows(&table).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_in_a_data_directory_is_read_when_nothing_runs() {
    let mut past = Past::new(Kind::Up).await;
    let data = past.server.kubeconfig().parent().unwrap().display().to_string();
    let place = ["--data-dir", data.as_str()];
    let (succeeded, _, log) = history(&place);
    assert!(!succeeded && log.contains("is in use"), "{log}");
    past.server.process().signal("TERM");
    assert!(past.server.process().ended().await.success());
    past.is_printed(&place);
    drop(past.directory);
    // A directory without a database is not made into one.
    let empty = tempfile::tempdir().unwrap();
    let (succeeded, ..) = history(&["--data-dir", empty.path().to_str().unwrap()]);
    assert!(!succeeded);
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}
