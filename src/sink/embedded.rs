//! The store in one file, or in memory: the same implementation on two backends of redb.
//!
//! What comes in: batches. What is kept: every version of every object since the last compaction (`VERSIONS`,
//! newest first within a key) and the log that names them in order (`EVENTS`). A commit is durable before it is
//! answered, so a killed process loses nothing that was acknowledged, and a half-written batch is never seen.
//! One process at a time: redb locks its file.

mod read;
mod tables;
mod watch;
mod write;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{Builder, Database, Durability, ReadableDatabase};
use tokio::sync::watch as notify;

use self::tables::{EVENTS, STATE, VERSIONS};
use crate::store::{
    Batch, Key, ListRequest, Page, Range, ResourceVersion, Revision, Store, StoreError, Stored,
    WatchStream,
};

/// redb's page cache. Objects are read once per watcher or list, so a small one is enough.
const CACHE_BYTES: usize = 16 << 20;

/// A [`Store`] on redb.
pub struct EmbeddedStore {
    database: Arc<Database>,
    /// The newest revision; watchers wait on it.
    latest: notify::Sender<Revision>,
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
        let failed = |reason: String| OpenError::Failed {
            path: path.display().to_string(),
            reason,
        };
        restrict_to_owner(path).map_err(|error| failed(error.to_string()))?;
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => {
                    OpenError::InUse(path.display().to_string())
                }
                error => failed(error.to_string()),
            })?;
        Self::on(database).map_err(|error| failed(error.to_string()))
    }

    /// Creates a store that lives in memory and ends with the process.
    ///
    /// # Errors
    ///
    /// [`OpenError::Failed`] when memory runs out.
    pub fn in_memory() -> Result<Self, OpenError> {
        let failed = |reason: String| OpenError::Failed {
            path: "memory".to_owned(),
            reason,
        };
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .map_err(|error| failed(error.to_string()))?;
        Self::on(database).map_err(|error| failed(error.to_string()))
    }

    fn on(database: Database) -> Result<Self, StoreError> {
        let mut write = database.begin_write().map_err(tables::unavailable)?;
        write
            .set_durability(Durability::Immediate)
            .map_err(tables::unavailable)?;
        write.open_table(VERSIONS).map_err(tables::unavailable)?;
        write.open_table(EVENTS).map_err(tables::unavailable)?;
        write.open_table(STATE).map_err(tables::unavailable)?;
        write.commit().map_err(tables::unavailable)?;
        let revision =
            tables::State::read(&database.begin_read().map_err(tables::unavailable)?)?.revision;
        Ok(EmbeddedStore {
            database: Arc::new(database),
            latest: notify::Sender::new(revision),
        })
    }

    /// Runs a piece of work that blocks on the disk, away from the threads that serve.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        tokio::task::spawn_blocking(move || work(&database))
            .await
            .map_err(|error| StoreError::Unknown(error.to_string()))?
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError> {
        let revision = self
            .blocking(move |database| write::append(database, &batch))
            .await?;
        // Appends are serialised by the database, their notices are not: the newest wins.
        self.latest.send_if_modified(|latest| {
            let newer = revision > *latest;
            *latest = revision.max(*latest);
            newer
        });
        Ok(revision)
    }

    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
        let keys = keys.to_vec();
        self.blocking(move |database| read::read(database, &keys))
            .await
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        self.blocking(move |database| read::list(database, &request))
            .await
    }

    async fn watch(&self, range: Range, after: ResourceVersion) -> Result<WatchStream, StoreError> {
        self.blocking(move |database| watch::check(database, after))
            .await?;
        Ok(watch::open(
            Arc::clone(&self.database),
            self.latest.subscribe(),
            range,
            after,
        ))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.blocking(move |database| write::compact(database, revision))
            .await
    }
}

/// Creates the file, if it is not there, so that nobody else can read what is written to it.
#[cfg(unix)]
fn restrict_to_owner(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}
