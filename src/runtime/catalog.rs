//! `render` and `validate`: the pipeline without a server.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use super::show::Show;
use super::sources::sources;
use crate::args::{ReadArgs, RenderArgs, ValidateArgs};
use crate::model::SourceReference;
use crate::pipeline::discover::LocalSources;
use crate::pipeline::progress::Progress;
use crate::pipeline::reconcile::Catalog;
use crate::pipeline::submit::BatchLimits;
use crate::pipeline::{IngestError, IngestErrorCause, Pipeline, Report};
use crate::sink::{OutputFormat, OutputStore};
use crate::store::Store;

/// What is printed at once.
const WRITE_BYTES: usize = 64 << 10;

pub(super) async fn render(args: RenderArgs) -> anyhow::Result<ExitCode> {
    let RenderArgs { source, output, read } = args;
    let store = OutputStore::new(BufWriter::with_capacity(WRITE_BYTES, io::stdout()), output);
    let report = ingest(&source, &read, &store).await??;
    store.finish()?;
    for (package, problems) in &report.invalid {
        for problem in problems {
            tracing::warn!(package, "{problem}");
        }
    }
    Ok(if report.invalid.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) async fn validate(args: ValidateArgs) -> anyhow::Result<ExitCode> {
    let ValidateArgs { source, read } = args;
    // Everything is done but printed, so that what cannot be stored is found as well.
    let store = OutputStore::new(io::sink(), OutputFormat::Table);
    let (invalid, packages, bundles) = match ingest(&source, &read, &store).await? {
        Ok(report) => (report.invalid, report.packages, report.bundles),
        Err(IngestError { cause: IngestErrorCause::Invalid(invalid), .. }) => (invalid, 0, 0),
        Err(error) => return Err(error.into()),
    };
    let mut out = BufWriter::new(io::stdout());
    for (package, problems) in &invalid {
        for problem in problems {
            writeln!(out, "{package}: {problem}")?;
        }
    }
    writeln!(out, "{packages} packages and {bundles} bundles are valid, {} packages are not", invalid.len())?;
    out.flush()?;
    Ok(if invalid.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads a catalog to its end, and shows meanwhile how far that is.
async fn ingest(
    source: &SourceReference,
    read: &ReadArgs,
    store: &dyn Store,
) -> anyhow::Result<Result<Report, IngestError>> {
    let (sources, limits) = sources(read, LocalSources::Anywhere, false)?;
    let pipeline = Pipeline {
        sources: &sources,
        store,
        limits: &limits,
        batches: BatchLimits::default(),
        stop: CancellationToken::new(),
    };
    let catalog =
        Catalog { namespace: "default".to_owned(), name: "catalog".to_owned(), ..Catalog::default() };
    let progress = Progress::default();
    let show = Show::start(source, &progress);
    let report = async {
        let discovery = pipeline.discover(source, &catalog).await?;
        pipeline.ingest(discovery, &catalog, &progress).await
    };
    let report = report.await;
    show.stop().await;
    Ok(report)
}
