//! An encoded object: its JSON text, cut in two so that the large part can stay packed.

use std::cell::RefCell;
use std::io::{self, Cursor};

use bytes::Bytes;
use zstd::zstd_safe::{CDict, DCtx};

use super::DictionaryId;

/// Objects larger than this are not decoded, whatever an envelope claims.
pub(super) const MAX_OBJECT_BYTES: usize = 64 << 20;

/// What the summary of a cut object is closed with: the cut lies in `spec`, which is the last field.
const CLOSING: &[u8] = b"}}";

/// A text is packed only where that saves at least this many bytes.
const WORTH_PACKING: usize = 64;

/// Bytes that a thread keeps for the next text it packs.
const KEPT_FRAME_BYTES: usize = 256 << 10;

/// zstd's fastest regular level: the pipeline packs every bundle once, on the hot path.
pub(super) const ZSTD_LEVEL: i32 = 1;

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
    /// As one zstd frame that can be unpacked with a dictionary only, which is an object of its own:
    /// [`Store::complete`](super::Store::complete) does.
    Referring {
        /// Which dictionary.
        dictionary: DictionaryId,
        /// The frame.
        packed: Bytes,
        /// The size of the text in it, in bytes.
        length: usize,
    },
    /// The same with the text of the dictionary: as it comes from [`Store::complete`](super::Store::complete).
    Joined {
        /// Which dictionary.
        dictionary: DictionaryId,
        /// Its text, which many tails share.
        text: Bytes,
        /// The frame.
        packed: Bytes,
        /// The size of the text in it, in bytes.
        length: usize,
    },
    /// Not here: [`Store::complete`](super::Store::complete) gives it.
    Deferred,
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
        match pack(text) {
            Some(packed) => Tail::Zstd { packed: packed.into(), length: text.len() },
            None => Tail::Plain(Bytes::copy_from_slice(text)),
        }
    }

    /// Returns the text.
    ///
    /// # Errors
    ///
    /// [`ObjectError`] when the frame is damaged or its length is not the one that was announced, and for a tail
    /// that is not here, or not without its dictionary.
    pub fn unpack(&self) -> Result<Bytes, ObjectError> {
        match self {
            Tail::None => Ok(Bytes::new()),
            Tail::Plain(text) => Ok(text.clone()),
            Tail::Deferred => Err(ObjectError(io::Error::other("the tail is not here"))),
            Tail::Referring { dictionary, .. } => {
                Err(ObjectError(io::Error::other(format!("dictionary {dictionary} is not here"))))
            }
            Tail::Zstd { .. } | Tail::Joined { .. } => {
                let mut text = Vec::new();
                self.unpack_into(&mut text)?;
                Ok(text.into())
            }
        }
    }

    /// Writes the text behind what there is.
    ///
    /// # Errors
    ///
    /// As [`Self::unpack`]; something may have been written then.
    pub fn unpack_into(&self, out: &mut Vec<u8>) -> Result<(), ObjectError> {
        match self {
            Tail::Zstd { packed, length } => unpack(packed, *length, &[], out),
            Tail::Joined { text, packed, length, .. } => unpack(packed, *length, text, out),
            tail => {
                out.extend_from_slice(&tail.unpack()?);
                Ok(())
            }
        }
    }

    /// Returns the text of a tail that was packed with this dictionary, or without any.
    ///
    /// # Errors
    ///
    /// As [`Self::unpack`]; one for another dictionary is most likely noticed, as damage.
    pub fn unpack_with(&self, dictionary: &[u8]) -> Result<Bytes, ObjectError> {
        match self {
            Tail::Referring { packed, length, .. } => {
                let mut text = Vec::new();
                unpack(packed, *length, dictionary, &mut text)?;
                Ok(text.into())
            }
            tail => tail.unpack(),
        }
    }

    /// Adds the text of the dictionary to a tail that needs it.
    pub(super) fn join(&self, text: &Bytes) -> Tail {
        match self {
            Tail::Referring { dictionary, packed, length } => Tail::Joined {
                dictionary: *dictionary,
                text: text.clone(),
                packed: packed.clone(),
                length: *length,
            },
            tail => tail.clone(),
        }
    }

    /// Returns the size of the text in bytes; none where the tail is not here.
    pub fn length(&self) -> Option<usize> {
        match self {
            Tail::None => Some(0),
            Tail::Plain(text) => Some(text.len()),
            Tail::Zstd { length, .. } | Tail::Referring { length, .. } | Tail::Joined { length, .. } => {
                Some(*length)
            }
            Tail::Deferred => None,
        }
    }

    /// Returns whether the text is here, be it packed.
    pub fn is_here(&self) -> bool {
        !matches!(self, Tail::Deferred | Tail::Referring { .. })
    }

    /// Returns the size in bytes as stored.
    pub fn size(&self) -> usize {
        match self {
            Tail::None | Tail::Deferred => 0,
            Tail::Plain(text) => text.len(),
            Tail::Zstd { packed, .. } => packed.len(),
            Tail::Referring { packed, .. } | Tail::Joined { packed, .. } => {
                DictionaryId::LENGTH + packed.len()
            }
        }
    }
}

