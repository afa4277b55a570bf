//! The connections of a server: how many there may be, and which one has to go when there is no room for another.
//!
//! Whoever can reach the port can open connections, so that a limit alone would let strangers keep out the probes of a
//! kubelet and the kube-apiserver. Therefore a connection gives way to a new one: first those on which nobody has said who
//! they are, then those on which nothing is being answered; of these, those that were not used for the longest time. One
//! that is in use by somebody who is known is never closed for another; how many can be is limited by requests and watches.
//! There is no limit for each address, because many clients may have one: those behind a proxy or a translation of
//! addresses.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics::Metrics;

/// How long a connection that has to go is waited for. It has nothing left to do.
const LEAVING: Duration = Duration::from_secs(1);

/// How long a connection may be without a request before the first one, and after each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    pub(super) first: Duration,
    pub(super) next: Duration,
}

/// All connections.
pub(super) struct Connections {
    most: usize,
    places: Arc<Semaphore>,
    register: Mutex<Register>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Register {
    /// Counts up with every change, so that what is smaller was earlier.
    now: u64,
    open: HashMap<u64, Entry>,
    /// Those that may have to go, in the order in which they do.
    ranks: BTreeSet<Rank>,
}

/// Who has to go, when the connection was last used, and its number.
type Rank = (Standing, u64, u64);

/// Who has to go, the first ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    IdleStranger,
    Stranger,
    Idle,
}

struct Entry {
    requests: usize,
    is_known: bool,
    is_evicted: bool,
    /// Where it is among those that may have to go, if it is.
    rank: Option<Rank>,
    /// When its last request ended.
    since: Instant,
    is_used: bool,
    evicted: CancellationToken,
}

/// A connection's place; free again when this is dropped.
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
    evicted: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// A connection is in use until every copy of this is dropped; an extension of its requests.
#[derive(Clone)]
pub(in crate::api) struct InUse(Arc<Request>);

struct Request {
    connections: Arc<Connections>,
    number: u64,
}

impl Connections {
    /// Makes room for so many.
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        // As many as can be waited for at once.
        let most = most.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Arc::new(Connections {
            most,
            places: Arc::new(Semaphore::new(most)),
            register: Mutex::default(),
            metrics,
        })
    }

    /// Gives a new connection a place, if need be that of another one; none when all are in use.
    pub(super) async fn enter(self: &Arc<Self>) -> Option<Place> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) if self.evict() => {
                timeout(LEAVING, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()
            }
            Err(_) => None,
        };
        let Some(permit) = permit else {
            self.metrics.connections_dropped.with_label_values(&["refused"]).inc();
            return None;
        };
        self.metrics.connections.inc();
        let (number, evicted) = self.register().enter();
        Some(Place { connections: Arc::clone(self), number, evicted, _permit: permit })
    }

    /// Waits until there are none.
    pub(super) async fn empty(&self) {
        // It is never closed, and there are as many places as are asked for.
        let _ = self.places.acquire_many(u32::try_from(self.most).unwrap_or(u32::MAX)).await;
    }

    /// Tells a connection to go; returns whether there is one that may be told so.
    fn evict(&self) -> bool {
        let Some(evicted) = self.register().first_to_go() else { return false };
        self.metrics.connections_dropped.with_label_values(&["evicted"]).inc();
        evicted.cancel();
        true
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Register {
    fn enter(&mut self) -> (u64, CancellationToken) {
        let (number, evicted) = (self.now + 1, CancellationToken::new());
        let entry = Entry {
            requests: 0,
            is_known: false,
            is_evicted: false,
            rank: None,
            since: Instant::now(),
            is_used: false,
            evicted: evicted.clone(),
        };
        self.open.insert(number, entry);
        self.change(number, |_| {});
        (number, evicted)
    }

    fn leave(&mut self, number: u64) {
        if let Some(rank) = self.open.remove(&number).and_then(|entry| entry.rank) {
            self.ranks.remove(&rank);
        }
    }

    /// Changes an entry, and puts it where it then belongs.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Entry)) {
        self.now += 1;
        let Some(entry) = self.open.get_mut(&number) else { return };
        change(entry);
        let standing = match (entry.is_known, entry.requests) {
            _ if entry.is_evicted => None,
            (false, 0) => Some(Standing::IdleStranger),
            (false, _) => Some(Standing::Stranger),
            (true, 0) => Some(Standing::Idle),
            (true, _) => None,
        };
        if let Some(rank) = entry.rank.take() {
            self.ranks.remove(&rank);
        }
        entry.rank = standing.map(|standing| (standing, self.now, number));
        self.ranks.extend(entry.rank);
    }

    fn begin(&mut self, number: u64) {
        self.change(number, |entry| {
            entry.requests += 1;
            entry.is_used = true;
        });
    }

    fn end(&mut self, number: u64) {
        self.change(number, |entry| {
            entry.requests -= 1;
            entry.since = Instant::now();
        });
    }

    fn first_to_go(&mut self) -> Option<CancellationToken> {
        let (.., number) = *self.ranks.first()?;
        self.change(number, |entry| entry.is_evicted = true);
        self.open.get(&number).map(|entry| entry.evicted.clone())
    }
}

