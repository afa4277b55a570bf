//! Everything at once, for a while: catalogs that change, watchers that come and go, lists, hostile images, restarts. At
//! the end nothing has grown, and no watcher has missed an event or seen one twice.
//!
//! `make soak` lets it go on for ten minutes on each store; a test run does for some seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::archive::Archive;
use crate::support::catalog::{CatalogBuilder, Edit};
use crate::support::fake_registry::FakeRegistry;
use crate::support::image::Image;
use crate::support::record::{Recorder, watch_once};
use crate::support::server::{Kind, Server, client};
use crate::support::{eventually, rounds};

/// How long it goes on, in seconds, where that is set.
const SECONDS: &str = "PACKAGESERVER_SOAK_SECONDS";

/// How many watchers come and go, where that is set.
const WATCHERS: &str = "PACKAGESERVER_SOAK_WATCHERS";

const SOURCES: usize = 8;
const PACKAGES: &str = "/apis/core.rukpak.io/v1beta1/packages";
const CATALOG_SOURCES: &str = "/apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources";

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What was done, and what came of it.
#[derive(Default)]
struct Counts {
    changes: AtomicUsize,
    watches: AtomicUsize,
    events: AtomicUsize,
    lists: AtomicUsize,
    refused: AtomicUsize,
    restarts: AtomicUsize,
}

fn note(count: &AtomicUsize, more: usize) {
    count.fetch_add(more, Ordering::Relaxed);
}

/// The image that a source has at some time: the next one differs, and every fourth one is hostile.
fn image(source: usize, step: usize) -> (Image, bool) {
    let one = format!("s{source}-one");
    match step % 4 {
        3 => {
            let evil = match step % 3 {
                0 => Archive::default().file("configs/../../etc/passwd", b"x").image(),
                1 => {
                    let name = vec![b'x'; 1 << 20];
                    Archive::default().member(tar::EntryType::GNULongName, "x", 1 << 40, &name).image()
                }
                _ => Archive::default().file("configs/x/y.json", b"{\"schema\":\"olm.bundle\",").image(),
            };
            (evil, false)
        }
        other => {
            let mut catalog = CatalogBuilder::default().package(&one, 2 + step % 5);
            catalog = catalog.package(&format!("s{source}-{other}"), 3);
            (
                catalog
                    .edit(&one, if step.is_multiple_of(2) { Edit::Images } else { Edit::LastImage })
                    .image(),
                true,
            )
        }
    }
}

/// Memory in KiB and open files of all processes of ours.
fn usage(server: &mut Server) -> (usize, usize) {
    let (mut memory, mut files) = (0, 0);
    for process in server.processes() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        memory += line.trim().trim_end_matches(" kB").parse::<usize>().unwrap();
        files += std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count();
    }
    (memory, files)
}

