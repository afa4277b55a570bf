//! What it takes to have a catalog served: from a registry into etcd, whole and changed, against the floor.
//!
//! `cargo bench --bench ingest`. Real parts only: Debian's registry, etcd from `bin/`, our release build with its default
//! settings, all on loopback. Cases take turns, so that a machine that is busy hurts all of them alike. `-- --short` does
//! less, `-- --check` fails when ratios are worse than those in `expected.json`. `PACKAGESERVER_BENCH_BASELINE=PROGRAM`
//! measures an earlier build in the same turns.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

#[expect(
    dead_code,
    unreachable_pub,
    clippy::print_stderr,
    reason = "the tests and other benches use more of it"
)]
mod harness;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::harness::account;
use self::harness::catalogs::{self, Catalog, Large};
use self::harness::chart::{self, Chart};
use self::harness::expected;
use self::harness::figures::{self, Figures};
use self::harness::installation::{Ingested, Installation, program};
use self::harness::support::registry::Registry;
use self::harness::yardsticks;

/// How often cases take turns, in the long form and in the short one.
const ROUNDS: usize = 5;
const SHORT_ROUNDS: usize = 3;

/// How often more they may, where that could show that a ratio was worse by chance.
const SECOND_THOUGHTS: usize = 3;

const BASELINE: &str = "PACKAGESERVER_BENCH_BASELINE";

/// Seconds of an idle installation before its memory is read.
const REST: std::time::Duration = std::time::Duration::from_secs(2);

struct Bench {
    registry: Registry,
    figures: Figures,
    program: PathBuf,
    baseline: Option<PathBuf>,
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
    let mut whole = vec![large.whole()];
    if !is_short {
        whole.push(large.twice());
        whole.extend(["community-v4.20", "certified-v4.12"].into_iter().filter_map(catalogs::directory));
    }
    let counts = if is_short { vec![1] } else { vec![1, 10, 100, large.packages()] };
    let changed: Vec<_> = counts.iter().map(|count| large.changed(*count)).collect();
    let baseline = std::env::var_os(BASELINE).map(PathBuf::from);
    let registry = Registry::start().await;
    let mut bench = Bench { registry, figures: Figures::default(), program: program(), baseline };
    for catalog in &whole {
        bench.registry.push(&catalog.name, "latest", &catalog.image()).await;
    }
    let rounds = if is_short { SHORT_ROUNDS } else { ROUNDS };
    let most = if checks { rounds + SECOND_THOUGHTS } else { rounds };
    for round in 0..most {
        if round >= rounds && expected::worse(large.name, &bench.figures).is_empty() {
            break;
        }
        for catalog in &whole {
            bench.full(catalog, round == 0 && !is_short).await;
        }
        bench.refreshes(&large, &counts, &changed).await;
    }
    if !is_short && let Some((spent, peak)) = yardsticks::opm(&whole[0].layer) {
        bench.figures.add(large.name, "opm serve --cache-only", "s", spent.wall);
        bench.figures.add(large.name, "opm serve --cache-only, cpu", "s", spent.cpu);
        bench.figures.add(large.name, "opm serve --cache-only, peak", "MiB", peak);
    }
    let Bench { mut figures, .. } = bench;
    for case in whole.iter().map(|catalog| &*catalog.name) {
        ratios(&mut figures, case, "ingest");
    }
    for count in &counts {
        ratios(&mut figures, &format!("refresh, {count} changed"), "refresh");
    }
    println!("{}", figures.table());
    println!("{}", figures.write(if is_short { "ingest-short" } else { "ingest" }).display());
    if !is_short {
        draw(&figures, &whole);
    }
    let worse = if checks { expected::worse(large.name, &figures) } else { Vec::new() };
    for sentence in &worse {
        println!("{sentence}");
    }
    if worse.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Adds what a case takes in terms of what gzip takes in the same round.
fn ratios(figures: &mut Figures, case: &str, what: &str) {
    figures.ratio(&format!("{what} / gzip -dc"), (case, what), (case, "gzip -dc"));
    let cpu = format!("{what}, cpu of controller");
    figures.ratio(&format!("{what} cpu / gzip -dc cpu"), (case, &cpu), (case, "gzip -dc, cpu"));
}

/// Draws time and memory against the size of the catalog.
fn draw(figures: &Figures, catalogs: &[Catalog]) {
    let line = |measure: &str| {
        let point = |catalog: &Catalog| {
            let size = figures.median(&catalog.name, "unpacked")?;
            Some((size, figures.median(&catalog.name, measure)?))
        };
        catalogs.iter().filter_map(point).collect()
    };
    let charts = [
        Chart {
            title: "Registry to etcd",
            unit: "seconds",
            lines: vec![("ingest", line("ingest")), ("gzip -dc", line("gzip -dc"))],
        },
        Chart {
            title: "Peak memory of the controller",
            unit: "MiB",
            lines: vec![("controller", line("peak of controller"))],
        },
    ];
    let path = figures::directory().join("ingest.svg");
    std::fs::write(&path, chart::svg(&charts, "MB, unpacked")).expect("a chart can be written");
    println!("{}", path.display());
}

impl Bench {
    /// Ingests a catalog into an empty etcd, and does what it is measured against; once also what takes longer
    /// and does not vary as much.
    async fn full(&mut self, catalog: &Catalog, is_thorough: bool) {
        let case = &*catalog.name;
        self.gzip(case, &catalog.layer);
        let (inflate, unpacked) = yardsticks::inflate(&catalog.layer);
        self.figures.add(case, "inflate in our process", "s", inflate.wall);
        self.figures.add(case, "inflate in our process, cpu", "s", inflate.cpu);
        self.figures.add(case, "unpacked", "MB", unpacked as f64 / 1e6);
        let image = self.registry.reference(case, "latest");
        if let Some(baseline) = self.baseline.clone() {
            let mut installation = Installation::start(&baseline, &[]).await;
            let ingested = installation.ingest("catalog", &image, None).await;
            self.figures.add(case, "baseline", "s", ingested.wall);
            self.figures.add(case, "baseline, cpu of controller", "s", ingested.controller);
            let peak = account::peak_of(installation.controller());
            self.figures.add(case, "baseline, peak of controller", "MiB", peak);
        }
        let mut installation = Installation::start(&self.program, &[]).await;
        let registry = account::child("docker-registry");
        let before = account::cpu_of(registry);
        let ingested = installation.ingest("catalog", &image, None).await;
        self.ingested(case, "ingest", ingested);
        self.figures.add(case, "ingest, cpu of registry", "s", account::cpu_of(registry) - before);
        self.figures.add(case, "peak of controller", "MiB", account::peak_of(installation.controller()));
        if !is_thorough {
            return;
        }
        let transactions = yardsticks::transactions(&installation.etcd).await;
        for at_a_time in [1, 4] {
            let spent = yardsticks::commit(&transactions, at_a_time).await;
            let measure = format!("etcd alone, {at_a_time} at a time");
            self.figures.add(case, &measure, "s", spent.wall);
            self.figures.add(case, &format!("{measure}, cpu of etcd"), "s", spent.cpu);
        }
        let bytes = installation.compacted_bytes().await;
        self.figures.add(case, "etcd, compacted", "MiB", bytes as f64 / 1024.0 / 1024.0);
        tokio::time::sleep(REST).await;
        self.figures.add(case, "controller at rest", "MiB", account::resident_of(installation.controller()));
        for _ in 0..3 {
            let (process, _, ready) = installation.apiserver(&self.program).await;
            self.figures.add(case, "apiserver ready after start", "s", ready.as_secs_f64());
            tokio::time::sleep(REST).await;
            self.figures.add(case, "apiserver at rest", "MiB", account::resident_of(process));
            self.figures.add(case, "apiserver peak", "MiB", account::peak_of(process));
            installation.stop_apiserver();
        }
    }

