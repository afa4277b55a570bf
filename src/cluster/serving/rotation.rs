//! When a certificate or its authority is replaced, and in which steps: pure decisions on what is kept.
//!
//! ```text
//! nothing ─▶ steady ── certificate grows old ─▶ steady (a new one of the same authority)
//!              │ authority grows old
//!              ▼
//!           announced (the next authority is trusted, the old one still signs)
//!              │ after the overlap
//!              ▼
//!           replaced (the next one signs, the old one is still trusted)
//!              │ after the overlap
//!              ▼
//!           steady
//! ```
//!
//! What a clock made that was ahead, and has been set back since, is no good yet, and is replaced as what has expired is.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::serde::timestamp;

use crate::tls::authority::{Authority, Signed, Validity};
use crate::tls::expiry::is_of_the_future;

/// How long things are valid, and how long one step of a rotation lasts.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Of an authority.
    pub authority: Duration,
    /// Of a certificate.
    pub certificate: Duration,
    /// Between two steps: long enough for every replica and the kube-apiserver to have noticed the first.
    pub overlap: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Lifetimes {
            authority: Duration::from_secs(365 * DAY),
            certificate: Duration::from_secs(30 * DAY),
            overlap: Duration::from_secs(10 * 60),
        }
    }
}

/// What is kept in the Secret. All of it is secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    /// The authority that signs.
    authority: Signed,
    /// When it expires.
    #[serde(with = "timestamp")]
    authority_expires: OffsetDateTime,
    /// Another authority that is trusted: the next one, or the last one.
    other: Option<Other>,
    /// The certificate that is shown.
    pub serving: Signed,
    /// When it expires.
    #[serde(with = "timestamp")]
    pub expires: OffsetDateTime,
    /// The names it is for.
    names: Vec<String>,
}

/// An authority that is trusted and does not sign.
#[derive(Clone, Serialize, Deserialize)]
struct Other {
    authority: Signed,
    #[serde(with = "timestamp")]
    expires: OffsetDateTime,
    /// Since when it is here.
    #[serde(with = "timestamp")]
    since: OffsetDateTime,
    /// Whether it is to sign next, or has signed before.
    is_next: bool,
}

impl Kept {
    /// Returns the authorities that are trusted, as PEM.
    pub fn trusted(&self) -> String {
        let other = self.other.as_ref().map_or("", |other| &other.authority.certificate);
        format!("{}{other}", self.authority.certificate)
    }
}

/// Returns what is to be kept instead of `kept`; none while that is good.
///
/// # Errors
///
/// When a certificate cannot be made.
pub fn next(
    kept: Option<&Kept>,
    names: &[String],
    lifetimes: Lifetimes,
    now: OffsetDateTime,
) -> Result<Option<Kept>, rcgen::Error> {
    let is_good = |kept: &&Kept| {
        kept.authority_expires > now && !is_of_the_future(kept.authority.certificate.as_bytes(), now)
    };
    let Some(kept) = kept.filter(is_good) else {
        // There is nothing that anybody could still trust.
        let (_, authority) =
            Authority::generate(NAME, Validity { from: now, lifetime: lifetimes.authority })?;
        return sign(authority, now + lifetimes.authority, None, names, lifetimes, now).map(Some);
    };
    let is_old = |expires: OffsetDateTime, lifetime: Duration| expires - now < lifetime / 3;
    let signs_again = |kept: &Kept| {
        let Kept { authority, authority_expires, other, .. } = kept.clone();
        sign(authority, authority_expires, other, names, lifetimes, now).map(Some)
    };
    match &kept.other {
        Some(other) if is_of_the_future(other.authority.certificate.as_bytes(), now) => {
            return Ok(Some(Kept { other: None, ..kept.clone() }));
        }
        Some(other) if other.since > now => {
            // The overlap begins when the clock says so.
            return Ok(Some(Kept { other: Some(Other { since: now, ..other.clone() }), ..kept.clone() }));
        }
        Some(other) if now - other.since < lifetimes.overlap => {}
        Some(other) if other.is_next => {
            let last = Other {
                authority: kept.authority.clone(),
                expires: kept.authority_expires,
                since: now,
                is_next: false,
            };
            return sign(other.authority.clone(), other.expires, Some(last), names, lifetimes, now).map(Some);
        }
        Some(_) => return Ok(Some(Kept { other: None, ..kept.clone() })),
        None if is_old(kept.authority_expires, lifetimes.authority) => {
            let (_, authority) =
                Authority::generate(NAME, Validity { from: now, lifetime: lifetimes.authority })?;
            let expires = now + lifetimes.authority;
            let other = Some(Other { authority, expires, since: now, is_next: true });
            return Ok(Some(Kept { other, ..kept.clone() }));
        }
        None => {}
    }
    let is_early = is_of_the_future(kept.serving.certificate.as_bytes(), now);
    if is_old(kept.expires, lifetimes.certificate) || is_early || kept.names != names {
        return signs_again(kept);
    }
    Ok(None)
}

/// The common name of authorities.
const NAME: &str = "packageserver serving";