impl Place {
    /// Notes that a request is being answered.
    pub(super) fn used(&self) -> InUse {
        self.connections.register().begin(self.number);
        InUse(Arc::new(Request { connections: Arc::clone(&self.connections), number: self.number }))
    }

    /// Waits until the connection has to go for another one.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Waits until the connection was without a request for too long.
    pub(super) async fn idle(&self, limit: Idle) {
        loop {
            let until = match self.connections.register().open.get(&self.number) {
                Some(entry) if entry.requests > 0 => Instant::now() + limit.next,
                Some(entry) => entry.since + if entry.is_used { limit.next } else { limit.first },
                None => return,
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

impl InUse {
    /// Notes that whoever sends requests has said who they are.
    pub(in crate::api) fn is_known(&self) {
        self.0.connections.register().change(self.0.number, |entry| entry.is_known = true);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.connections.register().end(self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.register().leave(self.number);
        self.connections.metrics.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Idle = Idle { first: Duration::from_secs(32), next: Duration::from_secs(90) };

    fn connections(most: usize) -> Arc<Connections> {
        Connections::new(most, Metrics::new())
    }

    /// Leaves as soon as it has to, as a connection does.
    fn leaves(place: Place) {
        tokio::spawn(async move { place.evicted().await });
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_go_first_then_whoever_was_idle_longest() {
        let connections = connections(4);
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(connections.enter().await.unwrap());
        }
        // The first is known and was used last, the second is known, the third is in use by a stranger, and the fourth did
        // nothing yet.
        for number in [1, 0] {
            places[number].used().is_known();
        }
        let _stranger = places[2].used();
        let tokens: Vec<_> = places.iter().map(|place| place.evicted.clone()).collect();
        places.into_iter().for_each(leaves);
        let (mut entered, mut expected) = (Vec::new(), Vec::new());
        for goes in [3, 2, 1, 0] {
            let place = connections.enter().await.unwrap();
            expected.insert(0, goes);
            let gone: Vec<_> = (0..4).filter(|number| tokens[*number].is_cancelled()).collect();
            expected.sort_unstable();
            assert_eq!(gone, expected);
            // The new ones are in use by somebody, so that the old ones have to go.
            let request = place.used();
            request.is_known();
            entered.push((place, request));
        }
        assert!(connections.enter().await.is_none(), "all are in use");
        let (place, request) = entered.remove(0);
        drop(request);
        leaves(place);
        assert!(connections.enter().await.is_some());
        let dropped = |reason| connections.metrics.connections_dropped.with_label_values(&[reason]).get();
        assert_eq!((dropped("evicted"), dropped("refused")), (5, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_has_so_long_and_no_longer() {
        let connections = connections(1);
        let place = connections.enter().await.unwrap();
        let start = Instant::now();
        place.idle(IDLE).await;
        assert_eq!(start.elapsed(), IDLE.first);
        let request = place.used();
        let start = Instant::now();
        assert!(timeout(IDLE.next * 10, place.idle(IDLE)).await.is_err(), "it is in use");
        drop(request);
        let end = start.elapsed();
        place.idle(IDLE).await;
        assert_eq!(start.elapsed(), end + IDLE.next);
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_waited_for() {
        let connections = connections(2);
        connections.empty().await;
        let place = connections.enter().await.unwrap();
        assert!(timeout(Duration::from_secs(1), connections.empty()).await.is_err());
        drop(place);
        connections.empty().await;
        assert_eq!(connections.metrics.connections.get(), 0);
    }
}
