//! Stage 4: file bytes → one meta at a time, JSON or YAML, never a whole catalog in memory.
//!
//! What comes in: the files of the catalog, as inflate hands them out. What goes out: typed metas with the hash of
//! their text, to a [`MetaSink`], from several threads. A file that the sink knows is not cut into metas, and a meta that
//! it knows is not parsed. What it refuses: files that are neither JSON nor YAML; it says where, and the rest goes on.

mod bundle;
mod compact;
mod csv;
mod meta;
mod queue;
mod split;
mod yaml;

use std::io::{self, Read};
use std::num::NonZero;
use std::thread;

use bytes::Bytes;

pub use self::bundle::BundleMeta;
pub use self::meta::{
    ChannelMeta, DeprecationMeta, DeprecationReference, DeprecationsMeta, EntryMeta, IconMeta, Meta,
    PackageMeta,
};
use self::queue::Queue;
use self::split::{Format, Slice};
use super::inflate::{FileContents, FileVisitor};
use super::limits::{LimitExceeded, Limits, read_bounded};
use super::progress::Progress;
use crate::event::{FileFacts, MetaHash};

/// Files that say which files are not part of the catalog.
pub const INDEX_IGNORE: &str = ".indexignore";

/// Bytes of metas that may wait for a parser. A meta that is larger waits alone.
const QUEUED_BYTES: usize = 4 << 20;

/// Bytes of a file that is read whole to see whether it is known. Larger ones are cut as they come, and their metas are
/// known one by one.
const BUFFERED_BYTES: u64 = 8 << 20;

/// The number of a file, in the order in which files came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// Where a meta stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// In which file.
    pub file: FileId,
    /// How many bytes from its start.
    pub offset: u64,
}

/// Takes what was read. Parsers call it from several threads.
pub trait MetaSink: Sync {
    /// Begins a file; every place in it comes later. A file of the same path replaces an earlier one.
    fn file(&self, id: FileId, path: &str);

    /// Ends a file, whose content is this.
    fn file_ends(&self, id: FileId, facts: FileFacts);

    /// Returns whether a file of this size may be one that [`Self::knows_file`].
    fn may_know_file(&self, path: &str, size: u64) -> bool;

    /// Returns whether nothing more needs to be known of a file that was begun and has this content. It is then not
    /// parsed.
    fn knows_file(&self, id: FileId, path: &str, facts: FileFacts) -> bool;

    /// Returns whether these files, which come from one layer, need not be begun at all but for [`Self::keep_file`].
    fn knows_files(&self, files: &[(&str, FileFacts)]) -> bool;

    /// Takes a file without a look at it.
    fn keep_file(&self, id: FileId, path: &str, facts: FileFacts);

    /// Takes an `.indexignore` file.
    fn ignore_file(&self, path: &str, content: &[u8]);

    /// Returns whether nothing more needs to be known of a meta with this hash. It is then not parsed.
    fn knows(&self, place: Place, hash: MetaHash) -> bool;

    /// Takes a meta.
    fn meta(&self, place: Place, hash: MetaHash, meta: Meta);

    /// Takes note of a place that makes no sense, and of the package it belongs to where that can be told. After a broken
    /// JSON object nothing more comes of its file.
    fn malformed(&self, place: Place, reason: String, package: Option<String>);
}

/// Runs a source of files against parsers on all cores, and returns when every meta was taken. Blocks.
///
/// # Errors
///
/// Whatever the source fails with; some metas may have been taken by then.
pub fn parse_files<E>(
    limits: &Limits,
    progress: &Progress,
    sink: &dyn MetaSink,
    source: impl FnOnce(&mut dyn FileVisitor) -> Result<(), E>,
) -> Result<(), E> {
    let queue = Queue::new(QUEUED_BYTES);
    thread::scope(|scope| {
        let parsers = thread::available_parallelism().map_or(2, NonZero::get);
        for _ in 0..parsers {
            scope.spawn(|| {
                while let Some(raw) = queue.pop() {
                    parse(&raw, sink);
                    progress.add_meta();
                }
            });
        }
        // Parsers end when the queue is closed, also when the source panics.
        let _close = queue.close_on_drop();
        let mut visitor = Visitor { limits, sink, queue: &queue, files: 0, ignore_bytes: 0 };
        source(&mut visitor)
    })
}

