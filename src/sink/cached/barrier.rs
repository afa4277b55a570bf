//! Consistent reads: the inner store says how far it is, and the memory has to be there.
//!
//! However many readers there are, one question is under way at a time, and one is next: everybody who comes meanwhile
//! shares the next one. While the inner store is away nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::memory::Memory;
use crate::store::{ResourceVersion, Store};

/// How long the inner store may take to say how far it is, before what is held has to do.
const ANSWER: Duration = Duration::from_secs(2);

/// How long the memory may take to get there, before the inner store is read instead.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Whether what is held is what a reader may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    /// It is the latest state.
    Latest,
    /// The inner store is away: it is the last that was known.
    LastKnown,
    /// It is behind the inner store, which is there to be asked.
    Behind,
}

/// Asks the inner store how far it is.
pub(super) struct Barrier {
    /// Rings when somebody wants to know.
    wanted: Notify,
    /// The number of the question that is under way, or was the last.
    asked: AtomicU64,
    answer: watch::Sender<Answer>,
}

/// The last answer.
#[derive(Clone, Copy, Default)]
struct Answer {
    /// The number of the question.
    number: u64,
    /// What it was; none where there was none.
    version: Option<ResourceVersion>,
}

impl Barrier {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Barrier {
            wanted: Notify::new(),
            asked: AtomicU64::new(0),
            answer: watch::Sender::new(Answer { number: 0, version: Some(ResourceVersion::default()) }),
        })
    }

    /// Asks whenever somebody wants to know; never ends.
    pub(super) async fn run(self: Arc<Self>, inner: Arc<dyn Store>) {
        loop {
            self.wanted.notified().await;
            // Whoever comes from here on needs the next question.
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let version = match timeout(ANSWER, inner.current()).await {
                Ok(Ok(version)) => Some(version),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the store is away; what is known of it is served");
                    None
                }
                Err(_) => None,
            };
            self.answer.send_replace(Answer { number, version });
        }
    }

    /// Waits until the memory holds what was committed before the call.
    pub(super) async fn pass(&self, memory: &Memory) -> Reached {
        let mut answer = self.answer.subscribe();
        let needed = self.asked.load(Ordering::SeqCst) + 1;
        self.wanted.notify_one();
        // When it did not answer the last time, it is not waited for; it is asked all the same.
        let is_away = answer.borrow().version.is_none();
        if is_away {
            return Reached::LastKnown;
        }
        let answered = answer.wait_for(|answer| answer.number >= needed).await.map(|answer| answer.version);
        let Ok(Some(version)) = answered else { return Reached::LastKnown };
        let mut progress = memory.progress();
        let reached = progress.wait_for(|complete| complete.is_some_and(|complete| complete >= version));
        match timeout(CATCH_UP, reached).await {
            Ok(Ok(_)) => Reached::Latest,
            _ => Reached::Behind,
        }
    }
}
