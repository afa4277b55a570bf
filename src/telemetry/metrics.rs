//! Metrics: what is counted, under the names that dashboards for Kubernetes API servers know (C241).
//!
//! There is one [`Metrics`] a process; whoever counts something registers it in [`Metrics::registry`].

use std::sync::Arc;
use std::time::Instant;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, exponential_buckets,
};

/// The names of metrics.
pub mod names {
    /// Requests that were answered.
    pub const REQUESTS: &str = "apiserver_request_total";
    /// How long answers took.
    pub const REQUEST_DURATION: &str = "apiserver_request_duration_seconds";
    /// The same without what the server is not responsible for.
    pub const REQUEST_SLI_DURATION: &str = "apiserver_request_sli_duration_seconds";
    /// Requests being answered, of those that are limited in number.
    pub const INFLIGHT: &str = "apiserver_current_inflight_requests";
    /// Watches that are open.
    pub const LONGRUNNING: &str = "apiserver_longrunning_requests";
    /// Sizes of answers to reads.
    pub const RESPONSE_SIZES: &str = "apiserver_response_sizes";
    /// Sizes of the bodies of requests.
    pub const REQUEST_BODY_SIZES: &str = "apiserver_request_body_size_bytes";
    /// Requests that the server ended by itself: too many, or too slow.
    pub const TERMINATIONS: &str = "apiserver_request_terminations_total";
    /// Requests whose handler broke off.
    pub const ABORTS: &str = "apiserver_request_aborts_total";
    /// Events sent to watchers.
    pub const WATCH_EVENTS: &str = "apiserver_watch_events_total";
    /// Sizes of events sent to watchers.
    pub const WATCH_EVENT_SIZES: &str = "apiserver_watch_events_sizes";
    /// How long it took to send the state that a watch begins with.
    pub const WATCH_LIST_DURATION: &str = "apiserver_watch_list_duration_seconds";
    /// Events of that state.
    pub const INIT_EVENTS: &str = "apiserver_init_events_total";
    /// Watchers that were cut off because they fell behind.
    pub const TERMINATED_WATCHERS: &str = "apiserver_terminated_watchers_total";
    /// Objects of each resource.
    pub const RESOURCE_OBJECTS: &str = "apiserver_resource_objects";
    /// The same under its older name.
    pub const STORAGE_OBJECTS: &str = "apiserver_storage_objects";
    /// Connections that are open.
    pub const CONNECTIONS: &str = "packageserver_connections";
    /// Connections that had to go, or were not taken, because there were as many as there may be.
    pub const CONNECTIONS_DROPPED: &str = "packageserver_connections_dropped_total";
    /// TLS handshakes that failed.
    pub const TLS_ERRORS: &str = "apiserver_tls_handshake_errors_total";
    /// Audit events that were written.
    pub const AUDIT_EVENTS: &str = "apiserver_audit_event_total";
    /// Audit events that could not be written.
    pub const AUDIT_ERRORS: &str = "apiserver_audit_error_total";
    /// How long client certificates are still good for when they are used.
    pub const CERTIFICATE_EXPIRATION: &str = "apiserver_client_certificate_expiration_seconds";
    /// Attempts to find out who asks.
    pub const AUTHENTICATIONS: &str = "authentication_attempts";
    /// Requests by who asked.
    pub const USER_REQUESTS: &str = "authenticated_user_requests";
    /// Decisions whether somebody may.
    pub const AUTHORIZATIONS: &str = "authorization_attempts_total";
    /// Calls to etcd.
    pub const STORE_REQUESTS: &str = "etcd_requests_total";
    /// How long they took.
    pub const STORE_DURATION: &str = "etcd_request_duration_seconds";
    /// Calls to etcd that failed.
    pub const STORE_ERRORS: &str = "etcd_request_errors_total";
    /// Attempts to ingest a CatalogSource.
    pub const INGESTS: &str = "packageserver_ingests_total";
    /// Attempts that failed.
    pub const INGEST_FAILURES: &str = "packageserver_ingest_failures_total";
    /// How long attempts took.
    pub const INGEST_DURATION: &str = "packageserver_ingest_duration_seconds";
    /// Ingests that run.
    pub const INGESTS_RUNNING: &str = "packageserver_ingests_running";
    /// Bytes of catalogs that were read.
    pub const INGEST_BYTES: &str = "packageserver_ingest_bytes_total";
    /// What ingests did to objects.
    pub const INGEST_EVENTS: &str = "packageserver_ingest_events_total";
    /// Packages that were not taken over.
    pub const INVALID_PACKAGES: &str = "packageserver_ingest_invalid_packages_total";
    /// CatalogSources that this process looks after.
    pub const HELD: &str = "packageserver_catalogsources_held";
}

