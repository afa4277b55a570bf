//! Processes that die, hang, lose their connections or their room in the middle of a large ingest: another one goes on, the end
//! is the same, and no watcher misses an event or sees one twice.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use packageserver::sink::EtcdStore;
use packageserver::store::{At, Key, Pager, Range, ResourceVersion, Store, StoreError, Tail, WatchItem};
use serde_json::{Value, json};

use crate::support::etcd::{Etcd, Version};
use crate::support::proxy::Proxy;
use crate::support::record::{Recorder, Seen};
use crate::support::registry::Registry;
use crate::support::server::{Server, get};
use crate::support::{PATIENCE, catalog, eventually, rounds};

const RESOURCES: [&str; 2] = ["packages", "bundlemetadata"];

/// An installation on which a large catalog is ingested again and again, each time into another namespace.
struct Scene {
    server: Server,
    /// The test's own way to the log.
    store: EtcdStore,
    _registry: Registry,
    reference: String,
    digest: String,
    /// How many objects an ingest makes of each resource.
    expected: [usize; 2],
    /// What an undisturbed ingest ends in, and how long it takes.
    undisturbed: BTreeMap<String, Value>,
    duration: Duration,
    random: u64,
}

impl Scene {
    async fn new(etcd: Etcd, replicas: usize) -> Self {
        let store = etcd.store();
        let server = Server::start_on(Some(etcd), replicas, &[]).await;
        let registry = Registry::start().await;
        let large = catalog::large();
        let digest = registry.push("catalog", "large", &large.image).await.as_str().to_owned();
        let reference = registry.reference("catalog", "large");
        let mut scene = Scene {
            server,
            store,
            _registry: registry,
            reference,
            digest,
            expected: [large.packages, large.bundles],
            undisturbed: BTreeMap::new(),
            duration: Duration::ZERO,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        scene.create("undisturbed").await;
        let source = scene.settled("undisturbed").await;
        let time = |name: &str| -> Timestamp {
            source["status"]["lastIngest"][name].as_str().and_then(|text| text.parse().ok()).expect("a time")
        };
        scene.duration = time("completedAt").duration_since(time("startedAt")).unsigned_abs();
        scene.undisturbed = scene.state("undisturbed").await;
        assert_eq!(scene.undisturbed.len(), scene.expected.iter().sum::<usize>());
        scene
    }

    /// Returns a number below a bound; the same ones in every run.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Waits for some part of the time that an ingest takes.
    async fn some_time(&mut self) {
        let part = self.random(1000) as f64 / 1000.0;
        tokio::time::sleep(self.duration.mul_f64(part)).await;
    }

    async fn create(&self, namespace: &str) {
        let source = json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": "large", "namespace": namespace},
            "spec": {"image": self.reference},
        });
        self.server.kubectl().run_with("apply -f -", &source.to_string());
    }

    /// Waits until a catalog is served as the image has it.
    async fn settled(&self, namespace: &str) -> Value {
        let key = Key::new("catalogsources", namespace, "large");
        eventually(&format!("{namespace} to be served"), || async {
            let stored = self.store.get(&key).await.ok()??;
            let source: Value = serde_json::from_slice(stored.object.head()).expect("objects are JSON");
            let status = &source["status"];
            let is = |kind: &str, value: &str| {
                let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
                conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == value)
            };
            let resolved = status["resolvedImage"].as_str().unwrap_or_default().ends_with(&self.digest);
            (resolved && is("Ready", "True") && is("Progressing", "False")).then(|| source.clone())
        })
        .await
    }

    /// Returns what a catalog is served as, without what differs from one ingest to the next.
    async fn state(&self, namespace: &str) -> BTreeMap<String, Value> {
        let mut state = BTreeMap::new();
        for resource in RESOURCES {
            let range = Range::namespace(resource, namespace);
            let mut pager = Pager::new(&self.store, range, At::Latest, 500);
            while let Some(page) = pager.next().await.expect("etcd answers") {
                let completed = self.store.complete_all(&page.items).await.expect("etcd answers");
                for (stored, whole) in page.items.into_iter().zip(completed) {
                    let mut object: Value =
                        serde_json::from_slice(&stored.object.summary()).expect("objects are JSON");
                    let metadata = object["metadata"].as_object_mut().expect("objects have metadata");
                    metadata.retain(|field, _| ["name", "labels"].contains(&&**field));
                    object["spec"]["catalogSourceNamespace"] = Value::Null;
                    // What a CatalogCache says more is made when it is read.
                    if *whole.tail() != Tail::Deferred {
                        let text = whole.tail().unpack().expect("it is complete");
                        object["tail"] = json!([text.len(), blake3(&text)]);
                    }
                    state.insert(format!("{resource}/{}", stored.key.name()), object);
                }
            }
        }
        state
    }

    /// Returns the events of a namespace as they are in the log.
    async fn log(&self, resource: &str, namespace: &str, after: ResourceVersion) -> Vec<Seen> {
        let now = self.store.current().await.expect("etcd answers");
        if after >= now {
            // Who starts at the end has caught up, and is not told so.
            return Vec::new();
        }
        let range = Range::namespace(resource, namespace);
        let mut events = self.store.watch(range, after).await.expect("the history is there");
        let mut log = Vec::new();
        loop {
            let next = tokio::time::timeout(PATIENCE, events.next()).await.expect("the watch says something");
            match next.expect("the watch goes on").expect("the history is there") {
                WatchItem::Progress(version) if version >= now => return log,
                WatchItem::Progress(_) => {}
                WatchItem::Change(change) => {
                    let kind = match (&change.before, &change.after) {
                        (None, _) => "ADDED",
                        (Some(_), Some(_)) => "MODIFIED",
                        (Some(_), None) => "DELETED",
                    };
                    log.push((change.version.get(), kind.to_owned(), change.key.name().to_owned()));
                }
            }
        }
    }

    /// Ingests into a namespace while something is done about it, and checks what comes of it and what watchers saw.
    async fn round(&mut self, namespace: &str, disturb: impl AsyncFnOnce(&mut Self)) {
        let start = self.store.current().await.expect("etcd answers");
        let kubeconfigs: Vec<_> = self.server.kubeconfigs().collect();
        let recorders = RESOURCES.map(|resource| {
            let path = format!("/apis/core.rukpak.io/v1beta1/namespaces/{namespace}/{resource}");
            // One that stays as long as it can, and one that goes from server to server.
            [60, 1].map(|seconds| Recorder::start(kubeconfigs.clone(), &path, start.get(), seconds))
        });
        self.create(namespace).await;
        disturb(self).await;
        self.settled(namespace).await;
        let state = self.state(namespace).await;
        let differing: Vec<_> = self
            .undisturbed
            .keys()
            .chain(state.keys())
            .filter(|key| self.undisturbed.get(*key) != state.get(*key))
            .collect();
        assert!(differing.is_empty(), "{namespace}: {differing:?}");
        for ((resource, recorders), expected) in RESOURCES.into_iter().zip(&recorders).zip(self.expected) {
            let log = self.log(resource, namespace, start).await;
            // Each object once: nothing was written by two, or again.
            assert_eq!(log.len(), expected, "{namespace}: events of {resource}");
            for recorder in recorders {
                assert_eq!(recorder.until(log.len()).await, log, "{namespace}: a watcher of {resource}");
            }
        }
    }

    /// Removes what a round left, so that etcd does not grow with the number of rounds.
    async fn clean(&mut self, namespace: &str) {
        self.server.kubectl().run(&format!("delete catalogsource large -n {namespace} --timeout=60s"));
        let range = Range::namespace("provenance", namespace);
        eventually("the rest to be removed", || async {
            let mut pager = Pager::new(&self.store, range.clone(), At::Latest, 1);
            pager.next().await.ok()??.items.is_empty().then_some(())
        })
        .await;
        let revision = self.store.current().await.expect("etcd answers").revision();
        self.store.compact(revision).await.expect("etcd compacts");
    }

    /// Returns the number of the controller that holds the lock of a catalog, waiting until one does.
    async fn holder(&mut self, namespace: &str) -> usize {
        self.holder_but(namespace, None).await
    }

    /// As [`Self::holder`], waiting until it is not one that was it.
    async fn holder_but(&mut self, namespace: &str, not: Option<usize>) -> usize {
        let not = not.and_then(|not| self.server.processes().nth(not)).map(|process| process.id());
        let client = self.server.etcd().client().await;
        let lock = format!("/registry/core.rukpak.io.internal/locks/catalogsources/{namespace}/large");
        let pid = eventually("a controller to take the lock", || {
            let (mut client, lock) = (client.clone(), lock.clone());
            async move {
                let found = client.get(lock, None).await.ok()?;
                let pid: u32 = found.kvs().first()?.value_str().ok()?.split(' ').nth(1)?.parse().ok()?;
                (Some(pid) != not).then_some(pid)
            }
        })
        .await;
        let position = self.server.processes().position(|process| process.id() == pid);
        position.expect("the lock is held by a process of ours")
    }
}

