//! One attempt to make what is stored of a CatalogSource what its image holds now.
//!
//! ```text
//! access ── discover ──▶ unchanged? ── status
//!    one of many polls       │
//!                            ▼
//!                         ingest ── the last transaction holds the status
//!                            one of a few ingests, for a limited time
//! ```
//!
//! Asking costs little and reading much, so a registry that does not answer keeps no ingest from running, and an ingest
//! that hangs is given up.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Controller;
use super::access::{AccessError, access};
use super::announce::Announcement;
use super::metrics::OneMore;
use super::status::{News, after};
use crate::event::Presentation;
use crate::model::{CatalogSource, CatalogSourceStatus, InvalidSource, SourceReference};
use crate::pipeline::discover::Sources;
use crate::pipeline::progress::Progress;
use crate::pipeline::reconcile::Catalog;
use crate::pipeline::{Conclusion, Discovery, IngestError, IngestErrorCause, Pipeline, Report};
use crate::store::{Batch, Key, Object, Operation, StoreError};

/// How often a status is written again when somebody else was faster.
const MAX_WRITES: usize = 10;

/// How long an ingest goes on before the status says so. A refresh that is done by then is one write less.
const NOTED_AFTER: Duration = Duration::from_secs(3);

/// Time between two log lines about an ingest, and how many of them come between two notes in the status.
const LOG_PAUSE: Duration = Duration::from_secs(10);
const LINES_PER_NOTE: u32 = 3;

/// How an attempt ended.
pub(super) enum Outcome {
    /// With this status.
    Done(Box<CatalogSourceStatus>),
    /// The registry may have asked to be left alone for a time.
    Failed(Option<Duration>),
    /// The CatalogSource changed, or the process ends.
    Interrupted,
}

/// What an attempt that did not fail came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// The catalog was read.
    Ingested,
    /// It is what is stored.
    Unchanged,
}

/// An attempt that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    #[error("`{image}`: {cause}")]
    Access { image: String, cause: AccessError },
    #[error("`{image}`: {cause}")]
    Source { image: String, cause: InvalidSource },
    #[error("`{image}`: not done after {} seconds", .limit.as_secs())]
    TimedOut { image: String, limit: Duration },
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error("cannot write the status: {0}")]
    Status(#[from] StoreError),
    #[error("interrupted")]
    Interrupted,
}

impl AttemptError {
    /// Returns whether nothing is wrong: somebody wanted it to end.
    pub(super) fn is_interruption(&self) -> bool {
        matches!(
            self,
            AttemptError::Interrupted
                | AttemptError::Ingest(IngestError { cause: IngestErrorCause::Stopped, .. })
        )
    }
}

/// An attempt for one CatalogSource.
pub(super) struct Attempt<'a> {
    pub(super) controller: &'a Controller,
    pub(super) key: &'a Key,
    pub(super) source: &'a CatalogSource,
    /// Cancelled when the attempt is to end; the batch in hand is finished.
    pub(super) interrupt: CancellationToken,
}

