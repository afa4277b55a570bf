//! How a store fails, sorted by what the caller can do about it.

use super::{EnvelopeError, Key, ResourceVersion};

/// What is known about a write that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was written.
    DidNotHappen,
    /// It may have been written; read the keys to find out.
    MayHaveHappened,
}

/// A failed call to a [`Store`](super::Store).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An operation's expectation did not hold. Nothing was written.
    #[error("`{key}` is not in the expected state")]
    Conflict {
        /// The first key whose expectation failed.
        key: Key,
    },
    /// History up to `oldest` is gone.
    #[error("version {requested} is older than the oldest kept, {oldest}")]
    Compacted {
        /// What was asked for.
        requested: ResourceVersion,
        /// The oldest that can still be asked for.
        oldest: ResourceVersion,
    },
    /// The version does not exist yet.
    #[error("version {requested} is newer than the current one, {current}")]
    Future {
        /// What was asked for.
        requested: ResourceVersion,
        /// The newest there is.
        current: ResourceVersion,
    },
    /// One object, or a batch, is larger than the store can take. Nothing was written.
    #[error("`{key}` takes {size} bytes, more than the {limit} a request can hold")]
    TooLarge {
        /// The object.
        key: Key,
        /// Its encoded size in bytes.
        size: usize,
        /// The most bytes there is room for.
        limit: usize,
    },
    /// The batch breaks a rule of [`Store::append`](super::Store::append). Nothing was written.
    #[error("invalid batch: {0}")]
    Invalid(&'static str),
    /// What is stored cannot be read.
    #[error("`{key}` cannot be decoded: {source}")]
    Corrupt {
        /// The object.
        key: Key,
        /// What is wrong with it.
        source: EnvelopeError,
    },
    /// The store cannot be used right now, and what was asked for did not happen.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The connection broke, or time ran out, between the request and its answer.
    #[error("no answer from the store: {0}")]
    Unknown(String),
}

impl StoreError {
    /// Returns what is known about the write that failed with this error.
    pub fn outcome(&self) -> Outcome {
        match self {
            StoreError::Unknown(_) => Outcome::MayHaveHappened,
            _ => Outcome::DidNotHappen,
        }
    }
}
