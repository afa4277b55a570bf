//! One CatalogSource: ingested when it is due, removed when it is gone.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch as latest;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Controller;
use super::attempt::{Attempt, Outcome};
use super::schedule::{Due, Past, Wish, due};
use crate::model::{CatalogSource, CatalogSourceStatus};
use crate::pipeline::reconcile::Catalog;
use crate::pipeline::{IngestErrorCause, Pipeline};
use crate::store::Key;

/// Pause after the rest of a CatalogSource could not be removed.
const REMOVE_PAUSE: Duration = Duration::from_secs(5);

/// The longest time that a registry is left alone because it asked for that.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

pub(super) struct Worker {
    controller: Arc<Controller>,
    key: Key,
    news: latest::Receiver<Option<Arc<CatalogSource>>>,
    stop: CancellationToken,
    /// Attempts that failed in a row.
    failures: u32,
    /// When the last attempt began.
    last_poll: Option<Instant>,
    /// No attempt begins before this, because the registry asked for that.
    not_before: Option<Instant>,
    /// What the last attempt followed, and the status it left: the watch may not have brought it back yet.
    followed: Option<(Wish, Option<CatalogSourceStatus>)>,
}

impl Worker {
    pub(super) fn new(
        controller: Arc<Controller>,
        key: Key,
        news: latest::Receiver<Option<Arc<CatalogSource>>>,
        stop: CancellationToken,
    ) -> Self {
        Worker { controller, key, news, stop, failures: 0, last_poll: None, not_before: None, followed: None }
    }

    /// Works until the process ends, or the CatalogSource is gone with everything that came of it.
    pub(super) async fn run(mut self) {
        while !self.stop.is_cancelled() {
            let source = self.news.borrow_and_update().clone();
            let Some(source) = source else {
                if self.remove().await {
                    return;
                }
                continue;
            };
            let wish = Wish::of(&source);
            if source.metadata.deletion_timestamp.is_some() {
                self.wait(&wish, Due::OnChange).await;
                continue;
            }
            let mut status = source.status.as_ref();
            match &self.followed {
                Some((followed, left)) if *followed == wish => status = left.as_ref().or(status),
                _ => (self.failures, self.not_before) = (0, None),
            }
            let since_poll = self.last_poll.map(|last| last.elapsed());
            let past = Past { status, failures: self.failures, since_poll };
            let shortest = self.controller.min_polling_interval;
            let due = self.put_off(due(&source, past, shortest, Timestamp::now(), random()));
            if self.wait(&wish, due).await {
                self.attempt(&source).await;
            }
        }
    }

    /// Moves an attempt to when the registry may be asked again.
    fn put_off(&self, due: Due) -> Due {
        let rest = self.not_before.map(|time| time.saturating_duration_since(Instant::now()));
        match (due, rest) {
            (Due::Now, Some(rest)) if !rest.is_zero() => Due::In(rest),
            (Due::In(pause), Some(rest)) => Due::In(pause.max(rest)),
            (due, _) => due,
        }
    }

    /// Waits for a time, or until something else is wanted. Returns whether the time has come.
    async fn wait(&self, wish: &Wish, until: Due) -> bool {
        let time = async {
            match until {
                Due::Now => {}
                Due::In(pause) => tokio::time::sleep(pause).await,
                Due::OnChange => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => true,
            () = self.changes_from(wish) => false,
            () = self.stop.cancelled() => false,
        }
    }

    /// Waits until the CatalogSource wants something else. Its status, which is written here, does not count.
    async fn changes_from(&self, wish: &Wish) {
        let mut news = self.news.clone();
        let changed =
            |source: &Option<Arc<CatalogSource>>| source.as_deref().map(Wish::of).as_ref() != Some(wish);
        if news.wait_for(changed).await.is_err() {
            // Whoever tells is gone: the process ends.
            std::future::pending().await
        }
    }

    /// Ingests, and writes down what came of it.
    async fn attempt(&mut self, source: &CatalogSource) {
        let wish = Wish::of(source);
        self.followed = Some((wish.clone(), None));
        self.last_poll = Some(Instant::now());
        let interrupt = self.stop.child_token();
        let attempt =
            Attempt { controller: &self.controller, key: &self.key, source, interrupt: interrupt.clone() };
        let outcome = {
            let running = attempt.run();
            tokio::pin!(running);
            tokio::select! {
                outcome = &mut running => outcome,
                () = self.changes_from(&wish) => {
                    interrupt.cancel();
                    running.await;
                    Outcome::Interrupted
                }
            }
        };
        match outcome {
            Outcome::Done(status) => {
                (self.failures, self.not_before) = (0, None);
                self.followed = Some((wish, Some(*status)));
            }
            Outcome::Failed(retry_after) => {
                self.failures += 1;
                self.not_before = retry_after.map(|asked| Instant::now() + asked.min(LONGEST_ASKED));
            }
            Outcome::Interrupted => {}
        }
    }

    /// Removes what came of a CatalogSource that is gone. Returns whether nothing is left.
    async fn remove(&mut self) -> bool {
        let catalog = Catalog {
            namespace: self.key.namespace().to_owned(),
            name: self.key.name().to_owned(),
            ..Catalog::default()
        };
        let controller = &self.controller;
        let pipeline = Pipeline {
            sources: &controller.sources,
            store: &*controller.store,
            limits: &controller.limits,
            batches: controller.batches,
            stop: self.stop.clone(),
        };
        match pipeline.remove(&catalog).await {
            Ok(()) => true,
            Err(IngestErrorCause::Stopped) => false,
            Err(error) => {
                tracing::warn!(source = %self.key, %error, "cannot remove what a CatalogSource left");
                self.stop.run_until_cancelled(tokio::time::sleep(REMOVE_PAUSE)).await;
                false
            }
        }
    }
}

/// Returns a number between 0 and 1.
fn random() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_u128() as u32) / f64::from(u32::MAX)
}
