//! What passed of a body.

use crate::api::audit::Copied;

/// What passed of a body: how much, and where it is copied to, if it is.
pub(super) struct Passed {
    pub(super) copied: Option<Copied>,
    pub(super) bytes: u64,
}

impl Passed {
    /// Begins with nothing.
    pub(super) fn new(copied: Option<Copied>) -> Self {
        Passed { copied, bytes: 0 }
    }

    /// Notes what passes.
    pub(super) fn note(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        if let Some(copied) = &self.copied {
            copied.push(data);
        }
    }
}
