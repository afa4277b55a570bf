//! The store on a disk that fails at each of its steps, and is mended.

use std::io::{self, ErrorKind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use redb::StorageBackend;
use tokio::time::advance;

use super::*;
use crate::store::{At, Object, Operation, Outcome, Tail, WatchItem};

/// A disk in memory.
#[derive(Debug, Default)]
struct Disk {
    content: Mutex<Vec<u8>>,
    fault: Mutex<Fault>,
}

/// What becomes of the operations that a fault is about, counted from 0.
#[derive(Clone, Debug, Default)]
struct Fault {
    done: usize,
    /// These fail.
    fails: std::ops::Range<usize>,
    kind: Option<Kind>,
}

/// What a disk does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Let files become longer.
    Growth,
    /// Take what is written where nothing was before.
    Blocks,
    /// Take anything, for want of room: it keeps what it is to replace.
    Writes,
    /// Anything.
    Anything,
}

/// An operation of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Reading,
    Growing,
    Replacing,
    Adding,
}

#[derive(Debug)]
struct Backend(Arc<Disk>);

impl Disk {
    fn content(&self) -> MutexGuard<'_, Vec<u8>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets some of the operations from now on fail.
    fn fail(&self, kind: Kind, fails: std::ops::Range<usize>) {
        *self.fault.lock().unwrap() = Fault { done: 0, fails, kind: Some(kind) };
    }

    /// Lets nothing fail any more; returns whether anything has failed.
    fn mend(&self) -> bool {
        let fault = std::mem::take(&mut *self.fault.lock().unwrap());
        fault.done > fault.fails.start
    }

    fn operate(&self, doing: Doing) -> io::Result<()> {
        let mut fault = self.fault.lock().unwrap();
        let is_about = |kind: &Kind| match kind {
            Kind::Growth => doing == Doing::Growing,
            Kind::Blocks => doing == Doing::Adding,
            Kind::Writes => doing != Doing::Reading,
            Kind::Anything => true,
        };
        let Some(kind) = fault.kind.filter(is_about) else { return Ok(()) };
        let number = fault.done;
        fault.done += 1;
        match (fault.fails.contains(&number), kind) {
            (false, _) => Ok(()),
            (true, Kind::Anything) => Err(ErrorKind::Other.into()),
            (true, _) => Err(ErrorKind::StorageFull.into()),
        }
    }

    fn open(self: &Arc<Self>) -> Result<Database, DatabaseError> {
        builder().create_with_backend(Backend(Arc::clone(self)))
    }

    fn store(self: &Arc<Self>) -> EmbeddedStore {
        let disk = Arc::clone(self);
        EmbeddedStore::on(self.open().unwrap(), Box::new(move || disk.open())).unwrap()
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.operate(Doing::Reading)?;
        Ok(self.0.content().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.operate(Doing::Reading)?;
        let start = offset as usize;
        out.copy_from_slice(&self.0.content()[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        let mut content = self.0.content();
        self.0.operate(if length > content.len() as u64 { Doing::Growing } else { Doing::Replacing })?;
        content.resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.operate(Doing::Replacing)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let start = offset as usize;
        let mut content = self.0.content();
        let is_new = content[start..start + data.len()].iter().all(|byte| *byte == 0);
        let outcome = self.0.operate(if is_new { Doing::Adding } else { Doing::Replacing });
        // What fails is done half, where it may be.
        let length = match (&outcome, is_new) {
            (Ok(()), _) => data.len(),
            (Err(_), true) => 0,
            (Err(_), false) => data.len() / 2,
        };
        content[start..start + length].copy_from_slice(&data[..length]);
        outcome
    }
}

fn key(number: usize) -> Key {
    Key::new("things", "default", &format!("k{number:03}"))
}

/// So large that files grow by it, and as long however it is packed.
fn create(number: usize) -> Batch {
    let mut state = number as u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let tail = Tail::Plain((0..200_000).map(|_| noise()).collect());
    Batch::of(Operation::create(key(number), Object::cut("{}", tail)))
}

/// Reads what a watch has, up to a key.
async fn watched(watch: &mut WatchStream, last: &Key) -> Vec<(ResourceVersion, Key)> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, key)| key != last) {
        if let WatchItem::Change(change) = watch.next().await.expect("it goes on").expect("it is undisturbed")
        {
            seen.push((change.version, change.key.clone()));
        }
    }
    seen
}