/// The component label: dashboards tell API servers from other parts of a cluster by it.
const COMPONENT: &str = "apiserver";

/// Seconds; as k8s.io/apiserver has them, so that its alerts work.
const DURATIONS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// Seconds until a certificate expires: from "has" to a year.
const EXPIRATIONS: &[f64] = &[
    0.0, 1800.0, 3600.0, 7200.0, 21600.0, 43200.0, 86400.0, 172800.0, 345600.0, 604800.0, 2592000.0,
    7776000.0, 15552000.0, 31104000.0,
];

/// What a request is counted under. Only what the server knows gets a label of its own; the rest shares one, so that
/// nobody can make metrics grow by asking for what is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLabels {
    /// LIST, GET, WATCH, POST, PUT, PATCH, APPLY, DELETE, DELETECOLLECTION, or `other` (C242).
    pub verb: &'static str,
    /// `All` for a dry run.
    pub dry_run: &'static str,
    /// The API group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The resource, in the plural.
    pub resource: &'static str,
    /// The subresource; for what is no resource, the path.
    pub subresource: &'static str,
    /// `cluster`, `namespace`, `resource`, or nothing.
    pub scope: &'static str,
}

impl RequestLabels {
    const NAMES: [&'static str; 7] =
        ["verb", "group", "version", "resource", "subresource", "scope", "component"];

    fn values(&self) -> [&'static str; 7] {
        let RequestLabels { verb, group, version, resource, subresource, scope, .. } = *self;
        [verb, group, version, resource, subresource, scope, COMPONENT]
    }
}

/// The type a watch is of.
#[derive(Clone, Copy, Debug)]
pub struct WatchLabels {
    /// The API group.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The resource, in the plural.
    pub resource: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// `cluster`, `namespace` or `resource`.
    pub scope: &'static str,
}

/// Everything that is counted by the API.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    sli_durations: HistogramVec,
    /// Requests being answered, by `request_kind`.
    pub inflight: IntGaugeVec,
    longrunning: IntGaugeVec,
    response_sizes: HistogramVec,
    body_sizes: HistogramVec,
    terminations: IntCounterVec,
    aborts: IntCounterVec,
    watch_events: IntCounterVec,
    watch_event_sizes: HistogramVec,
    watch_list_durations: HistogramVec,
    init_events: IntCounterVec,
    terminated_watchers: IntCounterVec,
    resource_objects: IntGaugeVec,
    storage_objects: IntGaugeVec,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Connections that there was no room for, by `reason`: `evicted` when they had to go, `refused` when they were not
    /// taken.
    pub connections_dropped: IntCounterVec,
    /// TLS handshakes that failed.
    pub tls_errors: IntCounter,
    /// Audit events that were written.
    pub audit_events: IntCounter,
    /// Audit events that could not be written.
    pub audit_errors: IntCounter,
    /// Seconds until the certificates that clients use expire.
    pub certificate_expirations: Histogram,
    /// Attempts to find out who asks, by `result`.
    pub authentications: IntCounterVec,
    /// Requests by `username`.
    pub user_requests: IntCounterVec,
    /// Decisions whether somebody may, by `result`.
    pub authorizations: IntCounterVec,
}

