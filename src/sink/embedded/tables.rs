//! The tables, and the few numbers beside them.

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition};

use crate::store::{Envelope, EnvelopeError, Key, ResourceVersion, Revision, StoreError};

/// (key, inverted revision) → envelope. Inverted, so that the newest version of a key comes first.
pub(super) const VERSIONS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("versions");

/// (revision, index) → key: the log.
pub(super) const EVENTS: TableDefinition<(u64, u16), &str> = TableDefinition::new("events");

/// The numbers of [`State`].
pub(super) const STATE: TableDefinition<&str, u64> = TableDefinition::new("state");

/// Where the log stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// The newest revision.
    pub(super) revision: Revision,
    /// The last event that compaction dropped; everything after it can be read.
    pub(super) compacted: ResourceVersion,
}

impl State {
    const REVISION: &'static str = "revision";
    const COMPACTED: &'static str = "compacted";

    pub(super) fn read(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Self::from_table(&transaction.open_table(STATE).map_err(unavailable)?)
    }

    pub(super) fn from_table(table: &impl ReadableTable<&'static str, u64>) -> Result<Self, StoreError> {
        let number = |name| -> Result<Option<u64>, StoreError> {
            Ok(table.get(name).map_err(unavailable)?.map(|guard| guard.value()))
        };
        Ok(State {
            revision: number(Self::REVISION)?.map_or(Revision::FIRST, Revision::new),
            compacted: number(Self::COMPACTED)?.map(ResourceVersion::from_u64).unwrap_or_default(),
        })
    }

    pub(super) fn write(self, table: &mut redb::Table<&'static str, u64>) -> Result<(), StoreError> {
        table.insert(Self::REVISION, self.revision.get()).map_err(unavailable)?;
        table.insert(Self::COMPACTED, self.compacted.get()).map_err(unavailable)?;
        Ok(())
    }

    /// The newest version there is.
    pub(super) fn version(self) -> ResourceVersion {
        ResourceVersion::end_of(self.revision)
    }

    /// Refuses to go on from a version whose later events are not all there.
    pub(super) fn check_readable_after(self, after: ResourceVersion) -> Result<(), StoreError> {
        if after < self.compacted {
            return Err(StoreError::Compacted { requested: after, oldest: self.compacted });
        }
        Ok(())
    }
}

/// Orders the versions of a key newest first.
pub(super) fn inverted(revision: Revision) -> u64 {
    u64::MAX - revision.get()
}

/// Undoes [`inverted`].
pub(super) fn upright(inverted: u64) -> Revision {
    Revision::new(u64::MAX - inverted)
}

pub(super) fn parse_key(text: &str) -> Result<Key, StoreError> {
    Key::parse(text).map_err(|error| StoreError::Unavailable(error.to_string()))
}

pub(super) fn decode(key: &Key, value: &[u8]) -> Result<Envelope, StoreError> {
    Envelope::decode(&Bytes::copy_from_slice(value)).map_err(|source| corrupt(key, source))
}

pub(super) fn peek(key: &Key, value: &[u8]) -> Result<(u16, bool), StoreError> {
    Envelope::peek(value).map_err(|source| corrupt(key, source))
}

fn corrupt(key: &Key, source: EnvelopeError) -> StoreError {
    StoreError::Corrupt { key: key.clone(), source }
}

/// An error of the database before anything was committed.
pub(super) fn unavailable(error: impl Into<redb::Error>) -> StoreError {
    full(error.into()).unwrap_or_else(StoreError::Unavailable)
}

/// An error of a commit: what is on the disk nobody knows before it is opened again.
pub(super) fn unknown(error: redb::CommitError) -> StoreError {
    full(error.into()).unwrap_or_else(StoreError::Unknown)
}

/// Returns the error of a disk without room, or else what the error says.
fn full(error: redb::Error) -> Result<StoreError, String> {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let is_full = matches!(&error, redb::Error::Io(error)
        if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge));
    if is_full { Ok(StoreError::NoSpace(error.to_string())) } else { Err(error.to_string()) }
}
