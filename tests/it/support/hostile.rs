//! What is always the same, whatever a source does: it is refused with a sentence, in bounded time and memory, and what
//! was served before still is.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use packageserver::pipeline::limits::Limits;
use packageserver::store::{Key, ResourceVersion};
use tempfile::TempDir;

use super::catalog::CatalogBuilder;
use super::image::Image;
use super::ingest::{Ingest, catalog};

/// How long anything hostile may keep an ingest busy, on a machine that is busy otherwise.
const TIME: Duration = Duration::from_secs(60);

/// How much address space the program gets that has to refuse a bomb, in KiB.
const SPACE: u32 = 1 << 20;

/// Runs `render` on an image with little memory, and returns what it says when it refuses it. Without a bound, the
/// program would be ended by the system.
pub async fn refused_in_little_memory(image: &Image, arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    image.write_layout(directory.path());
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {SPACE}; exec \"$0\" \"$@\"")]);
    command.args([env!("CARGO_BIN_EXE_packageserver"), "render"]);
    command.arg(format!("oci:{}", directory.path().display())).args(arguments);
    // Arenas are address space that nobody uses.
    command.env("MALLOC_ARENA_MAX", "1").env("TMPDIR", directory.path()).stdout(Stdio::null());
    let begun = Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(begun.elapsed() < TIME, "it took {:?}", begun.elapsed());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{}: {said}", output.status);
    said
}

/// A store with two catalogs; the first one's source turns hostile.
pub struct Victim {
    pub ingest: Ingest,
    directory: TempDir,
}

impl Victim {
    pub async fn new() -> Self {
        Self::with(Ingest::new()).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        Self::with(Ingest::with_limits(limits)).await
    }

    pub async fn with(mut ingest: Ingest) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let limits = std::mem::take(&mut ingest.limits);
        for (name, package) in [("bystander", "other"), ("catalog", "one")] {
            let good = directory.path().join(name);
            CatalogBuilder::default().package(package, 3).image().write_layout(&good);
            ingest.catalog = catalog(name, 1);
            ingest.run_layout(&good).await.unwrap();
        }
        ingest.limits = limits;
        Victim { ingest, directory }
    }

    /// Ingests an image.
    pub async fn try_image(&self, image: &Image) -> Result<packageserver::pipeline::Report, String> {
        let bad = self.directory.path().join("bad");
        let _ = std::fs::remove_dir_all(&bad);
        image.write_layout(&bad);
        self.try_source(&format!("oci:{}", bad.display())).await
    }

    /// Ingests a source; whatever comes of it, it does so in time, and nobody else is touched.
    pub async fn try_source(&self, source: &str) -> Result<packageserver::pipeline::Report, String> {
        let before = self.bystander().await;
        let begun = Instant::now();
        let ingested = self.ingest.run(source).await.map_err(|error| error.to_string());
        assert!(begun.elapsed() < TIME, "{source} took {:?}", begun.elapsed());
        assert_eq!(before, self.bystander().await);
        ingested
    }

    /// Ingests an image that is refused as a whole, and returns what was said: one sentence of bearable length.
    pub async fn refuses(&self, image: &Image) -> String {
        let before = self.everything().await;
        let said = self.try_image(image).await.expect_err("it is refused");
        assert_eq!(before, self.everything().await, "{said}");
        said
    }

    /// As [`Self::refuses`], for any source.
    pub async fn refuses_source(&self, source: &str) -> String {
        let before = self.everything().await;
        let said = self.try_source(source).await.expect_err("it is refused");
        assert_eq!(before, self.everything().await, "{said}");
        said
    }

    /// Ingests an image of which one package makes no sense, and returns what was said of it.
    pub async fn refuses_package(&self, image: &Image, package: &str) -> String {
        let report = self.try_image(image).await.expect("the rest is taken");
        let problems = report.invalid.get(package).unwrap_or_else(|| panic!("{report:?}"));
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    async fn everything(&self) -> Vec<(Key, ResourceVersion)> {
        self.ingest.stored().await.into_iter().map(|stored| (stored.key, stored.version)).collect()
    }

    async fn bystander(&self) -> Vec<(Key, ResourceVersion)> {
        let is_other = |key: &Key| key.name().starts_with("other") || key.name() == "bystander";
        self.everything().await.into_iter().filter(|(key, _)| is_other(key)).collect()
    }
}
