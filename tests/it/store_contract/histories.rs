//! Random histories, on the store and on the model.

use packageserver::store::{
    At, Batch, Expect, Key, Operation, Range, ResourceVersion, Revision, Store, StoreError, Write,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::Fixture;
use super::model::{Model, cut_object, events, list, object};
use crate::support::rounds;

/// Steps of a history at most.
const STEPS: usize = 40;

/// A place in the history so far, as a part of its length.
type Place = prop::sample::Index;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(usize, Change)>),
    List { place: Place, shift: i64, page: usize },
    Watch { place: Place, shift: i64, slots: bool },
    Compact { place: Place },
}

/// What is done to one of the keys, and what is expected of it.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// What is right, whatever is there.
    Put { tail: usize },
    /// Deletes what is there; nothing, where there is nothing.
    Delete,
    /// Expects that nothing is there.
    Create,
    /// Expects a version that may be wrong by so much.
    Replace { off: i64 },
}

const KEYS: usize = 7;

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..3000_usize).prop_map(|tail| Change::Put { tail }),
        3 => Just(Change::Delete),
        1 => Just(Change::Create),
        1 => prop_oneof![Just(-1000_i64), Just(-1), Just(1), Just(1000)].prop_map(|off| Change::Replace { off }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let append = prop::collection::btree_map(0..KEYS, change(), 1..KEYS);
    prop_oneof![
        6 => append.prop_map(|changes| changes.into_iter().rev().collect()).prop_map(Step::Append),
        3 => (any::<Place>(), -1..2_i64, 1..5_usize)
            .prop_map(|(place, shift, page)| Step::List { place, shift, page }),
        3 => (any::<Place>(), -1..2_i64, any::<bool>())
            .prop_map(|(place, shift, slots)| Step::Watch { place, shift, slots }),
        1 => any::<Place>().prop_map(|place| Step::Compact { place }),
    ]
}

/// One history, in a namespace of its own.
struct History<'a> {
    store: &'a dyn Store,
    namespace: String,
    model: Model,
    start: ResourceVersion,
    compacted: Revision,
}

pub async fn random_histories_read_as_the_model_says(fixture: &Fixture) {
    let mut runner = TestRunner::new(Config {
        cases: rounds(16, 500),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let number = std::sync::atomic::AtomicU32::new(0);
    let run = |steps: Vec<Step>| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let history = async {
            let start = fixture.store.current().await.expect("the store answers");
            let mut history = History {
                store: &*fixture.store,
                namespace: format!("case-{number}"),
                model: Model::default(),
                start,
                compacted: Revision::default(),
            };
            for step in steps {
                history.step(step).await?;
            }
            Ok(())
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(history))
    };
    runner.run(&prop::collection::vec(step(), 1..STEPS), run).unwrap_or_else(|error| panic!("{error}"));
}

impl History<'_> {
    fn key(&self, slot: usize) -> Key {
        Key::new(["things", "others"][slot % 2], &self.namespace, &format!("k{slot}"))
    }

    async fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Append(changes) => self.append(&changes).await,
            Step::List { place, shift, page } => self.list(self.version(place, shift), page).await,
            Step::Watch { place, shift, slots } => self.watch(self.version(place, shift), slots).await,
            Step::Compact { place } => {
                let revision = self.version(place, 0).revision();
                self.store.compact(revision).await.map_err(failed)?;
                self.compacted = self.compacted.max(revision);
                Ok(())
            }
        }
    }

    /// Returns a version at or near an event.
    fn version(&self, place: Place, shift: i64) -> ResourceVersion {
        let at = match self.model.events.len() {
            0 => self.start,
            length => self.model.events[place.index(length)].version,
        };
        let last = self.model.events.last().map_or(self.start, |event| event.version);
        let near = ResourceVersion::from_u64(at.get().saturating_add_signed(shift));
        near.clamp(self.start, ResourceVersion::end_of(last.revision()))
    }

    fn operation(&self, slot: usize, change: Change) -> Option<Operation> {
        let key = self.key(slot);
        let there = self.model.latest().get(&key).map(|(version, _)| *version);
        let right = there.map_or(Expect::Absent, Expect::Version);
        let text = format!("{} {}", self.model.events.len(), key);
        Some(match change {
            Change::Put { tail } => {
                Operation { key, expect: right, write: Write::Put(cut_object(&text, tail)) }
            }
            Change::Delete => Operation::delete(key, there?),
            Change::Create => Operation::create(key, object(&text)),
            Change::Replace { off } => {
                let version = there.unwrap_or(self.start).get().saturating_add_signed(off);
                Operation::replace(key, ResourceVersion::from_u64(version), object(&text))
            }
        })
    }

    async fn append(&mut self, changes: &[(usize, Change)]) -> Result<(), TestCaseError> {
        let operations: Vec<_> =
            changes.iter().filter_map(|(slot, change)| self.operation(*slot, *change)).collect();
        if operations.is_empty() {
            return Ok(());
        }
        let batch = Batch::new(operations);
        match (self.store.append(batch.clone()).await, self.model.conflict(&batch)) {
            (Ok(revision), None) => self.model.commit(revision, &batch),
            (Err(StoreError::Conflict { key }), Some(expected)) => prop_assert_eq!(key, expected),
            (result, conflict) => prop_assert!(false, "{result:?} where the model has {conflict:?}"),
        }
        Ok(())
    }

    async fn list(&self, at: ResourceVersion, page: usize) -> Result<(), TestCaseError> {
        for resource in ["things", "others"] {
            let range = Range::namespace(resource, &self.namespace);
            match list(self.store, range.clone(), At::Exactly(at), page).await {
                Ok((_, found)) => {
                    let mut expected = self.model.state(at);
                    expected.retain(|key, _| range.contains(key));
                    prop_assert_eq!(found, expected);
                }
                error => self.is_compacted(at, error)?,
            }
        }
        Ok(())
    }

    async fn watch(&self, after: ResourceVersion, slots: bool) -> Result<(), TestCaseError> {
        let range = match slots {
            true => Range::namespace("things", &self.namespace),
            false => Range::everything(),
        };
        match events(self.store, range.clone(), after).await {
            Ok(found) => prop_assert_eq!(found, self.model.after(&range, after)),
            error => self.is_compacted(after, error)?,
        }
        Ok(())
    }

    /// Checks that an error is that of a version that may be gone.
    fn is_compacted<T: std::fmt::Debug>(
        &self,
        at: ResourceVersion,
        result: Result<T, StoreError>,
    ) -> Result<(), TestCaseError> {
        let may_be_gone = at < ResourceVersion::end_of(self.compacted);
        let is_compacted = matches!(result, Err(StoreError::Compacted { .. }));
        prop_assert!(may_be_gone && is_compacted, "{at}, compacted {}: {result:?}", self.compacted);
        Ok(())
    }
}

fn failed(error: StoreError) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}
