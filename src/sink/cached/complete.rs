//! Fetching the tails that are not held.

use std::collections::HashMap;

use super::memory::Memory;
use crate::store::{self, Key, Object, Past, ResourceVersion, Store, StoreError, Stored, Tail};

/// Returns objects with their tails. Those that are still the current ones are read together.
pub(super) async fn complete(
    inner: &dyn Store,
    memory: &Memory,
    wanted: &[Stored],
) -> Result<Vec<Object>, StoreError> {
    let is_deferred = |stored: &&Stored| *stored.object.tail() == Tail::Deferred;
    let keys: Vec<Key> = wanted.iter().filter(is_deferred).map(|stored| stored.key.clone()).collect();
    let current: HashMap<Key, Stored> = match keys.is_empty() {
        true => HashMap::new(),
        false => {
            let found = inner.read(&keys).await?;
            found.into_iter().flatten().map(|stored| (stored.key.clone(), stored)).collect()
        }
    };
    let mut past = Past::of(inner);
    let mut found = Vec::with_capacity(wanted.len());
    for stored in wanted {
        found.push(match current.get(&stored.key) {
            _ if !is_deferred(&stored) => stored.clone(),
            Some(found) if is_whole_of(found, stored) => found.clone(),
            _ => of_the_past(&mut past, stored).await?,
        });
    }
    let dictionary = |key: &Key| memory.held(key);
    store::complete_all(inner, dictionary, &found).await
}

fn is_whole_of(found: &Stored, stored: &Stored) -> bool {
    found.version == stored.version && found.object.head() == stored.object.head()
}

/// Reads an object of the past: as it was right after the event, or, when it is the object that the event replaced or
/// removed, right before.
async fn of_the_past(past: &mut Past<'_, dyn Store>, stored: &Stored) -> Result<Stored, StoreError> {
    let mut oldest = stored.version;
    for at in [stored.version, ResourceVersion::end_of(stored.version.revision().previous())] {
        let (found, read_at) = past.read(&stored.key, at).await?;
        let is_whole_of =
            |found: &Stored| found.version <= stored.version && found.object.head() == stored.object.head();
        if let Some(found) = found.filter(is_whole_of) {
            return Ok(found);
        }
        oldest = oldest.max(read_at);
    }
    Err(match oldest > stored.version {
        true => StoreError::Compacted { requested: stored.version, oldest },
        false => {
            StoreError::Unavailable(format!("`{}` is not what it was at {}", stored.key, stored.version))
        }
    })
}
