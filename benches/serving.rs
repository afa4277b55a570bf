//! What reading costs: lists, tables, and events on their way to ten thousand watchers, against a kube-apiserver.
//!
//! `cargo bench --bench serving`. The large real catalog is ingested into etcd, and served by our release build with its
//! default settings. The same objects are created in a kube-apiserver with an etcd of its own, from our definitions, one
//! create each. Both are then asked the same, in turns, over TLS and HTTP/2, as administrator. `-- --short` asks less and
//! has fewer watchers. Without what `make bench` builds, there is nothing to compare with. Fails when a figure is over its
//! budget; with `-- --check`, which does without the other server, when a ratio is worse than in `expected.json`.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

#[expect(
    dead_code,
    unreachable_pub,
    clippy::print_stderr,
    reason = "the tests and other benches use more of it"
)]
mod harness;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::harness::account;
use self::harness::budgets::{self, Budget, Budget::AtMost, Budget::OfPeer};
use self::harness::catalogs::Large;
use self::harness::client::{Connection, Request};
use self::harness::expected;
use self::harness::figures::Figures;
use self::harness::installation::{Installation, program};
use self::harness::servers::{self, Created, Peer, ROOT, Server};
use self::harness::support::registry::Registry;
use self::harness::watches::Watches;
use self::harness::yardsticks;

const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

/// How much is done: in the long form, and in the short one.
struct Extent {
    /// How often servers take turns.
    rounds: usize,
    /// How often something is asked for in a row.
    requests: usize,
    /// The most come first.
    watchers: &'static [usize],
    /// Changes that all watchers are told, in a round.
    changes: usize,
    /// Changes that a single watcher is told, in a round.
    events: usize,
}

const LONG: Extent =
    Extent { rounds: 5, requests: 10, watchers: &[10_000, 1_000, 100], changes: 10, events: 100 };
const SHORT: Extent = Extent { rounds: 3, requests: 5, watchers: &[1_000, 100], changes: 5, events: 30 };

/// How many rounds more there may be, where that could show that a ratio was worse by chance.
const SECOND_THOUGHTS: usize = 3;

/// Seconds of an idle server before its memory is read.
const REST: Duration = Duration::from_secs(2);

/// A kind of request: the resource and the query, with NAME for a package.
struct Case {
    name: &'static str,
    path: &'static str,
    accept: &'static str,
    encoding: &'static str,
}

const CASES: &[Case] = &[
    Case { name: "all packages, JSON", path: "packages", accept: JSON, encoding: "" },
    Case { name: "all packages, JSON, gzip", path: "packages", accept: JSON, encoding: "gzip" },
    Case { name: "all packages, JSON, pages of 100", path: "packages?limit=100", accept: JSON, encoding: "" },
    Case { name: "packages, Table, limit=500", path: "packages?limit=500", accept: TABLE, encoding: "" },
    Case { name: "all packages, metadata", path: "packages", accept: METADATA, encoding: "" },
    Case { name: "500 bundles, JSON", path: "bundlemetadata?limit=500", accept: JSON, encoding: "" },
    Case { name: "500 bundles, Table", path: "bundlemetadata?limit=500", accept: TABLE, encoding: "" },
    Case { name: "one package, JSON", path: "namespaces/bench/packages/NAME", accept: JSON, encoding: "" },
];

const BUDGETS: &[(&str, &str, Budget)] = &[
    ("all packages, JSON", "answer", AtMost(10.0)),
    ("packages, Table, limit=500", "answer", AtMost(3.0)),
    ("500 bundles, JSON", "answer", OfPeer(0.1)),
    ("500 bundles, Table", "answer", OfPeer(0.1)),
    ("one watcher", "commit to event, p99", AtMost(10.0)),
    ("10000 watchers", "last one served", OfPeer(0.4)),
    ("10000 watchers", "cpu of an event", AtMost(12.0)),
    ("10000 watchers", "memory of a watcher", AtMost(10.0)),
    ("at rest", "memory", AtMost(64.0)),
];

