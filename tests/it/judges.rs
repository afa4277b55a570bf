//! Clients that controllers are built on are the judges: the informers of client-go, with and without streamed lists, and the
//! watcher of kube, in both its modes.
//!
//! They reach the server on a way that is cut again and again, and the server is killed under them. What they were told has
//! to add up to what a list says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::catalog::CatalogBuilder;
use crate::support::etcd::{Etcd, Version};
use crate::support::eventually;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::server::{Server, client};

const CHANGES: usize = 1000;
const NAMESPACE: &str = "test";

/// What a client says it was told: events as it names them, and which object.
type Told = Vec<(&'static str, String, String)>;

/// Names of objects and their versions.
type State = BTreeMap<String, String>;

/// A client that follows the CatalogSources of the namespace.
trait Judge {
    fn name(&self) -> String;
    /// What it was told so far, in its order: add, update, delete.
    fn told(&self) -> Told;
    /// What it holds.
    fn state(&self) -> State {
        let mut state = State::new();
        for (event, name, version) in self.told() {
            match event {
                "delete" => drop(state.remove(&name)),
                _ => drop(state.insert(name, version)),
            }
        }
        state
    }
}

/// An informer of a program in Go, which has two of them.
struct Informer {
    program: Arc<Mutex<Process>>,
    informer: &'static str,
    streams: bool,
}

impl Informer {
    /// Starts the program.
    fn start(kubeconfig: &Path, streams: bool) -> [Self; 2] {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("bin/judge");
        assert!(program.exists(), "there is no `{}`; `make tools` builds it", program.display());
        let log = kubeconfig.with_file_name(format!("judge-{streams}.log"));
        let mut command = Command::new(program);
        command
            .env("KUBE_FEATURE_WatchListClient", streams.to_string())
            .args(["--resource=catalogsources.v1beta1.core.rukpak.io", "--namespace", NAMESPACE])
            .arg(format!("--kubeconfig={}", kubeconfig.display()));
        let program = Arc::new(Mutex::new(Process::start(&mut command, &log)));
        ["dynamic", "metadata"].map(|informer| Informer { program: Arc::clone(&program), informer, streams })
    }

    /// What the program printed.
    fn lines(&self) -> Vec<Value> {
        let log = self.program.lock().unwrap_or_else(PoisonError::into_inner).log();
        // Its other lines are complaints about the way; the last one may not be whole yet.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let ours = whole.lines().filter(|line| line.starts_with('{'));
        ours.map(|line| serde_json::from_str(line).expect("lines are JSON")).collect()
    }

    /// Ends the program, and returns what the store of this informer held.
    async fn store(&self) -> Value {
        self.program.lock().unwrap_or_else(PoisonError::into_inner).signal("TERM");
        let find = || {
            let found = self
                .lines()
                .into_iter()
                .rfind(|line| line["informer"] == self.informer && line["store"].is_object());
            async move { found }
        };
        eventually("the informer to show its store", find).await["store"].clone()
    }
}

impl Judge for Informer {
    fn name(&self) -> String {
        format!("client-go's {} informer, streams: {}", self.informer, self.streams)
    }

    fn told(&self) -> Told {
        let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let of_this = self.lines().into_iter().filter(|line| line["informer"] == self.informer);
        of_this
            .filter_map(|line| {
                let event = match line["event"].as_str()? {
                    "add" => "add",
                    "update" => "update",
                    "delete" => "delete",
                    other => panic!("`{other}` is not an event"),
                };
                Some((event, text(&line, "name"), text(&line, "resourceVersion")))
            })
            .collect()
    }
}

/// A watcher of kube, and what came of its events.
struct Watcher {
    name: &'static str,
    followed: Arc<Mutex<Followed>>,
    watching: JoinHandle<()>,
}

#[derive(Default)]
struct Followed {
    told: Told,
    objects: BTreeMap<String, DynamicObject>,
    /// The objects of a list that is not complete yet.
    listed: BTreeMap<String, DynamicObject>,
}

impl Watcher {
    async fn start(name: &'static str, kubeconfig: &Path, config: watcher::Config) -> Self {
        let api = api(client(kubeconfig).await);
        let followed = Arc::new(Mutex::new(Followed::default()));
        let watching = tokio::spawn({
            let followed = Arc::clone(&followed);
            async move {
                let mut events = std::pin::pin!(watch(api, config).default_backoff());
                while let Some(event) = events.next().await {
                    // Errors are the way's; it tries again after a pause.
                    let Ok(event) = event else { continue };
                    followed.lock().unwrap_or_else(PoisonError::into_inner).apply(event);
                }
            }
        });
        Watcher { name, followed, watching }
    }

    fn objects(&self) -> BTreeMap<String, DynamicObject> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).objects.clone()
    }
}

