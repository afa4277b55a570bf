//! The persisted form of an object. Golden files in `tests/golden` hold every version of it.
//!
//! ```text
//! offset  size  what
//! 0       1     format version, 1
//! 1       1     encoding of the tail: 0 none, 1 plain, 2 zstd; 255: a deletion, nothing follows the index
//! 2       2     index of the event within its revision, little endian
//! 4       4     length of the head, little endian
//! 8       4     length of the tail when unpacked, little endian
//! 12      …     head, then tail
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::object::MAX_OBJECT_BYTES;
use super::{Object, ObjectError, Tail};

/// The format that is written. Older ones stay readable.
pub const FORMAT_VERSION: u8 = 1;

const HEADER: usize = 12;
const DELETION_HEADER: usize = 4;

const ENCODING_NONE: u8 = 0;
const ENCODING_PLAIN: u8 = 1;
const ENCODING_ZSTD: u8 = 2;
const ENCODING_DELETION: u8 = 255;

/// One event as it is persisted: its index within the revision, and the object it put, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The index of the event within its revision.
    pub index: u16,
    /// What was put; absent for a deletion.
    pub object: Option<Object>,
}

/// Bytes that are not an envelope this version can read.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// A format from the future.
    #[error("format version {0} is not known; it was written by a newer packageserver")]
    UnknownFormat(u8),
    /// An encoding from the future, or garbage.
    #[error("encoding {0} is not known")]
    UnknownEncoding(u8),
    /// Lengths and size do not agree.
    #[error("truncated or damaged: {0}")]
    Damaged(&'static str),
    /// The tail cannot be unpacked.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl Envelope {
    /// Encodes a put.
    pub fn encode_put(index: u16, object: &Object) -> Bytes {
        let (encoding, tail, length) = match object.tail() {
            Tail::None => (ENCODING_NONE, &[][..], 0),
            Tail::Plain(text) => (ENCODING_PLAIN, &text[..], text.len()),
            Tail::Zstd { packed, length } => (ENCODING_ZSTD, &packed[..], *length),
        };
        let mut bytes = BytesMut::with_capacity(HEADER + object.size());
        bytes.put_u8(FORMAT_VERSION);
        bytes.put_u8(encoding);
        bytes.put_u16_le(index);
        bytes.put_u32_le(object.head().len() as u32);
        bytes.put_u32_le(length as u32);
        bytes.put_slice(object.head());
        bytes.put_slice(tail);
        bytes.freeze()
    }

    /// Encodes a deletion.
    pub fn encode_deletion(index: u16) -> Bytes {
        let mut bytes = BytesMut::with_capacity(DELETION_HEADER);
        bytes.put_u8(FORMAT_VERSION);
        bytes.put_u8(ENCODING_DELETION);
        bytes.put_u16_le(index);
        bytes.freeze()
    }

    /// Reads the index of an event and whether it is a deletion, without looking at the object.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] when there is no header of a known format.
    pub fn peek(bytes: &[u8]) -> Result<(u16, bool), EnvelopeError> {
        match *bytes {
            [FORMAT_VERSION, encoding, low, high, ..] => Ok((
                u16::from_le_bytes([low, high]),
                encoding == ENCODING_DELETION,
            )),
            [format, _, _, _, ..] => Err(EnvelopeError::UnknownFormat(format)),
            _ => Err(EnvelopeError::Damaged("shorter than a header")),
        }
    }

    /// Decodes what [`Self::encode_put`] or [`Self::encode_deletion`] wrote; parts of `bytes` are shared, not
    /// copied.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`], saying what is wrong.
    pub fn decode(bytes: &Bytes) -> Result<Self, EnvelopeError> {
        let (index, is_deletion) = Self::peek(bytes)?;
        if is_deletion {
            return Ok(Envelope {
                index,
                object: None,
            });
        }
        if bytes.len() < HEADER {
            return Err(EnvelopeError::Damaged("shorter than a header"));
        }
        let length_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
        };
        let (head_length, tail_length) = (length_at(4), length_at(8));
        let tail_start = HEADER + head_length;
        if head_length > MAX_OBJECT_BYTES
            || tail_length > MAX_OBJECT_BYTES
            || tail_start > bytes.len()
        {
            return Err(EnvelopeError::Damaged("lengths exceed the value"));
        }
        let head = bytes.slice(HEADER..tail_start);
        let rest = bytes.slice(tail_start..);
        let tail = match bytes[1] {
            ENCODING_NONE if rest.is_empty() && tail_length == 0 => Tail::None,
            ENCODING_PLAIN if rest.len() == tail_length => Tail::Plain(rest),
            ENCODING_ZSTD => Tail::Zstd {
                packed: rest,
                length: tail_length,
            },
            ENCODING_NONE | ENCODING_PLAIN => {
                return Err(EnvelopeError::Damaged("length of the tail"));
            }
            other => return Err(EnvelopeError::UnknownEncoding(other)),
        };
        Ok(Envelope {
            index,
            object: Some(Object::cut(head, tail)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back() {
        let text = format!(r#","large":"{}"}}}}"#, "x".repeat(500));
        for object in [
            Object::whole(r#"{"kind":"Thing"}"#),
            Object::cut(
                r#"{"spec":{"a":1"#,
                Tail::Plain(Bytes::from_static(b",\"b\":2}}")),
            ),
            Object::cut(r#"{"spec":{"a":1"#, Tail::pack(text.as_bytes())),
        ] {
            let envelope = Envelope {
                index: 17,
                object: Some(object.clone()),
            };
            assert_eq!(
                Envelope::decode(&Envelope::encode_put(17, &object)).unwrap(),
                envelope
            );
        }
        let deletion = Envelope {
            index: 998,
            object: None,
        };
        assert_eq!(
            Envelope::decode(&Envelope::encode_deletion(998)).unwrap(),
            deletion
        );
    }

    #[test]
    fn damage_is_named_and_never_a_panic() {
        let good = Envelope::encode_put(1, &Object::cut("{\"spec\":{", Tail::Plain("}}".into())));
        for length in 0..good.len() {
            assert!(Envelope::decode(&good.slice(..length)).is_err(), "{length}");
        }
        let mut newer = good.to_vec();
        newer[0] = FORMAT_VERSION + 1;
        let error = Envelope::decode(&newer.into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "format version 2 is not known; it was written by a newer packageserver"
        );
        let mut unknown = good.to_vec();
        unknown[1] = 9;
        assert!(matches!(
            Envelope::decode(&unknown.into()),
            Err(EnvelopeError::UnknownEncoding(9))
        ));
        let mut long = good.to_vec();
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(
            Envelope::decode(&long.into()),
            Err(EnvelopeError::Damaged(_))
        ));
    }
}
