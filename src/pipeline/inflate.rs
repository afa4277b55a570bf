//! Stage 3: layer bytes → files under the catalog root: decompress, untar, overlay.
//!
//! What comes in: the compressed bytes of each layer, top layer first. What goes out: the files of the catalog, one
//! after the other, to a [`FileVisitor`]; nothing touches the disk. Because the top layer comes first, what an
//! upper layer removed or replaced is known when a lower layer names it, and one pass decides. A layer whose content is
//! known from before, and of which nothing is missing, is not even fetched. What it refuses: broken compression and
//! archives, paths that climb, links and devices under the root, anything over the limits.

mod archive;
mod contents;
mod directory;
mod overlay;
mod reader;

use std::collections::HashMap;
use std::io::{self, Read};

use tokio::sync::mpsc;

pub(super) use self::archive::Archive;
pub use self::contents::FileContents;
pub use self::directory::walk_directory;
use self::overlay::{Entry, Overlay};
use self::reader::{Counted, LayerReader, decompress};
use super::fetch::{Aborted, Digest, LayerStream};
use super::limits::{LimitExceeded, Limits, check};
use crate::event::{FileFacts, LayerContent, LayerEntry, Role};

/// Takes the files of a catalog.
pub trait FileVisitor {
    /// Takes one file. A second file of the same path replaces the first.
    ///
    /// `path` is relative to the catalog root and holds no `..`. What the visitor does not read is skipped.
    ///
    /// # Errors
    ///
    /// An error of the reader is handed back as it is; anything else that is wrong with the content is the
    /// visitor's own business.
    fn file(&mut self, path: &str, contents: &mut FileContents<'_>) -> io::Result<()>;

    /// Takes files without their contents, if they are known well enough for that: all of them, or none. Returns
    /// whether it took them.
    fn known_files(&mut self, files: &[(&str, FileFacts)]) -> bool;
}

/// Layers, or a directory, that do not unpack to a catalog.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// Fetch gave up in the middle; its own error says why.
    #[error(transparent)]
    Aborted(#[from] Aborted),
    /// The compression or the archive is broken.
    #[error("layer {layer} is broken after {unpacked} unpacked bytes: {reason}")]
    Broken {
        /// Which layer.
        layer: Digest,
        /// How far it could be unpacked.
        unpacked: u64,
        /// What is wrong there.
        reason: String,
    },
    /// An entry that cannot be part of a catalog.
    #[error("layer {layer}, `{path}`: {reason}")]
    Entry {
        /// Which layer.
        layer: Digest,
        /// The path in the archive.
        path: String,
        /// Why it is refused.
        reason: String,
    },
    /// Something is larger than allowed.
    #[error("{place}: {source}")]
    TooLarge {
        /// Where.
        place: String,
        /// Which bound it breaks.
        #[source]
        source: LimitExceeded,
    },
    /// A plain directory cannot be read.
    #[error("`{path}`: {reason}")]
    Directory {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are no files.
    #[error("no files under the catalog root `/{root}`")]
    Empty {
        /// Where files were expected.
        root: String,
    },
}

/// Unpacks layers as they come and hands the files under `root` to a visitor. Blocks. Returns what the layers hold,
/// as far as they were looked into. `known` are the layers that were looked into before.
///
/// # Errors
///
/// [`InflateError`]; the visitor may have seen files by then.
pub fn inflate_layers(
    layers: &mut mpsc::Receiver<LayerStream>,
    root: &str,
    known: &HashMap<Digest, LayerContent>,
    limits: &Limits,
    visitor: &mut dyn FileVisitor,
) -> Result<Vec<LayerContent>, InflateError> {
    let mut inflater =
        Inflater { root, limits, overlay: Overlay::new(root), entries: 0, paths: 0, unpacked: 0, files: 0 };
    let mut contents = Vec::new();
    while let Some(mut layer) = layers.blocking_recv() {
        let digest = layer.descriptor.digest.clone();
        let on_demand = layer.on_demand.take();
        let content = known.get(&digest).filter(|_| on_demand.is_some());
        match content {
            Some(content) if inflater.skip(&digest, content, visitor)? => contents.push(content.clone()),
            _ => {
                // Fetch may have given up; the layer then says so.
                let _ = on_demand.map(|on_demand| on_demand.send(()));
                let entries = inflater.layer(layer, visitor)?;
                contents.push(LayerContent { digest: digest.to_string(), entries });
            }
        }
        if inflater.overlay.hides_root() {
            break;
        }
    }
    if inflater.files == 0 {
        return Err(InflateError::Empty { root: root.to_owned() });
    }
    Ok(contents)
}

/// Unpacked bytes of a layer that are fine however small it is.
const RATIO_FREE: u64 = 16 << 20;

/// How many bytes a layer may unpack to.
struct Allowed {
    /// Because of the layers before.
    left: u64,
    /// Because of its own size.
    ratio: u64,
}

struct Inflater<'a> {
    root: &'a str,
    limits: &'a Limits,
    overlay: Overlay,
    entries: u64,
    /// Bytes of the paths that are remembered.
    paths: u64,
    unpacked: u64,
    files: usize,
}

impl Inflater<'_> {
    /// Does without a layer if the visitor does. Returns whether that is so.
    fn skip(
        &mut self,
        layer: &Digest,
        content: &LayerContent,
        visitor: &mut dyn FileVisitor,
    ) -> Result<bool, InflateError> {
        let is_visible = |entry: &&LayerEntry| entry.role != Role::Other || !self.overlay.hides(&entry.path);
        let visible: Vec<_> = content.entries.iter().filter(is_visible).collect();
        // Of a path that is there twice, the last one counts.
        let mut files = HashMap::new();
        for entry in visible.iter().filter(|entry| entry.role == Role::Other) {
            let Some(inside) = within(&entry.path, self.root) else { continue };
            // One that was hidden when the layer was read is not known.
            let Some(facts) = entry.file else { return Ok(false) };
            files.insert(inside, facts);
        }
        let files: Vec<_> = files.into_iter().collect();
        if !visitor.known_files(&files) {
            return Ok(false);
        }
        self.files += files.len();
        self.paths += content.entries.iter().map(|entry| entry.path.len() as u64).sum::<u64>();
        self.bounded(layer, "bytes in the paths of a catalog", self.paths, self.limits.paths_bytes)?;
        self.bounded(layer, "files in a catalog", self.files as u64, self.limits.files as u64)?;
        for entry in &content.entries {
            self.overlay.note(&Entry { path: entry.path.clone(), role: entry.role });
        }
        let remembered = self.overlay.remembered() as u64;
        self.bounded(layer, "paths in a catalog", remembered, self.limits.files as u64)?;
        self.overlay.next_layer();
        Ok(true)
    }