impl Followed {
    fn apply(&mut self, event: Event<DynamicObject>) {
        let name = |object: &DynamicObject| object.metadata.name.clone().expect("objects have names");
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => drop(self.listed.insert(name(&object), object)),
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let mut gone = self.objects.clone();
                gone.retain(|name, _| !listed.contains_key(name));
                gone.values().for_each(|object| self.tell("delete", object));
                listed.values().for_each(|object| self.upsert(object));
            }
            Event::Apply(object) => self.upsert(&object),
            Event::Delete(object) => self.tell("delete", &object),
        }
    }

    fn upsert(&mut self, object: &DynamicObject) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        self.tell(if self.objects.contains_key(name) { "update" } else { "add" }, object);
    }

    fn tell(&mut self, event: &'static str, object: &DynamicObject) {
        let name = object.metadata.name.clone().unwrap_or_default();
        self.told.push((event, name.clone(), object.metadata.resource_version.clone().unwrap_or_default()));
        match event {
            "delete" => drop(self.objects.remove(&name)),
            _ => drop(self.objects.insert(name, object.clone())),
        }
    }
}

impl Judge for Watcher {
    fn name(&self) -> String {
        format!("kube's watcher, {}", self.name)
    }

    fn told(&self) -> Told {
        assert!(!self.watching.is_finished(), "a watcher goes on for ever");
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).told.clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

fn api(client: kube::Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("core.rukpak.io", "v1beta1", "CatalogSource");
    Api::namespaced_with(client, NAMESPACE, &ApiResource::from_gvk_with_plural(&kind, "catalogsources"))
}

/// A server, the judges, and the way between them.
struct Court {
    server: Server,
    proxy: Proxy,
    informers: Vec<Informer>,
    watchers: Vec<Watcher>,
    image: String,
    _registry: Registry,
    random: u64,
}

impl Court {
    async fn assemble(server: Server) -> Self {
        let registry = Registry::start().await;
        registry.push("catalog", "v1", &CatalogBuilder::default().package("greeter", 1).image()).await;
        let kubeconfig = std::fs::read_to_string(server.kubeconfig()).expect("the kubeconfig can be read");
        let address = address(&kubeconfig).to_owned();
        let proxy = Proxy::start(&format!("http://{address}")).await;
        let through = proxy.url().strip_prefix("http://").expect("that is its scheme");
        let path: PathBuf = server.kubeconfig().with_file_name("kubeconfig-of-judges");
        std::fs::write(&path, kubeconfig.replace(&address, through)).expect("a file can be written");
        let informers = [true, false].into_iter().flat_map(|streams| Informer::start(&path, streams));
        let informers = informers.collect();
        let watchers = vec![
            Watcher::start("lists", &path, watcher::Config::default()).await,
            Watcher::start("streams", &path, watcher::Config::default().streaming_lists()).await,
        ];
        let image = registry.reference("catalog", "v1");
        Court {
            server,
            proxy,
            informers,
            watchers,
            image,
            _registry: registry,
            random: 0x2545_f491_4f6c_dd1d,
        }
    }

    fn judges(&self) -> impl Iterator<Item = &dyn Judge> {
        let informers = self.informers.iter().map(|judge| judge as &dyn Judge);
        informers.chain(self.watchers.iter().map(|judge| judge as &dyn Judge))
    }

    /// Returns a number below a bound; the same ones in every run.
    fn random(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below as u64) as usize
    }

    async fn api(&self) -> Api<DynamicObject> {
        api(self.server.client().await)
    }

