//! The status of a CatalogSource: what came of an attempt, as conditions and counts.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use k8s_openapi::jiff::Timestamp;

use super::access::AccessError;
use super::attempt::AttemptError;
use super::schedule::refresh;
use crate::event::Checkpoint;
use crate::model::{CatalogSource, CatalogSourceStatus, IngestSummary, InvalidPackage};
use crate::pipeline::discover::DiscoverError;
use crate::pipeline::fetch::FetchError;
use crate::pipeline::inflate::InflateError;
use crate::pipeline::progress::Progress;
use crate::pipeline::reconcile::{Problem, ReconcileError};
use crate::pipeline::{IngestError, IngestErrorCause, Report};
use crate::resource::now;
use crate::store::StoreError;

/// Packages that `invalidPackages` names.
const MAX_INVALID: usize = 20;

/// Characters of a message. Errors may quote what is not ours to bound.
const MAX_MESSAGE: usize = 1024;

/// How often a poll that found nothing new may be noted (at most).
const POLL_NOTE: Duration = Duration::from_secs(60);

/// The reason of a Degraded condition that says that the rest of the catalog is fine.
pub(super) const INVALID_PACKAGES: &str = "InvalidPackages";

/// What a status is changed for.
pub(super) enum News<'a> {
    /// An attempt has begun, and may have come some way.
    Begun(Option<&'a Progress>),
    /// The source was asked, and stands for what is stored.
    Unchanged(&'a Checkpoint, Option<&'a str>),
    /// An ingest is complete.
    Ingested(&'a Report),
    /// An attempt failed.
    Failed(&'a AttemptError),
}

/// Returns the status after some news. `source` is what was followed; it may have changed since.
pub(super) fn after(
    source: &CatalogSource,
    status: Option<&CatalogSourceStatus>,
    news: &News<'_>,
) -> CatalogSourceStatus {
    let mut status = status.cloned().unwrap_or_default();
    let generation = source.metadata.generation;
    let mut set = Conditions { generation, conditions: std::mem::take(&mut status.conditions) };
    match news {
        News::Begun(progress) => {
            set.condition("Progressing", true, "Ingesting", &how_far(*progress));
            if !set.has("Ready") {
                set.condition("Ready", false, "NotIngested", "the catalog was not read yet");
            }
        }
        News::Unchanged(checkpoint, resolved_image) => {
            status.observed_generation = generation;
            status.observed_refresh = refresh(source).map(str::to_owned);
            status.latest_image_poll = Some(noted_poll(status.latest_image_poll.as_ref()));
            status.resolved_image = resolved_image.map(str::to_owned);
            status.packages = Some(checkpoint.packages as i64);
            status.bundles = Some(checkpoint.bundles as i64);
            set.settled(checkpoint.packages, checkpoint.bundles);
            set.degraded_by_packages(status.last_ingest.as_ref().map_or(0, |ingest| ingest.invalid));
        }
        News::Ingested(report) => {
            status.observed_generation = generation;
            status.observed_refresh = refresh(source).map(str::to_owned);
            status.latest_image_poll = Some(noted_poll(status.latest_image_poll.as_ref()));
            status.resolved_image.clone_from(&report.resolved_image);
            status.packages = Some(report.packages as i64);
            status.bundles = Some(report.bundles as i64);
            status.last_ingest = Some(summary(report));
            status.invalid_packages = invalid_packages(&report.invalid);
            set.settled(report.packages, report.bundles);
            set.degraded_by_packages(report.invalid.len() as i64);
        }
        News::Failed(error) => {
            status.observed_generation = generation;
            status.observed_refresh = refresh(source).map(str::to_owned);
            status.latest_image_poll = Some(noted_poll(status.latest_image_poll.as_ref()));
            if let AttemptError::Ingest(IngestError { cause: IngestErrorCause::Invalid(invalid), .. }) = error
            {
                status.invalid_packages = invalid_packages(invalid);
            }
            set.condition("Progressing", false, "Failed", "the last attempt failed");
            set.condition("Degraded", true, reason(error), &shorten(&error.to_string()));
            if !set.has("Ready") || !set.is("Ready", "True") {
                set.condition("Ready", false, "NotIngested", "the catalog could not be read yet");
            } else {
                // What was read before is still served, and still of this generation's making or an earlier one's.
                set.touch("Ready");
            }
        }
    }
    status.conditions = set.conditions;
    status
}

/// Says how far an attempt is.
fn how_far(progress: Option<&Progress>) -> String {
    const MIB: u64 = 1 << 20;
    match progress {
        None => "the catalog is being read".to_owned(),
        Some(progress) => {
            let (bytes, total) = (progress.bytes().div_ceil(MIB), progress.total_bytes().div_ceil(MIB));
            let (metas, events) = (progress.metas(), progress.events());
            format!("the catalog is being read: {bytes} of {total} MiB, {metas} metas, {events} events")
        }
    }
}

/// Returns the time to note for a poll: now, or the last one that was noted while that is recent. A poll that finds
/// nothing new is otherwise no reason to write, so this is what bounds how often it is one.
fn noted_poll(last: Option<&Time>) -> Time {
    let current = now();
    match last {
        Some(last) if current.0.duration_since(last.0).unsigned_abs() < POLL_NOTE => last.clone(),
        _ => current,
    }
}

struct Conditions {
    generation: Option<i64>,
    conditions: Vec<Condition>,
}

impl Conditions {
    fn settled(&mut self, packages: u64, bundles: u64) {
        self.condition("Progressing", false, "UpToDate", "what the image holds is served");
        let message = format!("{packages} packages and {bundles} bundles are served");
        self.condition("Ready", true, "Serving", &message);
    }

    fn degraded_by_packages(&mut self, invalid: i64) {
        match invalid {
            0 => self.condition("Degraded", false, "AsExpected", ""),
            count => {
                let message = format!(
                    "{count} packages were not taken over, see status.invalidPackages; where there is an earlier \
                     version, that is served"
                );
                self.condition("Degraded", true, INVALID_PACKAGES, &message);
            }
        }
    }

    fn has(&self, type_: &str) -> bool {
        self.conditions.iter().any(|condition| condition.type_ == type_)
    }

    fn is(&self, type_: &str, status: &str) -> bool {
        self.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == status)
    }

    /// Notes that a condition holds for this generation too.
    fn touch(&mut self, type_: &str) {
        for condition in self.conditions.iter_mut().filter(|condition| condition.type_ == type_) {
            condition.observed_generation = self.generation;
        }
    }

    fn condition(&mut self, type_: &str, is_true: bool, reason: &str, message: &str) {
        let status = if is_true { "True" } else { "False" };
        let next = |since: Time| Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: since,
            observed_generation: self.generation,
        };
        match self.conditions.iter().position(|condition| condition.type_ == type_) {
            Some(at) => {
                let old = &self.conditions[at];
                let since = if old.status == status { old.last_transition_time.clone() } else { now() };
                self.conditions[at] = next(since);
            }
            None => self.conditions.push(next(now())),
        }
    }
}