    fn layer(
        &mut self,
        layer: LayerStream,
        visitor: &mut dyn FileVisitor,
    ) -> Result<Vec<LayerEntry>, InflateError> {
        let digest = layer.descriptor.digest;
        let packed = layer.descriptor.size;
        let ratio = packed.saturating_mul(self.limits.compression_ratio).max(RATIO_FREE);
        let left = self.limits.unpacked_bytes - self.unpacked;
        let allowed = Allowed { left, ratio };
        let reader = decompress(LayerReader::new(layer.chunks))
            .map_err(|error| broken(&digest, self.unpacked, error))?;
        let counted = Counted::new(reader, left.min(ratio));
        let mut archive = Archive::new(counted, self.limits.path_bytes);
        let result = self.entries(&digest, &mut archive, visitor);
        let mut rest = archive.into_inner();
        // Behind the archive there may be padding; the compression has to be sound to its end.
        let result = result.and_then(|entries| {
            io::copy(&mut rest, &mut io::sink()).map_err(|error| broken(&digest, 0, error))?;
            Ok(entries)
        });
        self.unpacked += rest.count();
        let entries = result.map_err(|error| error.at(rest.count(), &allowed, self.limits))?;
        self.overlay.next_layer();
        Ok(entries)
    }

    fn entries<R: Read>(
        &mut self,
        layer: &Digest,
        archive: &mut Archive<R>,
        visitor: &mut dyn FileVisitor,
    ) -> Result<Vec<LayerEntry>, InflateError> {
        let mut entries = Vec::new();
        let unreadable = |error| broken(layer, 0, error);
        while let Some(member) = archive.next().map_err(unreadable)? {
            self.entries += 1;
            self.bounded(layer, "entries in archives", self.entries, self.limits.archive_entries)?;
            let name = member.path;
            let refuse = |reason: &str| InflateError::Entry {
                layer: layer.clone(),
                path: String::from_utf8_lossy(&name).into_owned(),
                reason: reason.to_owned(),
            };
            let kind = member.kind;
            let Some(found) = self.relevant(&name, kind.is_dir()).map_err(&refuse)? else {
                continue;
            };
            self.paths += found.path.len() as u64;
            self.bounded(layer, "bytes in the paths of a catalog", self.paths, self.limits.paths_bytes)?;
            let is_hidden = found.role == Role::Other && self.overlay.hides(&found.path);
            entries.push(LayerEntry { path: found.path.clone(), role: found.role, file: None });
            // What is hidden still hides: a directory above it does not bring back what a file had replaced.
            self.overlay.note(&found);
            let remembered = self.overlay.remembered() as u64;
            self.bounded(layer, "paths in a catalog", remembered, self.limits.files as u64)?;
            if is_hidden || found.role != Role::Other {
                continue;
            }
            if found.path == self.root {
                return Err(refuse("the catalog root is not a directory"));
            }
            let Some(inside) = within(&found.path, self.root) else { continue };
            if !kind.is_file() && !kind.is_contiguous() {
                return Err(refuse("only plain files and directories can be part of a catalog"));
            }
            let size = member.size;
            self.bounded(layer, "bytes in a file", size, self.limits.file_bytes)?;
            self.files += 1;
            self.bounded(layer, "files in a catalog", self.files as u64, self.limits.files as u64)?;
            let mut content = archive.content();
            let mut contents = FileContents::new(&mut content, size);
            visitor.file(inside, &mut contents).map_err(unreadable)?;
            let facts = contents.finish().map_err(unreadable)?;
            if facts.size != size {
                return Err(refuse(&format!("cut off after {} of {size} bytes", facts.size)));
            }
            if let Some(last) = entries.last_mut() {
                last.file = Some(facts);
            }
        }
        Ok(entries)
    }