    fn source(&self, name: &str, label: usize) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"round": label.to_string()}},
            "spec": {"image": self.image},
        }))
        .expect("that is an object")
    }

    /// Waits until nothing changes any more, and every judge holds what a list holds.
    async fn agreed(&self) -> Vec<DynamicObject> {
        let api = self.api().await;
        eventually("every catalog to be read", || async {
            let listed = api.list(&Default::default()).await.expect("a list is answered").items;
            listed.iter().all(is_idle).then_some(())
        })
        .await;
        for judge in self.judges() {
            eventually(&format!("{} to hold what is listed", judge.name()), || async {
                let listed = api.list(&Default::default()).await.expect("a list is answered").items;
                let state: State = listed
                    .iter()
                    .map(|object| {
                        let metadata = object.metadata.clone();
                        (metadata.name.unwrap_or_default(), metadata.resource_version.unwrap_or_default())
                    })
                    .collect();
                (judge.state() == state).then_some(())
            })
            .await;
        }
        api.list(&Default::default()).await.expect("a list is answered").items
    }

    /// Watches for so many seconds, and returns what came.
    async fn events(&self, after: &str, seconds: u32) -> String {
        let path = format!("/apis/core.rukpak.io/v1beta1/namespaces/{NAMESPACE}/catalogsources");
        let query = format!("watch=true&timeoutSeconds={seconds}&resourceVersion={after}");
        let request =
            http::Request::get(format!("{path}?{query}")).body(Vec::new()).expect("a path is a URL");
        self.server.client().await.request_text(request).await.expect("a watch is answered")
    }

    /// An object comes, changes and goes: each judge is told so, in this order.
    async fn one_life(&self, name: &str) {
        let api = self.api().await;
        api.create(&PostParams::default(), &self.source(name, 0)).await.expect("it is created");
        self.told(name, "add").await;
        let patch = Patch::Merge(json!({"metadata": {"labels": {"round": "1"}}}));
        let changed = api.patch(name, &PatchParams::default(), &patch).await.expect("it is changed");
        self.told(name, "update").await;
        api.delete(name, &DeleteParams::default()).await.expect("it is deleted");
        self.told(name, "delete").await;
        let changed = changed.metadata.resource_version.expect("objects have versions");
        for judge in self.judges() {
            let told: Vec<_> = judge.told().into_iter().filter(|(_, of, _)| of == name).collect();
            let events: Vec<_> = told.iter().map(|(event, ..)| *event).collect();
            let (first, last) = (events.first(), events.last());
            assert_eq!((first, last), (Some(&"add"), Some(&"delete")), "{}: {told:?}", judge.name());
            assert!(events[1..events.len() - 1].iter().all(|event| *event == "update"), "{told:?}");
            assert!(told.iter().any(|(_, _, version)| *version == changed), "{}: {told:?}", judge.name());
            let versions = told.iter().map(|(.., version)| version.parse::<u64>().expect("a number"));
            assert!(versions.collect::<Vec<_>>().is_sorted_by(|a, b| a < b), "{}: {told:?}", judge.name());
        }
    }

    async fn told(&self, name: &str, event: &str) {
        for judge in self.judges() {
            eventually(&format!("{} to be told: {event} {name}", judge.name()), || async {
                judge.told().iter().any(|(kind, of, _)| *kind == event && of == name).then_some(())
            })
            .await;
        }
    }

    /// Makes a change that is chosen at random.
    async fn change(&mut self, api: &Api<DynamicObject>, round: usize) {
        let name = format!("source-{:02}", self.random(40));
        let value = self.random(1000);
        let exists = api.get_opt(&name).await.expect("a get is answered").is_some();
        let patch = match (exists, self.random(8)) {
            (false, _) => {
                let source = self.source(&name, value);
                api.create(&PostParams::default(), &source).await.expect("it is created");
                return;
            }
            (true, 0..2) => {
                api.delete(&name, &DeleteParams::default()).await.expect("it is deleted");
                return;
            }
            (true, 2..5) => json!({"spec": {"displayName": format!("Number {value} of round {round}")}}),
            (true, _) => json!({"metadata": {"labels": {"round": format!("{round}-{value}")}}}),
        };
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("it is changed");
    }
}

/// Returns whether the controller has nothing more to write about a CatalogSource.
fn is_idle(source: &DynamicObject) -> bool {
    let conditions = source.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| {
        condition["type"] == "Progressing"
            && condition["status"] == "False"
            && condition["observedGeneration"] == json!(source.metadata.generation)
    })
}

