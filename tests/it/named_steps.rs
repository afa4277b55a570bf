//! SIGTERM and SIGKILL at each step of an ingest: while it asks, reads, between its transactions, before and after each of
//! them. Whoever goes on ends in the state of an undisturbed ingest, and watchers see each event once.

mod scene;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use packageserver::pipeline::fetch::Digest;

use self::scene::{Scene, Signal, is_settled};
use crate::support::etcd_proxy::Hold;
use crate::support::eventually;
use crate::support::fake_registry::{Asked, Gate};
use crate::support::process::Process;

impl Scene {
    /// Ends the process while the registry has not given its answer.
    async fn at_the_registry(&mut self) {
        let mut blobs: Vec<_> =
            self.image.blobs().iter().map(|blob| (blob.len(), Digest::sha256(blob))).collect();
        blobs.sort_by_key(|(length, _)| *length);
        let [(_, config), (length, layer)] = &blobs[..] else {
            panic!("an image has a configuration and a layer")
        };
        let [config, layer] = [config, layer].map(|digest| format!("/blobs/{digest}"));
        type Is = Box<dyn Fn(&Asked) -> bool + Send + Sync>;
        let is_blob = |path: String| -> Is { Box::new(move |asked| asked.path.ends_with(&path)) };
        let is_manifest = |method: http::Method| -> Is {
            Box::new(move |asked| asked.path.contains("/manifests/") && asked.method == method)
        };
        let steps: [(&str, usize, Is); 5] = [
            ("the digest is asked for", usize::MAX, is_manifest(http::Method::HEAD)),
            ("the manifest is asked for", usize::MAX, is_manifest(http::Method::GET)),
            ("the configuration is asked for", usize::MAX, is_blob(config)),
            ("the layer has begun", length - 1, is_blob(layer.clone())),
            ("the last byte of the layer is awaited", 1, is_blob(layer)),
        ];
        for (number, (step, rest, is_it)) in steps.into_iter().enumerate() {
            let is_it = Arc::new(is_it);
            for signal in Signal::at(number) {
                let is_it = Arc::clone(&is_it);
                let step = format!("{signal:?} when {step}");
                self.round(&step, async |scene: &mut Scene| {
                    let gate = scene.hold(rest, move |asked| is_it(asked));
                    scene.create();
                    gate.held().await;
                    scene.end(signal, &step).await;
                })
                .await;
            }
        }
    }
}

/// Returns which step of an ingest a transaction is; none for one that has nothing to do with a namespace.
fn step(txn: &[u8], namespace: &str) -> Option<&'static str> {
    let holds = |resource: &str| {
        let key = format!("/registry/core.rukpak.io/{resource}/{namespace}/");
        txn.windows(key.len()).any(|window| window == key.as_bytes())
    };
    let lock = format!("/registry/core.rukpak.io.internal/locks/catalogsources/{namespace}/");
    let is_locked = txn.windows(lock.len()).any(|window| window == lock.as_bytes());
    let is_content = holds("packages") || holds("bundlemetadata");
    match (holds("checkpoints"), holds("catalogsources")) {
        (true, true) => Some("the last append"),
        (true, false) => Some("the first append"),
        (false, true) => Some("the status"),
        _ if is_content => Some("an append between"),
        _ if is_locked => Some("the lock"),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_while_the_registry_is_waited_for_on_the_embedded_store() {
    Scene::new(false).await.at_the_registry().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_while_the_registry_is_waited_for_on_etcd() {
    Scene::new(true).await.at_the_registry().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_before_and_after_each_kind_of_transaction_of_etcd() {
    let mut scene = Scene::new(true).await;
    let steps = ["the lock", "the status", "the first append", "an append between", "the last append"];
    let places = steps.iter().flat_map(|&wanted| [Hold::Before, Hold::After].map(|hold| (wanted, hold)));
    for (number, (wanted, hold)) in places.enumerate() {
        // So that each step has both signals, the one before it or the other after it.
        for signal in Signal::at(number + number / 2) {
            let name = format!("{signal:?}, {hold:?} {wanted}");
            scene
                .round(&name, async |scene: &mut Scene| {
                    let namespace = scene.namespace();
                    let proxy = scene.proxy.as_ref().expect("it is on etcd");
                    let held = proxy.hold(hold, move |txn| step(txn, &namespace) == Some(wanted));
                    scene.create();
                    held.await;
                    scene.end(signal, &name).await;
                })
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_after_each_write_of_the_embedded_store_to_its_disk() {
    let mut scene = Scene::new(false).await;
    for write in 1.. {
        let mut is_over = false;
        for signal in Signal::at(write) {
            let name = format!("{signal:?} at write {write}");
            scene
                .round(&name, async |scene: &mut Scene| {
                    let gate = scene.hold(usize::MAX, |asked| asked.method == http::Method::HEAD);
                    scene.create();
                    gate.held().await;
                    is_over = !scene.signalled(write, signal, &gate, &name).await;
                })
                .await;
        }
        if is_over {
            assert!(write > 5, "an ingest writes several times");
            return;
        }
    }
}

impl Scene {
    /// Lets an ingest go on, and sends a signal when the store has made its disk write for the so manieth time, before it
    /// does anything else; returns whether it came to that before the ingest was over.
    async fn signalled(&mut self, write: usize, signal: Signal, gate: &Gate, step: &str) -> bool {
        let directory = tempfile::tempdir().unwrap();
        let trace = directory.path().join("trace");
        let mut strace = Command::new("strace");
        // All of the process stops whenever a thread of it has done that.
        strace.args(["-f", "-e", "trace=fdatasync", "-e", "inject=fdatasync:signal=STOP", "-o"]).arg(&trace);
        strace.arg("-p").arg(self.process().id().to_string());
        let mut tracing = Process::start(&mut strace, &directory.path().join("log"));
        eventually("strace to be there", || {
            let (text, is_running) = (tracing.log(), tracing.is_running());
            assert!(is_running, "this machine does not let processes be traced: {text}");
            async move { text.contains("attached").then_some(()) }
        })
        .await;
        gate.open();
        let (path, client) = (self.path("catalogsources/catalog"), self.server.client().await);
        let mut came = false;
        for number in 1..=write {
            came = eventually("a write, or the end of the ingest", || async {
                let stops = std::fs::read_to_string(&trace).ok()?.matches("--- SIGSTOP").count();
                if stops >= number {
                    return Some(true);
                }
                let request = http::Request::get(&path).body(Vec::new()).expect("a path is a URL");
                // Who is stopped does not answer.
                let source = tokio::time::timeout(Duration::from_secs(1), client.request_text(request));
                let source = source.await.ok()?.ok()?;
                is_settled(&serde_json::from_str(&source).expect("answers are JSON")).then_some(false)
            })
            .await;
            if !came {
                break;
            }
            if number < write {
                self.process().signal("CONT");
            }
        }
        if came {
            let process = self.process();
            process.signal(signal.name());
            eventually(&format!("the end of the process: {step}"), || {
                let is_running = process.is_running();
                if is_running {
                    // It is stopped where it was told to end, and wherever it writes from there on.
                    process.signal("CONT");
                }
                async move { (!is_running).then_some(()) }
            })
            .await;
            self.ended(signal, step).await;
        }
        // Who is traced no longer goes on.
        tracing.kill();
        came
    }
}