    /// Returns an entry when it can matter to the catalog: it lies under the root, or above it.
    fn relevant(&self, name: &[u8], is_directory: bool) -> Result<Option<Entry>, &'static str> {
        let Ok(name) = std::str::from_utf8(name) else {
            // Lossy is enough to see whether it lies under the root, where it would have to be a name.
            let lossy = String::from_utf8_lossy(name);
            let is_inside =
                Entry::new(&lossy, is_directory)?.is_some_and(|entry| self.overlay.concerns(&entry.path));
            return if is_inside { Err("the path is not UTF-8") } else { Ok(None) };
        };
        Ok(Entry::new(name, is_directory)?.filter(|entry| self.overlay.concerns(&entry.path)))
    }

    fn bounded(
        &self,
        layer: &Digest,
        what: &'static str,
        count: u64,
        limit: u64,
    ) -> Result<(), InflateError> {
        check(what, count, limit)
            .map_err(|source| InflateError::TooLarge { place: format!("layer {layer}"), source })
    }
}

/// Returns a path as it is under the catalog root.
fn within<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    path.strip_prefix(root)?.strip_prefix('/')
}

fn broken(layer: &Digest, unpacked: u64, error: io::Error) -> InflateError {
    if let Some(source) = cause::<LimitExceeded>(&error) {
        return InflateError::TooLarge { place: format!("layer {layer}"), source: source.clone() };
    }
    if cause::<Aborted>(&error).is_some() {
        return InflateError::Aborted(Aborted);
    }
    InflateError::Broken { layer: layer.clone(), unpacked, reason: error.to_string() }
}

/// Returns the error of a type somewhere behind an I/O error: decoders and archives wrap what they are handed.
fn cause<T: std::error::Error + 'static>(error: &io::Error) -> Option<&T> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|error| error as _);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>() {
            Some(inner) => inner.get_ref().map(|error| error as _),
            None => error.source(),
        };
    }
    None
}

impl InflateError {
    /// Completes an error with what only the whole layer knows.
    fn at(self, count: u64, allowed: &Allowed, limits: &Limits) -> Self {
        match self {
            InflateError::Broken { layer, reason, .. } => {
                InflateError::Broken { layer, unpacked: count, reason }
            }
            InflateError::TooLarge { place, source } if source.what == reader::UNPACKED => {
                let source = match allowed.ratio < allowed.left {
                    true => LimitExceeded {
                        what: "times as many unpacked bytes as packed ones",
                        limit: limits.compression_ratio,
                    },
                    false => LimitExceeded { limit: limits.unpacked_bytes, ..source },
                };
                InflateError::TooLarge { place, source }
            }
            other => other,
        }
    }
}
