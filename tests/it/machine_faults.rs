//! A machine that runs out of something, or has none of it: it is said, nothing is lost, and it goes on when there is
//! some again.

use std::fs::Permissions;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::catalog::CatalogBuilder;
use crate::support::eventually;
use crate::support::kubectl::Kubectl;
use crate::support::process::{Process, free_port};
use crate::support::record::Recorder;
use crate::support::server::{client, get};

/// A server that is started with something less of everything each time, on the same data.
struct Machine {
    directory: TempDir,
    port: u16,
    process: Option<Process>,
}

impl Machine {
    fn new() -> Self {
        packageserver::tls::install_crypto();
        let directory = tempfile::tempdir().unwrap();
        let layout = directory.path().join("sources/large");
        let catalog =
            (0..60).fold(CatalogBuilder::default(), |catalog, n| catalog.package(&format!("p{n}"), 40));
        catalog.image().write_layout(&layout);
        Machine { directory, port: free_port(), process: None }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the server under limits of the shell.
    async fn start(&mut self, limits: &str) {
        self.start_with(limits, &[]).await;
    }

    /// As [`Self::start`], with more arguments.
    async fn start_with(&mut self, limits: &str, arguments: &[&str]) {
        self.process = None;
        let mut command = Command::new("sh");
        // Who is told that a file is too large goes on; without this the system would end it.
        command.args(["-c", &format!("trap '' XFSZ; {limits} exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_packageserver")).arg("up");
        command.arg(format!("--data-dir={}", self.data().display()));
        command.arg(format!("--listen=127.0.0.1:{}", self.port));
        command.arg(format!("--allow-local-sources={}", self.directory.path().join("sources").display()));
        command.args(arguments);
        self.process = Some(Process::start(&mut command, &self.directory.path().join("log")));
        eventually("the server to be ready", || async {
            let kubeconfig = self.kubeconfig();
            if !kubeconfig.exists() {
                return None;
            }
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            client(&kubeconfig).await.request_text(request).await.ok().map(drop)
        })
        .await;
    }

    fn kubeconfig(&self) -> PathBuf {
        self.data().join("kubeconfig")
    }

    fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    fn apply(&self) {
        let source = json!({"apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": "large", "namespace": "test"}, "spec": {"image": "oci:large"}});
        Kubectl::new(self.kubeconfig()).run_with("apply -f -", &source.to_string());
    }

    async fn list(&self, resource: &str) -> Vec<Value> {
        let path = format!("/apis/core.rukpak.io/v1beta1/namespaces/test/{resource}");
        get(&client(&self.kubeconfig()).await, &path).await["items"].as_array().unwrap().clone()
    }

    async fn served(&self) {
        eventually("the catalog to be served", || async {
            let source = self.list("catalogsources").await;
            let conditions = source.first()?["status"]["conditions"].as_array()?.clone();
            conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True").then_some(())
        })
        .await;
        assert_eq!((self.list("packages").await.len(), self.list("bundlemetadata").await.len()), (60, 2400));
    }
}

#[tokio::test]
async fn a_disk_that_runs_full_is_told_and_the_rest_is_done_when_there_is_room() {
    let mut machine = Machine::new();
    machine.start("").await;
    machine.process = None;
    let file = std::fs::metadata(machine.data().join("packageserver.redb")).unwrap().len();
    // A little more than there is, in blocks of 512 bytes, and no more than can be raised again.
    machine.start(&format!("ulimit -S -f {};", file / 512 + 200)).await;
    let path = |resource: &str| format!("/apis/core.rukpak.io/v1beta1/namespaces/test/{resource}");
    let list = get(&client(&machine.kubeconfig()).await, &path("packages")).await;
    let start = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let recorders = ["packages", "bundlemetadata"]
        .map(|resource| Recorder::start(vec![machine.kubeconfig()], &path(resource), start, 60));
    machine.apply();
    eventually("the end of the room to be noticed", || async {
        machine.log().contains("the disk does not take what is written").then_some(())
    })
    .await;
    assert!(machine.log().contains("File too large"), "the reason is told: {}", machine.log());
    // It still answers, also what only the disk has, and says nothing wrong.
    let bundles = machine.list("bundlemetadata").await;
    assert!(bundles.len() < 2400, "the room was enough");
    assert!(bundles.iter().all(|bundle| bundle["spec"]["properties"].is_array()));

    // Somebody makes room, and starts nothing again.
    let process = machine.process.as_ref().unwrap().id();
    let raised = Command::new("prlimit").arg(format!("--pid={process}")).arg("--fsize=unlimited").status();
    assert!(raised.unwrap().success());
    machine.served().await;
    assert!(machine.log().contains("the disk takes what is written again"));
    for (recorder, expected) in recorders.iter().zip([60, 2400]) {
        let seen = recorder.until(expected).await;
        assert_eq!(seen.len(), expected, "each object once: nothing was lost, or written again");
        assert!(seen.iter().all(|(_, kind, _)| kind == "ADDED"));
        assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "no version is used twice");
    }
}