    /// Refreshes the large catalog with others that differ from it in some packages, there and back.
    async fn refreshes(&mut self, large: &Large, counts: &[usize], changed: &[Catalog]) {
        let whole = large.whole();
        let image = self.registry.reference("refreshed", "latest");
        self.registry.push("refreshed", "latest", &whole.image()).await;
        let mut installation = Installation::start(&self.program, &[]).await;
        installation.ingest("catalog", &image, None).await;
        for (count, changed) in counts.iter().zip(changed) {
            let case = format!("refresh, {count} changed");
            for catalog in [changed, &whole] {
                self.registry.push("refreshed", "latest", &catalog.image()).await;
                self.gzip(&case, &catalog.layer);
                let refreshed = installation.refresh("catalog").await;
                self.ingested(&case, "refresh", refreshed);
            }
        }
        let repacked = large.repacked();
        for (case, image) in [
            ("refresh, same layer", whole.labelled("configs/")),
            ("refresh, same files repacked", repacked.image()),
        ] {
            self.registry.push("refreshed", "latest", &image).await;
            let refreshed = installation.refresh("catalog").await;
            self.ingested(case, "refresh", refreshed);
        }
        let before = self.registry.requests().len();
        let polled = installation.refresh("catalog").await;
        let requests = self.registry.requests().split_off(before);
        self.ingested("poll, unchanged", "poll", polled);
        self.figures.add("poll, unchanged", "requests to the registry", "", requests.len() as f64);
    }

    fn gzip(&mut self, case: &str, layer: &Path) {
        let spent = yardsticks::gzip(layer);
        self.figures.add(case, "gzip -dc", "s", spent.wall);
        self.figures.add(case, "gzip -dc, cpu", "s", spent.cpu);
    }

    fn ingested(&mut self, case: &str, what: &str, ingested: Ingested) {
        let Ingested { wall, controller, etcd, revisions, changed } = ingested;
        self.figures.add(case, what, "s", wall);
        self.figures.add(case, &format!("{what}, cpu of controller"), "s", controller);
        self.figures.add(case, &format!("{what}, cpu of etcd"), "s", etcd);
        self.figures.add(case, "objects changed", "", changed as f64);
        self.figures.add(case, "transactions", "", revisions as f64);
    }
}
