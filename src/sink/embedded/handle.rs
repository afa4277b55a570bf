//! The open database, and how it is opened anew: after an error of the disk, redb reads and writes nothing more until it is
//! closed.
//!
//! Whoever finds the database like that closes and opens it again, and what the file holds by then is the truth: a batch
//! that was not answered is in it, or never will be. Reading goes on at once, also while a disk is full. Writing is tried
//! again after a pause, and until then refused without being tried.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use redb::{Database, DatabaseError, ReadableDatabase};
use tokio::sync::watch as notify;
use tokio::time::Instant;

use super::tables::{State, unavailable};
use crate::store::{Revision, StoreError};

/// The first pause after a write that the disk did not take, and the last: each further one is twice as long.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Opens the database of the same file, or of the same memory.
pub(super) type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// A database that is opened anew when it has failed.
pub(super) struct Handle {
    open: Open,
    database: RwLock<Opened>,
    /// The newest revision; watchers wait on it.
    latest: notify::Sender<Revision>,
    trouble: Mutex<Option<Trouble>>,
}

enum Opened {
    Yes(Database),
    /// It could not be opened again. That is tried by whoever needs it, but not before a time.
    No {
        error: StoreError,
        next: Instant,
    },
}

/// A disk that does not take what is written.
struct Trouble {
    since: Instant,
    /// Nothing is written before.
    next: Instant,
    pause: Duration,
    error: StoreError,
}

impl Handle {
    /// Takes an open database, and how to open it again.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when it cannot be read.
    pub(super) fn new(database: Database, open: Open) -> Result<Self, StoreError> {
        let latest = notify::Sender::new(revision(&database)?);
        Ok(Handle { open, database: RwLock::new(Opened::Yes(database)), latest, trouble: Mutex::default() })
    }

    /// Returns what tells of revisions that are newer than the last one that it told of.
    pub(super) fn subscribe(&self) -> notify::Receiver<Revision> {
        self.latest.subscribe()
    }

    /// Tells watchers of a revision. Appends are serialised by the database, their notices are not: the newest wins.
    pub(super) fn advance(&self, revision: Revision) {
        self.latest.send_if_modified(|latest| {
            let is_newer = revision > *latest;
            *latest = revision.max(*latest);
            is_newer
        });
    }

    /// Reads; once more, where the database had failed and could be opened again.
    ///
    /// # Errors
    ///
    /// Those of the work; [`StoreError::Unavailable`] while the database cannot be opened.
    pub(super) fn read<T>(&self, work: impl Fn(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let outcome = match self.run(&work) {
            Err(error) if self.has_failed(&error) => {
                self.reopen();
                self.run(&work)
            }
            outcome => outcome,
        };
        // Room is what writers lack.
        outcome.map_err(|error| match error {
            StoreError::NoSpace(reason) => StoreError::Unavailable(reason),
            error => error,
        })
    }

    /// Writes, unless the disk refused to take something a short while ago.
    ///
    /// # Errors
    ///
    /// Those of the work; [`StoreError::NoSpace`] or [`StoreError::Unavailable`] when it is not tried.
    pub(super) fn write<T>(
        &self,
        work: impl Fn(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check()?;
        if matches!(*self.opened(), Opened::No { .. }) {
            self.reopen();
        }
        let outcome = self.run(&work);
        match &outcome {
            Ok(_) => self.settle(),
            Err(error) if self.has_failed(error) => {
                self.note(error);
                self.reopen();
            }
            Err(_) => {}
        }
        outcome
    }

    fn run<T>(&self, work: impl Fn(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &*self.opened() {
            Opened::Yes(database) => work(database),
            Opened::No { error, .. } => Err(same(error)),
        }
    }

    /// Returns whether an error is one after which the database has to be opened anew.
    fn has_failed(&self, error: &StoreError) -> bool {
        let may_be =
            matches!(error, StoreError::Unavailable(_) | StoreError::Unknown(_) | StoreError::NoSpace(_));
        may_be && has_failed(&self.opened())
    }

    fn reopen(&self) {
        let mut opened = self.opened_exclusively();
        let is_early = matches!(&*opened, Opened::No { next, .. } if Instant::now() < *next);
        if is_early || !has_failed(&opened) {
            // Somebody else did, or tried.
            return;
        }
        let closed = |error| Opened::No { error, next: Instant::now() + PAUSES.0 };
        // First it is closed: whoever has it open has locked the file.
        *opened = closed(StoreError::Unavailable("the database is being opened again".to_owned()));
        *opened = match self.open_again() {
            Ok(database) => {
                tracing::info!("the database was opened again after an error of the disk");
                Opened::Yes(database)
            }
            Err(error) => {
                tracing::error!(%error, "the database cannot be opened again");
                closed(error)
            }
        };
    }

    fn open_again(&self) -> Result<Database, StoreError> {
        let database = (self.open)().map_err(unavailable)?;
        let (found, known) = (revision(&database)?, *self.latest.borrow());
        if found < known {
            // Who goes on from here would give the same revisions to other events.
            let reason = format!("the disk holds revision {found}, and {known} was committed");
            return Err(StoreError::Unavailable(reason));
        }
        self.advance(found);
        Ok(database)
    }

    /// Refuses to write for a while after the disk has not taken something.
    fn check(&self) -> Result<(), StoreError> {
        let trouble = self.trouble();
        match trouble.as_ref().filter(|trouble| Instant::now() < trouble.next) {
            Some(trouble) => Err(same(&trouble.error)),
            None => Ok(()),
        }
    }

    fn note(&self, error: &StoreError) {
        let mut trouble = self.trouble();
        let pause = trouble.as_ref().map_or(PAUSES.0, |before| (before.pause * 2).min(PAUSES.1));
        let since = trouble.as_ref().map_or_else(Instant::now, |before| before.since);
        if trouble.is_none() {
            tracing::error!(%error, "the disk does not take what is written; it is tried again");
        } else {
            tracing::warn!(%error, pause = ?pause, "the disk still does not take what is written");
        }
        *trouble = Some(Trouble { since, next: Instant::now() + pause, pause, error: same(error) });
    }

    fn settle(&self) {
        if let Some(trouble) = self.trouble().take() {
            tracing::info!(
                seconds = trouble.since.elapsed().as_secs(),
                "the disk takes what is written again"
            );
        }
    }

    fn opened(&self) -> RwLockReadGuard<'_, Opened> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened_exclusively(&self) -> RwLockWriteGuard<'_, Opened> {
        self.database.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the error of a call that is not made because another one failed: it did not happen.
fn same(error: &StoreError) -> StoreError {
    match error {
        StoreError::NoSpace(reason) => StoreError::NoSpace(reason.clone()),
        StoreError::Unknown(reason) | StoreError::Unavailable(reason) => {
            StoreError::Unavailable(reason.clone())
        }
        error => StoreError::Unavailable(error.to_string()),
    }
}

/// Returns whether a database does nothing any more. redb says so to whoever begins to write.
fn has_failed(opened: &Opened) -> bool {
    match opened {
        Opened::Yes(database) => database.begin_write().is_err(),
        Opened::No { .. } => true,
    }
}

fn revision(database: &Database) -> Result<Revision, StoreError> {
    Ok(State::read(&database.begin_read().map_err(unavailable)?)?.revision)
}