/// Finds where the server is in a kubeconfig.
fn address(kubeconfig: &str) -> &str {
    let start = kubeconfig.find("https://").expect("servers speak https") + "https://".len();
    let rest = &kubeconfig[start..];
    &rest[..rest.find(|c: char| !(c.is_ascii_digit() || ".:".contains(c))).unwrap_or(rest.len())]
}

/// Each judge sees what happens, whatever becomes of its connections and of the server.
async fn hear(server: Server) {
    let mut court = Court::assemble(server).await;
    court.one_life("before").await;
    // How they asked for what was there: nothing was in their way yet.
    for informer in &court.informers {
        let requests: Vec<_> = informer
            .lines()
            .into_iter()
            .filter_map(|line| line["request"].as_str().map(str::to_owned))
            .collect();
        let streamed = requests.iter().any(|request| request.contains("sendInitialEvents=true"));
        let listed = requests.iter().any(|request| !request.contains("watch=true"));
        assert_eq!((streamed, listed), (informer.streams, !informer.streams), "{requests:?}");
    }
    court.server.restart().await;
    court.one_life("after").await;

    let mut api = court.api().await;
    let mut until_cut = 1;
    for round in 0..CHANGES {
        court.change(&api, round).await;
        until_cut -= 1;
        if until_cut == 0 {
            court.proxy.heal();
            until_cut = 20 + court.random(60);
        }
        if round % 400 == 250 {
            court.server.restart().await;
            api = court.api().await;
        }
    }
    let listed = court.agreed().await;
    assert!(listed.len() > 10, "{} objects", listed.len());

    // Not only names and versions: everything that each of them holds is what is listed.
    let by_name = |object: DynamicObject| (object.metadata.name.clone().unwrap_or_default(), object);
    let whole: BTreeMap<_, _> = listed.into_iter().map(by_name).collect();
    for judge in &court.watchers {
        assert_eq!(json!(judge.objects()), json!(whole), "{}", judge.name());
    }
    let metadata: BTreeMap<_, _> = whole.iter().map(|(name, object)| (name, &object.metadata)).collect();
    for informer in &court.informers {
        let mut store = informer.store().await;
        if informer.informer == "metadata" {
            for object in store.as_object_mut().expect("a store is a map").values_mut() {
                *object = object["metadata"].take();
            }
            assert_eq!(store, json!(metadata), "{}", informer.name());
        } else {
            assert_eq!(store, json!(whole), "{}", informer.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c099_c119_c120_clients_follow_every_change_on_the_embedded_store() {
    hear(Server::start(&[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c099_c119_c120_clients_follow_every_change_on_etcd() {
    hear(Server::start_on(Some(Etcd::start(Version::Built).await), 1, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c108_clients_whose_history_is_gone_start_over() {
    let mut court = Court::assemble(Server::start(&["--history=1s"]).await).await;
    let api = court.api().await;
    court.one_life("before").await;
    for name in ["goes", "changes", "stays"] {
        api.create(&PostParams::default(), &court.source(name, 0)).await.expect("it is created");
    }
    let listed = court.agreed().await;
    let seen = listed.iter().filter_map(|object| object.metadata.resource_version.clone());
    let seen =
        seen.max_by_key(|version| version.parse::<u64>().expect("a number")).expect("objects are listed");
    // Nothing reaches them while things happen, until what they would go on from is gone.
    court.proxy.black_out();
    api.delete("goes", &DeleteParams::default()).await.expect("it is deleted");
    api.create(&PostParams::default(), &court.source("comes", 0)).await.expect("it is created");
    let patch = Patch::Merge(json!({"metadata": {"labels": {"round": "1"}}}));
    api.patch("changes", &PatchParams::default(), &patch).await.expect("it is changed");
    let mut tries = 0;
    while !court.events(&seen, 1).await.contains("too old resource version") {
        tries += 1;
        assert!(tries < 20, "history is cut");
        // Ages are counted by the process, and what it has in memory it answers from however old it is.
        court.events("0", 3).await;
        court.server.restart().await;
    }
    court.proxy.heal();
    let listed = court.agreed().await;
    assert_eq!(listed.len(), 3);
    court.one_life("after").await;
}