impl Metrics {
    /// Makes the metrics of a process.
    pub fn new() -> Arc<Self> {
        let registry = registry();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            constant(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            constant(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let histograms = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            constant(&registry, HistogramVec::new(options, labels))
        };
        let counter = |name: &str, help: &str| constant(&registry, IntCounter::new(name, help));
        let request = RequestLabels::NAMES;
        let with = |more: &'static str| [&request[..], &[more]].concat();
        let counted = [&request[..], &["dry_run", "code"]].concat();
        let sizes = exponential_buckets(1000.0, 10.0, 7).expect("the buckets are constant");
        let bodies = exponential_buckets(128.0, 4.0, 9).expect("the buckets are constant");
        let events = exponential_buckets(1024.0, 2.0, 8).expect("the buckets are constant");
        let kind = ["group", "version", "resource", "kind"];
        let metrics = Metrics {
            requests: counters(names::REQUESTS, "Requests that were answered.", &counted),
            durations: histograms(
                names::REQUEST_DURATION,
                "Seconds until a request was answered.",
                DURATIONS,
                &with("dry_run"),
            ),
            sli_durations: histograms(
                names::REQUEST_SLI_DURATION,
                "Seconds until a request was answered, without what the server is not responsible for.",
                DURATIONS,
                &with("dry_run"),
            ),
            inflight: gauges(names::INFLIGHT, "Requests being answered, without watches.", &["request_kind"]),
            longrunning: gauges(names::LONGRUNNING, "Watches that are open.", &request),
            response_sizes: histograms(names::RESPONSE_SIZES, "Bytes of answers to reads.", &sizes, &request),
            body_sizes: histograms(
                names::REQUEST_BODY_SIZES,
                "Bytes of the bodies of requests.",
                &bodies,
                &["group", "resource", "verb"],
            ),
            terminations: counters(
                names::TERMINATIONS,
                "Requests that were ended before they were answered, because there were too many or they took too long.",
                &with("code"),
            ),
            aborts: counters(names::ABORTS, "Requests whose handler broke off.", &request),
            watch_events: counters(names::WATCH_EVENTS, "Events sent to watchers.", &kind),
            watch_event_sizes: histograms(
                names::WATCH_EVENT_SIZES,
                "Bytes of events sent to watchers.",
                &events,
                &kind,
            ),
            watch_list_durations: histograms(
                names::WATCH_LIST_DURATION,
                "Seconds until the state that a watch begins with was sent.",
                DURATIONS,
                &["group", "version", "resource", "scope"],
            ),
            init_events: counters(
                names::INIT_EVENTS,
                "Events of the states that watches began with.",
                &["group", "resource"],
            ),
            terminated_watchers: counters(
                names::TERMINATED_WATCHERS,
                "Watches that were cut off because they fell behind.",
                &["group", "resource"],
            ),
            resource_objects: gauges(
                names::RESOURCE_OBJECTS,
                "Objects, as of the last time they were counted.",
                &["group", "resource"],
            ),
            storage_objects: gauges(
                names::STORAGE_OBJECTS,
                "Objects, as of the last time they were counted.",
                &["resource"],
            ),
            connections: constant(&registry, IntGauge::new(names::CONNECTIONS, "Connections that are open.")),
            connections_dropped: counters(
                names::CONNECTIONS_DROPPED,
                "Connections that had to go, or were not taken, because there were as many as there may be.",
                &["reason"],
            ),
            tls_errors: counter(names::TLS_ERRORS, "TLS handshakes that failed."),
            audit_events: counter(names::AUDIT_EVENTS, "Audit events that were written."),
            audit_errors: counter(names::AUDIT_ERRORS, "Audit events that could not be written."),
            certificate_expirations: constant(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        names::CERTIFICATE_EXPIRATION,
                        "Seconds until the certificate of a request expires.",
                    )
                    .buckets(EXPIRATIONS.to_vec()),
                ),
            ),
            authentications: counters(names::AUTHENTICATIONS, "Attempts to find out who asks.", &["result"]),
            user_requests: counters(names::USER_REQUESTS, "Requests by who asked.", &["username"]),
            authorizations: counters(
                names::AUTHORIZATIONS,
                "Decisions whether somebody may do something.",
                &["result"],
            ),
            registry,
        };
        Arc::new(metrics)
    }

    /// Returns where metrics are registered.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns all metrics as text, and the media type of the text.
    pub fn text(&self) -> (Vec<u8>, &'static str) {
        text(&self.registry)
    }

    /// Counts a request that was answered. How long it took counts unless it was open for as long as the client liked.
    pub fn answered(&self, labels: &RequestLabels, code: u16, seconds: Option<f64>, bytes: u64) {
        let code = code.to_string();
        let [verb, group, version, resource, subresource, scope, component] = labels.values();
        let counted = [verb, group, version, resource, subresource, scope, component, labels.dry_run, &code];
        self.requests.with_label_values(&counted).inc();
        if let Some(seconds) = seconds {
            self.durations.with_label_values(&counted[..8]).observe(seconds);
            self.sli_durations.with_label_values(&counted[..8]).observe(seconds);
        }
        if matches!(verb, "GET" | "LIST") {
            self.response_sizes.with_label_values(&labels.values()).observe(bytes as f64);
        }
    }

    /// Counts a request that the server ended by itself.
    pub fn ended_early(&self, labels: &RequestLabels, code: u16) {
        let code = code.to_string();
        let [verb, group, version, resource, subresource, scope, component] = labels.values();
        let values = [verb, group, version, resource, subresource, scope, component, &code];
        self.terminations.with_label_values(&values).inc();
    }

    /// Counts a request whose handler broke off.
    pub fn aborted(&self, labels: &RequestLabels) {
        self.aborts.with_label_values(&labels.values()).inc();
    }

    /// Notes the size of the body of a request.
    pub fn body_read(&self, labels: &RequestLabels, bytes: u64) {
        let values = [labels.group, labels.resource, labels.verb];
        self.body_sizes.with_label_values(&values).observe(bytes as f64);
    }

    /// Counts a watch for as long as it is open.
    pub fn opened(&self, labels: &RequestLabels) -> OpenWatch {
        let gauge = self.longrunning.with_label_values(&labels.values());
        gauge.inc();
        OpenWatch(gauge)
    }

    /// Notes how many objects there are of a resource.
    pub fn counted(&self, group: &str, resource: &str, objects: u64) {
        let objects = i64::try_from(objects).unwrap_or(i64::MAX);
        self.resource_objects.with_label_values(&[group, resource]).set(objects);
        self.storage_objects.with_label_values(&[&format!("{resource}.{group}")]).set(objects);
    }

    /// Returns what a watch counts its events with.
    pub fn watch(&self, labels: &WatchLabels) -> WatchMetrics {
        let WatchLabels { group, version, resource, kind, scope } = *labels;
        WatchMetrics {
            events: self.watch_events.with_label_values(&[group, version, resource, kind]),
            sizes: self.watch_event_sizes.with_label_values(&[group, version, resource, kind]),
            list: self.watch_list_durations.with_label_values(&[group, version, resource, scope]),
            initial: self.init_events.with_label_values(&[group, resource]),
            terminated: self.terminated_watchers.with_label_values(&[group, resource]),
            opened: Instant::now(),
        }
    }
}

