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
    /// The lock that the batch was to be committed under is not held any more. Nothing was written.
    #[error("the lock `{lock}` is not held any more")]
    Deposed {
        /// The name of the lock.
        lock: String,
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
    /// The store does not know us, or we may not do this. Nothing was written.
    #[error("the store refuses access: {0}")]
    Denied(String),
    /// The store has no room left. The write that found that out may have been the last to be done; no later one is
    /// until somebody makes room. Reads go on.
    #[error("the store is out of space: {0}")]
    NoSpace(String),
    /// Too few members of the store's cluster are there for it to have a leader. Nothing was written.
    #[error("the store has no leader: {0}")]
    NoLeader(String),
    /// The store cannot be used right now, and what was asked for did not happen.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The connection broke, or time ran out, between the request and its answer.
    #[error("no answer from the store: {0}")]
    Unknown(String),
}

impl StoreError {
    /// Returns what kind of failure it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            StoreError::Conflict { .. } => "Conflict",
            StoreError::Compacted { .. } => "Compacted",
            StoreError::Future { .. } => "Future",
            StoreError::TooLarge { .. } => "TooLarge",
            StoreError::Deposed { .. } => "Deposed",
            StoreError::Invalid(_) => "Invalid",
            StoreError::Corrupt { .. } => "Corrupt",
            StoreError::Denied(_) => "Denied",
            StoreError::NoSpace(_) => "NoSpace",
            StoreError::NoLeader(_) => "NoLeader",
            StoreError::Unavailable(_) => "Unavailable",
            StoreError::Unknown(_) => "Unknown",
        }
    }

    /// Returns what is known about the write that failed with this error.
    pub fn outcome(&self) -> Outcome {
        match self {
            StoreError::Unknown(_) | StoreError::NoSpace(_) => Outcome::MayHaveHappened,
            _ => Outcome::DidNotHappen,
        }
    }
}