impl Object {
    /// An object that is kept in one piece.
    pub fn whole(json: impl Into<Bytes>) -> Self {
        Object { head: json.into(), tail: Tail::None }
    }

    /// An object cut inside `spec`: `head` and `tail` together are its text.
    pub fn cut(head: impl Into<Bytes>, tail: Tail) -> Self {
        Object { head: head.into(), tail }
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
            tail => {
                let mut text = Vec::with_capacity(self.head.len() + tail.length().unwrap_or_default());
                text.extend_from_slice(&self.head);
                tail.unpack_into(&mut text)?;
                Ok(text.into())
            }
        }
    }

    /// Returns the size in bytes as stored, without the envelope.
    pub fn size(&self) -> usize {
        self.head.len() + self.tail.size()
    }
}

/// Packs a text as one zstd frame; none where it does not fit, or not enough is won.
pub(super) fn pack(text: &[u8]) -> Option<Vec<u8>> {
    pack_with(text, None)
}

/// As [`pack`], with a dictionary if there is one.
pub(super) fn pack_with(text: &[u8], dictionary: Option<&CDict<'_>>) -> Option<Vec<u8>> {
    let packed = PACKER.with_borrow_mut(|packer| packer.pack(text, dictionary)).ok()?;
    (packed.len() + WORTH_PACKING <= text.len()).then_some(packed)
}

/// Unpacks a zstd frame whose text has a length and was packed with a dictionary, or with an empty one for none, behind what
/// there is.
///
/// # Errors
///
/// [`ObjectError`] when it is damaged, or has another.
pub(super) fn unpack(
    packed: &[u8],
    length: usize,
    dictionary: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ObjectError> {
    Ok(PACKER.with_borrow_mut(|packer| packer.unpack(packed, length, dictionary, out))?)
}

thread_local! {
    /// zstd contexts are large; one a thread is made once and used again.
    static PACKER: RefCell<Packer> = RefCell::new(Packer::default());
}

#[derive(Default)]
struct Packer {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    /// Where frames are made, before it is known how large they are.
    frame: Vec<u8>,
    decompressor: Option<DCtx<'static>>,
}

impl Packer {
    fn pack(&mut self, text: &[u8], dictionary: Option<&CDict<'_>>) -> io::Result<Vec<u8>> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        };
        self.frame.clear();
        self.frame.reserve(zstd::compress_bound(text.len()));
        match dictionary {
            Some(dictionary) => compressor
                .context_mut()
                .compress_using_cdict(&mut self.frame, text, dictionary)
                .map_err(zstd_error)?,
            None => compressor.compress_to_buffer(text, &mut self.frame)?,
        };
        let packed = self.frame.to_vec();
        if self.frame.capacity() > KEPT_FRAME_BYTES {
            self.frame = Vec::new();
        }
        Ok(packed)
    }

    fn unpack(
        &mut self,
        packed: &[u8],
        length: usize,
        dictionary: &[u8],
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        if length > MAX_OBJECT_BYTES {
            return Err(io::Error::other(format!("{length} bytes are more than {MAX_OBJECT_BYTES}")));
        }
        let decompressor = self.decompressor.get_or_insert_with(DCtx::create);
        let start = out.len();
        out.reserve(length);
        let mut behind = Cursor::new(std::mem::take(out));
        behind.set_position(start as u64);
        let unpacked = decompressor.decompress_using_dict(&mut behind, packed, dictionary);
        *out = behind.into_inner();
        let unpacked = unpacked.map_err(zstd_error)?;
        if unpacked != length {
            return Err(io::Error::other(format!("{unpacked} bytes instead of {length}")));
        }
        Ok(())
    }
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(zstd::zstd_safe::get_error_name(code))
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
        assert_eq!(Tail::pack(b",\"a\":1}}"), Tail::Plain(Bytes::from_static(b",\"a\":1}}")));
    }

    #[test]
    fn a_damaged_tail_is_an_error() {
        let text = "y".repeat(1000);
        let Tail::Zstd { packed, length } = Tail::pack(text.as_bytes()) else { panic!("not packed") };
        assert!(Tail::Zstd { packed: packed.slice(..packed.len() - 4), length }.unpack().is_err());
        assert!(Tail::Zstd { packed: packed.clone(), length: length - 1 }.unpack().is_err());
        assert!(Tail::Zstd { packed: packed.clone(), length: length + 1 }.unpack().is_err());
        assert!(Tail::Zstd { packed, length: MAX_OBJECT_BYTES + 1 }.unpack().is_err());
    }
}
