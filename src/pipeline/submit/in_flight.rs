//! Batches on their way to the store: a few at once, so that the next are put together while it commits.
//!
//! No two of them have a key in common, so it does not matter which is committed first.

use std::collections::{HashSet, VecDeque};

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};

use crate::event::Tally;
use crate::pipeline::reconcile::Plan;
use crate::store::{Key, Revision, StoreError};

/// Batches that may be on their way at once: one that the store commits, and others that it takes in meanwhile. Each is in
/// memory several times over, as objects and as the request.
const MAX_IN_FLIGHT: usize = 4;

/// Batches on their way, in the order in which they left.
#[derive(Default)]
pub(super) struct InFlight<'a> {
    sent: VecDeque<Sent>,
    answers: FuturesOrdered<BoxFuture<'a, Answer>>,
}

/// A batch that has left.
pub(super) struct Sent {
    /// The packages whose events it holds.
    pub(super) plans: Vec<(Plan, Tally)>,
    /// What it writes to.
    pub(super) keys: HashSet<Key>,
    /// How many events there are.
    pub(super) count: u64,
}

type Answer = Result<Revision, StoreError>;

impl<'a> InFlight<'a> {
    /// Returns whether a batch that writes to these keys may leave now.
    pub(super) fn has_room_for(&self, keys: &HashSet<Key>) -> bool {
        self.sent.len() < MAX_IN_FLIGHT && self.sent.iter().all(|sent| sent.keys.is_disjoint(keys))
    }

    /// Sends a batch.
    pub(super) fn send(&mut self, sent: Sent, append: BoxFuture<'a, Answer>) {
        self.sent.push_back(sent);
        self.answers.push_back(append);
    }

    /// Waits for the answer to the batch that left first; none when nothing is on its way.
    pub(super) async fn next(&mut self) -> Option<(Sent, Answer)> {
        let answer = self.answers.next().await?;
        Some((self.sent.pop_front()?, answer))
    }

    /// Moves all of them on, and returns the first answer if it is there.
    pub(super) fn poll(&mut self) -> Option<(Sent, Answer)> {
        self.next().now_or_never().flatten()
    }
}
