//! The servers that are compared: ours, and a kube-apiserver that serves the same objects from definitions.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use packageserver::sink::EtcdStore;
use packageserver::store::{Batch, Key, Operation, Store};
use serde_json::{Value, json};

use super::account;
use super::client::Access;
use super::cluster::{Cluster, tool};
use super::installation::NAMESPACE;
use super::support::eventually;

/// Where both serve the same.
pub const ROOT: &str = "/apis/core.rukpak.io/v1beta1";

/// What is created at a time in the cluster: what a controller with ten workers does, and more than most have.
const WORKERS: usize = 10;

/// A server with its etcd.
pub struct Server {
    pub name: &'static str,
    pub access: Access,
    pub process: u32,
    pub etcd: u32,
    writing: Writing,
}

/// How a package comes to be changed: in its etcd, so that both servers are told in the same way.
enum Writing {
    Store(EtcdStore),
    /// What a kube-apiserver has stored is put once more.
    Raw(Box<etcd_client::KvClient>),
}

impl Server {
    /// Our own.
    pub fn ours(kubeconfig: &Path, process: u32, etcd: u32, store: EtcdStore) -> Self {
        let access = Access::read(kubeconfig);
        Server { name: "packageserver", access, process, etcd, writing: Writing::Store(store) }
    }

    /// Changes a package. Returns when that began, and when it was committed.
    pub async fn change(&mut self, package: &str) -> (Instant, Instant) {
        match &mut self.writing {
            Writing::Store(store) => {
                let key = Key::new("packages", NAMESPACE, package);
                let stored = store.get(&key).await.expect("etcd is there").expect("it is there");
                let change = Operation::replace(key, stored.version, stored.object);
                let start = Instant::now();
                store.append(Batch::of(change)).await.expect("nobody else writes");
                (start, Instant::now())
            }
            Writing::Raw(etcd) => {
                let key = format!("/registry/core.rukpak.io/packages/{NAMESPACE}/{package}");
                let mut found = etcd.get(key.clone(), None).await.expect("etcd is there");
                let stored = found.take_kvs().pop().expect("it is there");
                let start = Instant::now();
                etcd.put(key, stored.value(), None).await.expect("etcd is there");
                (start, Instant::now())
            }
        }
    }
}

/// A kube-apiserver with its etcd, and what it took to put the objects there. It ends with this.
pub struct Peer {
    pub cluster: Cluster,
    pub created: Created,
}

/// What it took to create objects one by one.
#[derive(Clone, Copy, Debug)]
pub struct Created {
    pub objects: u64,
    /// Seconds.
    pub wall: f64,
    /// CPU seconds.
    pub apiserver: f64,
    pub etcd: f64,
    /// MiB.
    pub apiserver_peak: f64,
    pub etcd_peak: f64,
}

/// Returns whether there is what a peer needs; `make bench` builds it.
pub fn has_peer() -> bool {
    ["kube-apiserver", "kube-controller-manager", "etcd", "peer"]
        .iter()
        .all(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("bin").join(name).exists())
}

impl Peer {
    /// Starts a kube-apiserver whose etcd syncs to disk, and creates objects in it, which are read from lines of a file.
    pub async fn start(objects: &Path) -> Self {
        let mut cluster = Cluster::start_with(&[]).await;
        // The garbage collector would delete what has no owner here.
        cluster.stop_controllers();
        let kubectl = cluster.kubectl();
        kubectl.run(&format!("create namespace {NAMESPACE}"));
        for plural in ["packages", "bundlemetadata"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("config/crd/bases/core.rukpak.io_{plural}.yaml"));
            let definition = std::fs::read_to_string(path).expect("there is a definition");
            // For us it is a document; here it is what is served.
            let mut definition: Value = serde_saphyr::from_str(&definition).expect("it is YAML");
            definition["spec"]["versions"][0]["served"] = true.into();
            definition["spec"]["versions"][0]["additionalPrinterColumns"] = columns(plural);
            kubectl.run_with("create -f -", &definition.to_string());
            eventually("the definition to be served", || {
                let listed =
                    kubectl.try_run(&format!("get --raw {ROOT}/namespaces/{NAMESPACE}/{plural}"), "");
                async move { listed.success.then_some(()) }
            })
            .await;
        }
        let (apiserver, etcd) = (cluster.apiserver.id(), cluster.etcd.id());
        let before = (account::cpu_of(apiserver), account::cpu_of(etcd));
        let said = Command::new(tool("peer"))
            .arg("--kubeconfig")
            .arg(cluster.directory.path().join("kubeconfig"))
            .arg(format!("--workers={WORKERS}"))
            .stdin(Stdio::from(File::open(objects).expect("the objects were written")))
            .stderr(Stdio::inherit())
            .output()
            .expect("it can be started");
        assert!(said.status.success(), "the objects cannot be created");
        let said: Value = serde_json::from_slice(&said.stdout).expect("it says what it did");
        let created = Created {
            objects: said["created"].as_u64().expect("a count"),
            wall: said["seconds"].as_f64().expect("a duration"),
            apiserver: account::cpu_of(apiserver) - before.0,
            etcd: account::cpu_of(etcd) - before.1,
            apiserver_peak: account::peak_of(apiserver),
            etcd_peak: account::peak_of(etcd),
        };
        Peer { cluster, created }
    }

    /// Returns it as one of the servers that are compared.
    pub async fn server(&self) -> Server {
        let access = Access::read(&self.cluster.directory.path().join("kubeconfig"));
        let endpoint = format!("http://127.0.0.1:{}", self.cluster.etcd_port);
        let etcd = etcd_client::Client::connect([endpoint], None).await.expect("etcd is there");
        let writing = Writing::Raw(Box::new(etcd.kv_client()));
        let (process, etcd) = (self.cluster.apiserver.id(), self.cluster.etcd.id());
        Server { name: "kube-apiserver", access, process, etcd, writing }
    }
}

/// Returns columns like those of our tables, as far as a definition can have them: a path each.
fn columns(plural: &str) -> Value {
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let of = match plural {
        "packages" => [
            column("Catalog", "string", ".spec.catalogSource"),
            column("Channel", "string", ".spec.defaultChannel"),
            column("Provider", "string", ".spec.provider.name"),
        ],
        _ => [
            column("Package", "string", ".spec.package"),
            column("Version", "string", ".spec.version"),
            column("Catalog", "string", ".spec.catalogSource"),
        ],
    };
    of.into_iter().chain([column("Age", "date", ".metadata.creationTimestamp")]).collect()
}

/// Writes the objects of lists into a file, one a line, without what another server gives them.
pub fn write_objects(path: &Path, lists: &[Vec<u8>]) -> PathBuf {
    let mut file = BufWriter::new(File::create(path).expect("a file can be made"));
    for list in lists {
        let mut list: Value = serde_json::from_slice(list).expect("a list is JSON");
        for object in list["items"].as_array_mut().expect("a list has items") {
            let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
            for field in ["resourceVersion", "uid", "generation", "creationTimestamp", "managedFields"] {
                metadata.remove(field);
            }
            writeln!(file, "{object}").expect("a file can be written");
        }
    }
    file.flush().expect("a file can be written");
    path.to_owned()
}
