//! The pipeline: from a source to committed events.
//!
//! ```text
//! discover ── digest ──▶ fetch ── chunks (32) ──▶ inflate ── files ──▶ parse ── metas (4 MiB) ──▶ reconcile
//!  1 request             async, hashes            1 thread, untars     1 thread a core            spool, 8 MiB
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

mod records;
mod report;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::discover::{Content, Discovered, Sources};
use self::inflate::{FileVisitor, InflateError};
use self::limits::Limits;
use self::progress::Progress;
use self::reconcile::{
    Before, Catalog, CatalogDraft, Collector, JudgedCatalog, ReconcileError, Reconciler, StoredPackages,
    presentation_hash,
};
use self::records::End;
pub use self::report::{IngestError, IngestErrorCause, Report};
use self::submit::{BatchLimits, Mark, submit};
use crate::event::{Checkpoint, Contents, DERIVATION, LayerContent, MetaHash, checkpoint_key, contents_key};
use crate::model::SourceReference;
use crate::store::{Batch, Operation, Store, StoreError, Stored};

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
    /// Cancelled when the ingest is to stop; the batch in hand is finished.
    pub stop: CancellationToken,
}

/// What is committed together with the end of an ingest, so that nobody sees one without the other.
#[async_trait]
pub trait Conclusion: Send + Sync {
    /// Returns the operations. They are asked for again when somebody else wrote to one of their keys.
    ///
    /// # Errors
    ///
    /// Those of the store.
    async fn operations(&self, report: &Report) -> Result<Vec<Operation>, StoreError>;
}

/// Nothing is committed with the end of an ingest.
pub struct NoConclusion;

#[async_trait]
impl Conclusion for NoConclusion {
    async fn operations(&self, _: &Report) -> Result<Vec<Operation>, StoreError> {
        Ok(Vec::new())
    }
}

/// What an ingest knows from the ones before it.
struct Known {
    packages: Arc<StoredPackages>,
    contents: Option<(Stored, Contents)>,
    presentation: MetaHash,
    catalog_source: String,
}

impl Known {
    /// Returns the layers of an image that were read before.
    fn layers(&self, image: &fetch::CatalogImage) -> HashMap<fetch::Digest, LayerContent> {
        let Some((_, contents)) = self.contents.as_ref().filter(|(_, contents)| contents.root == image.root)
        else {
            return HashMap::new();
        };
        let read =
            contents.layers.iter().filter_map(|layer| Some((layer.digest.parse().ok()?, layer.clone())));
        let mut layers: HashMap<_, _> = read.collect();
        layers.retain(|digest, _| image.layers.iter().any(|layer| layer.digest == *digest));
        layers
    }
}

/// A catalog that was read whole.
struct ReadCatalog {
    judged: JudgedCatalog,
    contents: Option<Contents>,
}

/// A source, what it stands for now, and what is stored of it.
pub struct Discovery {
    image: String,
    discovered: Discovered,
    checkpoint: Option<(Stored, Checkpoint)>,
}

impl Discovery {
    /// Returns what is stored, when that is what the source stands for, so that there is nothing to do.
    pub fn unchanged(&self, catalog: &Catalog) -> Option<&Checkpoint> {
        let (_, checkpoint) = self.checkpoint.as_ref()?;
        let digest = self.discovered.digest.as_ref()?;
        let is_same = checkpoint.catalog_source_uid == catalog.uid
            && checkpoint.digest.as_deref() == Some(digest.as_str())
            && checkpoint.presentation == catalog.presentation
            && checkpoint.derivation == DERIVATION;
        is_same.then_some(checkpoint)
    }

    /// Returns the image by digest; none for a plain directory.
    pub fn resolved_image(&self) -> Option<&str> {
        self.discovered.resolved_image.as_deref()
    }
}

