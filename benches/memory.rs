//! Peak memory of `render` against the size of the catalog. Fails when it follows the catalog.
//!
//! `cargo bench --bench memory`. Each catalog is an image of one gzip layer in an OCI layout, read by the real program;
//! memory is the system's own account of it. That account begins with what the process has that starts another one, so a
//! process of its own, which is small, starts and measures each.

#![expect(clippy::print_stdout, reason = "the figures are what it is run for")]

#[expect(dead_code, unreachable_pub, clippy::print_stderr, reason = "other benches use more of it")]
mod harness;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::sys::resource::{UsageWho, getrusage};

use self::harness::catalogs::package;
use self::harness::installation::program;
use self::harness::support::image::{Image, ImageBuilder, Packing};

/// What `render` of the large real catalog may take.
const LIMIT_MIB: f64 = 64.0;

/// How much more memory a catalog of twice the size may take.
const GROWTH: f64 = 1.10;

/// How often each is measured; the median counts, because what allocators keep differs from one time to the next.
const ROUNDS: usize = 5;

/// Packages of the smaller made catalog; the other one has twice as many.
const PACKAGES: usize = 300;
const BUNDLES: usize = 20;

/// Tells a process that it is the one that measures, and what: the layout and how many packages it has.
const LAYOUT: &str = "MEMORY_BENCH_LAYOUT";
const EXPECTED: &str = "MEMORY_BENCH_PACKAGES";

fn main() -> ExitCode {
    if let (Some(layout), Ok(packages)) = (std::env::var_os(LAYOUT), std::env::var(EXPECTED)) {
        let packages = packages.parse().expect("the bench sets it");
        println!("{}", render(Path::new(&layout), packages));
        return ExitCode::SUCCESS;
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut failed = false;
    let mut measured = Vec::new();
    for packages in [PACKAGES, 2 * PACKAGES] {
        let layout = directory.path().join(packages.to_string());
        made(packages).write_layout(&layout);
        let peak = measure(&layout, packages);
        println!("{packages} packages of {BUNDLES} bundles: {peak:.1} MiB");
        measured.push(peak);
    }
    let growth = measured[1] / measured[0];
    println!("twice the catalog: {growth:.2} times the memory (limit {GROWTH:.2})");
    failed |= growth > GROWTH;
    match large(directory.path()) {
        Some(layout) => {
            let peak = measure(&layout, 541);
            println!("large: {peak:.1} MiB (limit {LIMIT_MIB})");
            failed |= peak > LIMIT_MIB;
        }
        None => println!("large: not measured, there is no ../shared/catalogs/large.tar.zst"),
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Renders an image several times, and returns the median of the peaks in MiB.
fn measure(layout: &Path, packages: usize) -> f64 {
    let mut peaks: Vec<_> = (0..ROUNDS).map(|_| measure_once(layout, packages)).collect();
    peaks.sort_by(f64::total_cmp);
    peaks[ROUNDS / 2]
}

/// Has a small process render an image, and returns the peak in MiB.
fn measure_once(layout: &Path, packages: usize) -> f64 {
    let measured = Command::new(std::env::current_exe().expect("this is a program"))
        .env(LAYOUT, layout)
        .env(EXPECTED, packages.to_string())
        .stderr(Stdio::inherit())
        .output()
        .expect("it can be started");
    let figure = String::from_utf8_lossy(&measured.stdout).trim().parse();
    figure.expect("the image was rendered, and what that took was printed")
}

/// Renders an image and returns the peak of that, in MiB.
fn render(layout: &Path, packages: usize) -> f64 {
    let mut child = Command::new(program())
        .args(["render", "--output", "jsonl"])
        .arg(format!("oci:{}", layout.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program can be started");
    let mut out = child.stdout.take().expect("it is piped");
    let (mut buffer, mut rest, mut found) = (vec![0; 1 << 20], Vec::new(), 0);
    loop {
        let read = out.read(&mut buffer).expect("the output can be read");
        if read == 0 {
            break;
        }
        rest.extend_from_slice(&buffer[..read]);
        let end = memchr::memrchr(b'\n', &rest).map_or(0, |at| at + 1);
        let lines = rest[..end].split(|byte| *byte == b'\n');
        found += lines.filter(|line| memchr::memmem::find(line, b"\"kind\":\"Package\"").is_some()).count();
        rest.drain(..end);
    }
    assert!(child.wait().expect("a child can be waited for").success());
    assert_eq!(found, packages);
    getrusage(UsageWho::RUSAGE_CHILDREN).expect("the system keeps account").max_rss() as f64 / 1024.0
}

/// Returns an image with a catalog whose bundles are as large as real ones.
fn made(packages: usize) -> Image {
    let files = (0..packages).map(|number| package(&format!("operator-{number:04}"), BUNDLES));
    let files: Vec<_> = files.collect();
    let files: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    ImageBuilder::default().layer(Packing::Gzip, &files).build()
}

/// Makes an image of the large real catalog, if there is one. Its archive is packed anew, as it would be published.
fn large(directory: &Path) -> Option<PathBuf> {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/catalogs/large.tar.zst");
    let mut decoder = zstd::Decoder::new(File::open(archive).ok()?).expect("a decoder can be made");
    decoder.window_log_max(27).expect("the window is allowed");
    let packed = directory.join("large.tar.gz");
    let mut encoder = GzEncoder::new(File::create(&packed).expect("a file can be made"), Compression::fast());
    std::io::copy(&mut decoder, &mut encoder).expect("the archive can be packed");
    encoder.finish().expect("the archive can be packed").flush().expect("the archive can be packed");
    let layer = fs::read(&packed).expect("the archive can be read");
    let layout = directory.join("large");
    ImageBuilder::default().raw_layer(Packing::Gzip, layer).build().write_layout(&layout);
    Some(layout)
}
