//! Reading the state: by key, and by range in a state of the past.

use redb::{Database, ReadOnlyTable, ReadableDatabase};

use super::tables::{State, VERSIONS, decode, inverted, parse_key, peek, unavailable, upright};
use crate::store::{At, Key, ListRequest, Object, Page, ResourceVersion, StoreError, Stored};

pub(super) type Versions = ReadOnlyTable<(&'static str, u64), &'static [u8]>;

pub(super) fn read(database: &Database, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
    let transaction = database.begin_read().map_err(unavailable)?;
    let at = State::read(&transaction)?.version();
    let versions = transaction.open_table(VERSIONS).map_err(unavailable)?;
    keys.iter().map(|key| stored_at(&versions, key, at)).collect()
}

pub(super) fn list(database: &Database, request: &ListRequest) -> Result<Page, StoreError> {
    let transaction = database.begin_read().map_err(unavailable)?;
    let at = resolve(request.at, State::read(&transaction)?)?;
    let versions = transaction.open_table(VERSIONS).map_err(unavailable)?;

    let mut page = Page { version: at, items: Vec::new(), remaining: 0 };
    let start = match &request.after {
        Some(after) => (after.as_str(), u64::MAX),
        None => (request.range.start(), 0),
    };
    // The key whose version in this state is known: its older versions are passed over.
    let mut decided = request.after.clone();
    for entry in versions.range(start..).map_err(unavailable)? {
        let (position, value) = entry.map_err(unavailable)?;
        let (name, inverted) = position.value();
        if decided.as_ref().is_some_and(|key| key.as_str() == name) {
            continue;
        }
        let key = parse_key(name)?;
        if !request.range.contains(&key) {
            break;
        }
        let (index, is_deletion) = peek(&key, value.value())?;
        let version = ResourceVersion::new(upright(inverted), index);
        if version > at {
            continue;
        }
        decided = Some(key.clone());
        if is_deletion {
            continue;
        }
        if page.items.len() == request.limit {
            page.remaining += 1;
        } else if let Some(object) = decode(&key, value.value())?.object {
            page.items.push(Stored { key, version, object });
        }
    }
    Ok(page)
}

/// Returns the version a list is taken at, when that state can be read.
fn resolve(at: At, state: State) -> Result<ResourceVersion, StoreError> {
    let At::Exactly(requested) = at else {
        return Ok(state.version());
    };
    if requested > state.version() {
        return Err(StoreError::Future { requested, current: state.version() });
    }
    state.check_readable_after(requested)?;
    Ok(requested)
}

/// Returns the object under a key as of a version.
pub(super) fn stored_at(
    versions: &Versions,
    key: &Key,
    at: ResourceVersion,
) -> Result<Option<Stored>, StoreError> {
    let newest_first = (key.as_str(), inverted(at.revision()))..=(key.as_str(), u64::MAX);
    for entry in versions.range(newest_first).map_err(unavailable)? {
        let (position, value) = entry.map_err(unavailable)?;
        let envelope = decode(key, value.value())?;
        let version = ResourceVersion::new(upright(position.value().1), envelope.index);
        if version <= at {
            return Ok(envelope.object.map(|object| Stored { key: key.clone(), version, object }));
        }
    }
    Ok(None)
}

/// Returns the object under a key just before an event. A batch names each key once, so that is the state
/// before the batch.
pub(super) fn object_before(
    versions: &Versions,
    key: &Key,
    event: ResourceVersion,
) -> Result<Option<Object>, StoreError> {
    let before = ResourceVersion::end_of(event.revision().previous());
    Ok(stored_at(versions, key, before)?.map(|stored| stored.object))
}
