//! The audit log: who asked for what, and what became of it (C291, C292). One line of JSON an event, in the form of
//! audit.k8s.io/v1.
//!
//! Events are queued as they happen, bounded by bytes; whoever made the log writes them away. An event that finds the
//! queue full is counted and lost: a request does not wait for the log.

mod record;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;
use axum::http::request::Parts;
use tokio::sync::mpsc;

pub(super) use self::record::Record;
use super::auth::Attributes;
use crate::telemetry::metrics::Metrics;

/// Bytes of events that wait to be written.
const MAX_QUEUED: usize = 32 << 20;

/// Bytes of a body that an event repeats; a longer one is left out.
const MAX_COPIED: usize = 3 << 20;

/// How much is noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Level {
    /// Nothing.
    None,
    /// Who asked for what, when, and what the answer was.
    #[default]
    Metadata,
    /// And what was sent with the request.
    Request,
    /// And what was answered.
    RequestResponse,
}

/// Where the API notes what happens.
#[derive(Clone)]
pub struct Audit {
    level: Level,
    queue: mpsc::UnboundedSender<String>,
    queued: Arc<AtomicUsize>,
}

/// The events that were noted, in order.
pub struct AuditEvents {
    queue: mpsc::UnboundedReceiver<String>,
    queued: Arc<AtomicUsize>,
}

impl Audit {
    /// Begins a log.
    pub fn new(level: Level) -> (Self, AuditEvents) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let events = AuditEvents { queue: receiver, queued: Arc::clone(&queued) };
        (Audit { level, queue: sender, queued }, events)
    }

    /// Begins the record of a request; there is none where nothing is noted.
    pub(super) fn begin(
        &self,
        metrics: &Arc<Metrics>,
        id: &HeaderValue,
        parts: &Parts,
        attributes: &Attributes,
    ) -> Option<Box<Record>> {
        let log = Log { audit: self.clone(), metrics: Arc::clone(metrics) };
        (self.level > Level::None).then(|| Box::new(Record::begin(log, id, parts, attributes)))
    }
}

impl AuditEvents {
    /// Waits for the next event and returns it as a line without its end; none when the API is gone.
    pub async fn next(&mut self) -> Option<String> {
        let event = self.queue.recv().await?;
        self.queued.fetch_sub(event.len(), Ordering::Relaxed);
        Some(event)
    }

    /// Returns whether nothing waits to be read.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Where a record goes.
struct Log {
    audit: Audit,
    metrics: Arc<Metrics>,
}

impl Log {
    fn write(&self, event: String) {
        let size = event.len();
        let queued = self.audit.queued.fetch_add(size, Ordering::Relaxed);
        if queued + size <= MAX_QUEUED && self.audit.queue.send(event).is_ok() {
            self.metrics.audit_events.inc();
        } else {
            self.audit.queued.fetch_sub(size, Ordering::Relaxed);
            self.metrics.audit_errors.inc();
        }
    }
}

/// What was read along from a body; nothing when it became too long.
#[derive(Clone, Default)]
pub(super) struct Copied(Arc<Mutex<Option<Vec<u8>>>>);

impl Copied {
    fn new() -> Self {
        Copied(Arc::new(Mutex::new(Some(Vec::new()))))
    }

    pub(super) fn push(&self, data: &[u8]) {
        let mut copied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = copied.as_ref().is_some_and(|copied| copied.len() + data.len() <= MAX_COPIED);
        match &mut *copied {
            Some(copied) if fits => copied.extend_from_slice(data),
            copied => *copied = None,
        }
    }

    fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|copied| !copied.is_empty())
    }
}
