//! An encoded object: its JSON text, cut in two so that the large part can stay packed.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;

/// Objects larger than this are not decoded, whatever an envelope claims.
pub(super) const MAX_OBJECT_BYTES: usize = 64 << 20;

/// What the summary of a cut object is closed with: the cut lies in `spec`, which is the last field.
const CLOSING: &[u8] = b"}}";

/// A tail is packed only where that saves at least this many bytes.
const WORTH_PACKING: usize = 64;

/// zstd's fastest regular level: the pipeline packs every bundle once, on the hot path.
const ZSTD_LEVEL: i32 = 1;

/// An object as JSON text, in two parts.
///
/// `head` followed by `tail` is the whole text. Where there is a tail, the cut lies inside `spec`, the last field
/// of the object, behind its small fields: `head` followed by `}}` is then JSON too, the *summary*, which holds
/// everything that selectors, columns and metadata-only readers need. What is large and rarely read stays packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    head: Bytes,
    tail: Tail,
}

/// The second part of an [`Object`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The head is the whole text.
    None,
    /// As it is.
    Plain(Bytes),
    /// As one zstd frame.
    Zstd {
        /// The frame.
        packed: Bytes,
        /// The size of the text in it, in bytes.
        length: usize,
    },
}

/// A packed tail that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[error("damaged object: {0}")]
pub struct ObjectError(#[from] io::Error);

impl Tail {
    /// Packs a text where that saves space.
    pub fn pack(text: &[u8]) -> Tail {
        if text.is_empty() {
            return Tail::None;
        }
        match PACKER.with_borrow_mut(|packer| packer.pack(text)) {
            Ok(packed) if packed.len() + WORTH_PACKING <= text.len() => Tail::Zstd {
                packed: packed.into(),
                length: text.len(),
            },
            // A text that does not fit, or does not shrink, is kept as it is.
            _ => Tail::Plain(Bytes::copy_from_slice(text)),
        }
    }

    /// Returns the text.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] when the frame is damaged or its length is not the one that was announced.
    pub fn unpack(&self) -> Result<Bytes, ObjectError> {
        match self {
            Tail::None => Ok(Bytes::new()),
            Tail::Plain(text) => Ok(text.clone()),
            Tail::Zstd { packed, length } => {
                let text = PACKER.with_borrow_mut(|packer| packer.unpack(packed, *length))?;
                Ok(text.into())
            }
        }
    }

    /// Returns the size in bytes as stored.
    pub fn size(&self) -> usize {
        match self {
            Tail::None => 0,
            Tail::Plain(text) => text.len(),
            Tail::Zstd { packed, .. } => packed.len(),
        }
    }
}

impl Object {
    /// An object that is kept in one piece.
    pub fn whole(json: impl Into<Bytes>) -> Self {
        Object {
            head: json.into(),
            tail: Tail::None,
        }
    }

    /// An object cut inside `spec`: `head` and `tail` together are its text.
    pub fn cut(head: impl Into<Bytes>, tail: Tail) -> Self {
        Object {
            head: head.into(),
            tail,
        }
    }

    /// Returns the first part.
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// Returns the second part.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Returns the JSON text without what is in the tail.
    pub fn summary(&self) -> Bytes {
        if self.tail == Tail::None {
            return self.head.clone();
        }
        [&self.head[..], CLOSING].concat().into()
    }

    /// Returns the whole JSON text.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] when the tail is damaged.
    pub fn json(&self) -> Result<Bytes, ObjectError> {
        match &self.tail {
            Tail::None => Ok(self.head.clone()),
            tail => Ok([&self.head[..], &tail.unpack()?].concat().into()),
        }
    }

    /// Returns the size in bytes as stored, without the envelope.
    pub fn size(&self) -> usize {
        self.head.len() + self.tail.size()
    }
}

thread_local! {
    /// zstd contexts are large; one a thread is made once and used again.
    static PACKER: RefCell<Packer> = RefCell::new(Packer::default());
}

#[derive(Default)]
struct Packer {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl Packer {
    fn pack(&mut self, text: &[u8]) -> io::Result<Vec<u8>> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        };
        compressor.compress(text)
    }

    fn unpack(&mut self, packed: &[u8], length: usize) -> io::Result<Vec<u8>> {
        if length > MAX_OBJECT_BYTES {
            return Err(io::Error::other(format!(
                "{length} bytes are more than {MAX_OBJECT_BYTES}"
            )));
        }
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(zstd::bulk::Decompressor::new()?),
        };
        let text = decompressor.decompress(packed, length)?;
        if text.len() != length {
            return Err(io::Error::other(format!(
                "{} bytes instead of {length}",
                text.len()
            )));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_object_reads_as_its_summary_and_as_its_whole() {
        let head = r#"{"kind":"Thing","spec":{"small":1"#;
        let tail = format!(r#","large":"{}"}}}}"#, "x".repeat(1000));
        let object = Object::cut(head, Tail::pack(tail.as_bytes()));
        assert!(object.size() < 200, "{}", object.size());
        assert_eq!(object.summary(), format!("{head}}}}}"));
        assert_eq!(object.json().unwrap(), format!("{head}{tail}"));
        for text in [object.summary(), object.json().unwrap()] {
            serde_json::from_slice::<serde_json::Value>(&text).unwrap();
        }
    }

    #[test]
    fn what_does_not_shrink_is_kept_plain() {
        assert_eq!(Tail::pack(b""), Tail::None);
        assert_eq!(
            Tail::pack(b",\"a\":1}}"),
            Tail::Plain(Bytes::from_static(b",\"a\":1}}"))
        );
    }

    #[test]
    fn a_damaged_tail_is_an_error() {
        let text = "y".repeat(1000);
        let Tail::Zstd { packed, length } = Tail::pack(text.as_bytes()) else {
            panic!("not packed")
        };
        assert!(
            Tail::Zstd {
                packed: packed.slice(..packed.len() - 4),
                length
            }
            .unpack()
            .is_err()
        );
        assert!(
            Tail::Zstd {
                packed: packed.clone(),
                length: length - 1
            }
            .unpack()
            .is_err()
        );
        assert!(
            Tail::Zstd {
                packed: packed.clone(),
                length: length + 1
            }
            .unpack()
            .is_err()
        );
        assert!(
            Tail::Zstd {
                packed,
                length: MAX_OBJECT_BYTES + 1
            }
            .unpack()
            .is_err()
        );
    }
}
