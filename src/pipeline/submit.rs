//! Stage 6: events → batches bounded by operations and bytes → [`Store::append`].
//!
//! What comes in: the events of one package after the other. What goes out: batches that hold as many packages as fit; a
//! package that fits in a batch is never spread over two, and one that does not goes in the order of its
//! operations, after a note in its record that it is on the way: should the rest never come, the next ingest knows not to
//! rely on what is stored. When a batch is refused, or its answer is lost, what its packages still need is worked out again from
//! what is stored. What it refuses: single objects that are larger than a request; their package stays as it is.
//!
//! Several batches are on their way at once, but none before the mark is set, and none beside the parts of a package that
//! does not fit in one.

mod in_flight;

use std::collections::{BTreeMap, HashSet};

use tokio_util::sync::CancellationToken;

use self::in_flight::{InFlight, Sent};
use super::IngestErrorCause;
use super::progress::Progress;
use super::reconcile::{BUNDLES, Known, Plan, Problem, ReconcileError, Reconciler};
use crate::event::{Checkpoint, PackageEvents, RecordChange, Tally, decode_record, encode_record};
use crate::store::{
    Batch, Key, MAX_BATCH_OPERATIONS, Operation, Outcome, ResourceVersion, Revision, Store, StoreError,
    Stored,
};

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
        BatchLimits { operations: 128, bytes: 1_400_000 }
    }
}

/// The checkpoint of a catalog that is about to change: the first batch marks it, whatever else that holds.
pub struct Mark {
    key: Key,
    /// The event that wrote what is there; none where there is nothing yet.
    version: Option<ResourceVersion>,
    checkpoint: Checkpoint,
    is_set: bool,
}

impl Mark {
    /// Prepares to mark the checkpoint at a key. `version` is the event that wrote it.
    pub fn new(key: Key, version: Option<ResourceVersion>, before: Checkpoint) -> Self {
        let checkpoint = Checkpoint { is_unsettled: true, digest: None, ..before };
        Mark { key, version, checkpoint, is_set: false }
    }

    /// Returns the operation that puts a checkpoint where it is.
    pub fn put(&self, checkpoint: &Checkpoint) -> Operation {
        let (key, object) = (self.key.clone(), encode_record(checkpoint));
        match self.version {
            Some(version) => Operation::replace(key, version, object),
            None => Operation::create(key, object),
        }
    }

    fn operation(&self) -> Option<Operation> {
        (!self.is_set).then(|| self.put(&self.checkpoint))
    }

    fn set(&mut self, version: ResourceVersion) {
        (self.version, self.is_set) = (Some(version), true);
    }

    /// Finds out whether a batch that was not answered has set it.
    async fn find(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let found = store.get(&self.key).await?.filter(|found| Some(found.version) != self.version);
        let is_own =
            |found: &Stored| decode_record::<Checkpoint>(&found.object).is_ok_and(|it| it == self.checkpoint);
        if let Some(found) = found.filter(is_own) {
            self.set(found.version);
        }
        Ok(())
    }
}

/// What was committed.
#[derive(Debug, Default)]
pub struct Submitted {
    /// What happened to served objects.
    pub tally: Tally,
    /// Whether anything was committed at all, if only to records.
    pub has_written: bool,
    /// Whether bundles may be others than before.
    pub has_changed_bundles: bool,
    /// Packages that could not be stored, and why.
    pub refused: BTreeMap<String, Vec<Problem>>,
}

/// Commits what all plans need, and with the first of it the mark.
///
/// # Errors
///
/// [`IngestErrorCause::Reconcile`] when the store fails, [`IngestErrorCause::Stopped`] when `stop` is cancelled. What was
/// committed stays; the same ingest again does the rest.
pub async fn submit(
    reconciler: &Reconciler<'_>,
    store: &dyn Store,
    limits: BatchLimits,
    mark: Option<&mut Mark>,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Submitted, IngestErrorCause> {
    // The mark has to fit in, whatever batch turns out to be the first.
    let marked = mark.as_deref().and_then(Mark::operation);
    let mut submitter = Submitter {
        reconciler,
        store,
        limits: BatchLimits {
            operations: limits.operations.min(MAX_BATCH_OPERATIONS) - usize::from(marked.is_some()),
            bytes: limits.bytes.saturating_sub(marked.as_ref().map_or(0, Operation::size)),
        },
        mark,
        progress,
        pending: Pending::default(),
        in_flight: InFlight::default(),
        submitted: Submitted::default(),
    };
    let result = submitter.run(stop).await;
    // Whatever comes of it, nothing is left on its way.
    while submitter.in_flight.next().await.is_some() {}
    result.map(|()| submitter.submitted)
}

struct Submitter<'a> {
    reconciler: &'a Reconciler<'a>,
    store: &'a dyn Store,
    limits: BatchLimits,
    mark: Option<&'a mut Mark>,
    progress: &'a Progress,
    pending: Pending,
    in_flight: InFlight<'a>,
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
    /// With this revision, if there was anything to append.
    Committed(Option<Revision>),
    /// It is larger than a store can take.
    Impossible,
    /// Somebody else wrote to one of the keys.
    Refused,
    /// It was committed or not; the answer was lost.
    Unanswered,
}

