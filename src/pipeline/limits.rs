//! How much of anything is taken from outside.
//!
//! Whoever may write a CatalogSource can point it at anything, so every length, count and depth has a bound. The
//! defaults are far above what published catalogs need.

use std::io::{self, Read};

/// Bounds on what one ingest reads.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a manifest, an index or an image configuration.
    pub manifest_bytes: u64,
    /// Layers of an image.
    pub layers: usize,
    /// Bytes of a layer as transferred.
    pub layer_bytes: u64,
    /// Bytes of all layers of an image, unpacked.
    pub unpacked_bytes: u64,
    /// How many times as many bytes a layer may unpack to, beyond the first few MiB.
    pub compression_ratio: u64,
    /// Entries in the archives of all layers.
    pub archive_entries: u64,
    /// Files of a catalog.
    pub files: usize,
    /// Bytes of a path in an archive.
    pub path_bytes: usize,
    /// Bytes of all paths that concern a catalog.
    pub paths_bytes: u64,
    /// Bytes of a file of a catalog.
    pub file_bytes: u64,
    /// Bytes of a meta: one JSON object or YAML document.
    pub meta_bytes: usize,
    /// Bytes of all `.indexignore` files.
    pub ignore_bytes: u64,
    /// Bytes of what is kept in memory of a catalog while it is read: names, channels, descriptions.
    pub outline_bytes: u64,
    /// Packages of a catalog.
    pub packages: usize,
    /// Bundles, channels and entries of channels of a package.
    pub package_objects: usize,
    /// Bytes that wait in memory for the verdict on the layers; more go to an unlinked file.
    pub spool_memory_bytes: usize,
    /// Bytes that wait in all.
    pub spool_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            manifest_bytes: 4 << 20,
            layers: 256,
            layer_bytes: 4 << 30,
            unpacked_bytes: 16 << 30,
            compression_ratio: 500,
            archive_entries: 1_000_000,
            files: 100_000,
            path_bytes: 4096,
            paths_bytes: 16 << 20,
            file_bytes: 1 << 30,
            meta_bytes: 32 << 20,
            ignore_bytes: 1 << 20,
            outline_bytes: 128 << 20,
            packages: 20_000,
            package_objects: 100_000,
            spool_memory_bytes: 8 << 20,
            spool_bytes: 8 << 30,
        }
    }
}

/// Something read from outside is larger than it may be.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("more than {limit} {what}")]
pub struct LimitExceeded {
    /// What there is too much of, with its unit: `bytes in a meta`.
    pub what: &'static str,
    /// How much is allowed.
    pub limit: u64,
}

/// Fails when `count` is more than `limit`.
///
/// # Errors
///
/// [`LimitExceeded`].
pub fn check(what: &'static str, count: u64, limit: u64) -> Result<(), LimitExceeded> {
    if count > limit { Err(LimitExceeded { what, limit }) } else { Ok(()) }
}

/// Reads to the end, or to the first byte past `limit`, which is an error.
///
/// # Errors
///
/// [`LimitExceeded`] wrapped in an [`io::Error`], or the error of the reader.
pub fn read_bounded(reader: impl Read, what: &'static str, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "this is where the bound is set")]
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    check(what, bytes.len() as u64, limit).map_err(io::Error::other)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_limit_is_read_and_one_more_is_refused() {
        for (length, fits) in [(2, true), (3, true), (4, false)] {
            let read = read_bounded(io::repeat(b'x').take(length), "bytes", 3);
            assert_eq!(read.is_ok(), fits, "{length}");
        }
        let error = read_bounded(io::repeat(b'x'), "bytes in a file", 3).unwrap_err();
        assert_eq!(error.to_string(), "more than 3 bytes in a file");
    }
}
