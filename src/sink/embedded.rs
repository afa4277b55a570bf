//! The store in one file, or in memory: the same implementation on two backends of redb.
//!
//! What comes in: batches. What is kept: every version of every object since the last compaction (`VERSIONS`,
//! newest first within a key) and the log that names them in order (`EVENTS`). A commit is durable before it is
//! answered, so a killed process loses nothing that was acknowledged, and a half-written batch is never seen.
//! One process at a time: redb locks its file.

mod handle;
mod locks;
mod read;
mod tables;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{Builder, Database, DatabaseError, Durability};

use self::handle::{Handle, Open};
use self::locks::LockTable;
use self::tables::{EVENTS, STATE, VERSIONS};
use crate::store::{
    Batch, Key, ListRequest, Lock, Locks, Page, Range, ResourceVersion, Revision, Store, StoreError, Stored,
    WatchStream,
};

/// redb's page cache. Objects are read once per watcher or list, so a small one is enough.
const CACHE_BYTES: usize = 16 << 20;

/// A [`Store`] on redb.
pub struct EmbeddedStore {
    handle: Arc<Handle>,
    locks: Arc<LockTable>,
}

/// A database that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("`{0}` is in use by another process")]
    InUse(String),
    /// It cannot be opened or is not ours.
    #[error("cannot open `{path}`: {reason}")]
    Failed {
        /// The file.
        path: String,
        /// What went wrong.
        reason: String,
    },
}

impl EmbeddedStore {
    /// Opens or creates the database file, readable by its owner only.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when another process has it open, or it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |reason: String| OpenError::Failed { path: path.display().to_string(), reason };
        restrict_to_owner(path).map_err(|error| failed(error.to_string()))?;
        let database = builder().create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.display().to_string()),
            error => failed(error.to_string()),
        })?;
        let path = path.to_owned();
        // A file that is gone by then is not replaced by an empty one.
        let again = move || builder().open(&path);
        Self::on(database, Box::new(again)).map_err(|error| failed(error.to_string()))
    }

    /// Creates a store that lives in memory and ends with the process.
    ///
    /// # Errors
    ///
    /// [`OpenError::Failed`] when memory runs out.
    pub fn in_memory() -> Result<Self, OpenError> {
        let failed = |reason: String| OpenError::Failed { path: "memory".to_owned(), reason };
        let database = builder()
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .map_err(|error| failed(error.to_string()))?;
        let never = || Err(DatabaseError::RepairAborted);
        Self::on(database, Box::new(never)).map_err(|error| failed(error.to_string()))
    }

    /// Makes what a new database lacks.
    fn on(database: Database, open_again: Open) -> Result<Self, StoreError> {
        let mut write = database.begin_write().map_err(tables::unavailable)?;
        write.set_durability(Durability::Immediate).map_err(tables::unavailable)?;
        write.open_table(VERSIONS).map_err(tables::unavailable)?;
        write.open_table(EVENTS).map_err(tables::unavailable)?;
        write.open_table(STATE).map_err(tables::unavailable)?;
        write.commit().map_err(tables::unavailable)?;
        Ok(EmbeddedStore { handle: Arc::new(Handle::new(database, open_again)?), locks: Arc::default() })
    }

    /// Reads, away from the threads that serve: that blocks on the disk.
    async fn reading<T: Send + 'static>(
        &self,
        work: impl Fn(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let handle = Arc::clone(&self.handle);
        tokio::task::spawn_blocking(move || handle.read(work))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    /// Writes, away from the threads that serve.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl Fn(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let handle = Arc::clone(&self.handle);
        tokio::task::spawn_blocking(move || handle.write(work))
            .await
            .map_err(|error| StoreError::Unknown(error.to_string()))?
    }
}

/// Returns how databases are opened.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError> {
        let _held = self.locks.keep(batch.fence.as_ref()).await?;
        let revision = self.writing(move |database| write::append(database, &batch)).await?;
        self.handle.advance(revision);
        Ok(revision)
    }

    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
        let keys = keys.to_vec();
        self.reading(move |database| read::read(database, &keys)).await
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        self.reading(move |database| read::list(database, &request)).await
    }

    async fn watch(&self, range: Range, after: ResourceVersion) -> Result<WatchStream, StoreError> {
        self.reading(move |database| watch::check(database, after)).await?;
        Ok(watch::open(&self.handle, range, after))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.writing(move |database| write::compact(database, revision)).await
    }
}

#[async_trait]
impl Locks for EmbeddedStore {
    async fn acquire(&self, name: &str) -> Result<Lock, StoreError> {
        Ok(self.locks.acquire(name).await)
    }
}

/// Creates the file, if it is not there, so that nobody else can read what is written to it.
#[cfg(unix)]
fn restrict_to_owner(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}
