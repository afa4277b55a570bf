//! What many clients do, what becomes of their calls, and who watches.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::linearizable::Slot;
use crate::support::hooked_store::{Call, Verdict, unavailable, unknown};

pub const SLOTS: usize = 3;
pub const CLIENTS: usize = 5;
pub const STEPS: usize = 8;
pub const WATCHERS: usize = 3;

/// What a client does next, and what becomes of the call.
#[derive(Clone, Debug)]
pub struct Step {
    pub what: Doing,
    pub fault: Fault,
}

#[derive(Clone, Debug)]
pub enum Doing {
    Append(BTreeMap<Slot, Doings>),
    Read(Vec<Slot>),
    List { page: usize },
}

/// What is done to a key, of which the client expects what it last saw there.
#[derive(Clone, Copy, Debug)]
pub enum Doings {
    Put,
    /// Puts, where there is nothing to delete.
    Delete,
    /// Expects nothing there, whatever was seen.
    Create,
}

/// What becomes of a call; times are in tenths of a millisecond.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    None,
    Delay(u64),
    DelayAnswer(u64),
    Refused,
    Lost,
    Unanswered,
    /// Lost, as far as anybody knows, and done in the end: later calls overtake it.
    Overtaken(u64),
}

/// One that begins at some version that is known by then, and whose watches break after so many items.
#[derive(Clone, Debug)]
pub struct Watcher {
    /// How many versions have to be known before it begins.
    pub patience: usize,
    pub after: prop::sample::Index,
    pub of_one_resource: bool,
    pub cuts: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub clients: Vec<Vec<Step>>,
    pub watchers: Vec<Watcher>,
    /// What happens to the network, where there is one: after so many milliseconds, this.
    pub network: Vec<(u64, Blow)>,
}

#[derive(Clone, Copy, Debug)]
pub enum Blow {
    /// A request arrives, and its answer does not.
    CutAnAnswer,
    /// Nothing arrives for so many milliseconds.
    BlackOut(u64),
    /// All connections break.
    Reset,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        5 => Just(Fault::None),
        2 => (0..20_u64).prop_map(Fault::Delay),
        2 => (0..20_u64).prop_map(Fault::DelayAnswer),
        1 => Just(Fault::Refused),
        1 => Just(Fault::Lost),
        1 => Just(Fault::Unanswered),
        1 => (0..60_u64).prop_map(Fault::Overtaken),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let doings = prop_oneof![5 => Just(Doings::Put), 2 => Just(Doings::Delete), 1 => Just(Doings::Create)];
    let what = prop_oneof![
        5 => prop::collection::btree_map(0..SLOTS, doings, 1..=SLOTS).prop_map(Doing::Append),
        2 => prop::collection::btree_set(0..SLOTS, 1..=SLOTS)
            .prop_map(|slots| Doing::Read(slots.into_iter().collect())),
        2 => (1..4_usize).prop_map(|page| Doing::List { page }),
    ];
    (what, fault()).prop_map(|(what, fault)| Step { what, fault })
}

pub fn plan() -> impl Strategy<Value = Plan> {
    let watcher = (
        0..CLIENTS * STEPS / 2,
        any::<prop::sample::Index>(),
        any::<bool>(),
        prop::collection::vec(0..6_usize, 0..5),
    )
        .prop_map(|(patience, after, of_one_resource, cuts)| Watcher {
            patience,
            after,
            of_one_resource,
            cuts,
        });
    let blow = prop_oneof![
        3 => Just(Blow::CutAnAnswer),
        1 => (1..80_u64).prop_map(Blow::BlackOut),
        1 => Just(Blow::Reset),
    ];
    let clients = prop::collection::vec(prop::collection::vec(step(), 1..=STEPS), 2..=CLIENTS);
    let watchers = prop::collection::vec(watcher, 1..=WATCHERS);
    let network = prop::collection::vec((0..12_u64, blow), 1..6);
    (clients, watchers, network).prop_map(|(clients, watchers, network)| Plan { clients, watchers, network })
}

impl Fault {
    /// Returns what a hook does with a call.
    pub fn verdict(self, call: &Call<'_>) -> Verdict {
        let time = |tenths| Duration::from_micros(tenths * 100);
        match self {
            Fault::None => Verdict::Pass,
            Fault::Delay(tenths) => Verdict::Delay(time(tenths)),
            Fault::DelayAnswer(tenths) => Verdict::DelayAnswer(time(tenths)),
            Fault::Refused => Verdict::Fail(unavailable()),
            Fault::Lost => Verdict::Fail(unknown()),
            Fault::Overtaken(tenths) if matches!(call, Call::Append(_)) => {
                Verdict::FailBefore(unknown(), time(tenths))
            }
            Fault::Unanswered | Fault::Overtaken(_) => Verdict::FailAfter(unknown()),
        }
    }
}
