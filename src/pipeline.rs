//! The pipeline: from a source to committed events.
//!
//! ```text
//! discover ── digest ──▶ fetch ── chunks (32) ──▶ inflate ── files ──▶ parse ── metas (4 MiB) ──▶ reconcile
//!  1 request             async, hashes            1 thread, untars     1 thread a core            spool, 16 MiB
//!                                                 and splits                                      then a file
//!                                                                                                     │
//!                        Store::append ◀── batches (128 operations, 1.4 MB) ── submit ◀── events ─────┘
//! ```
//!
//! Stages are verbs, and their files sort in the order in which data passes them. Up to `reconcile` everything streams;
//! there it waits until every digest is verified and the catalog was read to its end, and only then the first event
//! is appended.

pub mod discover;
pub mod fetch;
pub mod inflate;
pub mod parse;
pub mod reconcile;
pub mod submit;

pub mod limits;
pub mod progress;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

use self::discover::{Content, DiscoverError, Discovered, Sources};
use self::fetch::FetchError;
use self::inflate::InflateError;
use self::limits::Limits;
use self::progress::Progress;
use self::reconcile::{
    Catalog, Collector, JudgedCatalog, Problem, ReconcileError, Reconciler, StoredPackages,
};
use self::submit::{BatchLimits, submit};
use crate::event::{
    Checkpoint, PROVENANCE, Provenance, Tally, checkpoint_key, decode_record, encode_record,
};
use crate::model::SourceReference;
use crate::store::{At, Batch, ListRequest, Operation, Range, Store, StoreError, Stored};

/// Records that are read at once.
const RECORDS_PER_PAGE: usize = 500;

/// Everything an ingest needs beside the catalog itself.
pub struct Pipeline<'a> {
    /// Where sources are opened.
    pub sources: &'a Sources,
    /// Where events go.
    pub store: &'a dyn Store,
    /// What may be read.
    pub limits: &'a Limits,
    /// What may be appended at once.
    pub batches: BatchLimits,
}

/// What an ingest did.
#[derive(Debug)]
pub struct Report {
    /// When it began.
    pub started_at: Timestamp,
    /// When its last event was committed.
    pub completed_at: Timestamp,
    /// The image by digest; none for a plain directory.
    pub resolved_image: Option<String>,
    /// Whether the digest was the one that is stored, so that there was nothing to do.
    pub is_unchanged: bool,
    /// Bytes read from the image, as transferred.
    pub bytes_read: u64,
    /// What happened to served objects.
    pub tally: Tally,
    /// Packages that were not taken over, and why.
    pub invalid: BTreeMap<String, Vec<Problem>>,
    /// How many packages are served now.
    pub packages: u64,
    /// How many bundles are served now.
    pub bundles: u64,
}

/// An ingest that failed. Nothing that is served has changed, unless the store failed in the middle; then the next
/// attempt does the rest.
#[derive(Debug, thiserror::Error)]
#[error("`{image}`: {cause}")]
pub struct IngestError {
    /// The source, as it was named.
    pub image: String,
    /// What went wrong.
    pub cause: IngestErrorCause,
}

/// What went wrong in an ingest.
#[derive(Debug, thiserror::Error)]
pub enum IngestErrorCause {
    /// The source cannot be opened.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// It cannot be read, or is not what it claims to be.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It does not unpack.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// It cannot be made into events, or those cannot be stored.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// No package keeps the rules.
    #[error("{}", first_problem(.0))]
    Invalid(BTreeMap<String, Vec<Problem>>),
    /// A bug.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Pipeline<'_> {
    /// Makes what is stored of a catalog what its source holds now.
    ///
    /// # Errors
    ///
    /// [`IngestError`].
    pub async fn ingest(
        &self,
        source: &SourceReference,
        catalog: &Catalog,
        progress: &Progress,
    ) -> Result<Report, IngestError> {
        self.try_ingest(source, catalog, progress)
            .await
            .map_err(|cause| IngestError {
                image: source.to_string(),
                cause,
            })
    }