/// The events of a package that can be stored.
struct Ready {
    operations: Vec<Operation>,
    /// What becomes of the package's record.
    record: Option<RecordChange>,
    /// The last operation, when all go in one batch.
    settled: Option<Operation>,
    tally: Tally,
}

impl Submitter<'_> {
    async fn run(&mut self, stop: &CancellationToken) -> Result<(), IngestErrorCause> {
        for plan in self.reconciler.plans() {
            if stop.is_cancelled() {
                return Err(IngestErrorCause::Stopped);
            }
            self.add(plan).await?;
        }
        self.flush().await?;
        Ok(self.land().await?)
    }

    async fn add(&mut self, plan: Plan) -> Result<(), ReconcileError> {
        if let Some((sent, answer)) = self.in_flight.poll() {
            self.landed(sent, answer).await?;
        }
        let Some(ready) = self.events(&plan, Known::Assumed).await? else {
            return Ok(());
        };
        if !self.pending.has_room_for(&ready, self.limits) {
            self.flush().await?;
        }
        let tally = ready.tally;
        if !self.pending.has_room_for(&ready, self.limits) {
            self.land().await?;
            let appended = self.append_ready(&plan, ready).await?;
            return self.conclude(&plan, tally, appended).await;
        }
        self.pending.take(ready);
        self.pending.plans.push((plan, tally));
        Ok(())
    }

    /// Sends the batch on its way. The one that sets the mark is waited for.
    async fn flush(&mut self) -> Result<(), ReconcileError> {
        let Pending { plans, operations, keys, .. } = std::mem::take(&mut self.pending);
        if operations.is_empty() || self.mark.as_deref().is_some_and(|mark| !mark.is_set) {
            let appended = self.append(operations).await?;
            return self.concluded(plans, appended).await;
        }
        while !self.in_flight.has_room_for(&keys)
            && let Some((sent, answer)) = self.in_flight.next().await
        {
            self.landed(sent, answer).await?;
        }
        self.notes_bundles(&operations);
        let (store, count) = (self.store, operations.len() as u64);
        let append = async move { store.append(Batch::new(operations)).await };
        self.in_flight.send(Sent { plans, keys, count }, Box::pin(append));
        if let Some((sent, answer)) = self.in_flight.poll() {
            self.landed(sent, answer).await?;
        }
        Ok(())
    }

    /// Waits for every batch that is on its way.
    async fn land(&mut self) -> Result<(), ReconcileError> {
        while let Some((sent, answer)) = self.in_flight.next().await {
            self.landed(sent, answer).await?;
        }
        Ok(())
    }

    /// Takes in what became of a batch. Where it was not committed, each of its packages is, by itself.
    async fn landed(
        &mut self,
        sent: Sent,
        answer: Result<Revision, StoreError>,
    ) -> Result<(), ReconcileError> {
        let appended = self.answered(answer, sent.count, None).await?;
        self.concluded(sent.plans, appended).await
    }

    async fn concluded(
        &mut self,
        plans: Vec<(Plan, Tally)>,
        appended: Appended,
    ) -> Result<(), ReconcileError> {
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
            Appended::Committed(_) => tally,
            Appended::Impossible => Tally::default(),
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
            let Some(ready) = self.events(plan, Known::Read).await? else {
                return Ok(Tally::default());
            };
            let tally = ready.tally;
            match self.append_ready(plan, ready).await? {
                Appended::Committed(_) => return Ok(tally),
                Appended::Impossible => return Ok(Tally::default()),
                Appended::Refused | Appended::Unanswered => {}
            }
        }
        let package = self.reconciler.package(plan).to_owned();
        Err(ReconcileError::Contended { package, attempts: MAX_ATTEMPTS })
    }

    /// Returns the events of a plan, or notes why there can be none.
    async fn events(&mut self, plan: &Plan, known: Known) -> Result<Option<Ready>, ReconcileError> {
        let events = match self.reconciler.events(plan, known).await {
            Err(error @ ReconcileError::Taken { .. }) => {
                self.refuse(plan, None, error.to_string());
                return Ok(None);
            }
            events => events?,
        };
        let PackageEvents { operations, record, tally, .. } = events;
        let settled = record.as_ref().map(RecordChange::settled);
        let ready = Ready { operations, record, settled, tally };
        match ready.operations.iter().chain(&ready.settled).find(|operation| self.is_too_large(operation)) {
            None => Ok(Some(ready)),
            Some(large) => {
                self.refuse_large(plan, large);
                Ok(None)
            }
        }
    }

    /// Commits the events of one package: at once where they fit in a batch, or else in their order.
    async fn append_ready(&mut self, plan: &Plan, ready: Ready) -> Result<Appended, ReconcileError> {
        let mut batch = Pending::default();
        if batch.has_room_for(&ready, self.limits) {
            batch.take(ready);
            return self.append(batch.operations).await;
        }
        let Ready { operations, record, settled, .. } = ready;
        let note = record.as_ref().map(RecordChange::unsettle);
        if let Some(large) = note.iter().find(|note| self.is_too_large(note)) {
            self.refuse_large(plan, large);
            return Ok(Appended::Impossible);
        }
        let mut noted = None;
        for operation in note.into_iter().chain(operations) {
            if !batch.has_room(1, operation.size(), self.limits) {
                match self.append(std::mem::take(&mut batch.operations)).await? {
                    Appended::Committed(revision) => noted = noted.or(revision),
                    failed => return Ok(failed),
                }
                batch = Pending::default();
            }
            batch.add(operation);
        }
        if let (Some(record), Some(settled)) = (record, settled) {
            // What the note says is settled with the last event, and never in the same batch.
            if noted.is_none() || !batch.has_room(1, settled.size(), self.limits) {
                match self.append(std::mem::take(&mut batch.operations)).await? {
                    Appended::Committed(revision) => noted = noted.or(revision),
                    failed => return Ok(failed),
                }
                batch = Pending::default();
            }
            batch.add(record.settle(noted.map(|revision| ResourceVersion::new(revision, 1))));
        }
        self.append(batch.operations).await
    }

    async fn append(&mut self, mut operations: Vec<Operation>) -> Result<Appended, ReconcileError> {
        if operations.is_empty() {
            return Ok(Appended::Committed(None));
        }
        let count = operations.len() as u64;
        self.notes_bundles(&operations);
        // It is last, so that the others keep their places.
        let marked = self.mark.as_deref().and_then(Mark::operation);
        operations.extend(marked);
        let last = operations.len() as u16;
        let answer = self.store.append(Batch::new(operations)).await;
        self.answered(answer, count, Some(last)).await
    }

    /// Notes whether bundles are written. Whatever comes of it: a note too many is better than one too few.
    fn notes_bundles(&mut self, operations: &[Operation]) {
        self.submitted.has_changed_bundles |=
            operations.iter().any(|operation| operation.key.resource() == BUNDLES);
    }

    /// Makes sense of an answer to so many events. `mark` is the index of the mark, where it is not set yet.
    async fn answered(
        &mut self,
        answer: Result<Revision, StoreError>,
        count: u64,
        mark: Option<u16>,
    ) -> Result<Appended, ReconcileError> {
        match answer {
            Ok(revision) => {
                self.submitted.has_written = true;
                self.progress.add_events(count);
                if let (Some(index), Some(mark)) =
                    (mark, self.mark.as_deref_mut().filter(|mark| !mark.is_set))
                {
                    mark.set(ResourceVersion::new(revision, index));
                }
                Ok(Appended::Committed(Some(revision)))
            }
            Err(StoreError::Conflict { key }) if self.mark.as_deref().is_none_or(|mark| mark.key != key) => {
                Ok(Appended::Refused)
            }
            // Where there is no space, trying again is for later.
            Err(error @ StoreError::NoSpace(_)) => Err(error.into()),
            Err(error) if error.outcome() == Outcome::MayHaveHappened => {
                self.submitted.has_written = true;
                tracing::warn!(%error, "an append was not answered; reading what became of it");
                if let Some(mark) = self.mark.as_deref_mut().filter(|mark| !mark.is_set) {
                    mark.find(self.store).await?;
                }
                Ok(Appended::Unanswered)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn is_too_large(&self, operation: &Operation) -> bool {
        operation.size() > self.limits.bytes
    }

    fn refuse_large(&mut self, plan: &Plan, large: &Operation) {
        let (key, size, limit) = (large.key.clone(), large.size(), self.limits.bytes);
        let message = StoreError::TooLarge { key, size, limit }.to_string();
        self.refuse(plan, Some(&large.key), message);
    }

    fn refuse(&mut self, plan: &Plan, key: Option<&Key>, message: String) {
        let problem = self.reconciler.problem(plan, key, message);
        self.submitted.refused.insert(self.reconciler.package(plan).to_owned(), vec![problem]);
    }
}

impl Pending {
    fn has_room(&self, operations: usize, bytes: usize, limits: BatchLimits) -> bool {
        self.operations.len() + operations <= limits.operations && self.bytes + bytes <= limits.bytes
    }

    fn has_room_for(&self, ready: &Ready, limits: BatchLimits) -> bool {
        let operations = || ready.operations.iter().chain(&ready.settled);
        self.has_room(operations().count(), operations().map(Operation::size).sum(), limits)
            && !operations().any(|operation| self.keys.contains(&operation.key))
    }

    fn take(&mut self, ready: Ready) {
        for operation in ready.operations.into_iter().chain(ready.settled) {
            self.add(operation);
        }
    }

    fn add(&mut self, operation: Operation) {
        self.bytes += operation.size();
        self.keys.insert(operation.key.clone());
        self.operations.push(operation);
    }
}
