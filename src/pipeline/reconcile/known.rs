//! Files that need not be looked into: what is stored was made from the same content.
//!
//! Only files that hold a single package count. What is wrong with one of several packages would otherwise be forgotten
//! with the file, and a file with all packages of a catalog has changed anyway when it is read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::StoredPackages;
use crate::event::{DERIVATION, FileFacts, MetaHash};

/// What is known of the catalog from before, and how much of that may be relied on.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    /// The name of the CatalogSource.
    pub catalog_source: &'a str,
    /// The packages as they are stored.
    pub packages: &'a StoredPackages,
    /// A hash of what Packages say about their catalog: those that say something else are made anew.
    pub presentation: MetaHash,
    /// Whether files that are known are not looked into.
    pub skips_files: bool,
}

/// What stands for the hash of a file with several packages in records.
pub(super) const SHARED: MetaHash = MetaHash::ZERO;

/// The files that packages as they are stored were made from.
#[derive(Debug, Default)]
pub(super) struct KnownFiles {
    /// Path → content, and the package that was made from it.
    files: HashMap<String, (FileFacts, String)>,
    /// Each package with all its files.
    packages: BTreeMap<String, BTreeSet<String>>,
}

impl KnownFiles {
    pub(super) fn new(before: Before<'_>) -> Self {
        let mut known = KnownFiles::default();
        if !before.skips_files {
            return known;
        }
        let mut needed = BTreeSet::new();
        for (name, (_, record)) in before.packages {
            // A record that is unsettled has no files.
            let is_current = record.derivation == DERIVATION && record.presentation == before.presentation;
            for file in &record.files {
                let path = &file.path;
                let known = known.files.insert(path.clone(), (file.facts, name.clone()));
                // One that held other packages too, now or when one of them was last good.
                let is_shared = known.is_some() || file.facts.hash == SHARED;
                if is_shared || !is_current {
                    needed.insert(path.clone());
                }
            }
            let files = record.files.iter().map(|file| file.path.clone());
            known.packages.insert(name.clone(), files.collect());
        }
        known.files.retain(|path, _| !needed.contains(path));
        known
    }

    /// Returns whether a file may be known and can be done without by itself, whatever becomes of other files.
    pub(super) fn may_hold(&self, path: &str, size: u64) -> bool {
        self.files
            .get(path)
            .is_some_and(|(facts, package)| facts.size == size && self.packages[package].len() == 1)
    }

    /// Returns whether a file has the content that is known.
    pub(super) fn holds(&self, path: &str, facts: FileFacts) -> bool {
        self.files.get(path).is_some_and(|(known, _)| *known == facts)
    }

    /// Returns whether all of these files are known, and hold their packages whole.
    pub(super) fn hold_together(&self, files: &[(&str, FileFacts)]) -> bool {
        let paths = files.iter().map(|(path, _)| *path).collect();
        files.iter().all(|(path, facts)| self.holds(path, *facts)) && self.packages_in(&paths).is_some()
    }

    /// Returns the packages that known files hold; none when there is a package of which they hold only a part.
    pub(super) fn packages_in(&self, files: &BTreeSet<&str>) -> Option<BTreeSet<String>> {
        let names: BTreeSet<_> =
            files.iter().filter_map(|path| self.files.get(*path)).map(|(_, package)| package).collect();
        let is_whole = |name: &&String| self.packages[*name].iter().all(|path| files.contains(path.as_str()));
        names.iter().all(is_whole).then(|| names.into_iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{FileProvenance, MetaHash, Provenance};
    use crate::pipeline::reconcile::StoredPackages;

    fn facts(content: &str) -> FileFacts {
        FileFacts { size: content.len() as u64, hash: MetaHash::of(content.as_bytes()) }
    }

    /// Reads `package: path=content path=content`.
    fn stored(packages: &[&str]) -> StoredPackages {
        let package = |text: &&str| {
            let (name, files) = text.split_once(": ").unwrap();
            let file = |text: &str| {
                let (path, content) = text.split_once('=').unwrap();
                FileProvenance { path: path.to_owned(), facts: facts(content) }
            };
            let files = files.split(' ').map(file).collect();
            let record = Provenance { derivation: DERIVATION, files, ..Provenance::default() };
            (name.to_owned(), (Default::default(), record))
        };
        packages.iter().map(package).collect()
    }

    fn known(packages: &StoredPackages) -> KnownFiles {
        let presentation = MetaHash::default();
        KnownFiles::new(Before { catalog_source: "catalog", packages, presentation, skips_files: true })
    }

    #[test]
    fn a_file_is_done_without_when_it_holds_its_packages_whole() {
        let stored = stored(&["one: one/c=1", "two: two/a=2 two/b=3", "x: all=4", "y: all=4"]);
        let known = known(&stored);
        assert!(known.may_hold("one/c", 1) && !known.may_hold("all", 1));
        assert!(!known.may_hold("one/c", 2) && !known.may_hold("two/a", 1) && !known.may_hold("new", 1));
        assert!(known.holds("one/c", facts("1")) && !known.holds("one/c", facts("5")));
        let together = |files: &[(&str, &str)]| {
            let files: Vec<_> = files.iter().map(|(path, content)| (*path, facts(content))).collect();
            known.hold_together(&files)
        };
        assert!(together(&[("one/c", "1"), ("two/a", "2"), ("two/b", "3")]));
        assert!(!together(&[("one/c", "1"), ("two/a", "2")]));
        assert!(!together(&[("two/a", "2"), ("two/b", "4")]));
        assert!(!together(&[("one/c", "1"), ("new", "1")]));
        assert!(together(&[]));
        assert_eq!(known.packages_in(&BTreeSet::from(["one/c"])), Some(BTreeSet::from(["one".into()])));
    }

    #[test]
    fn what_was_made_otherwise_is_looked_into() {
        let mut packages = stored(&["x: x/c=1", "y: y/c=1", "z: z/c=1"]);
        let record = |packages: &mut StoredPackages, name, change: &dyn Fn(&mut Provenance)| {
            change(&mut packages.get_mut(name).unwrap().1);
        };
        record(&mut packages, "x", &|record| record.presentation = MetaHash::of(b"another"));
        record(&mut packages, "y", &|record| record.derivation = DERIVATION + 1);
        record(&mut packages, "z", &|record| record.files[0].facts.hash = SHARED);
        let known = known(&packages);
        for path in ["x/c", "y/c", "z/c"] {
            assert!(!known.may_hold(path, 1), "{path}");
        }
    }
}
