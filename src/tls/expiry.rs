//! When certificates expire.

use time::OffsetDateTime;
use x509_parser::pem::Pem;

/// Returns when the first certificate of a PEM text expires; nothing where there is none.
pub fn expiry(pem: &[u8]) -> Option<OffsetDateTime> {
    let pem = Pem::iter_from_buffer(pem).next()?.ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.to_datetime())
}

/// Returns whether the first certificate of a PEM text is not good yet: whoever made it had a clock that was ahead.
pub fn is_of_the_future(pem: &[u8], now: OffsetDateTime) -> bool {
    let pem = Pem::iter_from_buffer(pem).next().and_then(Result::ok);
    let from = pem.and_then(|pem| Some(pem.parse_x509().ok()?.validity().not_before.to_datetime()));
    from.is_some_and(|from| from > now)
}