/// Returns a registry that knows of the process: memory, processor time, open files.
pub fn registry() -> Registry {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self())).expect("nothing else is registered");
    registry
}

/// Returns all metrics of a registry as text, and the media type of the text.
pub fn text(registry: &Registry) -> (Vec<u8>, &'static str) {
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .expect("metrics that were registered can be written");
    (text, prometheus::TEXT_FORMAT)
}

/// Registers a metric.
///
/// # Errors
///
/// When its name or its labels are none, or its name is registered already.
pub fn register<T: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<T>,
) -> prometheus::Result<T> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Registers a metric that is described by constants, in a registry that is new.
fn constant<T: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<T>) -> T {
    register(registry, metric).expect("names and labels are constant, and registered once")
}

/// An open watch, which is counted until this is dropped.
pub struct OpenWatch(prometheus::IntGauge);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What one watch counts.
pub struct WatchMetrics {
    events: IntCounter,
    sizes: Histogram,
    list: Histogram,
    initial: IntCounter,
    terminated: IntCounter,
    opened: Instant,
}

impl WatchMetrics {
    /// Counts an event of so many bytes.
    pub fn sent(&self, bytes: usize) {
        self.events.inc();
        self.sizes.observe(bytes as f64);
    }

    /// Counts an event of the state that the watch begins with.
    pub fn initial(&self) {
        self.initial.inc();
    }

    /// Notes that this state was sent.
    pub fn listed(&self) {
        self.list.observe(self.opened.elapsed().as_secs_f64());
    }

    /// Counts the watch as one that was cut off.
    pub fn terminated(&self) {
        self.terminated.inc();
    }
}