/// Starts the server in a way in which it cannot run, and returns what it says.
async fn refuses(machine: &Machine, mut command: Command) -> String {
    command.arg(env!("CARGO_BIN_EXE_packageserver")).arg("up").arg("--data-dir").arg(machine.data());
    command.arg(format!("--listen=127.0.0.1:{}", machine.port));
    let log = machine.directory.path().join("refused");
    let mut process = Process::start(&mut command, &log);
    let ended = process.ended().await;
    assert_eq!(ended.code(), Some(1), "{}", process.log());
    process.log()
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_named_at_the_start() {
    let mut machine = Machine::new();
    machine.start("").await;
    machine.apply();
    machine.served().await;
    machine.process = None;
    let database = machine.data().join("packageserver.redb");
    let mode = |mode| std::fs::set_permissions(&database, Permissions::from_mode(mode)).unwrap();

    mode(0o444);
    let is_root = std::fs::metadata(&database).unwrap().uid() == 0;
    let mut command = Command::new("env");
    if is_root {
        // Root writes whatever its mode is, but for a right that can be dropped.
        command.args(["setpriv", "--bounding-set=-dac_override,-dac_read_search"]);
    }
    let said = refuses(&machine, command).await;
    assert!(said.contains(&format!("cannot open `{}`: Permission denied", database.display())), "{said}");
    mode(0o600);

    // A file system that is read-only, as it is to be had without one: for a process and its children.
    let mount = |then: &str| {
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--map-root-user", "sh", "-c", &format!("{script} && {then}")])
            .arg(machine.data());
        command
    };
    if mount("true").status().is_ok_and(|status| status.success()) {
        let said = refuses(&machine, mount("exec \"$@\"")).await;
        let expected = format!("`{}`: Read-only file system", machine.data().display());
        assert!(said.contains(&expected), "{said}");
    } else {
        eprintln!("no file systems can be mounted here: a read-only one is not tried");
    }

    // Nothing has become of what was there.
    machine.start("").await;
    machine.served().await;
}

#[tokio::test]
async fn a_machine_without_file_descriptors_serves_again_when_there_are_some() {
    let mut machine = Machine::new();
    // More connections than there are descriptors for.
    machine.start_with("ulimit -n 80;", &["--max-connections=1000"]).await;
    let connections: Vec<_> =
        (0..120).map_while(|_| TcpStream::connect(("127.0.0.1", machine.port)).ok()).collect();
    eventually("descriptors to be used up", || async {
        machine.log().contains("cannot accept a connection").then_some(())
    })
    .await;
    drop(connections);
    eventually("room", || async {
        let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
        client(&machine.kubeconfig()).await.request_text(request).await.ok().map(drop)
    })
    .await;
    machine.apply();
    machine.served().await;
}

#[tokio::test]
async fn connections_leave_file_descriptors_for_everything_else() {
    let mut machine = Machine::new();
    machine.start("ulimit -n 80;").await;
    let connections: Vec<_> =
        (0..120).map(|_| TcpStream::connect(("127.0.0.1", machine.port)).unwrap()).collect();
    machine.apply();
    machine.served().await;
    assert!(!machine.log().contains("cannot accept a connection"), "{}", machine.log());
    drop(connections);
}

/// Renders the catalog with a spool that has to go to a file.
async fn render(machine: &Machine, limits: &str, directory: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' XFSZ; {limits} exec \"$0\" \"$@\"")]);
    command.arg(env!("CARGO_BIN_EXE_packageserver"));
    command.arg("render").arg(format!("oci:{}", machine.directory.path().join("sources/large").display()));
    command.args(["--max-spool-memory=1Ki", "--output=table"]).env("TMPDIR", directory);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_is_an_error_that_says_so() {
    let machine = Machine::new();
    let temporary = machine.directory.path().display().to_string();
    assert!(render(&machine, "", &temporary).await.status.success());
    for (limits, directory) in
        [("ulimit -f 100;", temporary.as_str()), ("", "/no/such/directory"), ("", "/proc")]
    {
        let output = render(&machine, limits, directory).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot spool: "), "{limits} {directory}: {said}");
        assert!(output.stdout.is_empty(), "nothing is told of a catalog that was not read whole");
    }
}
