//! The tip of a resource's log: a record that every batch that touches the resource writes too.
//!
//! It says which events the batch had. etcd keeps no value of a deletion, so this is where its index is found by
//! those who do not see the whole revision; and what has to be undone for a state within the batch. And its own
//! revision is that of the last batch: whoever has seen that has seen everything.
//!
//! ```text
//! offset  size  what
//! 0       1     format version, 1
//! 1       …     for each event of the resource, in order:
//!               2  index of the event, little endian
//!               2  length of the rest of the key, little endian
//!               …  the key without its resource: namespace/name
//! ```

use crate::store::Key;

/// The format that is written.
const FORMAT_VERSION: u8 = 1;

/// Events of one resource in one batch: index and key.
pub(super) type Events = Vec<(u16, Key)>;

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TipError {
    #[error("format version {0} of the tip of `{1}` is not known; it was written by a newer packageserver")]
    UnknownFormat(u8, String),
    #[error("the tip of `{0}` is damaged")]
    Damaged(String),
}

/// Encodes the events of a resource.
pub(super) fn encode<'a>(events: impl IntoIterator<Item = (u16, &'a Key)>) -> Vec<u8> {
    let mut bytes = vec![FORMAT_VERSION];
    for (index, key) in events {
        let rest = rest(key);
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(&(rest.len() as u16).to_le_bytes());
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}

/// Decodes the events of a resource.
///
/// # Errors
///
/// [`TipError`], saying what is wrong.
pub(super) fn decode(resource: &str, bytes: &[u8]) -> Result<Events, TipError> {
    let damaged = || TipError::Damaged(resource.to_owned());
    let (format, mut left) = bytes.split_first().ok_or_else(damaged)?;
    if *format != FORMAT_VERSION {
        return Err(TipError::UnknownFormat(*format, resource.to_owned()));
    }
    let mut events = Events::new();
    while !left.is_empty() {
        let (&[i0, i1, l0, l1], behind) = left.split_first_chunk().ok_or_else(damaged)?;
        let length = u16::from_le_bytes([l0, l1]) as usize;
        let (rest, behind) = behind.split_at_checked(length).ok_or_else(damaged)?;
        let rest = std::str::from_utf8(rest).map_err(|_| damaged())?;
        let key = Key::parse(&format!("{resource}/{rest}")).map_err(|_| damaged())?;
        events.push((u16::from_le_bytes([i0, i1]), key));
        left = behind;
    }
    Ok(events)
}

/// Returns a key without its resource.
fn rest(key: &Key) -> &str {
    &key.as_str()[key.resource().len() + 1..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tip_reads_back_and_damage_is_named() {
        let events = vec![
            (1, Key::new("provenance", "test", "catalog/kube-green")),
            (998, Key::new("provenance", "test", "catalog/x")),
        ];
        let bytes = encode(events.iter().map(|(index, key)| (*index, key)));
        assert_eq!(decode("provenance", &bytes).unwrap(), events);
        assert_eq!(decode("provenance", &encode([])).unwrap(), []);
        let ends = [1, bytes.len() - "test/catalog/x".len() - 4, bytes.len()];
        for length in 0..bytes.len() {
            assert_eq!(decode("provenance", &bytes[..length]).is_ok(), ends.contains(&length), "{length}");
        }
        let error = decode("provenance", &[2]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "format version 2 of the tip of `provenance` is not known; it was written by a newer packageserver"
        );
    }
}