/// A meta on its way to a parser.
struct RawMeta {
    place: Place,
    format: Format,
    text: Bytes,
}

struct Visitor<'a> {
    limits: &'a Limits,
    sink: &'a dyn MetaSink,
    queue: &'a Queue<RawMeta>,
    files: u32,
    ignore_bytes: u64,
}

impl FileVisitor for Visitor<'_> {
    fn file(&mut self, path: &str, contents: &mut FileContents<'_>) -> io::Result<()> {
        if is_ignore_file(path) {
            return self.ignore_file(path, contents);
        }
        let file = self.begin();
        self.sink.file(file, path);
        let size = contents.size();
        if size <= BUFFERED_BYTES && self.sink.may_know_file(path, size) {
            let text = read_bounded(&mut *contents, "bytes in a file", size)?;
            if !self.sink.knows_file(file, path, contents.so_far()) {
                self.split(file, &mut text.as_slice())?;
            }
        } else {
            self.split(file, contents)?;
        }
        self.sink.file_ends(file, contents.finish()?);
        Ok(())
    }

    fn known_files(&mut self, files: &[(&str, FileFacts)]) -> bool {
        // What an ignore file says is not remembered.
        if files.iter().any(|(path, _)| is_ignore_file(path)) || !self.sink.knows_files(files) {
            return false;
        }
        for (path, facts) in files {
            let file = self.begin();
            self.sink.keep_file(file, path, *facts);
        }
        true
    }
}

impl Visitor<'_> {
    fn begin(&mut self) -> FileId {
        self.files += 1;
        FileId(self.files - 1)
    }

    fn split(&self, file: FileId, contents: &mut dyn Read) -> io::Result<()> {
        let mut emit = |slice: Slice| {
            let Slice { offset, format, text } = slice;
            let size = text.len();
            self.queue.push(RawMeta { place: Place { file, offset }, format, text }, size);
        };
        if let Err(malformed) = split::split(contents, self.limits.meta_bytes, &mut emit)? {
            let place = Place { file, offset: malformed.offset };
            self.sink.malformed(place, malformed.reason, None);
        }
        Ok(())
    }

    fn ignore_file(&mut self, path: &str, contents: &mut dyn Read) -> io::Result<()> {
        let limit = self.limits.ignore_bytes;
        let what = "bytes in .indexignore files";
        let content =
            read_bounded(contents, what, limit - self.ignore_bytes).map_err(|error| match error.kind() {
                io::ErrorKind::Other => io::Error::other(LimitExceeded { what, limit }),
                _ => error,
            })?;
        self.ignore_bytes += content.len() as u64;
        self.sink.ignore_file(path, &content);
        Ok(())
    }
}

fn is_ignore_file(path: &str) -> bool {
    path.rsplit('/').next() == Some(INDEX_IGNORE)
}

fn parse(raw: &RawMeta, sink: &dyn MetaSink) {
    let RawMeta { place, format, text } = raw;
    let hash = MetaHash::of(text);
    if sink.knows(*place, hash) {
        return;
    }
    let read = match format {
        Format::Json => meta::read_meta(text).map_err(|malformed| (malformed, meta::find_package(text))),
        Format::Yaml => yaml::to_json(text).map_err(|malformed| (malformed, None)).and_then(|json| {
            // Places in the JSON text mean nothing in the file.
            let misplaced = |malformed| split::Malformed { offset: 0, ..malformed };
            meta::read_meta(&json).map_err(|malformed| (misplaced(malformed), meta::find_package(&json)))
        }),
    };
    match read {
        Ok(meta) => sink.meta(*place, hash, meta),
        Err((malformed, package)) => {
            let offset = place.offset + malformed.offset;
            sink.malformed(Place { offset, ..*place }, malformed.reason, package);
        }
    }
}
