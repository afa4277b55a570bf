//! A server that is killed while it ingests, at a step that is held until it is.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join;
use serde_json::{Value, json};

use crate::support::catalog::CatalogBuilder;
use crate::support::etcd::{Etcd, Version};
use crate::support::etcd_proxy::EtcdProxy;
use crate::support::fake_registry::{Answer, Asked, FakeRegistry, Gate};
use crate::support::image::Image;
use crate::support::process::Process;
use crate::support::record::{Recorder, watch_once};
use crate::support::server::Server;
use crate::support::{eventually, rounds};

const RESOURCES: [&str; 2] = ["packages", "bundlemetadata"];

/// How many objects of each an ingest makes: more than one transaction of one package alone.
const EXPECTED: [usize; 2] = [3, 3 + 300 + 40];

/// How long a process may take to end: what config/ grants the controller.
const GRACE: Duration = Duration::from_secs(30);

/// A catalog in a registry that can hold its answers, and a server that is killed while it ingests.
pub struct Scene {
    pub server: Server,
    pub registry: FakeRegistry,
    pub image: Image,
    /// The way of the controller to etcd, where there is one.
    pub proxy: Option<EtcdProxy>,
    /// The number of the process that ingests.
    ingesting: usize,
    undisturbed: BTreeMap<String, Value>,
    rounds: usize,
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Term,
    Kill,
}

impl Signal {
    /// Returns what is tried at a step: both, or, where there is little time, one after the other.
    pub fn at(step: usize) -> Vec<Signal> {
        match rounds(1, 2) {
            1 => vec![[Signal::Term, Signal::Kill][step % 2]],
            _ => vec![Signal::Term, Signal::Kill],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Signal::Term => "TERM",
            Signal::Kill => "KILL",
        }
    }
}

impl Scene {
    /// An installation of `apiserver` and `controller`, or of `up`.
    pub async fn new(is_on_etcd: bool) -> Self {
        let (server, proxy) = match is_on_etcd {
            false => (Server::start(&[]).await, None),
            true => {
                let etcd = Etcd::start(Version::Built).await;
                let (endpoints, proxy) = (etcd.endpoints(), EtcdProxy::start(&etcd.endpoints()[0]).await);
                let mut server = Server::start_on(Some(etcd), 0, &[]).await;
                server.add_apiserver(&endpoints, &[]);
                server
                    .add_controller(&[proxy.url().to_owned()], &["--lease-duration=1s", "--etcd-timeout=2s"]);
                server.ready().await;
                (server, Some(proxy))
            }
        };
        let registry = FakeRegistry::start().await;
        let catalog = CatalogBuilder::default().package("one", 3).package("large", 300).package("two", 40);
        let image = catalog.image();
        registry.push("catalog", "v1", &image);
        let ingesting = usize::from(is_on_etcd);
        let undisturbed = BTreeMap::new();
        let mut scene = Scene { server, registry, image, proxy, ingesting, undisturbed, rounds: 0 };
        scene.round("nothing", async |scene: &mut Scene| scene.create()).await;
        scene.undisturbed = scene.state().await;
        assert_eq!(scene.undisturbed.len(), EXPECTED.iter().sum::<usize>());
        scene
    }

    /// Returns the process that ingests.
    pub fn process(&mut self) -> &mut Process {
        self.server.processes().nth(self.ingesting).expect("it was started")
    }

    /// Each ingest is one of another CatalogSource.
    pub fn namespace(&self) -> String {
        format!("round-{}", self.rounds)
    }

