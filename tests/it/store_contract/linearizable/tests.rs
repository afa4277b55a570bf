//! The search itself: it explains what can be explained, and refuses the rest.

use proptest::prelude::*;

use super::*;

fn call(begun: u64, answered: u64, what: What) -> Call {
    Call { begun, answered, what }
}

fn write(slot: Slot, expects: Option<Value>, puts: Option<Value>) -> Write {
    Write { slot, expects, puts }
}

fn append(writes: &[Write], appended: Appended) -> What {
    What::Append(writes.to_vec(), appended)
}

fn done(revision: u64) -> Appended {
    Appended::Done(Revision::new(revision))
}

/// An event is the first of its batch here.
fn found(slot: Slot, value: Value, revision: u64) -> (Slot, Option<(Value, ResourceVersion)>) {
    (slot, Some((value, ResourceVersion::new(Revision::new(revision), 1))))
}

fn read(found: &[(Slot, Option<(Value, ResourceVersion)>)]) -> What {
    What::Read(found.to_vec(), None)
}

fn list(found: &[(Slot, Option<(Value, ResourceVersion)>)], at: u64) -> What {
    What::Read(found.to_vec(), Some(Revision::new(at)))
}

#[test]
fn histories_with_an_explanation_are_explained() {
    let create = |value, appended| append(&[write(0, None, Some(value))], appended);
    let nothing = (0, None);
    let good: &[(&str, &[Call])] = &[
        ("nothing", &[]),
        ("one after the other", &[call(1, 2, create(1, done(2))), call(3, 4, read(&[found(0, 1, 2)]))]),
        (
            "a read beside a write sees either",
            &[
                call(1, 10, create(1, done(2))),
                call(2, 3, read(&[nothing])),
                call(4, 5, read(&[found(0, 1, 2)])),
            ],
        ),
        (
            "of two creations the one that is answered later may be the first",
            &[call(1, 10, create(1, done(2))), call(2, 3, create(2, Appended::Conflict(0)))],
        ),
        (
            "what did not happen is not seen",
            &[call(1, 2, create(1, Appended::NotDone)), call(3, 4, read(&[nothing]))],
        ),
        (
            "what is unknown may never happen",
            &[call(1, 2, create(1, Appended::Unknown)), call(3, 4, create(2, done(2)))],
        ),
        (
            "what is unknown may happen long after",
            &[
                call(1, 2, create(1, Appended::Unknown)),
                call(3, 4, read(&[nothing])),
                call(5, 6, read(&[nothing])),
                call(7, 8, read(&[found(0, 1, 9)])),
            ],
        ),
        (
            "what is unknown is in nobody's way",
            &[
                call(1, 2, create(1, Appended::Unknown)),
                call(3, 4, append(&[write(0, Some(1), Some(2))], done(5))),
                call(5, 6, read(&[found(0, 2, 5)])),
            ],
        ),
    ];
    for (name, history) in good {
        explain(history).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn histories_without_an_explanation_are_refused() {
    let create = |slot, value, appended| append(&[write(slot, None, Some(value))], appended);
    let replace = |old, new, appended| append(&[write(0, Some(old), Some(new))], appended);
    let nothing = |slot| (slot, None);
    let first = || call(1, 2, create(0, 1, done(2)));
    let bad: &[(&str, &[Call])] = &[
        ("a write that is answered is not seen", &[first(), call(3, 4, read(&[nothing(0)]))]),
        (
            "what did not happen is seen",
            &[call(1, 2, create(0, 1, Appended::NotDone)), call(3, 4, read(&[found(0, 1, 2)]))],
        ),
        ("nobody wrote it", &[call(3, 4, read(&[found(0, 7, 2)]))]),
        (
            "it is seen before it is written",
            &[call(1, 2, read(&[found(0, 1, 2)])), call(3, 4, create(0, 1, done(2)))],
        ),
        (
            "an update is lost",
            &[first(), call(3, 8, replace(1, 2, done(3))), call(4, 9, replace(1, 3, done(4)))],
        ),
        (
            "a write is done twice",
            &[
                call(1, 2, create(0, 1, Appended::Unknown)),
                call(3, 4, append(&[write(0, Some(1), None)], done(5))),
                call(5, 6, read(&[found(0, 1, 3)])),
            ],
        ),
        (
            "time runs backwards for a reader",
            &[
                first(),
                call(3, 20, replace(1, 2, done(3))),
                call(4, 5, read(&[found(0, 2, 3)])),
                call(6, 7, read(&[found(0, 1, 2)])),
            ],
        ),
        (
            "what is unknown comes and goes",
            &[
                call(1, 2, create(0, 1, Appended::Unknown)),
                call(3, 4, read(&[found(0, 1, 2)])),
                call(5, 6, read(&[nothing(0)])),
            ],
        ),
        (
            "a batch is seen half",
            &[
                call(1, 9, append(&[write(0, None, Some(1)), write(1, None, Some(2))], done(2))),
                call(2, 8, read(&[found(0, 1, 2), nothing(1)])),
            ],
        ),
        (
            "two readers disagree about the order",
            &[
                call(1, 20, create(0, 1, done(2))),
                call(1, 20, create(1, 2, done(3))),
                call(2, 3, read(&[found(0, 1, 2), nothing(1)])),
                call(4, 5, read(&[nothing(0), found(1, 2, 3)])),
            ],
        ),
        ("a conflict with nothing", &[call(1, 2, create(0, 1, Appended::Conflict(0)))]),
        (
            "a conflict that names the second key",
            &[
                first(),
                call(
                    3,
                    4,
                    append(&[write(0, None, Some(2)), write(1, Some(9), None)], Appended::Conflict(1)),
                ),
            ],
        ),
        (
            "revisions run against time",
            &[call(1, 2, create(0, 1, done(3))), call(3, 4, create(1, 2, done(2)))],
        ),
        (
            "two batches have one revision",
            &[call(1, 9, create(0, 1, done(2))), call(2, 8, create(1, 2, done(2)))],
        ),
        (
            "a state is older than its events",
            &[call(1, 2, create(0, 1, done(5))), call(3, 4, list(&[found(0, 1, 5)], 4))],
        ),
        (
            "an event is older than a state without it",
            &[call(1, 2, list(&[nothing(0)], 7)), call(3, 4, create(0, 1, done(6)))],
        ),
        ("one write has two versions", &[first(), call(3, 4, read(&[found(0, 1, 3)]))]),
    ];
    for (name, history) in bad {
        assert!(explain(history).is_err(), "{name}");
    }
}

/// What happens to a key, and how far before and after that the call is begun and answered.
type Happening = (Slot, u8, u64, u64, bool);

/// Plays a history in some order; the calls are made to overlap afterwards, and some answers are lost.
fn play(happenings: &[Happening]) -> Vec<Call> {
    let mut state: BTreeMap<Slot, (Value, u64)> = BTreeMap::new();
    let mut calls = Vec::new();
    for (number, &(slot, kind, before, after, is_lost)) in happenings.iter().enumerate() {
        let (moment, revision) = (number as u64 * 10 + 100, number as u64 + 2);
        let there = state.get(&slot).copied();
        let what = match kind {
            0 => list(&[(slot, there.map(|(value, at)| found(slot, value, at).1.expect("one")))], revision),
            1 if there.is_some() => append(&[write(slot, None, Some(1000))], Appended::Conflict(slot)),
            _ => {
                let puts = (kind != 2 || there.is_none()).then_some(number as Value);
                match puts {
                    Some(value) => state.insert(slot, (value, revision)),
                    None => state.remove(&slot),
                };
                let appended = if is_lost { Appended::Unknown } else { done(revision) };
                append(&[write(slot, there.map(|(value, _)| value), puts)], appended)
            }
        };
        calls.push(call(moment - before, moment + after, what));
    }
    calls
}

proptest! {
    #[test]
    fn whatever_was_played_in_some_order_is_explained(
        happenings in prop::collection::vec((0..3_usize, 0..5_u8, 1..60_u64, 1..60_u64, any::<bool>()), 1..24),
    ) {
        let calls = play(&happenings);
        explain(&calls).map_err(TestCaseError::fail)?;
        // Of what was seen, nothing can be said not to have happened.
        for number in 0..calls.len() {
            let What::Append(writes, Appended::Done(_) | Appended::Unknown) = &calls[number].what else { continue };
            let Some(value) = writes[0].puts else { continue };
            let sees = |call: &Call| matches!(&call.what, What::Read(found, _)
                if found.iter().any(|(_, found)| found.is_some_and(|(found, _)| found == value)));
            if calls.iter().any(sees) {
                let mut lie = calls.clone();
                lie[number].what = append(writes, Appended::NotDone);
                prop_assert!(explain(&lie).is_err(), "{value} was seen");
            }
        }
    }
}
