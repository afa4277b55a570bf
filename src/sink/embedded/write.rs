//! Appending and compacting: the only two writers.

use std::collections::HashSet;

use redb::{Database, Durability, ReadableTable, WriteTransaction};

use super::tables::{
    EVENTS, STATE, State, VERSIONS, inverted, parse_key, peek, unavailable, unknown, upright,
};
use crate::store::{Batch, Envelope, Expect, Key, ResourceVersion, Revision, StoreError, Write};

pub(super) fn append(database: &Database, batch: &Batch) -> Result<Revision, StoreError> {
    batch.check()?;
    let transaction = begin(database)?;
    let revision;
    {
        let mut versions = transaction.open_table(VERSIONS).map_err(unavailable)?;
        let mut events = transaction.open_table(EVENTS).map_err(unavailable)?;
        let mut state_table = transaction.open_table(STATE).map_err(unavailable)?;
        let state = State::from_table(&state_table)?;
        revision = state.revision.next();
        for (position, operation) in batch.operations.iter().enumerate() {
            let expected = match operation.expect {
                Expect::Absent => None,
                Expect::Version(version) => Some(version),
            };
            if current(&versions, &operation.key)? != expected {
                return Err(StoreError::Conflict { key: operation.key.clone() });
            }
            let index = position as u16 + 1;
            let value = match &operation.write {
                Write::Put(object) => Envelope::encode_put(index, object),
                Write::Delete => Envelope::encode_deletion(index),
            };
            let key = operation.key.as_str();
            versions.insert((key, inverted(revision)), &value[..]).map_err(unavailable)?;
            events.insert((revision.get(), index), key).map_err(unavailable)?;
        }
        State { revision, ..state }.write(&mut state_table)?;
    }
    commit(transaction)?;
    Ok(revision)
}

/// Returns the event that wrote what is under a key now.
fn current(
    versions: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    key: &Key,
) -> Result<Option<ResourceVersion>, StoreError> {
    let mut newest_first =
        versions.range((key.as_str(), 0)..=(key.as_str(), u64::MAX)).map_err(unavailable)?;
    let Some((position, value)) = newest_first.next().transpose().map_err(unavailable)? else {
        return Ok(None);
    };
    let (index, is_deletion) = peek(key, value.value())?;
    let version = ResourceVersion::new(upright(position.value().1), index);
    Ok((!is_deletion).then_some(version))
}

/// Drops the events up to and at `revision`, and the versions that no state from there on shows.
pub(super) fn compact(database: &Database, revision: Revision) -> Result<(), StoreError> {
    let transaction = begin(database)?;
    {
        let mut versions = transaction.open_table(VERSIONS).map_err(unavailable)?;
        let mut events = transaction.open_table(EVENTS).map_err(unavailable)?;
        let mut state_table = transaction.open_table(STATE).map_err(unavailable)?;
        let state = State::from_table(&state_table)?;
        if revision > state.revision {
            let requested = ResourceVersion::end_of(revision);
            return Err(StoreError::Future { requested, current: state.version() });
        }
        let dropped = ..=(revision.get(), u16::MAX);
        let mut touched = HashSet::new();
        let mut compacted = state.compacted;
        for entry in events.range(dropped).map_err(unavailable)? {
            let (position, key) = entry.map_err(unavailable)?;
            let (revision, index) = position.value();
            compacted = ResourceVersion::new(Revision::new(revision), index);
            touched.insert(parse_key(key.value())?);
        }
        for key in &touched {
            drop_superseded(&mut versions, key, revision)?;
        }
        events.retain_in(dropped, |_, _| false).map_err(unavailable)?;
        State { compacted, ..state }.write(&mut state_table)?;
    }
    commit(transaction)
}

/// Of the versions of a key up to `revision`, keeps the newest, and not even that when it is a deletion.
fn drop_superseded(
    versions: &mut redb::Table<(&'static str, u64), &'static [u8]>,
    key: &Key,
    revision: Revision,
) -> Result<(), StoreError> {
    let mut newest = true;
    let newest_first = (key.as_str(), inverted(revision))..=(key.as_str(), u64::MAX);
    versions
        .retain_in(newest_first, |_, value| {
            let is_deletion = Envelope::peek(value).is_ok_and(|(_, is_deletion)| is_deletion);
            std::mem::take(&mut newest) && !is_deletion
        })
        .map_err(unavailable)
}

/// Begins a transaction that is on disk when it is committed.
fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write().map_err(unavailable)?;
    transaction.set_durability(Durability::Immediate).map_err(unavailable)?;
    Ok(transaction)
}

fn commit(transaction: WriteTransaction) -> Result<(), StoreError> {
    transaction.commit().map_err(unknown)
}
