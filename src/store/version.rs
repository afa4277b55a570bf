//! Revisions, and the resource versions made of them.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// The number of a committed batch. Revisions rise by one with each batch; the empty store is at
/// [`Revision::FIRST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// The revision of a store that nothing was ever written to.
    pub const FIRST: Revision = Revision(1);

    /// Wraps a number that came from a store.
    pub const fn new(number: u64) -> Self {
        Revision(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the revision after this one.
    pub const fn next(self) -> Self {
        Revision(self.0 + 1)
    }

    /// Returns the revision before this one.
    pub const fn previous(self) -> Self {
        Revision(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of one event in the log, as clients see it: revision × 1000 + index.
///
/// The index counts the events of a batch from 1. Index 999, which no event has, stands for "after all of this
/// revision" and labels lists and bookmarks; index 0 stands for "before any of it".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceVersion(u64);

/// Events per revision that a [`ResourceVersion`] has room for, plus one.
const STEP: u64 = 1000;

impl ResourceVersion {
    /// The largest index an event can have. One less than the index that means "all of the revision".
    pub const MAX_INDEX: u16 = 998;

    /// Returns the version of the event at `index` of `revision`.
    pub const fn new(revision: Revision, index: u16) -> Self {
        debug_assert!(index <= Self::MAX_INDEX);
        ResourceVersion(revision.0 * STEP + index as u64)
    }

    /// Returns the version that comes after all events of `revision`.
    pub const fn end_of(revision: Revision) -> Self {
        ResourceVersion(revision.0 * STEP + STEP - 1)
    }

    /// Wraps a number that a client sent. Any number is a place between two events.
    pub const fn from_u64(number: u64) -> Self {
        ResourceVersion(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the revision this version lies in.
    pub const fn revision(self) -> Revision {
        Revision(self.0 / STEP)
    }

    /// Returns the index of the last event at or before this version, within [`Self::revision`].
    pub const fn index(self) -> u16 {
        (self.0 % STEP) as u16
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ResourceVersion {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(ResourceVersion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rise_within_and_across_revisions() {
        let first = ResourceVersion::new(Revision::new(7), 1);
        let last = ResourceVersion::new(Revision::new(7), ResourceVersion::MAX_INDEX);
        let end = ResourceVersion::end_of(Revision::new(7));
        let next = ResourceVersion::new(Revision::new(8), 1);
        assert!(first < last && last < end && end < next);
        assert_eq!(first.get(), 7001);
        assert_eq!(end.get(), 7999);
        assert_eq!((end.revision(), end.index()), (Revision::new(7), 999));
        assert_eq!("7001".parse(), Ok(first));
    }
}