    pub fn create(&self) {
        let source = json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": "catalog", "namespace": self.namespace()},
            "spec": {"image": self.registry.reference("catalog", "v1")},
        });
        self.server.kubectl().run_with("apply -f -", &source.to_string());
    }

    pub fn path(&self, resource: &str) -> String {
        format!("/apis/core.rukpak.io/v1beta1/namespaces/{}/{resource}", self.namespace())
    }

    /// Ingests once while something is done about it, and checks what comes of it and what watchers saw.
    pub async fn round(&mut self, step: &str, disturb: impl AsyncFnOnce(&mut Self)) {
        self.rounds += 1;
        let step = format!("{step}, {}", self.namespace());
        let list = self.server.get(&self.path("packages")).await;
        let start = list["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
        let start: u64 = start.expect("lists have versions");
        let kubeconfigs: Vec<_> = self.server.kubeconfigs().collect();
        let recorders =
            RESOURCES.map(|resource| Recorder::start(kubeconfigs.clone(), &self.path(resource), start, 60));
        disturb(self).await;
        self.settled(&step).await;
        if !self.undisturbed.is_empty() {
            let state = self.state().await;
            let keys = self.undisturbed.keys().chain(state.keys());
            let differing: Vec<_> =
                keys.filter(|key| self.undisturbed.get(*key) != state.get(*key)).collect();
            assert!(differing.is_empty(), "{step}: {differing:?}");
        }
        let client = self.server.client().await;
        let (packages, bundles) = (self.path(RESOURCES[0]), self.path(RESOURCES[1]));
        let logs =
            join(watch_once(&client, &packages, start, 1), watch_once(&client, &bundles, start, 1)).await;
        for ((log, recorder), expected) in [logs.0, logs.1].into_iter().zip(&recorders).zip(EXPECTED) {
            let log = log.expect("the watch is taken");
            // Each object once: nothing was written twice, or taken back.
            assert_eq!(log.len(), expected, "{step}");
            assert!(log.iter().all(|(_, kind, _)| kind == "ADDED"), "{step}: {log:?}");
            assert_eq!(recorder.until(expected).await, log, "{step}");
        }
    }

    /// Waits until the catalog is served, and nothing is left to do.
    async fn settled(&self, step: &str) {
        let path = self.path("catalogsources/catalog");
        eventually(&format!("the end of the ingest: {step}"), || async {
            is_settled(&self.server.get_if_there(&path).await?).then_some(())
        })
        .await;
    }

    /// Returns what is served, without what differs from one ingest to the next.
    async fn state(&self) -> BTreeMap<String, Value> {
        let mut state = BTreeMap::new();
        for resource in RESOURCES {
            let list = self.server.get(&self.path(resource)).await;
            for mut item in list["items"].as_array().expect("a list has items").clone() {
                let metadata = item["metadata"].as_object_mut().expect("objects have metadata");
                metadata.retain(|field, _| ["name", "labels"].contains(&&**field));
                let name = format!("{resource}/{}", metadata["name"].as_str().expect("objects have names"));
                item["spec"]["catalogSourceNamespace"] = Value::Null;
                state.insert(name, item);
            }
        }
        state
    }

    /// Ends the process that ingests, and starts it again.
    pub async fn end(&mut self, signal: Signal, step: &str) {
        self.process().signal(signal.name());
        self.ended(signal, step).await;
    }

    /// Waits until the process that ingests has ended of a signal, and starts it again.
    pub async fn ended(&mut self, signal: Signal, step: &str) {
        let process = self.process();
        let ended = tokio::time::timeout(GRACE, process.ended()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{step}: it does not end: {}", process.log()));
        if signal == Signal::Term {
            assert_eq!(ended.code(), Some(0), "{step}: {}", process.log());
        }
        self.server.restart_one(self.ingesting);
        self.server.ready().await;
    }

    /// Holds the first answer of the registry that is asked for, but for what comes before its last bytes.
    pub fn hold(&self, rest: usize, is_it: impl Fn(&Asked) -> bool + Send + Sync + 'static) -> Gate {
        let gate = Gate::default();
        let first = gate.clone();
        self.registry.behave(move |asked| match is_it(asked) && !first.is_held() {
            true => Answer::Hold(rest, first.clone()),
            false => Answer::Proper,
        });
        gate
    }
}

/// Returns whether a catalog is served, and nothing is left to do.
pub fn is_settled(source: &Value) -> bool {
    let conditions = source["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let is = |kind: &str, value: &str| {
        conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == value)
    };
    is("Ready", "True") && is("Progressing", "False")
}
