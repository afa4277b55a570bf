//! The persisted form of an object. Golden files in `tests/golden` hold every version of it.
//!
//! ```text
//! offset  size  what
//! 0       1     format version, 1
//! 1       1     encoding of the tail: 0 none, 1 plain, 2 zstd, 3 made when it is read,
//!               4 zstd with a dictionary, whose id (16 bytes) comes first;
//!               plus 16 where the head is zstd too;
//!               255: a deletion, nothing follows the index
//! 2       2     index of the event within its revision, little endian
//! 4       4     length of the head as it is here, little endian
//! 8       4     length of the head when unpacked, little endian
//! 12      4     length of the tail when unpacked, little endian
//! 16      …     head, then tail
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::object::{MAX_OBJECT_BYTES, pack, unpack};
use super::{DictionaryId, Object, ObjectError, Tail};

/// The format that is written. Older ones stay readable.
pub const FORMAT_VERSION: u8 = 1;

const HEADER: usize = 16;
const DELETION_HEADER: usize = 4;

const ENCODING_NONE: u8 = 0;
const ENCODING_PLAIN: u8 = 1;
const ENCODING_ZSTD: u8 = 2;
const ENCODING_DEFERRED: u8 = 3;
const ENCODING_REFERRING: u8 = 4;
const PACKED_HEAD: u8 = 16;
const ENCODING_DELETION: u8 = 255;

