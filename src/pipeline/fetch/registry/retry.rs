//! What is worth asking again, and when.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause that is not asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The longest pause that a registry may ask for before the attempt as a whole is put off.
const LONGEST_ASKED: Duration = Duration::from_secs(20);

/// How often a request that fails is sent again.
const RETRIES: u32 = 4;

/// No further attempt begins after this time.
const TIME_FOR_RETRIES: Duration = Duration::from_secs(60);

/// Counts attempts at one request.
pub(super) struct Retries {
    done: u32,
    begun: Instant,
}

impl Retries {
    pub(super) fn new() -> Self {
        Retries { done: 0, begun: Instant::now() }
    }

    /// Notes that it worked, as far as it went.
    pub(super) fn reset(&mut self) {
        *self = Retries::new();
    }

    /// Waits before the next attempt, as long as the registry `asked` for if it did. Returns whether there is one.
    pub(super) async fn wait(&mut self, asked: Option<Duration>) -> bool {
        let Some(pause) = self.pause(asked, uuid::Uuid::new_v4().as_u128() as u32) else { return false };
        tokio::time::sleep(pause).await;
        true
    }

    fn pause(&mut self, asked: Option<Duration>, random: u32) -> Option<Duration> {
        if self.done == RETRIES || self.begun.elapsed() > TIME_FOR_RETRIES {
            return None;
        }
        // Half of it is left to chance, so that what failed together does not come back together.
        let jitter = 0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX);
        let own = FIRST_PAUSE.saturating_mul(1 << self.done).min(LONGEST_PAUSE).mul_f64(jitter);
        self.done += 1;
        match asked {
            Some(asked) if asked > LONGEST_ASKED => None,
            Some(asked) => Some(asked.max(own)),
            None => Some(own),
        }
    }
}

/// Returns whether an answer means that the same request may work later.
pub(super) fn is_temporary(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Returns how long a registry asks to be left alone: a number of seconds, or a time by its own clock.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    asked(response.headers(), Timestamp::now())
}

fn asked(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| Some(headers.get(name)?.to_str().ok()?.trim());
    let time = |text| DateTimeParser::new().parse_timestamp(text).ok();
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time_of_registry = text(DATE).and_then(time);
    let (time, now) = (time(asked)?, time_of_registry.unwrap_or(now));
    Some(Duration::try_from(time.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let mut retries = Retries::new();
        let pauses: Vec<_> = std::iter::from_fn(|| retries.pause(None, u32::MAX)).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000].map(Duration::from_millis));
        assert_eq!(Retries::new().pause(None, 0), Some(FIRST_PAUSE / 2));
    }

    #[test]
    fn what_a_registry_asks_for_is_given_unless_it_is_too_long() {
        let ask = |seconds| Retries::new().pause(Some(Duration::from_secs(seconds)), u32::MAX);
        assert_eq!(ask(0), Some(FIRST_PAUSE));
        assert_eq!(ask(20), Some(Duration::from_secs(20)));
        assert_eq!(ask(21), None);
    }

    #[test]
    fn a_time_to_come_back_is_read_in_both_forms() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        for (text, expected) in [
            ("7", Some(7)),
            ("Fri, 02 Jan 2026 03:04:35 GMT", Some(30)),
            ("Fri, 02 Jan 2026 03:04:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(asked(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_time_to_come_back_is_one_of_the_clock_of_the_registry() {
        let headers = [
            (RETRY_AFTER, "Fri, 02 Jan 2026 03:04:35 GMT".parse().unwrap()),
            (DATE, "Fri, 02 Jan 2026 03:04:05 GMT".parse().unwrap()),
        ];
        let headers = HeaderMap::from_iter(headers);
        for now in ["1970-01-01T00:00:00Z", "2026-01-02T03:04:05Z", "2100-01-01T00:00:00Z"] {
            assert_eq!(asked(&headers, now.parse().unwrap()), Some(Duration::from_secs(30)), "{now}");
        }
    }
}
