//! From chunks off the network to unpacked bytes.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use tokio::sync::mpsc;

use crate::pipeline::fetch::Aborted;
use crate::pipeline::limits::LimitExceeded;

/// What [`Counted`] calls its bytes.
pub(super) const UNPACKED: &str = "unpacked bytes";

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What a zstd frame may want to be remembered of it, as a power of two: 32 MiB, which is what the tools that publish
/// images use at most.
const MAX_WINDOW_LOG: u32 = 25;

/// The compressed bytes of a layer, chunk by chunk, without a copy between.
pub(super) struct LayerReader {
    chunks: mpsc::Receiver<Result<Bytes, Aborted>>,
    current: Bytes,
}

impl LayerReader {
    pub(super) fn new(chunks: mpsc::Receiver<Result<Bytes, Aborted>>) -> Self {
        LayerReader { chunks, current: Bytes::new() }
    }

    /// Returns the first bytes without taking them; fewer where there are no more.
    fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        while self.current.len() < count {
            let Some(chunk) = self.chunks.blocking_recv() else {
                break;
            };
            let mut joined = BytesMut::from(self.current.as_ref());
            joined.extend_from_slice(&chunk.map_err(io::Error::other)?);
            self.current = joined.freeze();
        }
        Ok(&self.current[..count.min(self.current.len())])
    }
}

impl BufRead for LayerReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk.map_err(io::Error::other)?,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Unpacks gzip with all its members, zstd with all its frames, or nothing. What it is, its first bytes say;
/// media types are not reliable.
pub(super) fn decompress(mut layer: LayerReader) -> io::Result<Box<dyn Read>> {
    let magic = layer.peek(ZSTD_MAGIC.len())?;
    if magic.starts_with(&GZIP_MAGIC) {
        Ok(Box::new(MultiGzDecoder::new(layer)))
    } else if magic == ZSTD_MAGIC {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(layer)?;
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        Ok(Box::new(decoder))
    } else {
        Ok(Box::new(layer))
    }
}

/// A reader that counts, and fails past a number of bytes.
pub(super) struct Counted<R> {
    inner: R,
    count: u64,
    limit: u64,
}

impl<R> Counted<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Counted { inner, count: 0, limit }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        if self.count > self.limit {
            return Err(io::Error::other(LimitExceeded { what: UNPACKED, limit: self.limit }));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Unpacks bytes that come in chunks of a size.
    fn unpack(packed: &[u8], chunk: usize) -> io::Result<Vec<u8>> {
        let (sender, chunks) = mpsc::channel(packed.len() + 1);
        for part in packed.chunks(chunk) {
            sender.try_send(Ok(Bytes::copy_from_slice(part))).unwrap();
        }
        drop(sender);
        crate::pipeline::limits::read_bounded(decompress(LayerReader::new(chunks))?, "bytes", 1 << 20)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_compression_unpacks_whatever_the_chunks() {
        let text = "catalog ".repeat(100).into_bytes();
        let zstd = zstd::bulk::compress(&text, 1).unwrap();
        for chunk in [1, 3, 7, 1000] {
            assert_eq!(unpack(&text, chunk).unwrap(), text);
            assert_eq!(unpack(&gzip(&text), chunk).unwrap(), text);
            assert_eq!(unpack(&zstd, chunk).unwrap(), text);
            let members = [gzip(&text[..100]), gzip(&text[100..])].concat();
            assert_eq!(unpack(&members, chunk).unwrap(), text);
            let frames = [zstd.clone(), zstd.clone()].concat();
            assert_eq!(unpack(&frames, chunk).unwrap(), text.repeat(2));
        }
    }

    #[test]
    fn what_is_cut_off_or_aborted_is_an_error() {
        let packed = gzip(&b"catalog ".repeat(100));
        assert!(unpack(&packed[..packed.len() - 3], 7).is_err());
        let (sender, chunks) = mpsc::channel(2);
        sender.try_send(Ok(Bytes::copy_from_slice(&packed[..20]))).unwrap();
        sender.try_send(Err(Aborted)).unwrap();
        let reader = decompress(LayerReader::new(chunks)).unwrap();
        let error = crate::pipeline::limits::read_bounded(reader, "bytes", 1 << 20).unwrap_err();
        assert_eq!(error.to_string(), "the layer broke off");
    }
}
