//! Where things are in etcd: pure functions between keys of the store and keys of etcd.
//!
//! ```text
//! <prefix>/<resource>/<namespace>/<name>      an object; nothing else is under <prefix>/
//! <prefix>.internal/tips/<resource>           the tip of a resource's log, see `tip`
//! <prefix>.internal/locks/<name>              a lock, bound to the lease of its holder
//! ```

use crate::store::{Key, Range};

/// The layout under a prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    objects: String,
    tips: String,
    locks: String,
}

/// A half-open interval of etcd's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
}

impl Keys {
    /// Lays out what is under a prefix such as `/registry/core.rukpak.io`.
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        Keys {
            objects: format!("{prefix}/"),
            tips: format!("{prefix}.internal/tips/"),
            locks: format!("{prefix}.internal/locks/"),
        }
    }

    /// Returns where an object is.
    pub(super) fn object(&self, key: &Key) -> Vec<u8> {
        [self.objects.as_bytes(), key.as_str().as_bytes()].concat()
    }

    /// Returns which object is somewhere; none where something else was put among them, which is left alone.
    pub(super) fn parse_object(&self, key: &[u8]) -> Option<Key> {
        let text = key.strip_prefix(self.objects.as_bytes()).and_then(|rest| std::str::from_utf8(rest).ok());
        let parsed = text.and_then(|text| Key::parse(text).ok());
        if parsed.is_none() {
            tracing::error!(key = %String::from_utf8_lossy(key), "something else was put into etcd");
        }
        parsed
    }

    /// Returns where the objects of a range are, those after a key if there is one.
    pub(super) fn objects(&self, range: &Range, after: Option<&Key>) -> Interval {
        let start = [self.objects.as_bytes(), range.start().as_bytes()].concat();
        let mut interval = match range.is_single() {
            true => Interval { end: after_key(start.clone()), start },
            false => with_prefix(start),
        };
        if let Some(after) = after {
            interval.start = after_key(self.object(after)).max(interval.start);
        }
        interval
    }

    /// Returns where the tip of a resource's log is.
    pub(super) fn tip(&self, resource: &str) -> Vec<u8> {
        [self.tips.as_bytes(), resource.as_bytes()].concat()
    }

    /// Returns whose tip is somewhere.
    pub(super) fn parse_tip<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        std::str::from_utf8(key.strip_prefix(self.tips.as_bytes())?).ok()
    }

    /// Returns where all tips are.
    pub(super) fn tips(&self) -> Interval {
        with_prefix(self.tips.clone().into_bytes())
    }

    /// Returns where a lock is.
    pub(super) fn lock(&self, name: &str) -> Vec<u8> {
        [self.locks.as_bytes(), name.as_bytes()].concat()
    }

    /// Returns which lock is somewhere.
    pub(super) fn parse_lock<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        std::str::from_utf8(key.strip_prefix(self.locks.as_bytes())?).ok()
    }

    /// Returns where all locks are.
    pub(super) fn locks(&self) -> Interval {
        with_prefix(self.locks.clone().into_bytes())
    }
}

/// Returns the resource that all keys of a range are of; none for a range of everything.
pub(super) fn resource(range: &Range) -> Option<&str> {
    range.start().split_once('/').map(|(resource, _)| resource)
}

/// Returns the smallest key behind a key.
fn after_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// Returns all keys that begin with a prefix, which is text: its last byte can be counted up.
fn with_prefix(start: Vec<u8>) -> Interval {
    let mut end = start.clone();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Interval { start, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: &str, end: &str) -> Interval {
        Interval { start: start.into(), end: end.into() }
    }

    #[test]
    fn objects_have_readable_keys_and_nothing_else_lies_among_them() {
        let keys = Keys::new("/registry/core.rukpak.io/");
        let key = Key::new("packages", "test", "kube-green");
        let path = b"/registry/core.rukpak.io/packages/test/kube-green";
        assert_eq!(keys.object(&key), path);
        assert_eq!(keys.parse_object(path).unwrap(), key);
        for foreign in [&b"/registry/core.rukpak.io/packages"[..], b"/registry/apps/x/y/z", b"\xff"] {
            assert_eq!(keys.parse_object(foreign), None);
        }
        let everything = keys.objects(&Range::everything(), None);
        for internal in [keys.tip("packages"), keys.lock("catalogsources/test/x")] {
            assert!(internal < everything.start || internal >= everything.end);
        }
    }

    #[test]
    fn a_range_is_an_interval() {
        let keys = Keys::new("/p");
        let key = Key::new("packages", "test", "b");
        let of = |range: Range| keys.objects(&range, None);
        assert_eq!(of(Range::everything()), interval("/p/", "/p0"));
        assert_eq!(of(Range::resource("packages")), interval("/p/packages/", "/p/packages0"));
        assert_eq!(
            of(Range::namespace("packages", "test")),
            interval("/p/packages/test/", "/p/packages/test0")
        );
        assert_eq!(
            of(Range::names("packages", "test", "b")),
            interval("/p/packages/test/b", "/p/packages/test/c")
        );
        assert_eq!(of(Range::single(&key)), interval("/p/packages/test/b", "/p/packages/test/b\0"));
        let rest = keys.objects(&Range::resource("packages"), Some(&key));
        assert_eq!(rest, interval("/p/packages/test/b\0", "/p/packages0"));
        // A key before the range leaves the range as it is.
        let before = keys.objects(&Range::resource("packages"), Some(&Key::new("a", "b", "c")));
        assert_eq!(before, of(Range::resource("packages")));
    }
}
