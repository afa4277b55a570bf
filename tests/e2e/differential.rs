//! The same requests to a real kube-apiserver that serves definitions of the same schemas, and to ours: what differs is
//! listed with a reason, or it is a defect.
//!
//! What is asked stands in `differential/requests.yaml`, what may differ in `differential/differences.yaml`.

mod compare;
mod requests;

use std::path::Path;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use self::compare::{Answer, differences};
use self::requests::{Ask, Memory, Permitted, read_permitted, read_scenes};
use crate::cluster::Cluster;
use crate::support::etcd::{Etcd, Version};
use crate::support::eventually;
use crate::support::server::Server;

const DEFINITION: &str = "catalogsources.core.rukpak.io";

/// How long an answer may take to its end.
const ANSWER: Duration = Duration::from_secs(15);

/// One of the two servers, and what it has answered.
struct Side {
    client: kube::Client,
    memory: Memory,
}

impl Side {
    /// Asks, and returns the answer without what is never the same.
    async fn ask(&mut self, ask: &Ask) -> Answer {
        let (method, path) = ask.line(&self.memory);
        let body = ask.body(&self.memory);
        let mut request = Request::builder().method(&*method).uri(&path);
        for (name, value) in ask.headers() {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(body.into_bytes())).expect("the table has good requests");
        let sent = async {
            let answer: Response<Body> =
                self.client.send(request).await.map_err(|error| error.to_string())?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>((head, body))
        };
        let Ok(answer) = tokio::time::timeout(ANSWER, sent).await else { return Answer::none("no end") };
        let (head, body) = match answer {
            Ok(answer) => answer,
            Err(error) => return Answer::none(&error),
        };
        let answer = Answer::new(&head, &body);
        self.memory.note(&answer);
        answer.normal(&self.memory)
    }
}

/// Returns a client that shows every answer: it does not ask again when it is told to.
async fn connect(kubeconfig: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    kube::Client::try_from(config).unwrap()
}

/// The columns that a definition can have too.
fn columns() -> Value {
    let column = |name: &str, kind: &str, path: &str, priority: u8| {
        let resource = &packageserver::model::CATALOG_SOURCE;
        let ours = resource.columns.iter().find(|column| column.name == name).expect("the column is ours");
        json!({
            "name": name, "type": kind, "jsonPath": path, "priority": priority, "description": ours.description,
        })
    };
    json!([
        column("Image", "string", ".spec.image", 0),
        column("Packages", "integer", ".status.packages", 0),
        column("Ready", "string", r#".status.conditions[?(@.type=="Ready")].status"#, 0),
        column("Last Poll", "date", ".status.latestImagePoll", 0),
        column("Age", "date", ".metadata.creationTimestamp", 0),
        column("Digest", "string", ".status.resolvedImage", 1),
        column("Bundles", "integer", ".status.bundles", 1),
        column("Message", "string", ".status.observedRefresh", 1),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_a_kube_apiserver() {
    let mut cluster = Cluster::start().await;
    // They would clean up between two requests.
    cluster.stop_controllers();
    let kubectl = cluster.kubectl();
    let bases = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/crd/bases");
    kubectl.run(&format!("apply -f {}", bases.display()));
    // The definition is for tools; here it is served, with columns.
    let patch = json!([
        {"op": "replace", "path": "/spec/versions/0/served", "value": true},
        {"op": "add", "path": "/spec/versions/0/additionalPrinterColumns", "value": columns()},
    ]);
    let file = cluster.directory.path().join("patch.json");
    std::fs::write(&file, patch.to_string()).unwrap();
    kubectl.run(&format!("patch crd {DEFINITION} --type=json --patch-file={}", file.display()));
    eventually("the definition to be served", || {
        let shown = kubectl.try_run("get catalogsources -A", "").stderr;
        async move { shown.contains("No resources found").then_some(()) }
    })
    .await;
    // Nothing ingests: what is in the store comes from the requests.
    let etcd = Etcd::start(Version::Built).await;
    let endpoints = etcd.endpoints();
    let mut server = Server::start_on(Some(etcd), 0, &[]).await;
    server.add_apiserver(&endpoints, &[]);
    server.ready().await;

    let theirs = connect(&cluster.directory.path().join("kubeconfig")).await;
    let ours = connect(&server.kubeconfig()).await;
    let permitted = read_permitted();
    let mut used = vec![false; permitted.len()];
    let (mut asked, mut allowed, mut found) = (0, 0, Vec::new());
    for (scene, asks) in read_scenes() {
        let namespace = format!("scene-{scene}");
        kubectl.run(&format!("create namespace {namespace}"));
        let side = |client: &kube::Client| Side { client: client.clone(), memory: Memory::new(&namespace) };
        let (mut theirs, mut ours) = (side(&theirs), side(&ours));
        for ask in &asks {
            let (expected, seen) = tokio::join!(theirs.ask(ask), ours.ask(ask));
            asked += 1;
            for (side, answer) in [("theirs", &expected), ("ours", &seen)] {
                if let Some(why) = answer.failure() {
                    found.push(format!("{scene}/{}\n    {side}: {why}", ask.name));
                }
            }
            let name = format!("{scene}/{}", ask.name);
            for difference in differences(&expected, &seen) {
                let is_permitted = |entry: &Permitted| entry.matches(&name, &difference);
                match permitted.iter().position(is_permitted) {
                    Some(number) => {
                        used[number] = true;
                        allowed += 1;
                    }
                    None => found.push(format!("{name}\n    {difference}")),
                }
            }
        }
    }
    let stale: Vec<_> =
        permitted.iter().zip(&used).filter(|(_, used)| !**used).map(|(entry, _)| entry.describe()).collect();
    eprintln!("{asked} requests, {allowed} differences with a reason");
    assert!(found.is_empty(), "{} differences without a reason:\n{}", found.len(), found.join("\n"));
    assert!(stale.is_empty(), "listed, and not seen any more: {stale:?}");
}
