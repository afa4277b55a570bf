//! An installation: etcd, the ingesting and the serving program with their default settings, on loopback.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures::StreamExt;
use packageserver::model::{CatalogSource, REFRESH_ANNOTATION};
use packageserver::sink::EtcdStore;
use packageserver::store::{
    Batch, Key, Object, Operation, Range, ResourceVersion, Store, StoreError, Stored, WatchItem,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::account;
use super::support::etcd::{Etcd, Version};
use super::support::eventually;
use super::support::process::{Process, free_port};

/// How long an ingest may take before a bench gives up.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where everything is.
pub const NAMESPACE: &str = "bench";

/// Names a program that is measured in place of the one that was built.
const PROGRAM: &str = "PACKAGESERVER_BENCH_PROGRAM";

/// Returns the program that is measured.
pub fn program() -> PathBuf {
    std::env::var_os(PROGRAM).map_or_else(|| env!("CARGO_BIN_EXE_packageserver").into(), PathBuf::from)
}

/// etcd and the programs on it. They end with this.
pub struct Installation {
    /// Before etcd, so that it ends first.
    controller: Process,
    apiservers: Vec<Process>,
    pub etcd: Etcd,
    pub etcd_process: u32,
    pub store: EtcdStore,
    directory: TempDir,
    requests: u32,
}

/// What an ingest took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ingested {
    /// From the request to the last event, in seconds.
    pub wall: f64,
    /// CPU seconds of the controller.
    pub controller: f64,
    /// CPU seconds of etcd.
    pub etcd: f64,
    /// Transactions that etcd committed, with the one that asked for the ingest.
    pub revisions: u64,
    /// Objects that were added, modified or deleted.
    pub changed: i64,
}

impl Installation {
    /// Starts etcd and a controller.
    pub async fn start(program: &Path, arguments: &[&str]) -> Self {
        let etcd = Etcd::start(Version::Built).await;
        let etcd_process = account::child("etcd");
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let controller = Process::start(
            Command::new(program)
                // As the image has it.
                .env("MALLOC_ARENA_MAX", "1")
                .args(["controller", "--standalone", "--etcd-servers", &etcd.endpoints().join(",")])
                .arg(format!("--metrics-bind-address=127.0.0.1:{}", free_port()))
                .args(arguments),
            &directory.path().join("controller.log"),
        );
        let (store, apiservers) = (etcd.store(), Vec::new());
        let mut installation =
            Installation { controller, apiservers, etcd, etcd_process, store, directory, requests: 0 };
        installation.settle().await;
        installation
    }

    /// Waits until the controller follows CatalogSources, and has what the first one has to wait for (the pattern of image
    /// references takes 40 ms to compile): it notes that a registry is not there.
    async fn settle(&mut self) {
        let key = key("settle");
        let object = source("settle", &format!("localhost:{}/nowhere", free_port()), None);
        self.store.append(Batch::of(Operation::create(key.clone(), object))).await.expect("etcd is there");
        eventually("the controller", || async {
            let stored = self.store.get(&key).await.ok()??;
            let noted = read(&stored).status?;
            noted.condition("Degraded").map(drop)
        })
        .await;
        let stored = self.store.get(&key).await.expect("etcd is there").expect("it was just there");
        let deletion = Operation::delete(key, stored.version);
        self.store.append(Batch::of(deletion)).await.expect("nobody else writes");
    }

    /// Creates a CatalogSource and waits until what its image holds is committed.
    pub async fn ingest(&mut self, name: &str, image: &str, polling: Option<&str>) -> Ingested {
        let operation = Operation::create(key(name), source(name, image, polling));
        self.requested(name, operation, None).await
    }

    /// Asks for a refresh, and waits until it is done.
    pub async fn refresh(&mut self, name: &str) -> Ingested {
        self.requests += 1;
        let request = format!("request-{}", self.requests);
        let stored = self.store.get(&key(name)).await.expect("etcd is there").expect("it was created");
        let mut object: Value =
            serde_json::from_slice(&stored.object.json().expect("it is whole")).expect("it is JSON");
        object["metadata"]["annotations"] = json!({ REFRESH_ANNOTATION: request });
        let operation = Operation::replace(key(name), stored.version, Object::whole(object.to_string()));
        self.requested(name, operation, Some(&request)).await
    }