fn summary(report: &Report) -> IngestSummary {
    let micros =
        |time: Timestamp| MicroTime(Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time));
    IngestSummary {
        started_at: micros(report.started_at),
        completed_at: micros(report.completed_at),
        bytes_read: report.bytes_read as i64,
        added: report.tally.added as i64,
        modified: report.tally.modified as i64,
        deleted: report.tally.deleted as i64,
        unchanged: report.tally.unchanged as i64,
        invalid: report.invalid.len() as i64,
    }
}

fn invalid_packages(invalid: &BTreeMap<String, Vec<Problem>>) -> Vec<InvalidPackage> {
    let first = |(name, problems): (&String, &Vec<Problem>)| {
        let problem = problems.first()?;
        let more = match problems.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more problems)"),
        };
        Some(InvalidPackage {
            name: shorten(name),
            message: format!("{}{more}", shorten(&problem.message)),
            file: problem.file.as_deref().map(shorten),
            offset: problem.offset.and_then(|offset| i64::try_from(offset).ok()),
        })
    };
    invalid.iter().filter_map(first).take(MAX_INVALID).collect()
}

/// Returns a text that is not too long.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Returns the reason of a Degraded condition: what an administrator would look at first.
pub(super) fn reason(error: &AttemptError) -> &'static str {
    match error {
        AttemptError::Ingest(error) => ingest_reason(&error.cause),
        AttemptError::Access { cause, .. } => match cause {
            AccessError::Missing { .. } => "ReferenceNotFound",
            AccessError::Unreadable { .. } => "ReferenceUnavailable",
            AccessError::Invalid { .. } | AccessError::Credentials(_) => "InvalidReference",
        },
        AttemptError::Source { .. } => "InvalidSource",
        AttemptError::TimedOut { .. } => "TimedOut",
        AttemptError::Status(error) => store_reason(error),
        AttemptError::Interrupted => "Interrupted",
    }
}

fn ingest_reason(cause: &IngestErrorCause) -> &'static str {
    match cause {
        IngestErrorCause::Discover(DiscoverError::Fetch(error)) | IngestErrorCause::Fetch(error) => {
            fetch_reason(error)
        }
        IngestErrorCause::Discover(_) => "SourceUnavailable",
        IngestErrorCause::Inflate(InflateError::TooLarge { .. }) => "LimitExceeded",
        IngestErrorCause::Inflate(_) => "InvalidImage",
        IngestErrorCause::Reconcile(error) => match error {
            ReconcileError::Store(error) => store_reason(error),
            ReconcileError::Contended { .. } => "StoreUnavailable",
            ReconcileError::TooLarge(_) => "LimitExceeded",
            ReconcileError::Spool(_) | ReconcileError::Damaged(_) => "InternalError",
            _ => "InvalidCatalog",
        },
        IngestErrorCause::Invalid(_) => "InvalidCatalog",
        IngestErrorCause::Stopped => "Stopped",
        IngestErrorCause::Internal(_) => "InternalError",
    }
}

