//! How many requests are answered at a time (C227).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::auth::{Attributes, MASTERS, User};
use crate::telemetry::metrics::Metrics;

/// The room for requests that are answered at the same time. Watches have a room of their own, and each user only so
/// much of it. Administrators are not counted: they may have to mend what fills the room.
pub(in crate::api) struct InFlight {
    reading: Kind,
    writing: Kind,
    watching: Arc<Semaphore>,
    watchers: Arc<Watchers>,
}

/// How much may be answered at the same time.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Room {
    pub(in crate::api) reading: usize,
    pub(in crate::api) writing: usize,
    pub(in crate::api) watching: usize,
    pub(in crate::api) watching_per_user: usize,
}

struct Kind {
    room: Arc<Semaphore>,
    gauge: IntGauge,
}

/// How many watches each user has.
struct Watchers {
    counts: Mutex<HashMap<String, usize>>,
    most: usize,
}

/// A place in the room; free again when this is dropped.
pub(super) struct Permit {
    _place: Option<OwnedSemaphorePermit>,
    gauge: Option<IntGauge>,
    watcher: Option<(Arc<Watchers>, String)>,
}

/// There is no room.
pub(super) struct Full;

impl InFlight {
    pub(in crate::api) fn new(metrics: &Metrics, most: Room) -> Self {
        let room = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let kind = |name: &str, most: usize| Kind {
            room: room(most),
            gauge: metrics.inflight.with_label_values(&[name]),
        };
        InFlight {
            reading: kind("readOnly", most.reading),
            writing: kind("mutating", most.writing),
            watching: room(most.watching),
            watchers: Arc::new(Watchers { counts: Mutex::default(), most: most.watching_per_user }),
        }
    }

    /// Gives a request its place.
    pub(super) fn admit(&self, user: Option<&User>, attributes: &Attributes) -> Result<Permit, Full> {
        let is_read = matches!(&*attributes.verb, "get" | "list" | "watch" | "head" | "options");
        let kind = if is_read { &self.reading } else { &self.writing };
        let place = match Arc::clone(&kind.room).try_acquire_owned() {
            Ok(place) => Some(place).filter(|_| !is_exempt(user)),
            Err(_) if is_exempt(user) => None,
            Err(_) => return Err(Full),
        };
        kind.gauge.inc();
        Ok(Permit { _place: place, gauge: Some(kind.gauge.clone()), watcher: None })
    }

    /// Gives a watch its place.
    pub(super) fn admit_watch(&self, user: Option<&User>) -> Result<Permit, Full> {
        if is_exempt(user) {
            return Ok(Permit { _place: None, gauge: None, watcher: None });
        }
        let place = Arc::clone(&self.watching).try_acquire_owned().map_err(|_| Full)?;
        let name = user.map(|user| user.name.clone()).unwrap_or_default();
        self.watchers.enter(&name)?;
        Ok(Permit { _place: Some(place), gauge: None, watcher: Some((Arc::clone(&self.watchers), name)) })
    }
}

impl Watchers {
    fn enter(&self, name: &str) -> Result<(), Full> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.to_owned()).or_default();
        if *count >= self.most {
            return Err(Full);
        }
        *count += 1;
        Ok(())
    }

    fn leave(&self, name: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(name);
            }
        }
    }
}

fn is_exempt(user: Option<&User>) -> bool {
    user.is_some_and(|user| user.groups.iter().any(|group| group == MASTERS))
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gauge) = &self.gauge {
            gauge.dec();
        }
        if let Some((watchers, name)) = &self.watcher {
            watchers.leave(name);
        }
    }
}
