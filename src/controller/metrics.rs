//! What is counted of ingests.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::attempt::{AttemptError, Came};
use super::status::reason;
use crate::model::CatalogSourceStatus;
use crate::pipeline::Report;
use crate::telemetry::metrics::{names, register};

/// Seconds: from a poll to an ingest that is given up.
const DURATIONS: &[f64] =
    &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0];

/// What is counted of ingests, shared by all workers of a process.
pub struct IngestMetrics {
    attempts: IntCounterVec,
    failures: IntCounterVec,
    durations: HistogramVec,
    pub(super) running: IntGauge,
    bytes: IntCounter,
    events: IntCounterVec,
    invalid: IntCounter,
    pub(super) held: IntGauge,
}

/// Counts one more of something for as long as it lives.
pub(super) struct OneMore<'a>(&'a IntGauge);

impl IngestMetrics {
    /// Registers the metrics. It can be done once for a registry.
    ///
    /// # Errors
    ///
    /// When metrics of these names are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help));
        let durations = HistogramOpts::new(
            names::INGEST_DURATION,
            "Seconds from the first look at a catalog to the end of an attempt to ingest it.",
        );
        Ok(IngestMetrics {
            attempts: counters(
                names::INGESTS,
                "Attempts to ingest a CatalogSource: ingested, unchanged, failed, interrupted.",
                &["result"],
            )?,
            failures: counters(
                names::INGEST_FAILURES,
                "Attempts that failed, by the reason of the condition Degraded.",
                &["reason"],
            )?,
            durations: register(
                registry,
                HistogramVec::new(durations.buckets(DURATIONS.to_vec()), &["result"]),
            )?,
            running: gauge(names::INGESTS_RUNNING, "Ingests that run.")?,
            bytes: counter(names::INGEST_BYTES, "Bytes of catalogs that were read.")?,
            events: counters(
                names::INGEST_EVENTS,
                "Objects of ingests: added, modified, deleted, unchanged.",
                &["change"],
            )?,
            invalid: counter(
                names::INVALID_PACKAGES,
                "Packages that were not taken over because something is wrong with them.",
            )?,
            held: gauge(names::HELD, "CatalogSources that this process looks after.")?,
        })
    }

    /// Counts an ingest that is complete.
    pub(super) fn ingested(&self, report: &Report) {
        let tally = &report.tally;
        self.bytes.inc_by(report.bytes_read);
        self.invalid.inc_by(report.invalid.len() as u64);
        for (change, objects) in [
            ("added", tally.added),
            ("modified", tally.modified),
            ("deleted", tally.deleted),
            ("unchanged", tally.unchanged),
        ] {
            self.events.with_label_values(&[change]).inc_by(objects);
        }
    }

    /// Counts an attempt that has ended.
    pub(super) fn ended(&self, result: &Result<(Came, CatalogSourceStatus), AttemptError>, took: Duration) {
        let result = match result {
            Ok((Came::Ingested, _)) => "ingested",
            Ok((Came::Unchanged, _)) => "unchanged",
            Err(error) if error.is_interruption() => "interrupted",
            Err(error) => {
                self.failures.with_label_values(&[reason(error)]).inc();
                "failed"
            }
        };
        self.attempts.with_label_values(&[result]).inc();
        self.durations.with_label_values(&[result]).observe(took.as_secs_f64());
    }
}

impl<'a> OneMore<'a> {
    pub(super) fn of(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        OneMore(gauge)
    }
}

impl Drop for OneMore<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
