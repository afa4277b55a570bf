//! Stage 6: events → batches bounded by operations and bytes → [`Store::append`].
//!
//! What comes in: the events of one package after the other. What goes out: batches that hold as many packages as fit; a
//! package that fits in a batch is never spread over two, and one that does not goes in the order of its
//! operations. When a batch is refused, or its answer is lost, what its packages still need is worked out again from
//! what is stored. What it refuses: single objects that are larger than a request; their package stays as it is.

use std::collections::{BTreeMap, HashSet};

use super::progress::Progress;
use super::reconcile::{Known, Plan, Problem, ReconcileError, Reconciler};
use crate::event::{PackageEvents, Tally};
use crate::store::{Batch, Key, MAX_BATCH_OPERATIONS, Operation, Outcome, Store, StoreError};

/// How often the events of a package are worked out anew before the ingest gives up: each time somebody else
/// wrote to the same names in between.
const MAX_ATTEMPTS: usize = 8;

/// How large a batch may be.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Operations.
    pub operations: usize,
    /// Bytes, as [`Operation::size`] estimates them.
    pub bytes: usize,
}

impl Default for BatchLimits {
    /// etcd's own limits: 128 operations, and 1.5 MiB a request, less head-room for its framing.
    fn default() -> Self {
        BatchLimits {
            operations: 128,
            bytes: 1_400_000,
        }
    }
}

/// What was committed.
#[derive(Debug, Default)]
pub struct Submitted {
    /// What happened to served objects.
    pub tally: Tally,
    /// Packages that could not be stored, and why.
    pub refused: BTreeMap<String, Vec<Problem>>,
}

/// Commits what all plans need.
///
/// # Errors
///
/// [`ReconcileError`] when the store fails. What was committed stays; the same ingest again does the rest.
pub async fn submit(
    reconciler: &Reconciler<'_>,
    store: &dyn Store,
    limits: BatchLimits,
    progress: &Progress,
) -> Result<Submitted, ReconcileError> {
    let mut submitter = Submitter {
        reconciler,
        store,
        limits: BatchLimits {
            operations: limits.operations.min(MAX_BATCH_OPERATIONS),
            ..limits
        },
        progress,
        pending: Pending::default(),
        submitted: Submitted::default(),
    };
    for plan in reconciler.plans() {
        submitter.add(plan).await?;
    }
    submitter.flush().await?;
    Ok(submitter.submitted)
}

struct Submitter<'a> {
    reconciler: &'a Reconciler<'a>,
    store: &'a dyn Store,
    limits: BatchLimits,
    progress: &'a Progress,
    pending: Pending,
    submitted: Submitted,
}

/// The batch that is being filled.
#[derive(Default)]
struct Pending {
    plans: Vec<(Plan, Tally)>,
    operations: Vec<Operation>,
    bytes: usize,
    keys: HashSet<Key>,
}

/// What became of an append.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Appended {
    Committed,
    /// Somebody else wrote to one of the keys.
    Refused,
    /// It was committed or not; the answer was lost.
    Unanswered,
}

