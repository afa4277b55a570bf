//! What upper layers did to the paths that lower layers name.
//!
//! See <https://github.com/opencontainers/image-spec/blob/main/layer.md>: a file `.wh.NAME` removes `NAME` of the
//! layers below, `.wh..wh..opq` everything below in its directory, and a path replaces the same path below.
//! Whiteouts say nothing about their own layer.

use std::collections::HashSet;

use crate::event::Role;

const WHITEOUT_PREFIX: &str = ".wh.";
const RESERVED_PREFIX: &str = ".wh..wh.";
const OPAQUE_MARKER: &str = ".wh..wh..opq";

/// An entry of an archive: what it does, and to which path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) role: Role,
}

impl Entry {
    /// Sorts an entry; none for bookkeeping of old union file systems, which means nothing.
    ///
    /// # Errors
    ///
    /// When the path climbs.
    pub(super) fn new(path: &str, is_directory: bool) -> Result<Option<Entry>, &'static str> {
        let mut segments: Vec<_> = path.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
        if segments.contains(&"..") {
            return Err("the path climbs out of the archive");
        }
        let Some(name) = segments.last_mut() else {
            return Ok(None);
        };
        let role = if *name == OPAQUE_MARKER {
            segments.pop();
            Role::Opaque
        } else if name.starts_with(RESERVED_PREFIX) {
            return Ok(None);
        } else if let Some(removed) = name.strip_prefix(WHITEOUT_PREFIX) {
            if matches!(removed, "" | "." | "..") {
                return Err("a whiteout without a name");
            }
            *name = removed;
            Role::Whiteout
        } else if is_directory {
            Role::Directory
        } else {
            Role::Other
        };
        Ok(Some(Entry { path: segments.join("/"), role }))
    }
}

/// The paths of the layers so far that hide paths of the next ones.
#[derive(Debug)]
pub(super) struct Overlay {
    root: String,
    /// Hidden by the layers above the current one.
    above: Hidden,
    /// What the current layer will hide.
    current: Hidden,
}

#[derive(Debug, Default)]
struct Hidden {
    /// These paths and everything under them.
    trees: HashSet<String>,
    /// Everything under these paths.
    contents: HashSet<String>,
    /// These paths, where something other than a directory claims them.
    directories: HashSet<String>,
}

impl Overlay {
    pub(super) fn new(root: &str) -> Self {
        Overlay { root: root.to_owned(), above: Hidden::default(), current: Hidden::default() }
    }

    /// Returns whether a path lies under the root, or removing it would remove the root.
    pub(super) fn concerns(&self, path: &str) -> bool {
        is_within(path, &self.root) || is_within(&self.root, path)
    }

    /// Returns whether an upper layer hides a path that is not a directory.
    pub(super) fn hides(&self, path: &str) -> bool {
        self.above.directories.contains(path) || self.above.hides_tree(path)
    }

    /// Returns whether the finished layers hide all that lower layers have under the root.
    pub(super) fn hides_root(&self) -> bool {
        self.above.contents.contains(&self.root) || self.above.hides_tree(&self.root)
    }

    /// Notes what an entry of the current layer means to the layers below.
    pub(super) fn note(&mut self, entry: &Entry) {
        let path = entry.path.clone();
        match entry.role {
            Role::Whiteout | Role::Other => self.current.trees.insert(path),
            Role::Opaque => self.current.contents.insert(path),
            Role::Directory => self.current.directories.insert(path),
        };
    }

    /// Returns how many paths are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.above.len() + self.current.len()
    }

    /// Goes on to the layer below.
    pub(super) fn next_layer(&mut self) {
        let current = std::mem::take(&mut self.current);
        self.above.trees.extend(current.trees);
        self.above.contents.extend(current.contents);
        self.above.directories.extend(current.directories);
    }
}

impl Hidden {
    fn len(&self) -> usize {
        self.trees.len() + self.contents.len() + self.directories.len()
    }

    fn hides_tree(&self, path: &str) -> bool {
        let mut at = path;
        loop {
            if self.trees.contains(at) {
                return true;
            }
            if at.is_empty() {
                return false;
            }
            at = at.rsplit_once('/').map_or("", |(parent, _)| parent);
            if self.contents.contains(at) {
                return true;
            }
        }
    }
}

fn is_within(path: &str, ancestor: &str) -> bool {
    match path.strip_prefix(ancestor) {
        Some(rest) => rest.is_empty() || ancestor.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry::new(path, path.ends_with('/')).unwrap().unwrap()
    }

    #[test]
    fn entries_are_sorted_by_name() {
        for (path, role, target) in [
            ("./configs/a/catalog.json", Role::Other, "configs/a/catalog.json"),
            ("/configs//a/", Role::Directory, "configs/a"),
            ("configs/.wh.a", Role::Whiteout, "configs/a"),
            (".wh.configs", Role::Whiteout, "configs"),
            ("configs/.wh..wh..opq", Role::Opaque, "configs"),
            (".wh..wh..opq", Role::Opaque, ""),
        ] {
            assert_eq!(entry(path), Entry { path: target.to_owned(), role }, "{path}");
        }
        assert_eq!(Entry::new("./", true), Ok(None));
        assert_eq!(Entry::new("configs/.wh..wh.plnk", false), Ok(None));
        for path in ["../x", "configs/../../x", "configs/.wh...", "configs/.wh."] {
            assert!(Entry::new(path, false).is_err(), "{path}");
        }
    }

    #[test]
    fn upper_layers_hide_and_their_own_layer_does_not_matter() {
        let mut overlay = Overlay::new("configs");
        for path in ["configs/", "configs/a/", "configs/a/f", "configs/.wh.b", "configs/c/.wh..wh..opq"] {
            overlay.note(&entry(path));
        }
        assert!(!overlay.hides("configs/a/f"));
        overlay.next_layer();
        for path in ["configs/a/f", "configs/a/f/x", "configs/b", "configs/b/x/y", "configs/c/x", "configs/a"]
        {
            assert!(overlay.hides(path), "{path}");
        }
        for path in ["configs/a/g", "configs/bb", "configs/d"] {
            assert!(!overlay.hides(path), "{path}");
        }
        assert!(!overlay.hides_root());
    }

    #[test]
    fn the_root_can_be_hidden_as_a_whole() {
        for path in [".wh.configs", "configs/.wh..wh..opq", ".wh..wh..opq", "configs"] {
            let mut overlay = Overlay::new("configs");
            overlay.note(&entry(path));
            overlay.next_layer();
            assert!(overlay.hides_root(), "{path}");
        }
    }
}
