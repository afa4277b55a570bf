//! Stage 4: file bytes → one meta at a time, JSON or YAML, never a whole catalog in memory.
//!
//! What comes in: the files of the catalog, as inflate hands them out. What goes out: typed metas with the hash of
//! their text, to a [`MetaSink`], from several threads. What it refuses: files that are neither; it says where, and
//! the rest goes on.

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
    ChannelMeta, DeprecationMeta, DeprecationReference, DeprecationsMeta, EntryMeta, IconMeta,
    Meta, PackageMeta,
};
use self::queue::Queue;
use self::split::{Format, Slice};
use super::inflate::FileVisitor;
use super::limits::{LimitExceeded, Limits, read_bounded};
use super::progress::Progress;
use crate::event::MetaHash;

/// Files that say which files are not part of the catalog.
pub const INDEX_IGNORE: &str = ".indexignore";

/// Bytes of metas that may wait for a parser. A meta that is larger waits alone.
const QUEUED_BYTES: usize = 4 << 20;

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

    /// Takes an `.indexignore` file.
    fn ignore_file(&self, path: &str, content: &[u8]);

    /// Returns whether nothing more needs to be known of a meta with this hash. It is then not parsed.
    fn knows(&self, place: Place, hash: MetaHash) -> bool;

    /// Takes a meta.
    fn meta(&self, place: Place, hash: MetaHash, meta: Meta);

    /// Takes note of a place that makes no sense. After a broken JSON object nothing more comes of its file.
    fn malformed(&self, place: Place, reason: String);
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
        let mut visitor = Visitor {
            limits,
            sink,
            queue: &queue,
            files: 0,
            ignore_bytes: 0,
        };
        source(&mut visitor)
    })
}

/// A meta on its way to a parser.
struct RawMeta {
    place: Place,
    format: Format,
    text: Bytes,
    hash: MetaHash,
}

struct Visitor<'a> {
    limits: &'a Limits,
    sink: &'a dyn MetaSink,
    queue: &'a Queue<RawMeta>,
    files: u32,
    ignore_bytes: u64,
}

impl FileVisitor for Visitor<'_> {
    fn file(&mut self, path: &str, contents: &mut dyn Read) -> io::Result<()> {
        if path.rsplit('/').next() == Some(INDEX_IGNORE) {
            return self.ignore_file(path, contents);
        }
        let file = FileId(self.files);
        self.files += 1;
        self.sink.file(file, path);
        let mut emit = |slice: Slice| {
            let place = Place {
                file,
                offset: slice.offset,
            };
            let hash = MetaHash::of(&slice.text);
            if !self.sink.knows(place, hash) {
                let size = slice.text.len();
                self.queue.push(
                    RawMeta {
                        place,
                        format: slice.format,
                        text: slice.text,
                        hash,
                    },
                    size,
                );
            }
        };
        if let Err(malformed) = split::split(contents, self.limits.meta_bytes, &mut emit)? {
            let place = Place {
                file,
                offset: malformed.offset,
            };
            self.sink.malformed(place, malformed.reason);
        }
        Ok(())
    }
}

impl Visitor<'_> {
    fn ignore_file(&mut self, path: &str, contents: &mut dyn Read) -> io::Result<()> {
        let limit = self.limits.ignore_bytes;
        let what = "bytes in .indexignore files";
        let content =
            read_bounded(contents, what, limit - self.ignore_bytes).map_err(|error| match error
                .kind()
            {
                io::ErrorKind::Other => io::Error::other(LimitExceeded { what, limit }),
                _ => error,
            })?;
        self.ignore_bytes += content.len() as u64;
        self.sink.ignore_file(path, &content);
        Ok(())
    }
}

fn parse(raw: &RawMeta, sink: &dyn MetaSink) {
    let read = match raw.format {
        Format::Json => meta::read_meta(&raw.text),
        Format::Yaml => yaml::to_json(&raw.text).and_then(|json| {
            // Places in the JSON text mean nothing in the file.
            meta::read_meta(&json).map_err(|malformed| split::Malformed {
                offset: 0,
                ..malformed
            })
        }),
    };
    match read {
        Ok(meta) => sink.meta(raw.place, raw.hash, meta),
        Err(malformed) => {
            let offset = raw.place.offset + malformed.offset;
            sink.malformed(
                Place {
                    offset,
                    ..raw.place
                },
                malformed.reason,
            );
        }
    }
}
