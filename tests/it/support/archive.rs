//! Archives that nobody should make, block by block.

use tar::{EntryType, Header};

use super::image::{Image, ImageBuilder, Packing, pack};

const BLOCK: usize = 512;

/// An archive that is put together without a look at whether it makes sense.
#[derive(Clone, Default)]
pub struct Archive(pub Vec<u8>);

impl Archive {
    /// Adds a plain file.
    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.member(EntryType::Regular, path, content.len() as u64, content)
    }

    /// Adds a member of any kind, that claims any size.
    pub fn member(self, kind: EntryType, path: &str, size: u64, content: &[u8]) -> Self {
        self.header(&header(kind, path.as_bytes(), "", size)).content(content)
    }

    /// Adds a link.
    pub fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        self.header(&header(kind, path.as_bytes(), target, 0))
    }

    /// Adds a header, whose checksum is made right.
    pub fn header(mut self, header: &Header) -> Self {
        let mut header = header.clone();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    /// Adds bytes, and fills up their last block.
    pub fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// Adds an extended header for the next member.
    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let text: String = records.iter().map(|(key, value)| record(key, value)).collect();
        self.member(EntryType::XHeader, "pax", text.len() as u64, text.as_bytes())
    }

    /// Adds blocks of zeros.
    pub fn zeros(mut self, blocks: usize) -> Self {
        self.0.resize(self.0.len() + blocks * BLOCK, 0);
        self
    }

    /// Returns the archive, with its end, as the only layer of an image.
    pub fn image(self) -> Image {
        self.zeros(2).image_as_is()
    }

    /// Returns the archive as the only layer of an image.
    pub fn image_as_is(self) -> Image {
        ImageBuilder::default().raw_layer(Packing::Gzip, pack(Packing::Gzip, &self.0)).build()
    }
}

/// Makes a header; nothing in it is checked.
pub fn header(kind: EntryType, path: &[u8], target: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path);
    old.linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header
}

/// Writes a record of an extended header; its length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    format!("{length}{rest}")
}
