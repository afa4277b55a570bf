//! When a CatalogSource is ingested next: pure decisions on what it says and what its status says.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::model::{CatalogSource, CatalogSourceStatus, REFRESH_ANNOTATION, SourceReference};
use crate::resource::parse_duration;

/// The first pause after an ingest that failed; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// The longest pause between attempts.
const LAST_RETRY: Duration = Duration::from_secs(600);

/// How much earlier than asked for a poll may come, as a part of the interval, so that catalogs do not all poll at once.
const JITTER: f64 = 0.1;

/// What an attempt follows. While it stays the same there is no reason for another one but time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    uid: String,
    generation: i64,
    refresh: Option<String>,
}

/// When to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Now.
    Now,
    /// After this time.
    In(Duration),
    /// When the CatalogSource changes.
    OnChange,
}

impl Wish {
    pub(super) fn of(source: &CatalogSource) -> Self {
        let metadata = &source.metadata;
        Wish {
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or(1),
            refresh: refresh(source).map(str::to_owned),
        }
    }
}

/// Returns the refresh that is asked for.
pub(super) fn refresh(source: &CatalogSource) -> Option<&str> {
    let annotations = source.metadata.annotations.as_ref()?;
    annotations.get(REFRESH_ANNOTATION).map(String::as_str)
}

/// What came of earlier attempts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past<'a> {
    /// The newest status there is.
    pub(super) status: Option<&'a CatalogSourceStatus>,
    /// Attempts that failed in a row.
    pub(super) failures: u32,
    /// How long ago the source was last asked by this process, whatever became of the clock since. The status may not know:
    /// it does not note every poll.
    pub(super) since_poll: Option<Duration>,
}

/// Returns when to look at a source again. No interval is shorter than `shortest`; `random` lies between 0 and 1.
pub(super) fn due(
    source: &CatalogSource,
    past: Past<'_>,
    shortest: Duration,
    now: Timestamp,
    random: f64,
) -> Due {
    let Past { status, failures, since_poll } = past;
    let empty = CatalogSourceStatus::default();
    let status = status.unwrap_or(&empty);
    let is_followed = status.observed_generation == source.metadata.generation
        && refresh(source).is_none_or(|asked| status.observed_refresh.as_deref() == Some(asked));
    let is_good = !status.condition("Degraded").is_some_and(|degraded| {
        degraded.status == "True" && degraded.reason != super::status::INVALID_PACKAGES
    });
    // An ingest that a restart has cut short; whoever is still at one does not ask here.
    let is_cut_short = status.condition("Progressing").is_some_and(|condition| condition.status == "True");
    if failures > 0 {
        return Due::In(pause(failures, random));
    }
    if !is_followed || !is_good || is_cut_short {
        return Due::Now;
    }
    let Some(interval) = interval(source) else { return Due::OnChange };
    let interval = interval.max(shortest).mul_f64(1.0 - JITTER * random);
    // Another process may have been the last; of its clock there is nothing else to go by. What is later than now is now.
    let since_noted = status
        .latest_image_poll
        .as_ref()
        .map(|noted| Duration::try_from(now.duration_since(noted.0)).unwrap_or_default());
    let Some(since) = since_poll.into_iter().chain(since_noted).min() else { return Due::Now };
    match interval.checked_sub(since) {
        Some(rest) if !rest.is_zero() => Due::In(rest),
        _ => Due::Now,
    }
}

/// Returns how often a source is polled; none for one that always stands for the same.
fn interval(source: &CatalogSource) -> Option<Duration> {
    let interval = parse_duration(source.spec.polling_interval.as_deref()?).ok()?;
    let reference: SourceReference = source.spec.image.parse().ok()?;
    (!reference.is_pinned() && !interval.is_zero()).then_some(interval)
}