fn sign(
    authority: Signed,
    authority_expires: OffsetDateTime,
    other: Option<Other>,
    names: &[String],
    lifetimes: Lifetimes,
    now: OffsetDateTime,
) -> Result<Kept, rcgen::Error> {
    // Nothing outlives who signed it.
    let lifetime = Duration::try_from(authority_expires - now).unwrap_or_default().min(lifetimes.certificate);
    let serving = Authority::load(&authority)?.server(names, &[], Validity { from: now, lifetime })?;
    let expires = now + lifetime;
    Ok(Kept { authority, authority_expires, other, serving, expires, names: names.to_owned() })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;
    use crate::tls::server::authorities;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn names() -> Vec<String> {
        vec!["packageserver.system.svc".to_owned()]
    }

    /// Whether somebody who trusts what `trusting` says accepts the certificate that `showing` has.
    fn accepts(trusting: &Kept, showing: &Kept, now: OffsetDateTime) -> bool {
        use rustls::client::WebPkiServerVerifier;
        crate::tls::install_crypto();
        let roots = authorities(&trusting.trusted()).unwrap();
        let verifier = WebPkiServerVerifier::builder(roots.into()).build().unwrap();
        let certificate = CertificateDer::from_pem_slice(showing.serving.certificate.as_bytes()).unwrap();
        let name = ServerName::try_from("packageserver.system.svc").unwrap();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now.unix_timestamp() as u64));
        use rustls::client::danger::ServerCertVerifier;
        verifier.verify_server_cert(&certificate, &[], &name, &[], time).is_ok()
    }

    #[test]
    fn over_years_every_certificate_is_trusted_before_it_is_shown_and_after() {
        let lifetimes = Lifetimes::default();
        let start = OffsetDateTime::now_utc();
        let step = |kept: Option<&Kept>, now| next(kept, &names(), lifetimes, now).unwrap();
        let mut kept = step(None, start).expect("the first certificate");
        let (mut rotations, mut authorities_seen) = (0, std::collections::BTreeSet::new());
        let mut now = start;
        while now < start + 3 * 365 * DAY {
            now += DAY / 2;
            while let Some(next) = step(Some(&kept), now) {
                // The kube-apiserver may know the old state while a replica shows the new one, and the other way round.
                assert!(accepts(&kept, &next, now), "{now}: shown before it is trusted");
                assert!(accepts(&next, &kept, now), "{now}: forgotten while it is shown");
                kept = next;
                rotations += 1;
                now += lifetimes.overlap;
            }
            authorities_seen.insert(kept.authority.certificate.clone());
        }
        assert!(rotations > 40, "{rotations}");
        assert!(authorities_seen.len() > 3, "{}", authorities_seen.len());
    }

    #[test]
    fn what_is_good_is_left_alone_and_other_names_are_signed_at_once() {
        let lifetimes = Lifetimes::default();
        let now = OffsetDateTime::now_utc();
        let kept = next(None, &names(), lifetimes, now).unwrap().unwrap();
        assert!(next(Some(&kept), &names(), lifetimes, now + 10 * DAY).unwrap().is_none());
        let other = vec!["packageserver.elsewhere.svc".to_owned()];
        let renamed = next(Some(&kept), &other, lifetimes, now).unwrap().unwrap();
        assert_eq!(renamed.trusted(), kept.trusted());
        assert_ne!(renamed.serving.certificate, kept.serving.certificate);
    }

    #[test]
    fn what_has_expired_is_made_anew() {
        let lifetimes = Lifetimes::default();
        let now = OffsetDateTime::now_utc();
        let kept = next(None, &names(), lifetimes, now).unwrap().unwrap();
        let later = next(Some(&kept), &names(), lifetimes, now + 400 * DAY).unwrap().unwrap();
        assert_ne!(later.trusted(), kept.trusted());
    }

    #[test]
    fn a_clock_that_was_ahead_leaves_nothing_that_is_not_good_yet() {
        let lifetimes = Lifetimes::default();
        let now = OffsetDateTime::now_utc();
        let settle = |mut kept: Kept, now| {
            while let Some(next) = next(Some(&kept), &names(), lifetimes, now).unwrap() {
                kept = next;
            }
            kept
        };
        let before = next(None, &names(), lifetimes, now).unwrap().unwrap();
        // By a day, by most of the lifetime of a certificate, into the rotation of the authority, and beyond all of it.
        for ahead in [DAY, 25 * DAY, 300 * DAY, 4000 * DAY] {
            let then = settle(before.clone(), now + ahead);
            let back = settle(then, now + DAY / 24);
            assert!(accepts(&back, &back, now + DAY / 24), "{} days", ahead.as_secs() / DAY.as_secs());
            // And the rotation goes on from there.
            let later = settle(back, now + DAY / 24 + lifetimes.overlap);
            let later = settle(later, now + DAY / 24 + 2 * lifetimes.overlap);
            assert!(later.other.is_none(), "{} days", ahead.as_secs() / DAY.as_secs());
            assert!(accepts(&later, &later, now + DAY));
        }
    }
}