fn blake3(bytes: &[u8]) -> String {
    packageserver::event::MetaHash::of(bytes).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_points_of_a_large_ingest_change_nothing() {
    let etcd = Etcd::start_with(Version::Built, 3, &["--quota-backend-bytes=8000000000"]).await;
    let mut scene = Scene::new(etcd, 2).await;
    for round in 0..rounds(3, 21) {
        let namespace = format!("round-{round}");
        match round % 3 {
            0 => {
                let mut victim = 0;
                scene
                    .round(&namespace, async |scene: &mut Scene| {
                        victim = scene.holder(&format!("round-{round}")).await;
                        scene.some_time().await;
                        scene.server.processes().nth(victim).expect("it was there").kill();
                    })
                    .await;
                // The other one has done the rest.
                scene.server.restart_one(victim);
            }
            1 => {
                scene
                    .round(&namespace, async |scene: &mut Scene| {
                        scene.some_time().await;
                        let apiservers = scene.server.numbers("apiserver");
                        let victim = apiservers[scene.random(2) as usize];
                        scene.server.restart_one(victim);
                    })
                    .await;
            }
            _ => {
                scene
                    .round(&namespace, async |scene: &mut Scene| {
                        scene.some_time().await;
                        let leader = scene.server.etcd().leader().await;
                        scene.server.etcd().kill(leader);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        scene.server.etcd().restart(leader).await;
                    })
                    .await;
            }
        }
        scene.server.ready().await;
        scene.clean(&namespace).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_suspended_longer_than_its_lease_is_replaced_and_writes_nothing_more() {
    let mut scene = Scene::new(Etcd::start(Version::Built).await, 2).await;
    for round in 0..rounds(1, 8) {
        let namespace = format!("round-{round}");
        let mut suspended = 0;
        scene
            .round(&namespace, async |scene: &mut Scene| {
                suspended = scene.holder(&format!("round-{round}")).await;
                scene.some_time().await;
                scene.server.processes().nth(suspended).expect("it was there").signal("STOP");
                scene.holder_but(&format!("round-{round}"), Some(suspended)).await;
            })
            .await;
        let now = scene.store.current().await.unwrap();
        let process = scene.server.processes().nth(suspended).expect("it was there");
        let before = process.log().len();
        process.signal("CONT");
        // It notices, and stops where it is.
        eventually("the suspended controller to notice", || {
            let log = process.log()[before..].to_owned();
            async move { log.contains("the lock was lost").then_some(()) }
        })
        .await;
        for resource in RESOURCES {
            assert_eq!(scene.log(resource, &namespace, now).await, [], "{resource} of {namespace}");
        }
        scene.clean(&namespace).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_between_request_and_answer_double_nothing() {
    let etcd = Etcd::start(Version::Debian).await;
    let proxy = Proxy::start(&etcd.endpoints()[0]).await;
    let mut scene = Scene::new(etcd, 1).await;
    // From here on the controller's way to etcd is one that breaks.
    let controller = scene.server.numbers("controller")[0];
    scene.server.processes().nth(controller).expect("it was there").kill();
    scene.server.add_controller(&[proxy.url().to_owned()], &[]);
    for round in 0..rounds(2, 10) {
        let namespace = format!("round-{round}");
        scene
            .round(&namespace, async |scene: &mut Scene| {
                for _ in 0..4 {
                    let pause = scene.duration.mul_f64(scene.random(1000) as f64 / 4000.0);
                    tokio::time::sleep(pause).await;
                    proxy.cut_an_answer().await;
                }
            })
            .await;
        scene.clean(&namespace).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_runs_full_in_the_middle_of_an_ingest_is_repaired_and_it_goes_on() {
    const SMALL: &str = "--quota-backend-bytes=25000000";
    let etcd = Etcd::start_with(Version::Built, 1, &[SMALL]).await;
    let store = etcd.store();
    let mut server = Server::start_on(Some(etcd), 1, &[]).await;
    let registry = Registry::start().await;
    let large = catalog::large();
    registry.push("catalog", "large", &large.image).await;
    let source = json!({
        "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
        "metadata": {"name": "large", "namespace": "test"},
        "spec": {"image": registry.reference("catalog", "large")},
    });
    server.kubectl().run_with("apply -f -", &source.to_string());
    let controller = server.numbers("controller")[0];
    eventually("etcd to be full", || {
        let log = server.processes().nth(controller).expect("it was there").log();
        async move { log.contains("the store is out of space").then_some(()) }
    })
    .await;
    // What was committed is served, and the server is ready.
    let client = server.client().await;
    let path = "/apis/core.rukpak.io/v1beta1/namespaces/test/packages?limit=1";
    assert_eq!(get(&client, path).await["items"].as_array().map(Vec::len), Some(1));
    server.ready().await;
    // The status cannot be written; that it is space that is missing is counted.
    let failures = "packageserver_ingest_failures_total{reason=\"StoreOutOfSpace\"}";
    eventually("the failure to be counted", || async {
        let (_, metrics) = server.ask(controller, "/metrics").await?;
        (metrics.contains(failures) && metrics.contains("etcd_request_errors_total{error=\"NoSpace\""))
            .then_some(())
    })
    .await;

    // An administrator makes room.
    server.etcd().replace_argument(SMALL, "--quota-backend-bytes=2000000000");
    server.etcd().restart(0).await;
    server.etcd().clear_alarms().await;
    let key = Key::new("catalogsources", "test", "large");
    eventually("the ingest to be complete", || async {
        let stored = store.get(&key).await.ok()??;
        let source: Value = serde_json::from_slice(stored.object.head()).ok()?;
        (source["status"]["bundles"] == large.bundles && source["status"]["packages"] == large.packages)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_under_running_watches_is_not_noticed_by_who_keeps_up() {
    let etcd = Etcd::start(Version::Built).await;
    let (store, endpoints) = (etcd.store(), etcd.endpoints());
    let mut server = Server::start_on(Some(etcd), 0, &[]).await;
    // History is short, and the two of them have to agree who cuts it.
    for _ in 0..2 {
        server.add_apiserver(&endpoints, &["--history=1s"]);
    }
    server.add_controller(&endpoints, &[]);
    server.ready().await;
    let pair = catalog::pair();
    let registry = Registry::start().await;
    let kubectl = server.kubectl();
    let client = server.client().await;
    let path = "/apis/core.rukpak.io/v1beta1/namespaces/test/packages";
    let start: u64 =
        get(&client, path).await["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let kubeconfigs: Vec<_> = server.kubeconfigs().collect();
    let recorders = [60, 1].map(|seconds| Recorder::start(kubeconfigs.clone(), path, start, seconds));
    let mut seen_before = ResourceVersion::from_u64(start);
    for (round, directory) in [&pair.old, &pair.new, &pair.old, &pair.new].into_iter().enumerate() {
        let image = crate::support::image::Image::of_catalog(directory);
        let digest = registry.push("catalog", &format!("v{round}"), &image).await;
        let source = json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": "catalog", "namespace": "test"},
            "spec": {"image": registry.reference("catalog", &format!("v{round}"))},
        });
        kubectl.run_with("apply -f -", &source.to_string());
        eventually("the image to be served", || async {
            let source =
                get(&client, "/apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources/catalog").await;
            let resolved = source["status"]["resolvedImage"].as_str().unwrap_or_default();
            resolved.ends_with(digest.as_str()).then_some(())
        })
        .await;
        // Until what came before is gone.
        eventually("history to be cut", || async {
            // In etcd, that is: what a server has in memory it still answers from.
            let before = store.watch(Range::resource("packages"), seen_before).await.ok()?.next().await?;
            matches!(before, Err(StoreError::Compacted { .. })).then_some(())
        })
        .await;
        seen_before = store.current().await.unwrap();
    }
    let [long, short] = &recorders;
    let list = get(&client, path).await;
    let listed = list["items"].as_array().unwrap();
    let seen = long.until(listed.len()).await;
    assert_eq!(short.until(seen.len()).await, seen);
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "versions rise");
    // Events folded are the list.
    let mut fold = BTreeMap::new();
    for (version, kind, name) in seen {
        match &*kind {
            "DELETED" => drop(fold.remove(&name)),
            _ => drop(fold.insert(name, version.to_string())),
        }
    }
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let listed = listed.iter().map(|item| &item["metadata"]);
    let listed: BTreeMap<_, _> =
        listed.map(|metadata| (text(&metadata["name"]), text(&metadata["resourceVersion"]))).collect();
    assert_eq!(fold, listed);
}
