//! Deletion, at once or when every finalizer is done (C202–C211).

mod options;

use serde_json::{Value, json};

pub(in crate::api) use self::options::DeleteOptions;
use super::{Fields, Place, decode, encode, meta};
use crate::api::status::ApiError;
use crate::resource::now;
use crate::store::{Operation, StoreError, Stored};

/// What became of an object.
pub(in crate::api) enum Deleted {
    /// It is gone.
    Gone {
        /// The uid it had.
        uid: String,
        /// What was there last.
        last: Stored,
    },
    /// It will be when its finalizers are done.
    Pending(Stored),
}

/// Deletes an object.
pub(in crate::api) async fn delete(
    place: &Place<'_>,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, ApiError> {
    let key = place.key(name);
    // As with every change: somebody else may be faster any number of times.
    loop {
        let stored = place.store.get(&key).await?;
        let stored = stored.ok_or_else(|| ApiError::not_found(place.resource, name))?;
        let mut object = decode(&stored)?;
        options.check_preconditions(place.resource, name, &object)?;
        let uid = meta::text(&object, "uid").to_owned();
        let before = meta::finalizers(&object);
        let finalizers = options.finalizers(&before);
        let is_gone = finalizers.is_empty();
        let operation = if is_gone {
            Operation::delete(key.clone(), stored.version)
        } else if meta::is_deleting(&object) && finalizers == before {
            return Ok(Deleted::Pending(stored));
        } else {
            mark(&mut object, finalizers);
            Operation::replace(key.clone(), stored.version, encode(&object))
        };
        match place.commit(operation, options.is_dry_run()).await {
            Ok(_) if is_gone => return Ok(Deleted::Gone { uid, last: stored }),
            Ok(version) => {
                return Ok(Deleted::Pending(Stored { key, version, object: encode(&object) }));
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes an object one that is being deleted (C204).
fn mark(object: &mut Fields, finalizers: Vec<Value>) {
    meta::set(object, "finalizers", Value::from(finalizers));
    if !meta::is_deleting(object) {
        let generation = meta::next_generation(object);
        meta::set(object, "generation", Value::from(generation));
        meta::set(object, "deletionTimestamp", json!(now()));
    }
    meta::set(object, "deletionGracePeriodSeconds", Value::from(0));
}
