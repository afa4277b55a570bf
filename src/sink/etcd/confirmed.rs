//! Where the log ended at a moment.

use std::collections::BTreeMap;

use crate::store::Revision;

/// Where the log ended at a moment: up to `now`, the last batch that touched a resource was the one at its tip.
///
/// etcd's revision rises for other reasons than batches, and a watch is not told of those. Who has read up to the tip
/// knows that nothing of the resource follows up to `now`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Confirmed {
    now: Revision,
    tips: BTreeMap<String, Revision>,
}

impl Confirmed {
    pub(super) fn new(now: Revision, tips: impl IntoIterator<Item = (String, Revision)>) -> Self {
        Confirmed { now, tips: tips.into_iter().collect() }
    }

    /// Returns the revision of the moment.
    pub(super) fn now(&self) -> Revision {
        self.now
    }

    /// Returns the last revision that touched a resource; or any, where none is named.
    pub(super) fn tip(&self, resource: Option<&str>) -> Revision {
        match resource {
            Some(resource) => self.tips.get(resource).copied().unwrap_or_default(),
            None => self.tips.values().copied().max().unwrap_or_default(),
        }
    }

    /// Returns up to where somebody has read who has read a resource up to `read`.
    pub(super) fn reach(&self, resource: Option<&str>, read: Revision) -> Revision {
        if self.tip(resource) <= read { read.max(self.now) } else { read }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_read_the_tip_has_read_up_to_now() {
        let tips = [("packages".to_owned(), Revision::new(7)), ("icons".to_owned(), Revision::new(9))];
        let confirmed = Confirmed::new(Revision::new(20), tips);
        let reach = |resource, read| confirmed.reach(resource, Revision::new(read)).get();
        assert_eq!((reach(Some("packages"), 6), reach(Some("packages"), 7)), (6, 20));
        assert_eq!((reach(None, 7), reach(None, 8), reach(None, 9), reach(None, 25)), (7, 8, 20, 25));
        assert_eq!(reach(Some("quiet"), 0), 20);
    }
}
