//! `render` and `validate`: the pipeline without a server.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use super::show::Show;
use crate::args::{RenderArgs, ValidateArgs};
use crate::pipeline::Pipeline;
use crate::pipeline::discover::{LocalSources, Sources};
use crate::pipeline::fetch::RegistryClient;
use crate::pipeline::limits::Limits;
use crate::pipeline::progress::Progress;
use crate::pipeline::reconcile::Catalog;
use crate::pipeline::submit::BatchLimits;
use crate::sink::{OutputFormat, OutputStore};

/// What is printed at once.
const WRITE_BYTES: usize = 64 << 10;

pub(super) async fn render(args: RenderArgs) -> anyhow::Result<ExitCode> {
    let RenderArgs { source, output } = args;
    let limits = Limits::default();
    let sources = Sources::new(
        RegistryClient::new()?,
        LocalSources::Anywhere,
        limits.clone(),
    );
    let out = BufWriter::with_capacity(WRITE_BYTES, io::stdout());
    let store = OutputStore::new(out, output);
    let pipeline = Pipeline {
        sources: &sources,
        store: &store,
        limits: &limits,
        batches: BatchLimits::default(),
    };
    let catalog = Catalog {
        namespace: "default".to_owned(),
        name: "catalog".to_owned(),
        ..Catalog::default()
    };
    let progress = Progress::default();
    let show = Show::start(&source, &progress);
    let report = pipeline.ingest(&source, &catalog, &progress).await;
    show.stop().await;
    let report = report?;
    store.finish()?;
    for (package, problems) in &report.invalid {
        for problem in problems {
            tracing::warn!(package, "{problem}");
        }
    }
    Ok(if report.invalid.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(super) async fn validate(args: ValidateArgs) -> anyhow::Result<ExitCode> {
    let ValidateArgs { source } = args;
    let limits = Limits::default();
    let sources = Sources::new(
        RegistryClient::new()?,
        LocalSources::Anywhere,
        limits.clone(),
    );
    let store = OutputStore::new(io::sink(), OutputFormat::default());
    let pipeline = Pipeline {
        sources: &sources,
        store: &store,
        limits: &limits,
        batches: BatchLimits::default(),
    };
    let progress = Progress::default();
    let show = Show::start(&source, &progress);
    let judged = pipeline.judge(&source, &progress).await;
    show.stop().await;
    let judged = judged?;
    let (packages, bundles) = judged.counts();
    let mut out = BufWriter::new(io::stdout());
    for (package, problems) in &judged.invalid {
        for problem in problems {
            writeln!(out, "{package}: {problem}")?;
        }
    }
    let invalid = judged.invalid.len();
    writeln!(
        out,
        "{packages} packages and {bundles} bundles are valid, {invalid} packages are not"
    )?;
    out.flush()?;
    Ok(if invalid == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