impl Pipeline<'_> {
    /// Finds out what a source stands for now: one request, and nothing is written.
    ///
    /// # Errors
    ///
    /// [`IngestError`].
    pub async fn discover(
        &self,
        source: &SourceReference,
        catalog: &Catalog,
    ) -> Result<Discovery, IngestError> {
        let discover = async {
            let discovered = self.sources.discover(source).await?;
            let checkpoint = self.read_checkpoint(catalog).await?;
            Ok((discovered, checkpoint))
        };
        let (discovered, checkpoint) =
            discover.await.map_err(|cause| IngestError { image: source.to_string(), cause })?;
        Ok(Discovery { image: source.to_string(), discovered, checkpoint })
    }

    /// Makes what is stored of a catalog what its source holds now.
    ///
    /// # Errors
    ///
    /// [`IngestError`].
    pub async fn ingest(
        &self,
        discovery: Discovery,
        catalog: &Catalog,
        progress: &Progress,
    ) -> Result<Report, IngestError> {
        self.ingest_with(discovery, catalog, progress, &NoConclusion).await
    }

    /// As [`Self::ingest`]; the last transaction holds what `conclusion` has to say, too.
    ///
    /// # Errors
    ///
    /// [`IngestError`].
    pub async fn ingest_with(
        &self,
        discovery: Discovery,
        catalog: &Catalog,
        progress: &Progress,
        conclusion: &dyn Conclusion,
    ) -> Result<Report, IngestError> {
        let image = discovery.image.clone();
        let ingested = self.try_ingest(discovery, catalog, progress, conclusion).await;
        ingested.map_err(|cause| IngestError { image, cause })
    }

    async fn try_ingest(
        &self,
        discovery: Discovery,
        catalog: &Catalog,
        progress: &Progress,
        conclusion: &dyn Conclusion,
    ) -> Result<Report, IngestErrorCause> {
        // One clock for both ends: an ingest is not over before it began.
        let (started_at, begun) = (Timestamp::now(), Instant::now());
        let Discovery { image, discovered, checkpoint } = discovery;
        let checkpoint = match checkpoint {
            Some((_, before)) if before.catalog_source_uid != catalog.uid => {
                // The rest of an earlier CatalogSource of the same name.
                self.try_remove(catalog, progress).await?;
                None
            }
            checkpoint => checkpoint,
        };
        let known = Known {
            packages: Arc::new(self.read_stored(catalog).await?),
            contents: self.read_contents(catalog).await?,
            presentation: presentation_hash(&catalog.presentation),
            catalog_source: catalog.name.clone(),
        };
        let reading = self.stop.run_until_cancelled(self.read(&discovered, &known, progress));
        let ReadCatalog { judged, contents } = reading.await.ok_or(IngestErrorCause::Stopped)??;
        if judged.is_invalid() {
            return Err(IngestErrorCause::Invalid(judged.invalid));
        }
        let (version, before) = match checkpoint {
            Some((stored, before)) => (Some(stored.version), before),
            None => {
                let catalog_source_uid = catalog.uid.clone();
                (None, Checkpoint { catalog_source_uid, is_unsettled: true, ..Checkpoint::default() })
            }
        };
        let key = checkpoint_key(&catalog.namespace, &catalog.name);
        let mut mark = Mark::new(key, version, before.clone());
        let reconciler = Reconciler::new(catalog, self.store, judged, Arc::clone(&known.packages));
        let submitted =
            submit(&reconciler, self.store, self.batches, Some(&mut mark), progress, &self.stop).await?;

        let (packages, bundles) = reconciler.counts(&submitted.refused);
        let next = Checkpoint {
            catalog_source_uid: catalog.uid.clone(),
            image,
            digest: discovered.digest.as_ref().map(ToString::to_string),
            presentation: catalog.presentation.clone(),
            derivation: DERIVATION,
            packages,
            bundles,
            is_unsettled: false,
        };
        let mut tally = reconciler.untouched();
        tally += submitted.tally;
        let mut invalid = reconciler.judged().invalid.clone();
        invalid.extend(submitted.refused);
        let report = Report {
            started_at,
            completed_at: started_at + begun.elapsed(),
            resolved_image: discovered.resolved_image.clone(),
            bytes_read: progress.bytes(),
            tally,
            invalid,
            packages,
            bundles,
        };
        let end = End {
            mark,
            before,
            next,
            contents,
            has_written: submitted.has_written,
            has_changed_bundles: submitted.has_changed_bundles,
        };
        self.finish(catalog, &known, end, &report, conclusion).await?;
        Ok(report)
    }

    /// Removes everything that is stored of a catalog. An interrupted removal is completed by the next.
    ///
    /// # Errors
    ///
    /// [`IngestErrorCause`] when the store fails, or it was told to stop.
    pub async fn remove(&self, catalog: &Catalog) -> Result<(), IngestErrorCause> {
        self.try_remove(catalog, &Progress::default()).await
    }

    async fn try_remove(&self, catalog: &Catalog, progress: &Progress) -> Result<(), IngestErrorCause> {
        let stored = Arc::new(self.read_stored(catalog).await?);
        let owner = match self.read_checkpoint(catalog).await? {
            // What is stored belongs to whoever wrote it, not to a later CatalogSource of the same name.
            Some((_, checkpoint)) => Catalog { uid: checkpoint.catalog_source_uid, ..catalog.clone() },
            None => catalog.clone(),
        };
        let reconciler = Reconciler::removal(&owner, self.store, stored);
        submit(&reconciler, self.store, self.batches, None, progress, &self.stop).await?;
        let (namespace, name) = (&catalog.namespace, &catalog.name);
        let keys = [catalog.cache_key(), contents_key(namespace, name), checkpoint_key(namespace, name)];
        let rest = self.store.read(&keys).await.map_err(ReconcileError::from)?;
        let operations: Vec<_> =
            rest.into_iter().flatten().map(|stored| Operation::delete(stored.key, stored.version)).collect();
        if !operations.is_empty() {
            self.store.append(Batch::new(operations)).await.map_err(ReconcileError::from)?;
        }
        Ok(())
    }

    /// Reads and judges a catalog; files that are known are not looked into, unless that turns out to be too little.
    async fn read(
        &self,
        discovered: &Discovered,
        known: &Known,
        progress: &Progress,
    ) -> Result<ReadCatalog, IngestErrorCause> {
        for skips_files in [true, false] {
            if let Some(catalog) = self.read_once(discovered, known, skips_files, progress).await? {
                return Ok(catalog);
            }
            tracing::info!("files of a package changed and others did not; reading the catalog once more");
        }
        Err(IngestErrorCause::Internal("a catalog was not read whole".to_owned()))
    }

    /// Fetches, inflates, parses and judges, all at once; returns when every digest is verified.
    async fn read_once(
        &self,
        discovered: &Discovered,
        known: &Known,
        skips_files: bool,
        progress: &Progress,
    ) -> Result<Option<ReadCatalog>, IngestErrorCause> {
        let (limits, counters) = (self.limits.clone(), progress.clone());
        let (packages, presentation) = (Arc::clone(&known.packages), known.presentation);
        let catalog_source = known.catalog_source.clone();
        let collect = move |source: &mut dyn FnMut(&mut dyn FileVisitor) -> Result<(), InflateError>| {
            let catalog_source = &*catalog_source;
            let before = Before { catalog_source, packages: &packages, presentation, skips_files };
            collect(before, &limits, &counters, source)
        };
        let limits = self.limits.clone();
        let failed = |error: tokio::task::JoinError| IngestErrorCause::Internal(error.to_string());
        match &discovered.content {
            Content::Directory(path) => {
                let path = path.clone();
                let reading = tokio::task::spawn_blocking(move || {
                    collect(&mut |visitor| inflate::walk_directory(&path, &limits, visitor))
                });
                let judged = reading.await.map_err(failed)??;
                Ok(judged.map(|judged| ReadCatalog { judged, contents: None }))
            }
            Content::Image(source) => {
                let Some(digest) = &discovered.digest else {
                    return Err(IngestErrorCause::Internal("an image without a digest".to_owned()));
                };
                let image = fetch::read_image(&**source, digest, self.limits).await?;
                progress.set_total_bytes(image.layers.iter().map(|layer| layer.size).sum());
                let layers = if skips_files { known.layers(&image) } else { HashMap::new() };
                let layers = Arc::new(layers);
                // One layer is unpacked while the next is waited for, no more.
                let (sender, mut streams) = mpsc::channel(1);
                let (root, known_layers) = (image.root.clone(), Arc::clone(&layers));
                let unpacking = tokio::task::spawn_blocking(move || {
                    let mut contents = Vec::new();
                    let judged = collect(&mut |visitor| {
                        let read =
                            inflate::inflate_layers(&mut streams, &root, &known_layers, &limits, visitor);
                        contents = read?;
                        Ok(())
                    });
                    judged.map(|judged| (judged, contents))
                });
                let is_known = |digest: &fetch::Digest| layers.contains_key(digest);
                let fetching =
                    fetch::stream_layers(&**source, &image, self.limits, progress, is_known, sender);
                let (fetched, unpacked) = tokio::join!(fetching, unpacking);
                // What fetch found wrong is the cause of whatever unpacking stumbled over.
                fetched?;
                let (judged, mut contents) = unpacked.map_err(failed)??;
                // Layers that were not reached stay known.
                contents.extend(
                    image.layers[contents.len()..]
                        .iter()
                        .filter_map(|layer| layers.get(&layer.digest).cloned()),
                );
                let contents = Contents { root: image.root, layers: contents };
                Ok(judged.map(|judged| ReadCatalog { judged, contents: Some(contents) }))
            }
        }
    }
}

/// Parses what a source of files hands out, and judges it. Blocks. Returns none when too much was left out.
fn collect(
    before: Before<'_>,
    limits: &Limits,
    progress: &Progress,
    source: &mut dyn FnMut(&mut dyn FileVisitor) -> Result<(), InflateError>,
) -> Result<Option<JudgedCatalog>, IngestErrorCause> {
    let collector = Collector::new(before, limits);
    parse::parse_files(limits, progress, &collector, source)?;
    Ok(collector.finish(before)?.map(|draft: CatalogDraft| draft.judge(limits)).transpose()?)
}
