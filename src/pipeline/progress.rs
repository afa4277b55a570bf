//! How far an ingest is, for whoever wants to show it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that the stages raise and anybody may read. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    total_bytes: AtomicU64,
    metas: AtomicU64,
    events: AtomicU64,
}

impl Progress {
    /// Counts bytes that were read from the image.
    pub fn add_bytes(&self, count: u64) {
        self.0.bytes.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets how many bytes there are to read.
    pub fn set_total_bytes(&self, count: u64) {
        self.0.total_bytes.store(count, Ordering::Relaxed);
    }

    /// Takes bytes off those there are to read: they turned out not to be needed.
    pub fn skip_bytes(&self, count: u64) {
        self.0.total_bytes.fetch_sub(count, Ordering::Relaxed);
    }

    /// Counts a meta that was read.
    pub fn add_meta(&self) {
        self.0.metas.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts events that were committed.
    pub fn add_events(&self, count: u64) {
        self.0.events.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the bytes read so far, as transferred.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Returns the bytes there are to read; 0 while that is not known.
    pub fn total_bytes(&self) -> u64 {
        self.0.total_bytes.load(Ordering::Relaxed)
    }

    /// Returns the metas read so far.
    pub fn metas(&self) -> u64 {
        self.0.metas.load(Ordering::Relaxed)
    }

    /// Returns the events committed so far.
    pub fn events(&self) -> u64 {
        self.0.events.load(Ordering::Relaxed)
    }
}
