//! Whether one order of calls explains what all clients saw: the search of Wing and Gong, for histories of some dozen calls.
//!
//! Each call takes effect at one moment between its beginning and its answer. A call without a certain answer may take
//! effect at any later moment, or never. Appends take effect in the order of their revisions.

mod tests;

use std::collections::{BTreeMap, HashSet};

use packageserver::store::{ResourceVersion, Revision};

/// What is put: no two writes of a history put the same.
pub type Value = u32;

/// A key, by its number.
pub type Slot = usize;

/// A call of a client, and what it was told.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it began; times are those of one clock for all clients.
    pub begun: u64,
    /// When it was answered.
    pub answered: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Append(Vec<Write>, Appended),
    /// What was found under some keys, all in one state; and the revision of the state, where it is known.
    Read(Vec<(Slot, Option<(Value, ResourceVersion)>)>, Option<Revision>),
}

/// An operation of a batch: what it expects to find, and what is there afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub slot: Slot,
    pub expects: Option<Value>,
    pub puts: Option<Value>,
}

/// What a client was told about a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    Done(Revision),
    /// This is the first key whose expectation does not hold.
    Conflict(Slot),
    /// It did not happen.
    NotDone,
    /// It may have happened.
    Unknown,
}

/// Finds an order that explains a history of at most 64 calls.
///
/// # Errors
///
/// Says how far an explanation gets, where there is none.
pub fn explain(calls: &[Call]) -> Result<Vec<usize>, String> {
    assert!(calls.len() <= 64, "the search is one for short histories");
    let versions = versions(calls)?;
    let revision = |call: &Call| match &call.what {
        What::Append(_, Appended::Done(revision)) => Some(*revision),
        // Whoever saw what it put knows when that was.
        What::Append(writes, Appended::Unknown) => writes
            .iter()
            .find_map(|write| versions.get(&write.puts?))
            .map(|version: &ResourceVersion| version.revision()),
        _ => None,
    };
    let mut search = Search {
        calls,
        revisions: calls.iter().map(revision).collect(),
        seen: HashSet::new(),
        order: Vec::new(),
        longest: Vec::new(),
    };
    let is_not_done = |call: &Call| matches!(call.what, What::Append(_, Appended::NotDone));
    // What did not happen has no place in the order.
    let placed = mask(calls, is_not_done);
    if search.go(placed, &State::default()) {
        return Ok(search.order);
    }
    let order: Vec<_> = search.longest.iter().map(|&number| &calls[number]).collect();
    let rest: Vec<_> = (0..calls.len())
        .filter(|number| !search.longest.contains(number))
        .map(|number| &calls[number])
        .collect();
    Err(format!(
        "no order explains it; it begins like this:\n{order:#?}\nand nothing of this can follow:\n{rest:#?}"
    ))
}

/// Returns the version of each value that anybody knows one of.
fn versions(calls: &[Call]) -> Result<BTreeMap<Value, ResourceVersion>, String> {
    let mut versions = BTreeMap::new();
    let mut note = |value: Value, version: ResourceVersion| match versions.insert(value, version) {
        Some(other) if other != version => Err(format!("{value} has the versions {other} and {version}")),
        _ => Ok(()),
    };
    for call in calls {
        match &call.what {
            What::Append(writes, Appended::Done(revision)) => {
                for (position, write) in writes.iter().enumerate() {
                    let version = ResourceVersion::new(*revision, position as u16 + 1);
                    write.puts.map_or(Ok(()), |value| note(value, version))?;
                }
            }
            What::Append(..) => {}
            What::Read(found, _) => {
                for (value, version) in found.iter().filter_map(|(_, found)| *found) {
                    note(value, version)?;
                }
            }
        }
    }
    Ok(versions)
}

fn mask(calls: &[Call], is_in: impl Fn(&Call) -> bool) -> u64 {
    calls.iter().enumerate().filter(|(_, call)| is_in(call)).fold(0, |mask, (number, _)| mask | 1 << number)
}

/// What is stored between two calls of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    objects: BTreeMap<Slot, Value>,
    /// The newest revision that is known of.
    revision: Revision,
}

struct Search<'a> {
    calls: &'a [Call],
    /// The revision of each append, where it is known.
    revisions: Vec<Option<Revision>>,
    /// Where the search has been before, in vain.
    seen: HashSet<(u64, State)>,
    order: Vec<usize>,
    longest: Vec<usize>,
}

impl Search<'_> {
    /// Places the calls that are not placed yet behind a state; returns whether that is possible.
    fn go(&mut self, placed: u64, state: &State) -> bool {
        if self.order.len() > self.longest.len() {
            self.longest.clone_from(&self.order);
        }
        let is_open = |number: usize| placed & 1 << number == 0;
        let open: Vec<_> = (0..self.calls.len()).filter(|&number| is_open(number)).collect();
        if open.iter().all(|&number| self.calls[number].is_unknown()) {
            return true;
        }
        if !self.seen.insert((placed, state.clone())) {
            return false;
        }
        // What began after another call was answered comes after that call.
        let certain = open.iter().map(|&number| &self.calls[number]).filter(|call| !call.is_unknown());
        let first_answer = certain.map(|call| call.answered).min().unwrap_or(u64::MAX);
        for number in open.into_iter().filter(|&number| self.calls[number].begun < first_answer) {
            let Some(next) = self.after(state, number) else { continue };
            self.order.push(number);
            if self.go(placed | 1 << number, &next) {
                return true;
            }
            self.order.pop();
        }
        false
    }

    /// Returns the state after a call; none where the call cannot have been answered as it was.
    fn after(&self, state: &State, number: usize) -> Option<State> {
        let mut next = state.clone();
        match &self.calls[number].what {
            What::Append(writes, appended) => {
                let fails = |write: &&Write| state.objects.get(&write.slot) != write.expects.as_ref();
                let conflict = writes.iter().find(fails).map(|write| write.slot);
                match (appended, conflict) {
                    (Appended::Conflict(named), Some(slot)) if *named == slot => return Some(next),
                    (Appended::Done(_) | Appended::Unknown, None) => {}
                    _ => return None,
                }
                for write in writes {
                    match write.puts {
                        Some(value) => next.objects.insert(write.slot, value),
                        None => next.objects.remove(&write.slot),
                    };
                }
                if let Some(revision) = self.revisions[number] {
                    if revision <= state.revision {
                        return None;
                    }
                    next.revision = revision;
                }
            }
            What::Read(found, at) => {
                let is_there = |(slot, found): &(Slot, Option<(Value, ResourceVersion)>)| {
                    state.objects.get(slot).copied() == found.map(|(value, _)| value)
                };
                if !found.iter().all(is_there) || at.is_some_and(|at| at < state.revision) {
                    return None;
                }
                next.revision = at.unwrap_or(state.revision);
            }
        }
        Some(next)
    }
}

impl Call {
    fn is_unknown(&self) -> bool {
        matches!(self.what, What::Append(_, Appended::Unknown))
    }
}