struct Bench {
    figures: Figures,
    extent: Extent,
    /// The package that is read by itself, and changed.
    package: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    packageserver::tls::install_crypto();
    let is_asked = |argument: &str| std::env::args().any(|given| given == argument);
    let (is_short, checks) = (is_asked("--short"), is_asked("--check"));
    let large = Large::read_or_made();
    if large.name != "large" {
        println!("measured with a made catalog: there is no ../shared/catalogs/large.tar.zst");
    }
    let layer = large.whole().layer;
    let extent = if is_short { SHORT } else { LONG };
    let mut bench = Bench { figures: Figures::default(), extent, package: String::new() };
    let registry = Registry::start().await;
    registry.push("large", "latest", &large.whole().image()).await;
    let mut installation = Installation::start(&program(), &[]).await;
    installation.ingest("catalog", &registry.reference("large", "latest"), None).await;
    let (process, _, _) = installation.apiserver(&program()).await;
    let kubeconfig = installation.kubeconfig();
    let mut ours = Server::ours(&kubeconfig, process, installation.etcd_process, installation.etcd.store());
    let mut connection = ours.access.connect().await;
    let packages = list(&mut connection, "packages").await;
    bench.package = typical(&packages);
    bench.memory(&mut ours).await;
    let peer = match servers::has_peer() {
        _ if checks => None,
        true => {
            let lists = [packages, list(&mut connection, "bundlemetadata").await];
            Some(bench.create(&lists).await)
        }
        false => {
            println!("nothing to compare with: `make bench` builds a kube-apiserver");
            None
        }
    };
    let mut servers = vec![ours];
    if let Some(peer) = &peer {
        let mut server = peer.server().await;
        bench.memory(&mut server).await;
        servers.push(server);
    }
    let most = bench.extent.rounds + if checks { SECOND_THOUGHTS } else { 0 };
    for round in 0..most {
        if round >= bench.extent.rounds && expected::worse(large.name, &bench.figures).is_empty() {
            break;
        }
        if checks {
            bench.yardstick(&layer);
        }
        for server in &mut servers {
            bench.lag(server).await;
        }
        for watchers in bench.extent.watchers {
            for server in &mut servers {
                bench.fan_out(server, *watchers).await;
            }
        }
        for case in CASES {
            for server in &servers {
                bench.ask(server, case, round == 0).await;
            }
        }
    }
    for server in &servers {
        let memory = account::resident_of(server.process);
        bench.figures.add("at the end", &measure(server.name, "memory"), "MiB", memory);
    }
    println!("{}", bench.figures.table());
    println!("{}", bench.figures.write(if is_short { "serving-short" } else { "serving" }).display());
    if checks {
        let worse = expected::worse(large.name, &bench.figures);
        worse.iter().for_each(|sentence| println!("{sentence}"));
        return if worse.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    println!("\n{}", budgets::table(&bench.figures));
    println!("\n{}", budgets::verdicts(&bench.figures, BUDGETS));
    if budgets::missed(&bench.figures, BUDGETS) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Names a measure of a server.
fn measure(server: &str, what: &str) -> String {
    format!("{server}, {what}")
}

async fn list(connection: &mut Connection, path: &str) -> Vec<u8> {
    let path = format!("{ROOT}/{path}");
    connection.ask(Request { path: &path, accept: JSON, ..Request::default() }).await.to_vec()
}

/// Returns the name of the package of a list that is neither small nor large.
fn typical(packages: &[u8]) -> String {
    let list: Value = serde_json::from_slice(packages).expect("a list is JSON");
    let items = list["items"].as_array().expect("a list has items");
    let mut sizes: Vec<_> = items
        .iter()
        .map(|item| (item.to_string().len(), item["metadata"]["name"].as_str().expect("it has a name")))
        .collect();
    sizes.sort_unstable();
    sizes[sizes.len() / 2].1.to_owned()
}

impl Bench {
    /// Starts the peer, and has all objects created in it.
    async fn create(&mut self, lists: &[Vec<u8>]) -> Peer {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let objects = servers::write_objects(&directory.path().join("objects"), lists);
        let peer = Peer::start(&objects).await;
        let Created { objects, wall, apiserver, etcd, apiserver_peak, etcd_peak } = peer.created;
        for (what, unit, figure) in [
            ("objects", "", objects as f64),
            ("time", "s", wall),
            ("kube-apiserver, cpu", "s", apiserver),
            ("kube-apiserver, peak", "MiB", apiserver_peak),
            ("etcd, cpu", "s", etcd),
            ("etcd, peak", "MiB", etcd_peak),
        ] {
            self.figures.add("one create per object", what, unit, figure);
        }
        peer
    }

    /// Measures the memory of a server that has rested, and what the most watchers add to that. Before anything else is
    /// asked: memory that was needed for something is used again.
    async fn memory(&mut self, server: &mut Server) {
        tokio::time::sleep(REST).await;
        let before = account::resident_of(server.process);
        self.figures.add("at rest", &measure(server.name, "memory"), "MiB", before);
        let watchers = self.extent.watchers[0];
        let mut watches = self.watch(server, watchers).await;
        for what in ["memory of a watcher", "memory of a watcher, served"] {
            let memory = (account::resident_of(server.process) - before) * 1024.0 / watchers as f64;
            self.figures.add(&format!("{watchers} watchers"), &measure(server.name, what), "KiB", memory);
            server.change(&self.package).await;
            watches.served().await;
        }
    }

    /// Measures what the machine takes for work that is none of ours, for every case that has an expectation.
    fn yardstick(&mut self, layer: &Path) {
        let spent = yardsticks::gzip(layer);
        let watchers = self.extent.watchers.iter().map(|watchers| format!("{watchers} watchers"));
        for case in CASES.iter().map(|case| case.name.to_owned()).chain(watchers) {
            self.figures.add(&case, "gzip -dc, cpu", "ms", spent.cpu * 1e3);
        }
    }

    /// Asks for the same several times in a row.
    async fn ask(&mut self, server: &Server, case: &Case, is_first: bool) {
        let mut connection = server.access.connect().await;
        let path = format!("{ROOT}/{}", case.path.replace("NAME", &self.package));
        let request = Request { path: &path, accept: case.accept, encoding: case.encoding };
        // Once for whatever is done only once.
        let size = pages(&mut connection, request).await;
        if is_first {
            self.figures.add(case.name, &measure(server.name, "size"), "KiB", size as f64 / 1024.0);
        }
        let before = (account::cpu_of(server.process), account::cpu_of(server.etcd));
        for _ in 0..self.extent.requests {
            let start = Instant::now();
            pages(&mut connection, request).await;
            let time = start.elapsed().as_secs_f64() * 1e3;
            self.figures.add(case.name, &measure(server.name, "answer"), "ms", time);
        }
        let each = |now: f64, before: f64| (now - before) * 1e3 / self.extent.requests as f64;
        let cpu = each(account::cpu_of(server.process), before.0);
        let etcd = each(account::cpu_of(server.etcd), before.1);
        self.figures.add(case.name, &measure(server.name, "cpu"), "ms", cpu);
        self.figures.add(case.name, &measure(server.name, "cpu of etcd"), "ms", etcd);
    }

    /// Has one watcher, and measures how long after a change is committed it is told.
    async fn lag(&mut self, server: &mut Server) {
        let (case, events) = ("one watcher", self.extent.events);
        let mut watches = self.watch(server, 1).await;
        let (mut after_commit, mut after_start) = (Vec::new(), Vec::new());
        for _ in 0..events {
            let (start, committed) = server.change(&self.package).await;
            let served = watches.served().await;
            after_commit.push(served.saturating_duration_since(committed).as_secs_f64() * 1e3);
            after_start.push(served.duration_since(start).as_secs_f64() * 1e3);
        }
        for (what, mut times) in [("commit to event", after_commit), ("write to event", after_start)] {
            times.sort_by(f64::total_cmp);
            for (quantile, at) in [("p50", events / 2), ("p99", events * 99 / 100)] {
                let name = measure(server.name, &format!("{what}, {quantile}"));
                self.figures.add(case, &name, "ms", times[at]);
            }
        }
    }

    /// Has many watchers, and tells them of some changes.
    async fn fan_out(&mut self, server: &mut Server, watchers: usize) {
        let case = format!("{watchers} watchers");
        let start = Instant::now();
        let mut watches = self.watch(server, watchers).await;
        let opened = start.elapsed().as_secs_f64();
        self.figures.add(&case, &measure(server.name, "all open"), "s", opened);
        let cpu = account::cpu_of(server.process);
        for _ in 0..self.extent.changes {
            let (_, committed) = server.change(&self.package).await;
            let served = watches.served().await.saturating_duration_since(committed).as_secs_f64() * 1e3;
            self.figures.add(&case, &measure(server.name, "last one served"), "ms", served);
        }
        let events = (watchers * self.extent.changes) as f64;
        let cpu = (account::cpu_of(server.process) - cpu) * 1e6 / events;
        self.figures.add(&case, &measure(server.name, "cpu of an event"), "us", cpu);
    }

    async fn watch(&self, server: &Server, count: usize) -> Watches {
        let mut connection = server.access.connect().await;
        let state: Value =
            serde_json::from_slice(&list(&mut connection, "packages?limit=1").await).expect("it is JSON");
        let version = state["metadata"]["resourceVersion"].as_str().expect("a list has a version");
        let path = format!("{ROOT}/packages?watch=1&resourceVersion={version}");
        Watches::open(&server.access, Request { path: &path, accept: JSON, ..Request::default() }, count)
            .await
    }
}

/// Asks for something, and for all pages that follow. Returns how many bytes came.
async fn pages(connection: &mut Connection, request: Request<'_>) -> usize {
    let answer = connection.ask(request).await;
    let mut size = answer.len();
    // Tables and bundles are measured by their first page.
    let mut next = continued(answer).filter(|_| request.path.ends_with("limit=100"));
    while let Some(token) = next {
        let path = format!("{}&continue={token}", request.path);
        let answer = connection.ask(Request { path: &path, ..request }).await;
        size += answer.len();
        next = continued(answer);
    }
    size
}

/// Returns where the next page begins.
fn continued(page: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\"continue\":\"";
    let start = memchr::memmem::find(page, FIELD)? + FIELD.len();
    let end = start + memchr::memchr(b'"', &page[start..])?;
    let token = &page[start..end];
    (!token.is_empty()).then(|| String::from_utf8_lossy(token).into_owned())
}