/// Appends in spite of a fault, mends it, and checks that what was said is what is.
async fn survive(kind: Kind, fails: std::ops::Range<usize>) -> bool {
    let place = format!("{kind:?} at {fails:?}");
    let disk = Arc::new(Disk::default());
    let store = disk.store();
    let start = store.current().await.unwrap();
    let mut watch = store.watch(Range::everything(), start).await.unwrap();
    let mut said = Vec::new();
    for number in 0..2 {
        said.push(store.append(create(number)).await);
    }
    disk.fail(kind, fails);
    for number in 2..8 {
        said.push(store.append(create(number)).await);
        advance(Duration::from_millis(300)).await;
        if matches!(kind, Kind::Growth | Kind::Blocks) {
            let read = store.get(&key(1)).await.map(|found| found.is_some());
            assert!(matches!(read, Ok(true)), "{place}: reading goes on, not {read:?}");
            assert!(store.watch(Range::everything(), start).await.is_ok(), "{place}");
        }
    }
    let has_failed = disk.mend();
    advance(Duration::from_secs(11)).await;
    said.push(store.append(create(8)).await);
    assert!(said[8].is_ok(), "{place}: it goes on without being started again, not {:?}", said[8]);

    let seen = watched(&mut watch, &key(8)).await;
    assert!(seen.is_sorted_by(|(a, _), (b, _)| a < b), "{place}: {seen:?}");
    let mut revisions: Vec<_> = seen.iter().map(|(version, _)| version.revision()).collect();
    revisions.dedup();
    assert_eq!(revisions.len(), seen.len(), "{place}: no revision is used twice");
    for (number, said) in said.iter().enumerate() {
        let found = seen.iter().find(|(_, seen)| *seen == key(number));
        match said {
            Ok(revision) => {
                let version = ResourceVersion::new(*revision, 1);
                assert_eq!(found, Some(&(version, key(number))), "{place}");
            }
            Err(error) if error.outcome() == Outcome::DidNotHappen => {
                assert_eq!(found, None, "{place}: {error}")
            }
            Err(_) => {}
        }
    }
    // A process that is started on what is there finds the same.
    let list = |store: EmbeddedStore| async move {
        let all = ListRequest { range: Range::everything(), at: At::Latest, after: None, limit: 100 };
        let page = store.list(all).await.unwrap();
        (page.version, page.items.into_iter().map(|stored| (stored.version, stored.key)).collect::<Vec<_>>())
    };
    let before = list(store).await;
    assert_eq!(before.1, seen, "{place}");
    assert!(watch.next().now_or_never().is_none_or(|rest| rest.is_none_or(|item| item.is_ok())), "{place}");
    assert_eq!(list(disk.store()).await, before, "{place}");
    has_failed
}

/// Survives a fault at each step, and returns how many steps there were.
async fn survive_everywhere(kind: Kind, length: usize) -> usize {
    let mut first = 0;
    while survive(kind, first..first.saturating_add(length)).await {
        first += 1;
    }
    first
}

#[tokio::test(start_paused = true)]
async fn a_disk_may_run_full_at_any_step_and_loses_and_doubles_nothing() {
    for (kind, least) in [(Kind::Growth, 1), (Kind::Blocks, 8), (Kind::Writes, 20)] {
        for length in [1, 2, usize::MAX] {
            let steps = survive_everywhere(kind, length).await;
            assert!(steps >= least, "{kind:?}: {steps}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_may_fail_at_any_step_and_loses_and_doubles_nothing() {
    for length in [1, 7, usize::MAX] {
        let steps = survive_everywhere(Kind::Anything, length).await;
        assert!(steps >= 20, "{steps}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_named_and_not_tried_all_the_time() {
    let disk = Arc::new(Disk::default());
    let store = disk.store();
    disk.fail(Kind::Writes, 0..usize::MAX);
    assert!(matches!(store.append(create(0)).await, Err(StoreError::NoSpace(_))));
    let tried = disk.fault.lock().unwrap().done;
    for _ in 0..10 {
        assert!(matches!(store.append(create(0)).await, Err(StoreError::NoSpace(_))));
    }
    assert_eq!(disk.fault.lock().unwrap().done, tried);
    advance(Duration::from_millis(501)).await;
    assert!(matches!(store.append(create(0)).await, Err(StoreError::NoSpace(_))));
    assert!(disk.fault.lock().unwrap().done > tried);
    disk.mend();
    advance(Duration::from_millis(1001)).await;
    store.append(create(0)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_forgot_what_was_committed_is_not_gone_on_with() {
    let disk = Arc::new(Disk::default());
    let store = disk.store();
    store.append(create(0)).await.unwrap();
    let old = disk.content().clone();
    store.append(create(1)).await.unwrap();
    *disk.content() = old;
    disk.fail(Kind::Anything, 0..1);
    assert!(store.append(create(2)).await.is_err());
    disk.mend();
    for _ in 0..3 {
        advance(Duration::from_secs(11)).await;
        let error = store.append(create(2)).await.unwrap_err();
        assert!(error.to_string().contains("and 3 was committed"), "{error}");
        assert_eq!(error.outcome(), Outcome::DidNotHappen);
        assert!(store.get(&key(0)).await.is_err());
    }
}