    async fn try_ingest(
        &self,
        source: &SourceReference,
        catalog: &Catalog,
        progress: &Progress,
    ) -> Result<Report, IngestErrorCause> {
        let started_at = Timestamp::now();
        let discovered = self.sources.discover(source).await?;
        let checkpoint = self
            .read_checkpoint(catalog)
            .await
            .map_err(ReconcileError::from)?;
        let checkpoint = match checkpoint {
            Some((_, before)) if before.catalog_source_uid != catalog.uid => {
                // The rest of an earlier CatalogSource of the same name.
                self.try_remove(catalog, progress).await?;
                None
            }
            checkpoint => checkpoint,
        };
        let mut report = Report {
            started_at,
            completed_at: started_at,
            resolved_image: discovered.resolved_image.clone(),
            is_unchanged: true,
            bytes_read: 0,
            tally: Tally::default(),
            invalid: BTreeMap::new(),
            packages: 0,
            bundles: 0,
        };
        let digest = discovered.digest.as_ref().map(ToString::to_string);
        if let Some((_, before)) = &checkpoint
            && digest.is_some()
            && before.digest == digest
            && before.presentation == catalog.presentation
        {
            report.packages = before.packages;
            report.bundles = before.bundles;
            return Ok(report);
        }
        report.is_unchanged = false;

        let stored = self.read_stored(catalog).await?;
        let (judged, stored) = self.read(discovered, stored, progress).await?;
        if judged.counts().0 == 0 {
            return Err(IngestErrorCause::Invalid(judged.invalid));
        }
        let reconciler = Reconciler::new(catalog, self.store, judged, stored);
        let submitted = submit(&reconciler, self.store, self.batches, progress).await?;

        let (packages, bundles) = reconciler.judged().counts();
        report.packages = (packages - submitted.refused.len() + reconciler.kept().count()) as u64;
        let kept = reconciler
            .kept()
            .map(|provenance| provenance.bundles.len())
            .sum::<usize>();
        report.bundles = (bundles + kept) as u64;
        report.tally = submitted.tally;
        report.bytes_read = progress.bytes();
        report.invalid = reconciler.judged().invalid.clone();
        report.invalid.extend(submitted.refused);
        let next = Checkpoint {
            catalog_source_uid: catalog.uid.clone(),
            image: source.to_string(),
            digest,
            presentation: catalog.presentation.clone(),
            packages: report.packages,
            bundles: report.bundles,
        };
        self.finish(catalog, checkpoint, &next, report.tally)
            .await?;
        report.completed_at = Timestamp::now();
        Ok(report)
    }

    /// Reads and judges a source, without a look at any store.
    ///
    /// # Errors
    ///
    /// [`IngestError`].
    pub async fn judge(
        &self,
        source: &SourceReference,
        progress: &Progress,
    ) -> Result<JudgedCatalog, IngestError> {
        let read = async {
            let discovered = self.sources.discover(source).await?;
            Ok(self
                .read(discovered, StoredPackages::new(), progress)
                .await?
                .0)
        };
        read.await.map_err(|cause| IngestError {
            image: source.to_string(),
            cause,
        })
    }

    /// Removes everything that is stored of a catalog. An interrupted removal is completed by the next.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`] when the store fails.
    pub async fn remove(&self, catalog: &Catalog) -> Result<(), ReconcileError> {
        self.try_remove(catalog, &Progress::default()).await
    }

    async fn try_remove(
        &self,
        catalog: &Catalog,
        progress: &Progress,
    ) -> Result<(), ReconcileError> {
        let stored = self.read_stored(catalog).await?;
        let owner = match self.read_checkpoint(catalog).await? {
            // What is stored belongs to whoever wrote it, not to a later CatalogSource of the same name.
            Some((_, checkpoint)) => Catalog {
                uid: checkpoint.catalog_source_uid,
                ..catalog.clone()
            },
            None => catalog.clone(),
        };
        let reconciler = Reconciler::removal(&owner, self.store, stored);
        submit(&reconciler, self.store, self.batches, progress).await?;
        let keys = [
            catalog.cache_key(),
            checkpoint_key(&catalog.namespace, &catalog.name),
        ];
        let rest = self.store.read(&keys).await?;
        let operations: Vec<_> = rest
            .into_iter()
            .flatten()
            .map(|stored| Operation::delete(stored.key, stored.version))
            .collect();
        if !operations.is_empty() {
            self.store.append(Batch { operations }).await?;
        }
        Ok(())
    }

    /// Fetches, inflates, parses and judges, all at once; returns when every digest is verified.
    async fn read(
        &self,
        discovered: Discovered,
        stored: StoredPackages,
        progress: &Progress,
    ) -> Result<(JudgedCatalog, StoredPackages), IngestErrorCause> {
        let (limits, counters) = (self.limits.clone(), progress.clone());
        match discovered.content {
            Content::Directory(path) => {
                let reading = tokio::task::spawn_blocking(move || {
                    collect(stored, &limits, &counters, |visitor| {
                        inflate::walk_directory(&path, &limits, visitor)
                    })
                });
                reading
                    .await
                    .map_err(|error| IngestErrorCause::Internal(error.to_string()))?
            }
            Content::Image(source) => {
                let Some(digest) = discovered.digest else {
                    return Err(IngestErrorCause::Internal(
                        "an image without a digest".to_owned(),
                    ));
                };
                let image = fetch::read_image(&*source, &digest, self.limits).await?;
                progress.set_total_bytes(image.layers.iter().map(|layer| layer.size).sum());
                // One layer is unpacked while the next is waited for, no more.
                let (sender, mut layers) = mpsc::channel(1);
                let root = image.root.clone();
                let unpacking = tokio::task::spawn_blocking(move || {
                    collect(stored, &limits, &counters, |visitor| {
                        inflate::inflate_layers(&mut layers, &root, &limits, visitor)
                    })
                });
                let fetching =
                    fetch::stream_layers(&*source, &image, self.limits, progress, sender);
                let (fetched, unpacked) = tokio::join!(fetching, unpacking);
                // What fetch found wrong is the cause of whatever unpacking stumbled over.
                fetched?;
                unpacked.map_err(|error| IngestErrorCause::Internal(error.to_string()))?
            }
        }
    }

