//! The contents of one file on their way through.

use std::io::{self, Read};

use crate::event::{FileFacts, MetaHash};

/// The contents of a file: hashed as they are read.
pub struct FileContents<'a> {
    inner: &'a mut dyn Read,
    size: u64,
    count: u64,
    hash: blake3::Hasher,
}

impl<'a> FileContents<'a> {
    /// Begins at the start of a file that should be so long.
    pub fn new(inner: &'a mut dyn Read, size: u64) -> Self {
        FileContents { inner, size, count: 0, hash: blake3::Hasher::new() }
    }

    /// Returns how long the file should be.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns what was read so far.
    pub fn so_far(&self) -> FileFacts {
        FileFacts { size: self.count, hash: MetaHash::from(self.hash.finalize()) }
    }

    /// Reads what is left, and returns what the file is.
    ///
    /// # Errors
    ///
    /// Those of the reader.
    pub fn finish(&mut self) -> io::Result<FileFacts> {
        io::copy(self, &mut io::sink())?;
        Ok(self.so_far())
    }
}

impl Read for FileContents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A file of a directory may have grown since it was looked at.
        let left = usize::try_from(self.size - self.count).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..left])?;
        self.hash.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}
