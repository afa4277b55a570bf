//! `history`: what changed between two points in time, read from the log itself.

mod entry;
mod times;

use std::io::{self, BufWriter, Write};

use anyhow::{Context, bail};
use futures::TryStreamExt;

use self::entry::Entry;
use self::times::Times;
use super::backend::Backend;
use super::data_dir::DataDir;
use crate::args::{HistoryArgs, HistoryFormat, Moment};
use crate::store::{Change, Key, Range, ResourceVersion, Store, StoreError, WatchItem};

const HEADINGS: [&str; 8] =
    ["RESOURCEVERSION", "TIME", "NAMESPACE", "CATALOG", "PACKAGE", "CHANGE", "CHANNEL", "HEAD"];

pub(super) async fn history(args: HistoryArgs) -> anyhow::Result<()> {
    let backend = match &args.data_dir {
        Some(path) => Backend::embedded(&DataDir::existing(path)?)?,
        None => Backend::etcd(&args.etcd)?,
    };
    let store = &*backend.store;
    let now = store.current().await?;
    let oldest = oldest(store, now).await?;
    let mut times = Times::default();
    read(store, Range::resource("catalogsources"), oldest, now, |change| {
        times.note(change);
        Ok(())
    })
    .await?;

    let from = match args.from {
        None => oldest,
        Some(Moment::Version(version)) if version < oldest => {
            bail!("history goes back to version {oldest}, not to {version}");
        }
        Some(Moment::Version(version)) => version,
        Some(Moment::Time(time)) => times.version_at(time).unwrap_or_else(|| {
            tracing::warn!(%time, "history goes back to a later time, and is printed from there");
            oldest
        }),
    };
    let to = match args.to {
        None => now,
        Some(Moment::Version(version)) => version.min(now),
        // Nothing was complete before the first ingest that is known.
        Some(Moment::Time(time)) => times.version_at(time).unwrap_or(oldest),
    };

    let range = match &args.namespace {
        Some(namespace) => Range::namespace("packages", namespace),
        None => Range::resource("packages"),
    };
    let mut printer = Printer::new(args.output);
    read(store, range, from, to, |change| {
        let entry = Entry::of(change).with_context(|| format!("`{}` cannot be read", change.key))?;
        if args.catalog_source.as_ref().is_some_and(|wanted| *wanted != entry.catalog_source) {
            return Ok(());
        }
        let source = Key::new("catalogsources", change.key.namespace(), &entry.catalog_source);
        printer.add(entry.at(times.time_of(&source, change.version)))
    })
    .await?;
    printer.finish()
}

/// Returns the oldest version from which every event can be read.
async fn oldest(store: &dyn Store, now: ResourceVersion) -> Result<ResourceVersion, StoreError> {
    let first = read(store, Range::resource("catalogsources"), ResourceVersion::default(), now, |_| Ok(()));
    match first.await {
        Ok(()) => Ok(ResourceVersion::default()),
        Err(error) => match error.downcast::<StoreError>() {
            Ok(StoreError::Compacted { oldest, .. }) => Ok(oldest),
            Ok(error) => Err(error),
            Err(error) => Err(StoreError::Unavailable(error.to_string())),
        },
    }
}

/// Hands out the events of a range between two versions, in order.
async fn read(
    store: &dyn Store,
    range: Range,
    from: ResourceVersion,
    to: ResourceVersion,
    mut take: impl FnMut(&Change) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if from >= to {
        return Ok(());
    }
    let mut events = store.watch(range, from).await?;
    while let Some(item) = events.try_next().await? {
        match item {
            WatchItem::Change(change) if change.version > to => break,
            WatchItem::Change(change) => take(&change)?,
            WatchItem::Progress(version) if version >= to => break,
            WatchItem::Progress(_) => {}
        }
    }
    Ok(())
}

/// Writes entries to standard output: at once as JSON, or at the end as a table.
struct Printer {
    out: BufWriter<io::Stdout>,
    format: HistoryFormat,
    rows: Vec<[String; 8]>,
}

impl Printer {
    fn new(format: HistoryFormat) -> Self {
        Printer { out: BufWriter::new(io::stdout()), format, rows: Vec::new() }
    }

    fn add(&mut self, entry: Entry) -> anyhow::Result<()> {
        match self.format {
            HistoryFormat::Jsonl => writeln!(self.out, "{}", serde_json::to_string(&entry)?)?,
            HistoryFormat::Table => self.rows.push(entry.row()),
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        if self.format == HistoryFormat::Table {
            let headings = HEADINGS.map(str::to_owned);
            let lines = || std::iter::once(&headings).chain(&self.rows);
            let mut widths = [0; HEADINGS.len()];
            for line in lines() {
                for (width, cell) in widths.iter_mut().zip(line) {
                    *width = (*width).max(cell.chars().count());
                }
            }
            for line in lines() {
                let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
                let text = cells.collect::<Vec<_>>().join("   ");
                writeln!(self.out, "{}", text.trim_end())?;
            }
        }
        Ok(self.out.flush()?)
    }
}