    async fn requested(&mut self, name: &str, operation: Operation, request: Option<&str>) -> Ingested {
        let after = self.store.current().await.expect("etcd is there");
        let mut changes =
            self.store.watch(Range::single(&key(name)), after).await.expect("it can be watched");
        let before = (account::cpu_of(self.controller.id()), account::cpu_of(self.etcd_process));
        let start = Instant::now();
        self.store.append(Batch::of(operation)).await.expect("nobody else writes");
        let done = async {
            loop {
                let item = changes.next().await.expect("the watch goes on").expect("the watch goes on");
                let WatchItem::Change(change) = item else { continue };
                let Some(object) = &change.after else { continue };
                let found = read_object(object);
                let Some(status) = found.status else { continue };
                let is_followed = request.is_none() || status.observed_refresh.as_deref() == request;
                let failed = status.condition("Degraded").is_some_and(|it| it.status == "True");
                assert!(!is_followed || !failed, "the ingest failed: {:?}", status.conditions);
                let is_done = status.condition("Progressing").is_none_or(|it| it.status == "False");
                if is_followed
                    && is_done
                    && let Some(ingest) = status.last_ingest
                {
                    break (change.version, ingest);
                }
            }
        };
        let (version, ingest) = tokio::time::timeout(PATIENCE, done).await.expect("an ingest ends");
        let wall = start.elapsed().as_secs_f64();
        Ingested {
            wall,
            controller: account::cpu_of(self.controller.id()) - before.0,
            etcd: account::cpu_of(self.etcd_process) - before.1,
            revisions: version.revision().get() - after.revision().get(),
            changed: ingest.added + ingest.modified + ingest.deleted,
        }
    }

    /// Returns the process of the controller.
    pub fn controller(&self) -> u32 {
        self.controller.id()
    }

    /// Starts an apiserver, and returns its process, where it serves, and how long it took to be ready.
    pub async fn apiserver(&mut self, program: &Path) -> (u32, String, Duration) {
        let port = free_port();
        let data = self.directory.path().join("apiserver");
        let start = Instant::now();
        let process = Process::start(
            Command::new(program)
                .args(["apiserver", "--standalone", "--etcd-servers", &self.etcd.endpoints().join(",")])
                .args(["--secure-port", &port.to_string()])
                .arg("--data-dir")
                .arg(&data),
            &self.directory.path().join("apiserver.log"),
        );
        let url = format!("https://127.0.0.1:{port}");
        let http = anybody();
        eventually("the apiserver to be ready", || async {
            let answer = http.get(format!("{url}/readyz")).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        let ready = start.elapsed();
        let id = process.id();
        self.apiservers.push(process);
        (id, url, ready)
    }

    /// Ends the apiserver that was started last.
    pub fn stop_apiserver(&mut self) {
        self.apiservers.pop();
    }

    /// Returns the kubeconfig of the apiservers.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("apiserver/kubeconfig")
    }

    /// Forgets history, and returns the bytes that etcd then needs.
    pub async fn compacted_bytes(&self) -> u64 {
        let current: ResourceVersion = self.store.current().await.expect("etcd is there");
        let compacted: Result<(), StoreError> = self.store.compact(current.revision()).await;
        compacted.expect("it exists");
        let mut client = self.etcd.client().await;
        let mut seen = 0;
        // etcd compacts behind its answer; what it needs shrinks until it is done.
        for _ in 0..100 {
            let status = client.status().await.expect("etcd answers");
            let now = status.raft_used_db_size() as u64;
            if now == seen {
                return now;
            }
            seen = now;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        seen
    }
}

/// Returns a client for whoever answers without asking who it is.
pub fn anybody() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
    builder.timeout(Duration::from_secs(10)).build().expect("a client can be made")
}

/// Returns where a CatalogSource is.
pub fn key(name: &str) -> Key {
    Key::new("catalogsources", NAMESPACE, name)
}

fn source(name: &str, image: &str, polling: Option<&str>) -> Object {
    let object = json!({
        "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "generation": 1, "creationTimestamp": "2024-05-01T10:00:00Z",
            "uid": uuid::Uuid::new_v4().to_string(),
        },
        "spec": {"image": image, "pollingInterval": polling},
    });
    Object::whole(object.to_string())
}

fn read(stored: &Stored) -> CatalogSource {
    read_object(&stored.object)
}

fn read_object(object: &Object) -> CatalogSource {
    serde_json::from_slice(&object.json().expect("it is whole")).expect("it is a CatalogSource")
}