async fn soak(kind: Kind) {
    let seconds = setting(SECONDS, rounds(15, 600));
    let watchers = setting(WATCHERS, rounds(50, 2000));
    let registry = FakeRegistry::start().await;
    let mut server = Server::start_as(kind, &["--concurrent-ingests=2"]).await;
    for source in 0..SOURCES {
        registry.push(&format!("s{source}"), "v1", &image(source, 0).0);
        let manifest = json!({"apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": format!("s{source}"), "namespace": "test"},
            "spec": {"image": registry.reference(&format!("s{source}"), "v1")}});
        server.kubectl().run_with("apply -f -", &manifest.to_string());
    }
    settle(&server, &[2; SOURCES]).await;
    let list = server.get(PACKAGES).await;
    let begin: u64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let recorder = Arc::new(Recorder::start_among_many(server.kubeconfigs().collect(), PACKAGES, begin, 30));
    let counts = Arc::new(Counts::default());
    let (over, is_restarting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));

    let mut tasks = JoinSet::new();
    for number in 0..watchers {
        let kubeconfig = server.kubeconfig();
        let (recorder, counts, over) = (Arc::clone(&recorder), Arc::clone(&counts), Arc::clone(&over));
        tasks.spawn(async move {
            let mut client_of = client(&kubeconfig).await;
            let mut turn = 0;
            while !over.load(Ordering::Relaxed) {
                turn += 1;
                // From where the log is now, or from some time ago.
                let after =
                    if (number + turn).is_multiple_of(3) { begin } else { recorder.last().max(begin) };
                match watch_once(&client_of, PACKAGES, after, 1 + (number + turn) % 7).await {
                    Some(seen) => {
                        note(&counts.watches, 1);
                        note(&counts.events, seen.len());
                        let Some(until) = seen.last().map(|(version, ..)| *version) else {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            continue;
                        };
                        eventually("the recorder to have come as far", || async {
                            (recorder.last() >= until).then_some(())
                        })
                        .await;
                        assert_eq!(seen, recorder.between(after, until), "what the others saw after {after}");
                    }
                    None => {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        client_of = client(&kubeconfig).await;
                    }
                }
            }
        });
    }
    for _ in 0..3 {
        let kubeconfig = server.kubeconfig();
        let (counts, over) = (Arc::clone(&counts), Arc::clone(&over));
        let is_restarting = Arc::clone(&is_restarting);
        tasks.spawn(async move {
            let mut client_of = client(&kubeconfig).await;
            while !over.load(Ordering::Relaxed) {
                let was_restarting = is_restarting.load(Ordering::SeqCst);
                let request = http::Request::get(format!("{PACKAGES}?limit=7")).body(Vec::new()).unwrap();
                match client_of.request_text(request).await {
                    Ok(_) => note(&counts.lists, 1),
                    Err(error) => {
                        let is_provoked = was_restarting || is_restarting.load(Ordering::SeqCst);
                        assert!(is_provoked, "a list failed: {error}");
                        client_of = client(&kubeconfig).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    let begun = Instant::now();
    let length = Duration::from_secs(u64::from(seconds));
    let (mut step, mut first, mut restarts) = (0, None, 0);
    while begun.elapsed() < length {
        step += 1;
        for source in 0..SOURCES {
            let (image, is_good) = image(source, step);
            registry.push(&format!("s{source}"), "v1", &image);
            note(if is_good { &counts.changes } else { &counts.refused }, 1);
            refresh(&server.client().await, source, step).await;
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        while let Some(ended) = tasks.try_join_next() {
            ended.expect("nobody fails");
        }
        // Two restarts, so that what a process takes up can be compared at the same age afterwards.
        if restarts < 2 && begun.elapsed() > length * (restarts + 1) / 6 {
            is_restarting.store(true, Ordering::SeqCst);
            server.restart().await;
            // Requests that were under way fail a little later.
            tokio::time::sleep(Duration::from_secs(1)).await;
            is_restarting.store(false, Ordering::SeqCst);
            restarts += 1;
            note(&counts.restarts, 1);
        }
        if first.is_none() && begun.elapsed() > length / 2 {
            first = Some(usage(&mut server));
        }
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("nobody fails");
    }
    for source in 0..SOURCES {
        registry.push(&format!("s{source}"), "v1", &image(source, 0).0);
        refresh(&server.client().await, source, 0).await;
    }
    settle(&server, &[2; SOURCES]).await;

    let (memory, files) = usage(&mut server);
    let (memory_before, files_before) = first.expect("it went on for a while");
    let get = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    eprintln!(
        "{kind:?}: {seconds} s, {watchers} watchers: {} changes, {} hostile images, {} watches, {} events, {} lists, \
         {} restarts; memory {memory_before} -> {memory} KiB, files {files_before} -> {files}",
        get(&counts.changes),
        get(&counts.refused),
        get(&counts.watches),
        get(&counts.events),
        get(&counts.lists),
        get(&counts.restarts),
    );
    assert!(get(&counts.watches) > 0 && get(&counts.lists) > 0 && recorder.last() > begin);
    // With nobody left to serve there are fewer files than in the middle, and no more memory but for what allocators keep.
    assert!(files <= files_before + 8, "{files_before} files before, {files} after");
    assert!(memory <= memory_before * 5 / 4 + (32 << 10), "{memory_before} KiB before, {memory} KiB after");
}

/// Asks for a source to be read now.
async fn refresh(client: &kube::Client, source: usize, step: usize) {
    let asked = format!("2026-01-01T00:00:00Z, step {step}");
    let patch = json!({"metadata": {"annotations": {"core.rukpak.io/refresh-requested-at": asked}}});
    let request = http::Request::patch(format!("{CATALOG_SOURCES}/s{source}"))
        .header("Content-Type", "application/merge-patch+json")
        .body(patch.to_string().into_bytes())
        .unwrap();
    client.request_text(request).await.expect("a CatalogSource can be changed");
}

/// Waits until every source has so many packages, and all is well.
async fn settle(server: &Server, packages: &[usize]) {
    eventually("every catalog to be served", || async {
        let request = http::Request::get(CATALOG_SOURCES).body(Vec::new()).unwrap();
        let text = server.client().await.request_text(request).await.ok()?;
        let list: serde_json::Value = serde_json::from_str(&text).ok()?;
        let is_well = |(number, packages): (usize, &usize)| {
            let name = format!("s{number}");
            let source =
                list["items"].as_array()?.iter().find(|source| source["metadata"]["name"] == name)?;
            let conditions = source["status"]["conditions"].as_array()?;
            let is = |kind: &str, status: &str| {
                conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == status)
            };
            let is_there = source["status"]["packages"] == *packages;
            (is_there && is("Ready", "True") && is("Degraded", "False") && is("Progressing", "False"))
                .then_some(())
        };
        packages.iter().enumerate().map(is_well).collect::<Option<Vec<()>>>().map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows_and_nothing_is_lost_on_the_embedded_store() {
    soak(Kind::Up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows_and_nothing_is_lost_on_etcd() {
    soak(Kind::OnEtcd).await;
}