/// Heads below this are kept as they are. Nearly all bundles have such heads, and to pack them takes an ingest longer than
/// it takes etcd to keep the bytes.
const WORTH_PACKING: usize = 2048;

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
        let nothing = &[][..];
        let (encoding, dictionary, tail, length) = match object.tail() {
            Tail::None => (ENCODING_NONE, nothing, nothing, 0),
            Tail::Plain(text) => (ENCODING_PLAIN, nothing, &text[..], text.len()),
            Tail::Zstd { packed, length } => (ENCODING_ZSTD, nothing, &packed[..], *length),
            Tail::Deferred => (ENCODING_DEFERRED, nothing, nothing, 0),
            Tail::Referring { dictionary, packed, length }
            | Tail::Joined { dictionary, packed, length, .. } => {
                (ENCODING_REFERRING, &dictionary.as_bytes()[..], &packed[..], *length)
            }
        };
        let packed =
            Some(object.head()).filter(|head| head.len() >= WORTH_PACKING).and_then(|head| pack(head));
        let (flag, head) = match &packed {
            Some(packed) => (PACKED_HEAD, &packed[..]),
            None => (0, &object.head()[..]),
        };
        let mut bytes = BytesMut::with_capacity(HEADER + head.len() + dictionary.len() + tail.len());
        bytes.put_u8(FORMAT_VERSION);
        bytes.put_u8(encoding | flag);
        bytes.put_u16_le(index);
        bytes.put_u32_le(head.len() as u32);
        bytes.put_u32_le(object.head().len() as u32);
        bytes.put_u32_le(length as u32);
        bytes.put_slice(head);
        bytes.put_slice(dictionary);
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
            [FORMAT_VERSION, encoding, low, high, ..] => {
                Ok((u16::from_le_bytes([low, high]), encoding == ENCODING_DELETION))
            }
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
            return Ok(Envelope { index, object: None });
        }
        if bytes.len() < HEADER {
            return Err(EnvelopeError::Damaged("shorter than a header"));
        }
        let length_at =
            |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let (stored_length, head_length, tail_length) = (length_at(4), length_at(8), length_at(12));
        let tail_start = HEADER + stored_length;
        if head_length.max(tail_length) > MAX_OBJECT_BYTES || tail_start > bytes.len() {
            return Err(EnvelopeError::Damaged("lengths exceed the value"));
        }
        let head = bytes.slice(HEADER..tail_start);
        let head = match bytes[1] & PACKED_HEAD {
            PACKED_HEAD => {
                let mut text = Vec::new();
                unpack(&head, head_length, &[], &mut text)?;
                text.into()
            }
            _ if head.len() == head_length => head,
            _ => return Err(EnvelopeError::Damaged("length of the head")),
        };
        let rest = bytes.slice(tail_start..);
        let tail = match bytes[1] & !PACKED_HEAD {
            ENCODING_NONE if rest.is_empty() && tail_length == 0 => Tail::None,
            ENCODING_PLAIN if rest.len() == tail_length => Tail::Plain(rest),
            ENCODING_DEFERRED if rest.is_empty() && tail_length == 0 => Tail::Deferred,
            ENCODING_ZSTD => Tail::Zstd { packed: rest, length: tail_length },
            ENCODING_REFERRING => {
                let id = rest
                    .first_chunk()
                    .ok_or(EnvelopeError::Damaged("shorter than the id of a dictionary"))?;
                let (dictionary, packed) =
                    (DictionaryId::from_bytes(*id), rest.slice(DictionaryId::LENGTH..));
                Tail::Referring { dictionary, packed, length: tail_length }
            }
            ENCODING_NONE | ENCODING_PLAIN | ENCODING_DEFERRED => {
                return Err(EnvelopeError::Damaged("length of the tail"));
            }
            _ => return Err(EnvelopeError::UnknownEncoding(bytes[1])),
        };
        Ok(Envelope { index, object: Some(Object::cut(head, tail)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Dictionary;

    #[test]
    fn every_form_reads_back() {
        let text = format!(r#","large":"{}"}}}}"#, "x".repeat(500));
        for object in [
            Object::whole(r#"{"kind":"Thing"}"#),
            Object::cut(r#"{"spec":{"a":1"#, Tail::Plain(Bytes::from_static(b",\"b\":2}}"))),
            Object::cut(r#"{"spec":{"a":1"#, Tail::pack(text.as_bytes())),
            Object::cut(r#"{"spec":{"#, Tail::Deferred),
            Object::cut(r#"{"spec":{"#, Dictionary::new("owner", text.as_bytes()).pack(text.as_bytes())),
            Object::cut("head".repeat(1000), Tail::pack(text.as_bytes())),
            Object::whole("whole".repeat(1000)),
        ] {
            let envelope = Envelope { index: 17, object: Some(object.clone()) };
            assert_eq!(Envelope::decode(&Envelope::encode_put(17, &object)).unwrap(), envelope);
        }
        let deletion = Envelope { index: 998, object: None };
        assert_eq!(Envelope::decode(&Envelope::encode_deletion(998)).unwrap(), deletion);
    }

    #[test]
    fn damage_is_named_and_never_a_panic() {
        let good = Envelope::encode_put(1, &Object::cut("{\"spec\":{", Tail::Plain("}}".into())));
        for length in 0..good.len() {
            assert!(Envelope::decode(&good.slice(..length)).is_err(), "{length}");
        }
        let packed = Envelope::encode_put(1, &Object::whole("head".repeat(1000)));
        for length in 0..packed.len() {
            assert!(Envelope::decode(&packed.slice(..length)).is_err(), "{length}");
        }
        let text = "head".repeat(1000);
        let tail = Dictionary::new("owner", text.as_bytes()).pack(text.as_bytes());
        let referring = Envelope::encode_put(1, &Object::cut("{", tail));
        let with_id = referring.slice(..HEADER + 1 + DictionaryId::LENGTH);
        assert!(
            Envelope::decode(&with_id).is_ok()
                && Envelope::decode(&with_id.slice(..with_id.len() - 1)).is_err()
        );
        let mut newer = good.to_vec();
        newer[0] = FORMAT_VERSION + 1;
        let error = Envelope::decode(&newer.into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "format version 2 is not known; it was written by a newer packageserver"
        );
        let mut unknown = good.to_vec();
        unknown[1] = 9;
        assert!(matches!(Envelope::decode(&unknown.into()), Err(EnvelopeError::UnknownEncoding(9))));
        let mut long = good.to_vec();
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Envelope::decode(&long.into()), Err(EnvelopeError::Damaged(_))));
    }
}
