//! Stage 3: layer bytes → files under the catalog root: decompress, untar, overlay.
//!
//! What comes in: the compressed bytes of each layer, top layer first. What goes out: the files of the catalog, one
//! after the other, to a [`FileVisitor`]; nothing touches the disk. Because the top layer comes first, what an
//! upper layer removed or replaced is known when a lower layer names it, and one pass decides. What it refuses:
//! broken compression and archives, paths that climb, links and devices under the root, anything over the limits.

mod directory;
mod overlay;
mod reader;

use std::io::{self, Read};

use tokio::sync::mpsc;

pub use self::directory::walk_directory;
use self::overlay::{Entry, Overlay, Role};
use self::reader::{Counted, LayerReader, decompress};
use super::fetch::{Aborted, Digest, LayerStream};
use super::limits::{LimitExceeded, Limits, check};

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
    fn file(&mut self, path: &str, contents: &mut dyn Read) -> io::Result<()>;
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

/// Unpacks layers as they come and hands the files under `root` to a visitor. Blocks.
///
/// # Errors
///
/// [`InflateError`]; the visitor may have seen files by then.
pub fn inflate_layers(
    layers: &mut mpsc::Receiver<LayerStream>,
    root: &str,
    limits: &Limits,
    visitor: &mut dyn FileVisitor,
) -> Result<(), InflateError> {
    let mut inflater = Inflater {
        root,
        limits,
        overlay: Overlay::new(root),
        entries: 0,
        unpacked: 0,
        files: 0,
    };
    while let Some(layer) = layers.blocking_recv() {
        inflater.layer(layer, visitor)?;
        if inflater.overlay.hides_root() {
            break;
        }
    }
    if inflater.files == 0 {
        return Err(InflateError::Empty {
            root: root.to_owned(),
        });
    }
    Ok(())
}

struct Inflater<'a> {
    root: &'a str,
    limits: &'a Limits,
    overlay: Overlay,
    entries: u64,
    unpacked: u64,
    files: usize,
}

impl Inflater<'_> {
    fn layer(
        &mut self,
        layer: LayerStream,
        visitor: &mut dyn FileVisitor,
    ) -> Result<(), InflateError> {
        let digest = layer.descriptor.digest;
        let left = self.limits.unpacked_bytes - self.unpacked;
        let reader = decompress(LayerReader::new(layer.chunks))
            .map_err(|error| broken(&digest, self.unpacked, error))?;
        let mut archive = tar::Archive::new(Counted::new(reader, left));
        let result = self.entries(&digest, &mut archive, visitor);
        let mut rest = archive.into_inner();
        // Behind the archive there may be padding; the compression has to be sound to its end.
        let result = result.and_then(|()| {
            io::copy(&mut rest, &mut io::sink()).map_err(|error| broken(&digest, 0, error))?;
            Ok(())
        });
        self.unpacked += rest.count();
        result.map_err(|error| error.at(rest.count(), self.limits.unpacked_bytes))?;
        self.overlay.next_layer();
        Ok(())
    }

    fn entries(
        &mut self,
        layer: &Digest,
        archive: &mut tar::Archive<Counted<Box<dyn Read>>>,
        visitor: &mut dyn FileVisitor,
    ) -> Result<(), InflateError> {
        let unreadable = |error| broken(layer, 0, error);
        for entry in archive.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            self.entries += 1;
            self.bounded(
                layer,
                "entries in archives",
                self.entries,
                self.limits.archive_entries,
            )?;
            let name = entry.path_bytes().into_owned();
            self.bounded(
                layer,
                "bytes in a path",
                name.len() as u64,
                self.limits.path_bytes as u64,
            )?;
            let refuse = |reason: &str| InflateError::Entry {
                layer: layer.clone(),
                path: String::from_utf8_lossy(&name).into_owned(),
                reason: reason.to_owned(),
            };
            let kind = entry.header().entry_type();
            let Some(found) = self.relevant(&name, kind.is_dir()).map_err(&refuse)? else {
                continue;
            };
            if found.role == Role::Other && self.overlay.hides(&found.path) {
                continue;
            }
            self.overlay.note(&found);
            let remembered = self.overlay.remembered() as u64;
            self.bounded(
                layer,
                "paths in a catalog",
                remembered,
                self.limits.files as u64,
            )?;
            if found.role != Role::Other {
                continue;
            }
            if found.path == self.root {
                return Err(refuse("the catalog root is not a directory"));
            }
            let inside = found
                .path
                .strip_prefix(self.root)
                .and_then(|rest| rest.strip_prefix('/'));
            let Some(inside) = inside else { continue };
            if !kind.is_file() && !kind.is_contiguous() {
                return Err(refuse(
                    "only plain files and directories can be part of a catalog",
                ));
            }
            let size = entry.size();
            self.bounded(layer, "bytes in a file", size, self.limits.file_bytes)?;
            self.files += 1;
            let mut contents = Counted::new(&mut entry, size);
            visitor.file(inside, &mut contents).map_err(unreadable)?;
            io::copy(&mut contents, &mut io::sink()).map_err(unreadable)?;
            if contents.count() != size {
                return Err(refuse(&format!(
                    "cut off after {} of {size} bytes",
                    contents.count()
                )));
            }
        }
        Ok(())
    }

    /// Returns an entry when it can matter to the catalog: it lies under the root, or above it.
    fn relevant(&self, name: &[u8], is_directory: bool) -> Result<Option<Entry>, &'static str> {
        let Ok(name) = std::str::from_utf8(name) else {
            // Lossy is enough to see whether it lies under the root, where it would have to be a name.
            let lossy = String::from_utf8_lossy(name);
            let is_inside = Entry::new(&lossy, is_directory)?
                .is_some_and(|entry| self.overlay.concerns(&entry.path));
            return if is_inside {
                Err("the path is not UTF-8")
            } else {
                Ok(None)
            };
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
        check(what, count, limit).map_err(|source| InflateError::TooLarge {
            place: format!("layer {layer}"),
            source,
        })
    }
}

fn broken(layer: &Digest, unpacked: u64, error: io::Error) -> InflateError {
    if let Some(source) = cause::<LimitExceeded>(&error) {
        return InflateError::TooLarge {
            place: format!("layer {layer}"),
            source: source.clone(),
        };
    }
    if cause::<Aborted>(&error).is_some() {
        return InflateError::Aborted(Aborted);
    }
    InflateError::Broken {
        layer: layer.clone(),
        unpacked,
        reason: error.to_string(),
    }
}

/// Returns the error of a type somewhere behind an I/O error: decoders and archives wrap what they are handed.
fn cause<T: std::error::Error + 'static>(error: &io::Error) -> Option<&T> {
    let mut next: Option<&(dyn std::error::Error + 'static)> =
        error.get_ref().map(|error| error as _);
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
    fn at(self, count: u64, unpacked_limit: u64) -> Self {
        match self {
            InflateError::Broken { layer, reason, .. } => InflateError::Broken {
                layer,
                unpacked: count,
                reason,
            },
            InflateError::TooLarge { place, source } if source.what == reader::UNPACKED => {
                let source = LimitExceeded {
                    limit: unpacked_limit,
                    ..source
                };
                InflateError::TooLarge { place, source }
            }
            other => other,
        }
    }
}