fn pause(failures: u32, random: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
    doubled.min(LAST_RETRY).mul_f64(1.0 - JITTER * random)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use serde_json::json;

    use super::*;

    fn source(image: &str, interval: Option<&str>) -> CatalogSource {
        serde_json::from_value(json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": "x", "namespace": "n", "uid": "u", "generation": 2},
            "spec": {"image": image, "pollingInterval": interval},
            "status": {"observedGeneration": 2},
        }))
        .unwrap()
    }

    fn due_for(source: &CatalogSource, failures: u32, now: Timestamp, random: f64) -> Due {
        let past = Past { status: source.status.as_ref(), failures, since_poll: None };
        due(source, past, Duration::ZERO, now, random)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn what_is_new_is_followed_at_once() {
        let mut source = source("localhost:5000/x:v1", None);
        assert_eq!(due_for(&source, 0, at(0), 0.0), Due::OnChange);
        source.metadata.generation = Some(3);
        assert_eq!(due_for(&source, 0, at(0), 0.0), Due::Now);
        source.metadata.generation = Some(2);
        let annotations = source.metadata.annotations.get_or_insert_default();
        annotations.insert(REFRESH_ANNOTATION.to_owned(), "1".to_owned());
        assert_eq!(due_for(&source, 0, at(0), 0.0), Due::Now);
        source.status.as_mut().unwrap().observed_refresh = Some("1".to_owned());
        assert_eq!(due_for(&source, 0, at(0), 0.0), Due::OnChange);
        source.status = None;
        assert_eq!(due_for(&source, 0, at(0), 0.0), Due::Now);
    }

    #[test]
    fn polls_come_after_the_interval_or_a_little_earlier() {
        let mut source = source("localhost:5000/x:v1", Some("10m"));
        assert_eq!(due_for(&source, 0, at(0), 0.0), Due::Now);
        source.status.as_mut().unwrap().latest_image_poll = Some(Time(at(0)));
        assert_eq!(due_for(&source, 0, at(200), 0.0), Due::In(Duration::from_secs(400)));
        assert_eq!(due_for(&source, 0, at(200), 1.0), Due::In(Duration::from_secs(340)));
        assert_eq!(due_for(&source, 0, at(600), 0.0), Due::Now);
        // A clock that was set back does not bring a flood of polls.
        assert_eq!(due_for(&source, 0, at(-50), 0.0), Due::In(Duration::from_secs(600)));
    }

    #[test]
    fn polls_that_were_not_noted_count_and_no_interval_is_too_short() {
        let mut source = source("localhost:5000/x:v1", Some("1m"));
        source.status.as_mut().unwrap().latest_image_poll = Some(Time(at(0)));
        let due = |since_poll: Option<u64>, shortest, now| {
            let since_poll = since_poll.map(Duration::from_secs);
            let past = Past { status: source.status.as_ref(), failures: 0, since_poll };
            due(&source, past, Duration::from_secs(shortest), at(now), 0.0)
        };
        assert_eq!(due(None, 0, 59), Due::In(Duration::from_secs(1)));
        assert_eq!(due(Some(2), 0, 59), Due::In(Duration::from_secs(58)));
        // A clock that was set forward by years does not bring a poll, nor one that was set back keep one away.
        assert_eq!(due(Some(2), 0, 100_000_000), Due::In(Duration::from_secs(58)));
        assert_eq!(due(Some(58), 0, -100_000_000), Due::In(Duration::from_secs(60)));
        assert_eq!(due(None, 300, 59), Due::In(Duration::from_secs(241)));
    }

    #[test]
    fn an_ingest_that_was_cut_short_is_begun_again() {
        let mut source = source("localhost:5000/x:v1", None);
        let condition = json!({
            "type": "Progressing", "status": "True", "reason": "Ingesting", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        source.status.as_mut().unwrap().conditions = vec![serde_json::from_value(condition).unwrap()];
        assert_eq!(due_for(&source, 0, at(0), 0.0), Due::Now);
    }

    #[test]
    fn what_is_pinned_is_not_polled() {
        let image = format!("localhost:5000/x@sha256:{}", "0".repeat(64));
        assert_eq!(due_for(&source(&image, Some("10m")), 0, at(0), 0.0), Due::OnChange);
    }

    #[test]
    fn failures_are_retried_ever_more_slowly() {
        let mut source = source("localhost:5000/x:v1", None);
        let seconds = |failures| match due_for(&source, failures, at(0), 0.0) {
            Due::In(pause) => pause.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!([1, 2, 3, 7, 8, 40, 400].map(seconds), [5, 10, 20, 320, 600, 600, 600]);
        // After a restart, what failed before is tried at once.
        source.status.as_mut().unwrap().conditions.push(Condition {
            type_: "Degraded".to_owned(),
            status: "True".to_owned(),
            reason: "ImageNotFound".to_owned(),
            message: String::new(),
            last_transition_time: Time(at(0)),
            observed_generation: Some(2),
        });
        assert_eq!(due_for(&source, 0, at(0), 0.0), Due::Now);
    }
}