impl Attempt<'_> {
    /// Makes the attempt, and writes down what came of it.
    pub(super) async fn run(&self) -> Outcome {
        let source = self.key;
        let start = Instant::now();
        let result = self.try_run().await;
        self.controller.metrics.ended(&result, start.elapsed());
        let error = match result {
            Ok((_, status)) => return Outcome::Done(Box::new(status)),
            Err(error) if error.is_interruption() => return Outcome::Interrupted,
            Err(error) => error,
        };
        tracing::warn!(%source, %error, "cannot ingest");
        if let Err(error) = self.write(&News::Failed(&error)).await {
            tracing::warn!(%source, %error, "cannot write the status");
        }
        self.controller.announcer.announce(self.source, Announcement::failed(&error));
        match error {
            AttemptError::Ingest(error) => Outcome::Failed(error.retry_after()),
            _ => Outcome::Failed(None),
        }
    }

    async fn try_run(&self) -> Result<(Came, CatalogSourceStatus), AttemptError> {
        let Controller { limits, batches, polls, ingests, .. } = self.controller;
        let image = &self.source.spec.image;
        let reference: SourceReference =
            image.parse().map_err(|cause| AttemptError::Source { image: image.clone(), cause })?;
        let is_first = self.source.status.as_ref().is_none_or(|status| status.conditions.is_empty());
        if is_first {
            self.write(&News::Begun(None)).await?;
        }

        let stop = self.interrupt.child_token();
        let catalog = self.catalog();
        let mut sources = self.controller.sources.clone();
        let discovery = {
            let _turn = self.turn(polls).await?;
            sources = self.in_time(&stop, self.open(&sources)).await??;
            let pipeline = Pipeline {
                sources: &sources,
                store: &*self.controller.store,
                limits,
                batches: *batches,
                stop: stop.clone(),
            };
            self.in_time(&stop, pipeline.discover(&reference, &catalog)).await??
        };
        if let Some(checkpoint) = discovery.unchanged(&catalog) {
            let news = News::Unchanged(checkpoint, discovery.resolved_image());
            return Ok((Came::Unchanged, self.write(&news).await?));
        }
        let _turn = self.turn(ingests).await?;
        let _running = OneMore::of(&self.controller.metrics.running);
        let pipeline = Pipeline {
            sources: &sources,
            store: &*self.controller.store,
            limits,
            batches: *batches,
            stop: stop.clone(),
        };
        Ok((Came::Ingested, self.ingest(&pipeline, discovery, &catalog, is_first).await?))
    }

    /// Waits for a turn.
    async fn turn<'s>(&self, turns: &'s Semaphore) -> Result<tokio::sync::SemaphorePermit<'s>, AttemptError> {
        let turn = self.interrupt.run_until_cancelled(turns.acquire()).await;
        turn.and_then(Result::ok).ok_or(AttemptError::Interrupted)
    }

    /// Waits for something that may be dropped at any time, but not for ever.
    async fn in_time<T>(
        &self,
        stop: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Result<T, AttemptError> {
        let limit = self.controller.ingest_timeout;
        match stop.run_until_cancelled(tokio::time::timeout(limit, work)).await {
            Some(Ok(done)) => Ok(done),
            Some(Err(_)) => Err(self.timed_out()),
            None => Err(AttemptError::Interrupted),
        }
    }

    fn timed_out(&self) -> AttemptError {
        AttemptError::TimedOut {
            image: self.source.spec.image.clone(),
            limit: self.controller.ingest_timeout,
        }
    }

    /// Returns an opener of sources that has what the CatalogSource brings along.
    async fn open(&self, sources: &Sources) -> Result<Sources, AttemptError> {
        let access = access(&*self.controller.references, self.key.namespace(), self.source).await;
        let image = || self.source.spec.image.clone();
        Ok(sources.with_access(access.map_err(|cause| AttemptError::Access { image: image(), cause })?))
    }

    async fn ingest(
        &self,
        pipeline: &Pipeline<'_>,
        discovery: Discovery,
        catalog: &Catalog,
        is_noted: bool,
    ) -> Result<CatalogSourceStatus, AttemptError> {
        let progress = Progress::default();
        let conclusion = StatusConclusion { attempt: self, status: Mutex::default() };
        let ingested = {
            let ingesting = pipeline.ingest_with(discovery, catalog, &progress, &conclusion);
            tokio::pin!(ingesting);
            tokio::select! {
                ingested = &mut ingesting => ingested,
                () = tokio::time::sleep(self.controller.ingest_timeout) => {
                    // The batch in hand is finished; that may have been the last one.
                    pipeline.stop.cancel();
                    match ingesting.await {
                        Err(IngestError { cause: IngestErrorCause::Stopped, .. })
                            if !self.interrupt.is_cancelled() =>
                        {
                            return Err(self.timed_out());
                        }
                        ingested => ingested,
                    }
                }
                never = self.show(&progress, is_noted) => match never {},
            }
        };
        let report = ingested?;
        self.controller.metrics.ingested(&report);
        tracing::info!(
            source = %self.key,
            image = report.resolved_image.as_deref().unwrap_or(&self.source.spec.image),
            packages = report.packages,
            bundles = report.bundles,
            added = report.tally.added,
            modified = report.tally.modified,
            deleted = report.tally.deleted,
            invalid = report.invalid.len(),
            bytes = report.bytes_read,
            "ingested"
        );
        for announcement in Announcement::ingested(&report) {
            self.controller.announcer.announce(self.source, announcement);
        }
        let status = conclusion.status.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(status.unwrap_or_default())
    }

    /// Shows how far an ingest is: in the log, and now and then in the status.
    async fn show(&self, progress: &Progress, is_noted: bool) -> Infallible {
        if !is_noted {
            tokio::time::sleep(NOTED_AFTER).await;
            self.note(progress).await;
        }
        let mut lines = 0;
        loop {
            tokio::time::sleep(LOG_PAUSE).await;
            lines = (lines + 1) % LINES_PER_NOTE;
            tracing::info!(
                source = %self.key,
                bytes = progress.bytes(),
                total_bytes = progress.total_bytes(),
                metas = progress.metas(),
                events = progress.events(),
                "ingesting"
            );
            if lines == 0 {
                self.note(progress).await;
            }
        }
    }

    async fn note(&self, progress: &Progress) {
        if let Err(error) = self.write(&News::Begun(Some(progress))).await {
            tracing::debug!(source = %self.key, %error, "cannot note how far the ingest is");
        }
    }

    /// Writes the status after some news, and returns it. Nothing is written where it is the same, or the CatalogSource
    /// is gone.
    async fn write(&self, news: &News<'_>) -> Result<CatalogSourceStatus, StoreError> {
        for _ in 0..MAX_WRITES {
            let Some((status, operation)) = self.update(news).await? else { break };
            let Some(operation) = operation else { return Ok(status) };
            match self.controller.store.append(Batch::of(operation)).await {
                Err(StoreError::Conflict { .. }) => {}
                appended => return appended.map(|_| status),
            }
        }
        Ok(CatalogSourceStatus::default())
    }

    /// Returns the status after some news, and the operation that writes it, if it is another one; none when the
    /// CatalogSource is gone.
    async fn update(
        &self,
        news: &News<'_>,
    ) -> Result<Option<(CatalogSourceStatus, Option<Operation>)>, StoreError> {
        let Some(stored) = self.controller.store.get(self.key).await? else { return Ok(None) };
        let Ok(source) = serde_json::from_slice::<CatalogSource>(stored.object.head()) else {
            return Ok(None);
        };
        if source.metadata.uid != self.source.metadata.uid {
            return Ok(None);
        }
        let status = after(self.source, source.status.as_ref(), news);
        if source.status.as_ref() == Some(&status) {
            return Ok(Some((status, None)));
        }
        // Only the status, and who owns it, is written anew; what else the object holds stays to the letter.
        let Ok(old) = serde_json::from_slice::<Value>(stored.object.head()) else { return Ok(None) };
        let mut object = old.clone();
        object["status"] = serde_json::json!(status);
        (self.controller.note_status)(&old, &mut object);
        let operation = Operation::replace(stored.key, stored.version, Object::whole(object.to_string()));
        Ok(Some((status, Some(operation))))
    }

    fn catalog(&self) -> Catalog {
        let CatalogSource { metadata, spec, .. } = self.source;
        Catalog {
            namespace: self.key.namespace().to_owned(),
            name: self.key.name().to_owned(),
            uid: metadata.uid.clone().unwrap_or_default(),
            presentation: Presentation {
                display_name: spec.display_name.clone().unwrap_or_default(),
                publisher: spec.publisher.clone().unwrap_or_default(),
            },
        }
    }
}

/// Puts the status into the last transaction of an ingest.
struct StatusConclusion<'a> {
    attempt: &'a Attempt<'a>,
    /// The one that was put there last.
    status: Mutex<Option<CatalogSourceStatus>>,
}

#[async_trait]
impl Conclusion for StatusConclusion<'_> {
    async fn operations(&self, report: &Report) -> Result<Vec<Operation>, StoreError> {
        let Some((status, operation)) = self.attempt.update(&News::Ingested(report)).await? else {
            return Ok(Vec::new());
        };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        Ok(operation.into_iter().collect())
    }
}
