//! What waits for the verdict on the layers: in memory up to a bound, then in a file that has no name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::pipeline::limits::check;

/// Bytes that are written to the file at once.
const WRITE_BYTES: usize = 256 << 10;

/// Records that were written once and can be read in any order.
#[derive(Debug)]
pub(super) struct Spool {
    /// The first records.
    memory: Vec<u8>,
    memory_limit: usize,
    limit: u64,
    /// The others, behind the bytes of `memory`: made when they are needed, unlinked from the start.
    file: Option<File>,
    /// Written to the file so far.
    file_length: u64,
    /// Not written yet.
    pending: Vec<u8>,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SpoolRef {
    offset: u64,
    length: u32,
}

impl Spool {
    /// Begins with nothing; `limit` is on memory and file together.
    pub(super) fn new(memory_limit: usize, limit: u64) -> Self {
        Spool { memory: Vec::new(), memory_limit, limit, file: None, file_length: 0, pending: Vec::new() }
    }

    /// Adds a record.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<SpoolRef> {
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        let spooled = self.memory.len() as u64 + self.file_length + self.pending.len() as u64;
        check("bytes in the spool", spooled + u64::from(length), self.limit).map_err(io::Error::other)?;
        if self.file.is_none() && self.memory.len() + record.len() <= self.memory_limit {
            let offset = self.memory.len() as u64;
            self.memory.extend_from_slice(record);
            return Ok(SpoolRef { offset, length });
        }
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile()?);
        }
        let offset = self.memory.len() as u64 + self.file_length + self.pending.len() as u64;
        self.pending.extend_from_slice(record);
        if self.pending.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(SpoolRef { offset, length })
    }

    /// Returns a record.
    pub(super) fn read(&self, at: SpoolRef) -> io::Result<Vec<u8>> {
        let length = at.length as usize;
        let within = |bytes: &[u8], offset: u64| bytes[offset as usize..][..length].to_vec();
        let Some(offset) = at.offset.checked_sub(self.memory.len() as u64) else {
            return Ok(within(&self.memory, at.offset));
        };
        if let Some(offset) = offset.checked_sub(self.file_length) {
            return Ok(within(&self.pending, offset));
        }
        let mut record = vec![0; length];
        match &self.file {
            Some(file) => file.read_exact_at(&mut record, offset)?,
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(record)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.write_all_at(&self.pending, self.file_length)?;
        }
        self.file_length += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_from_memory_file_and_between() {
        let record = |number: usize| vec![number as u8; 1 + (number * 7919) % 5000];
        for limit in [0, 3, 100_000, usize::MAX] {
            let mut spool = Spool::new(limit, u64::MAX);
            let places: Vec<_> = (0..300).map(|n| spool.append(&record(n)).unwrap()).collect();
            for (number, place) in places.into_iter().enumerate().rev() {
                assert_eq!(spool.read(place).unwrap(), record(number), "{number} with {limit}");
            }
            assert_eq!(spool.file.is_some(), limit < 1_000_000);
        }
    }

    #[test]
    fn no_more_is_kept_than_is_allowed() {
        for memory in [0, 4, 100] {
            let mut spool = Spool::new(memory, 10);
            spool.append(&[1; 9]).unwrap();
            assert_eq!(spool.append(&[2; 2]).unwrap_err().to_string(), "more than 10 bytes in the spool");
            let last = spool.append(&[3; 1]).unwrap();
            assert!(spool.append(&[4; 1]).is_err());
            assert_eq!(spool.read(last).unwrap(), [3]);
        }
    }
}