impl Submitter<'_> {
    async fn add(&mut self, plan: Plan) -> Result<(), ReconcileError> {
        let Some(PackageEvents {
            operations, tally, ..
        }) = self.events(&plan, Known::Assumed).await?
        else {
            return Ok(());
        };
        let bytes = operations.iter().map(Operation::size).sum::<usize>();
        if !self.pending.has_room_for(&operations, bytes, self.limits) {
            self.flush().await?;
        }
        if !self.pending.has_room_for(&operations, bytes, self.limits) {
            // Larger than a batch: it goes alone, in the order of its operations.
            let appended = self.append_in_order(operations).await?;
            return self.conclude(&plan, tally, appended).await;
        }
        self.pending.bytes += bytes;
        self.pending
            .keys
            .extend(operations.iter().map(|operation| operation.key.clone()));
        self.pending.operations.extend(operations);
        self.pending.plans.push((plan, tally));
        Ok(())
    }

    /// Commits the batch; where that does not work, each of its packages by itself.
    async fn flush(&mut self) -> Result<(), ReconcileError> {
        let Pending {
            plans, operations, ..
        } = std::mem::take(&mut self.pending);
        let appended = match operations.is_empty() {
            true => Appended::Committed,
            false => self.append(operations).await?,
        };
        for (plan, tally) in plans {
            self.conclude(&plan, tally, appended).await?;
        }
        Ok(())
    }

    /// Counts a package whose events are committed, and settles one whose events may not be.
    async fn conclude(
        &mut self,
        plan: &Plan,
        tally: Tally,
        appended: Appended,
    ) -> Result<(), ReconcileError> {
        let counted = match appended {
            Appended::Committed => tally,
            Appended::Refused => self.settle(plan).await?,
            Appended::Unanswered => {
                // What is found to be done already was done by the append that was not answered.
                self.settle(plan).await?;
                tally
            }
        };
        self.submitted.tally += counted;
        Ok(())
    }

    /// Works out from what is stored what a package needs, and commits that, until it is done.
    async fn settle(&mut self, plan: &Plan) -> Result<Tally, ReconcileError> {
        for _ in 0..MAX_ATTEMPTS {
            let Some(PackageEvents {
                operations, tally, ..
            }) = self.events(plan, Known::Read).await?
            else {
                return Ok(Tally::default());
            };
            if self.append_in_order(operations).await? == Appended::Committed {
                return Ok(tally);
            }
        }
        let package = self.reconciler.package(plan).to_owned();
        Err(ReconcileError::Contended {
            package,
            attempts: MAX_ATTEMPTS,
        })
    }

    /// Returns the events of a plan, or notes why there can be none.
    async fn events(
        &mut self,
        plan: &Plan,
        known: Known,
    ) -> Result<Option<PackageEvents>, ReconcileError> {
        let events = match self.reconciler.events(plan, known).await {
            Err(error @ ReconcileError::Taken { .. }) => {
                self.refuse(plan, error.to_string());
                return Ok(None);
            }
            events => events?,
        };
        let limit = self.limits.bytes;
        match events
            .operations
            .iter()
            .find(|operation| operation.size() > limit)
        {
            None => Ok(Some(events)),
            Some(large) => {
                let (key, size) = (large.key.clone(), large.size());
                self.refuse(plan, StoreError::TooLarge { key, size, limit }.to_string());
                Ok(None)
            }
        }
    }

    async fn append_in_order(
        &mut self,
        operations: Vec<Operation>,
    ) -> Result<Appended, ReconcileError> {
        let BatchLimits {
            operations: most,
            bytes: most_bytes,
        } = self.limits;
        let mut rest = operations.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(next) = rest.next_if(|next| {
                batch.is_empty() || batch.len() < most && bytes + next.size() <= most_bytes
            }) {
                bytes += next.size();
                batch.push(next);
            }
            match self.append(batch).await? {
                Appended::Committed => {}
                failed => return Ok(failed),
            }
        }
        Ok(Appended::Committed)
    }

    async fn append(&mut self, operations: Vec<Operation>) -> Result<Appended, ReconcileError> {
        let count = operations.len() as u64;
        match self.store.append(Batch { operations }).await {
            Ok(_) => {
                self.progress.add_events(count);
                Ok(Appended::Committed)
            }
            Err(StoreError::Conflict { .. }) => Ok(Appended::Refused),
            Err(error) if error.outcome() == Outcome::MayHaveHappened => {
                tracing::warn!(%error, "an append was not answered; reading what became of it");
                Ok(Appended::Unanswered)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn refuse(&mut self, plan: &Plan, message: String) {
        let problem = Problem {
            file: None,
            offset: None,
            message,
        };
        self.submitted
            .refused
            .insert(self.reconciler.package(plan).to_owned(), vec![problem]);
    }
}

impl Pending {
    fn has_room_for(&self, operations: &[Operation], bytes: usize, limits: BatchLimits) -> bool {
        self.operations.len() + operations.len() <= limits.operations
            && self.bytes + bytes <= limits.bytes
            && !operations
                .iter()
                .any(|operation| self.keys.contains(&operation.key))
    }
}
