//! Reads tar, entry by entry, with a bound on everything that is kept.
//!
//! The `tar` crate keeps whatever an archive says about its next member, which a bomb makes any number of gigabytes.
//! Here names and extensions have a bound, and the maps of sparse files are skipped. What it refuses: headers whose
//! checksum is wrong, members that are cut off, extensions without a member, and a single block of zeros with something
//! behind it, which other readers take for the end or not.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::pipeline::limits::{check, read_bounded};

const BLOCK: usize = 512;

/// Bytes of extended headers of one member, beside its names.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// Where a sparse header says that more of its map follows, in the first block and in the ones behind it.
const SPARSE_MORE: usize = 482;
const SPARSE_MORE_YET: usize = 504;

/// An archive, read from front to back.
pub(crate) struct Archive<R> {
    reader: R,
    /// Goes on by some bytes.
    skip: fn(&mut R, u64) -> io::Result<u64>,
    max_path_bytes: u64,
    /// Bytes up to the next header: what is left of the member, and its padding.
    left: u64,
    padding: u64,
    /// Where the reader stands.
    position: u64,
}

/// A member.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its whole path.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryType,
    /// Bytes of its content in the archive.
    pub(crate) size: u64,
    /// Where its content begins.
    pub(crate) position: u64,
}

/// What members say about the one behind them.
#[derive(Default)]
struct Extensions {
    has_any: bool,
    path: Option<Vec<u8>>,
    size: Option<u64>,
    is_sparse: bool,
}

impl<R: Read> Archive<R> {
    /// Begins to read an archive.
    pub(crate) fn new(reader: R, max_path_bytes: usize) -> Self {
        Self::with_skip(reader, max_path_bytes, |reader, count| {
            io::copy(&mut reader.take(count), &mut io::sink())
        })
    }

    /// As [`Self::new`], with a quicker way to pass by what is not looked at.
    pub(crate) fn with_skip(
        reader: R,
        max_path_bytes: usize,
        skip: fn(&mut R, u64) -> io::Result<u64>,
    ) -> Self {
        let max_path_bytes = max_path_bytes as u64;
        Archive { reader, skip, max_path_bytes, left: 0, padding: 0, position: 0 }
    }

    /// Returns the reader, wherever it stands.
    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    /// Returns the reader of what is left of the member.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// Returns the next member; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut extensions = Extensions::default();
        loop {
            self.pass(self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                return match extensions.has_any {
                    true => Err(io::Error::other("the archive ends behind the name of a member")),
                    false => Ok(None),
                };
            };
            let mut kind = header.entry_type();
            let is_extension = kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions();
            let size = match extensions.size {
                // Whatever size these claim, nothing follows: so the readers have it that images are unpacked with.
                _ if is_header_only(kind) => 0,
                Some(size) if !is_extension => size,
                _ => header.entry_size()?,
            };
            self.expect(size)?;
            if is_extension {
                extensions.has_any |= !kind.is_pax_global_extensions();
                self.extension(kind, size, &mut extensions)?;
                continue;
            }
            if kind.is_gnu_sparse() {
                self.pass_map(&header)?;
            }
            if extensions.is_sparse {
                kind = EntryType::GNUSparse;
            }
            let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
            check("bytes in a path", path.len() as u64, self.max_path_bytes).map_err(io::Error::other)?;
            return Ok(Some(Member { path, kind, size, position: self.position }));
        }
    }

    /// Reads a header; none where the archive ends.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if is_zero(header.as_bytes()) {
            let mut second = [0; BLOCK];
            if self.block(&mut second)? && !is_zero(&second) {
                return Err(io::Error::other("a block of zeros in the middle of the archive"));
            }
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum();
        if header.cksum()? != sum + 8 * u32::from(b' ') {
            return Err(io::Error::other("the checksum of a header is wrong"));
        }
        Ok(Some(header))
    }

    /// Reads a block; there is none at the end of the input.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(cut_off()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK as u64;
        Ok(true)
    }

    /// Notes that so much content follows.
    fn expect(&mut self, size: u64) -> io::Result<()> {
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let end = size.checked_add(padding).and_then(|length| length.checked_add(self.position));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(io::Error::other("a member is larger than any archive"));
        }
        (self.left, self.padding) = (size, padding);
        Ok(())
    }

    fn pass(&mut self, count: u64) -> io::Result<()> {
        if (self.skip)(&mut self.reader, count)? != count {
            return Err(cut_off());
        }
        self.position += count;
        Ok(())
    }

    /// Passes by the rest of the map of a sparse file, which lies between its header and its content.
    fn pass_map(&mut self, header: &Header) -> io::Result<()> {
        let mut has_more = header.as_bytes()[SPARSE_MORE] == 1;
        let mut block = [0; BLOCK];
        while has_more {
            if !self.block(&mut block)? {
                return Err(cut_off());
            }
            has_more = block[SPARSE_MORE_YET] == 1;
        }
        Ok(())
    }

    fn extension(&mut self, kind: EntryType, size: u64, extensions: &mut Extensions) -> io::Result<()> {
        if kind.is_gnu_longlink() || kind.is_pax_global_extensions() {
            // Links are not followed, and nothing global says anything about a path.
            return Ok(());
        }
        if kind.is_gnu_longname() {
            // It ends with a zero.
            check("bytes in a path", size.saturating_sub(1), self.max_path_bytes)
                .map_err(io::Error::other)?;
            let mut path = self.read_content()?;
            path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
            return only(extensions.path.replace(path));
        }
        check("bytes in an extended header", size, MAX_EXTENSION_BYTES).map_err(io::Error::other)?;
        let text = self.read_content()?;
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let (key, value, behind) =
                record(rest).ok_or_else(|| io::Error::other("an extended header makes no sense"))?;
            rest = behind;
            match key {
                b"path" => only(extensions.path.replace(value.to_owned()))?,
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                    let size = size.ok_or_else(|| io::Error::other("a size that is no number"))?;
                    only(extensions.size.replace(size))?;
                }
                _ => extensions.is_sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
        Ok(())
    }

    fn read_content(&mut self) -> io::Result<Vec<u8>> {
        let size = self.left;
        let read = read_bounded(self.content(), "bytes in an extended header", size)?;
        if read.len() as u64 != size { Err(cut_off()) } else { Ok(read) }
    }
}

/// The content of a member, as far as it was not read yet.
pub(crate) struct Content<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.0.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.0.reader.read(&mut buffer[..length])?;
        self.0.left -= count as u64;
        self.0.position += count as u64;
        Ok(count)
    }
}

/// Takes the first record off an extended header, `LENGTH KEY=VALUE` and a line feed, and returns what is behind it. The
/// length counts: line feeds can be part of a value.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
    let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &text[length..]))
}

fn is_header_only(kind: EntryType) -> bool {
    kind.is_hard_link()
        || kind.is_symlink()
        || kind.is_dir()
        || kind.is_fifo()
        || kind.is_character_special()
        || kind.is_block_special()
}

/// Of two that say the same thing about one member, other readers take the one or the other.
fn only<T>(before: Option<T>) -> io::Result<()> {
    match before {
        None => Ok(()),
        Some(_) => Err(io::Error::other("two names or sizes for one member")),
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off")
}