    async fn read_checkpoint(
        &self,
        catalog: &Catalog,
    ) -> Result<Option<(Stored, Checkpoint)>, ReconcileError> {
        let key = checkpoint_key(&catalog.namespace, &catalog.name);
        let Some(stored) = self.store.get(&key).await? else {
            return Ok(None);
        };
        let checkpoint = decode_record(&stored.object)
            .map_err(|error| ReconcileError::Damaged(format!("`{key}`: {error}")))?;
        Ok(Some((stored, checkpoint)))
    }

    async fn read_stored(&self, catalog: &Catalog) -> Result<StoredPackages, ReconcileError> {
        let prefix = format!("{}/", catalog.name);
        let range = Range::names(PROVENANCE, &catalog.namespace, &prefix);
        let mut request = ListRequest {
            range,
            at: At::Latest,
            after: None,
            limit: RECORDS_PER_PAGE,
        };
        let mut packages = StoredPackages::new();
        loop {
            let page = self.store.list(request.clone()).await?;
            for Stored {
                key,
                version,
                object,
            } in &page.items
            {
                let provenance: Provenance = decode_record(object)
                    .map_err(|error| ReconcileError::Damaged(format!("`{key}`: {error}")))?;
                let package = key.name().strip_prefix(&prefix).unwrap_or_default();
                packages.insert(package.to_owned(), (*version, provenance));
            }
            match page.items.last() {
                Some(last) if page.remaining > 0 => {
                    request.at = At::Exactly(page.version);
                    request.after = Some(last.key.clone());
                }
                _ => return Ok(packages),
            }
        }
    }

    /// Moves the checkpoint, and tells readers of the CatalogCache when bundles have changed.
    async fn finish(
        &self,
        catalog: &Catalog,
        before: Option<(Stored, Checkpoint)>,
        next: &Checkpoint,
        tally: Tally,
    ) -> Result<(), ReconcileError> {
        let mut operations = Vec::new();
        let cache = self.store.get(&catalog.cache_key()).await?;
        if cache.is_none() || tally.added + tally.modified + tally.deleted > 0 {
            operations.push(catalog.touch_cache(cache.as_ref())?);
        }
        let key = checkpoint_key(&catalog.namespace, &catalog.name);
        match before {
            Some((_, before)) if before == *next => {}
            Some((stored, _)) => {
                operations.push(Operation::replace(key, stored.version, encode_record(next)));
            }
            None => operations.push(Operation::create(key, encode_record(next))),
        }
        if operations.is_empty() {
            return Ok(());
        }
        match self.store.append(Batch { operations }).await {
            Ok(_) => Ok(()),
            // When the answer was lost, the next ingest finds the checkpoint moved, or moves it.
            Err(StoreError::Unknown(reason)) => {
                tracing::warn!(%reason, "the checkpoint's append was not answered");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Parses what a source of files hands out, and judges it. Blocks.
fn collect(
    stored: StoredPackages,
    limits: &Limits,
    progress: &Progress,
    source: impl FnOnce(&mut dyn inflate::FileVisitor) -> Result<(), InflateError>,
) -> Result<(JudgedCatalog, StoredPackages), IngestErrorCause> {
    let known = || {
        stored
            .iter()
            .map(|(name, (_, provenance))| (name.as_str(), provenance))
    };
    let collector = Collector::new(known(), limits.spool_memory_bytes);
    parse::parse_files(limits, progress, &collector, source)?;
    let judged = collector.finish(known())?.judge()?;
    Ok((judged, stored))
}

fn first_problem(invalid: &BTreeMap<String, Vec<Problem>>) -> String {
    let mut problems = invalid
        .iter()
        .flat_map(|(package, problems)| problems.iter().map(move |problem| (package, problem)));
    match problems.next() {
        None => "no valid packages".to_owned(),
        Some((package, problem)) => match problems.count() {
            0 => format!("package `{package}`: {problem}"),
            more => format!("package `{package}`: {problem} (and {more} more problems)"),
        },
    }
}