fn store_reason(error: &StoreError) -> &'static str {
    match error {
        StoreError::NoSpace(_) => "StoreOutOfSpace",
        StoreError::NoLeader(_) => "StoreWithoutLeader",
        StoreError::Denied(_) => "StoreAccessDenied",
        StoreError::TooLarge { .. } => "StoreLimitExceeded",
        _ => "StoreUnavailable",
    }
}

fn fetch_reason(error: &FetchError) -> &'static str {
    match error {
        FetchError::NotFound { .. } => "ImageNotFound",
        FetchError::Denied { .. } => "AccessDenied",
        FetchError::Blocked { .. } => "RegistryBlocked",
        FetchError::Answer { .. } | FetchError::Busy { .. } | FetchError::Transport { .. } => {
            "RegistryUnavailable"
        }
        FetchError::WrongDigest { .. } | FetchError::WrongSize { .. } => "DigestMismatch",
        FetchError::InvalidManifest { .. } => "InvalidImage",
        FetchError::TooLarge { .. } => "LimitExceeded",
        FetchError::Configuration(_) => "InvalidConfiguration",
        FetchError::Everywhere { error, .. } => fetch_reason(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn source() -> CatalogSource {
        serde_json::from_value(json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": "x", "namespace": "n", "uid": "u", "generation": 2,
                         "annotations": {"core.rukpak.io/refresh-requested-at": "today"}},
            "spec": {"image": "localhost:5000/x:v1"},
        }))
        .unwrap()
    }

    fn summary_of(status: &CatalogSourceStatus) -> Vec<String> {
        let show = |condition: &Condition| {
            assert_eq!(condition.observed_generation, Some(2));
            format!("{}={} {}", condition.type_, condition.status, condition.reason)
        };
        status.conditions.iter().map(show).collect()
    }

    fn failed(image: &str) -> AttemptError {
        let cause = FetchError::NotFound { what: image.to_owned(), place: "localhost:5000".to_owned() };
        AttemptError::Ingest(IngestError { image: image.to_owned(), cause: cause.into() })
    }

    fn after(source: &CatalogSource, news: &News<'_>) -> CatalogSourceStatus {
        super::after(source, source.status.as_ref(), news)
    }

    #[test]
    fn a_first_ingest_goes_from_not_ready_to_ready() {
        let mut source = source();
        source.status = Some(after(&source, &News::Begun(None)));
        let begun = ["Progressing=True Ingesting", "Ready=False NotIngested"];
        assert_eq!(summary_of(source.status.as_ref().unwrap()), begun);
        let checkpoint = Checkpoint { packages: 3, bundles: 7, ..Checkpoint::default() };
        let status = after(&source, &News::Unchanged(&checkpoint, Some("localhost:5000/x@sha256:0")));
        let done = ["Progressing=False UpToDate", "Ready=True Serving", "Degraded=False AsExpected"];
        assert_eq!(summary_of(&status), done);
        assert_eq!((status.packages, status.bundles), (Some(3), Some(7)));
        assert_eq!(
            (status.observed_generation, status.observed_refresh.as_deref()),
            (Some(2), Some("today"))
        );
        // The same once more changes nothing.
        source.status = Some(status.clone());
        assert_eq!(after(&source, &News::Unchanged(&checkpoint, Some("localhost:5000/x@sha256:0"))), status);
    }

    #[test]
    fn a_failure_says_what_is_wrong_and_leaves_what_is_served_ready() {
        let mut source = source();
        let status = after(&source, &News::Failed(&failed("localhost:5000/x:v1")));
        let expected = ["Progressing=False Failed", "Degraded=True ImageNotFound", "Ready=False NotIngested"];
        assert_eq!(summary_of(&status), expected);
        assert!(status.conditions[1].message.contains("localhost:5000/x:v1"), "{status:?}");
        source.status = Some(after(&source, &News::Unchanged(&Checkpoint::default(), None)));
        let status = after(&source, &News::Failed(&failed("localhost:5000/x:v1")));
        let expected = ["Progressing=False Failed", "Ready=True Serving", "Degraded=True ImageNotFound"];
        assert_eq!(summary_of(&status), expected);
    }

    #[test]
    fn what_is_wrong_with_a_store_is_told_apart() {
        let text = || "x".to_owned();
        for (error, expected) in [
            (StoreError::NoSpace(text()), "StoreOutOfSpace"),
            (StoreError::NoLeader(text()), "StoreWithoutLeader"),
            (StoreError::Denied(text()), "StoreAccessDenied"),
            (StoreError::Unknown(text()), "StoreUnavailable"),
        ] {
            let ingest = IngestError { image: text(), cause: ReconcileError::Store(error).into() };
            assert_eq!(reason(&AttemptError::Ingest(ingest)), expected);
        }
    }

    #[test]
    fn messages_and_lists_are_bounded() {
        let problem = Problem { file: None, offset: None, message: "x".repeat(5000) };
        let invalid = (0..100).map(|number| (format!("p{number}"), vec![problem.clone(), problem.clone()]));
        let listed = invalid_packages(&invalid.collect());
        assert_eq!(listed.len(), MAX_INVALID);
        assert!(listed[0].message.ends_with("… (and 1 more problems)"));
        assert!(listed.iter().all(|invalid| invalid.message.len() < 1100));
    }
}
