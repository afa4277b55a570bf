//! Where an object is: resource, namespace, name.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The address of an object: `resource/namespace/name`.
///
/// Keys sort as their text does, which is the order lists have (C57). A name may hold further slashes in
/// resources that are not served, where it groups records under a common prefix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// A text that is not an address of the form `resource/namespace/name`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a key of the form resource/namespace/name")]
pub struct InvalidKey(pub String);

impl Key {
    /// Joins the parts of an address. They come from validated names, so none is empty and neither resource
    /// nor namespace holds a slash.
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        debug_assert!(!resource.contains('/') && !namespace.contains('/'));
        debug_assert!(!resource.is_empty() && !namespace.is_empty() && !name.is_empty());
        Key(format!("{resource}/{namespace}/{name}").into())
    }

    /// Reads an address back from its text.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] when a part is missing or empty.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let mut parts = text.splitn(3, '/');
        let complete = (0..3).all(|_| parts.next().is_some_and(|part| !part.is_empty()));
        if complete { Ok(Key(text.into())) } else { Err(InvalidKey(text.to_owned())) }
    }

    /// Returns the whole address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the resource, in the plural as in URLs.
    pub fn resource(&self) -> &str {
        self.part(0)
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &str {
        self.part(1)
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        self.part(2)
    }

    fn part(&self, index: usize) -> &str {
        self.0.splitn(3, '/').nth(index).unwrap_or_default()
    }
}

/// Keys compare and hash as their text, so that they can be looked up by it.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of keys that lie next to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// What every key starts with; a single key is a range whose `prefix` is all of it.
    prefix: String,
    single: bool,
}

impl Range {
    /// Every key there is.
    pub fn everything() -> Self {
        Range { prefix: String::new(), single: false }
    }

    /// All objects of a resource, in every namespace.
    pub fn resource(resource: &str) -> Self {
        Range { prefix: format!("{resource}/"), single: false }
    }

    /// All objects of a resource in one namespace.
    pub fn namespace(resource: &str, namespace: &str) -> Self {
        Range { prefix: format!("{resource}/{namespace}/"), single: false }
    }

    /// The objects of a resource in one namespace whose names start with `start`.
    pub fn names(resource: &str, namespace: &str, start: &str) -> Self {
        Range { prefix: format!("{resource}/{namespace}/{start}"), single: false }
    }

    /// One object.
    pub fn single(key: &Key) -> Self {
        Range { prefix: key.as_str().to_owned(), single: true }
    }

    /// Returns whether a key is in the range.
    pub fn contains(&self, key: &Key) -> bool {
        if self.single { key.as_str() == self.prefix } else { key.as_str().starts_with(&self.prefix) }
    }

    /// Returns the smallest text that a key of the range can be.
    pub fn start(&self) -> &str {
        &self.prefix
    }

    /// Returns the smallest text that is behind every key of the range; none where there is no such text.
    pub fn end(&self) -> Option<String> {
        let mut end = self.prefix.clone();
        if self.single {
            end.push('\0');
            return Some(end);
        }
        while let Some(last) = end.pop() {
            // Characters are in the order of their encodings; behind the last one comes that of a shorter text.
            let mut behind = last..=char::MAX;
            if let Some(next) = behind.nth(1) {
                end.push(next);
                return Some(end);
            }
        }
        None
    }

    /// Returns the resource that all keys of the range are of; nothing where there are several.
    pub fn of_resource(&self) -> &str {
        self.prefix.split_once('/').map_or("", |(resource, _)| resource)
    }

    /// Returns whether the range is one key.
    pub fn is_single(&self) -> bool {
        self.single
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_its_parts_back() {
        let key = Key::new("packages", "test", "kube-green");
        assert_eq!(key.as_str(), "packages/test/kube-green");
        assert_eq!((key.resource(), key.namespace(), key.name()), ("packages", "test", "kube-green"));
        assert_eq!(Key::parse("packages/test/kube-green"), Ok(key));
        assert_eq!(
            Key::parse("provenance/test/cat/pkg").map(|k| k.name().to_owned()),
            Ok("cat/pkg".to_owned())
        );
        for text in ["", "packages", "packages/test", "packages/test/", "packages//x", "/test/x"] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_ends_behind_its_last_key() {
        let key = Key::new("things", "default", "a");
        let ends = [
            (Range::everything(), None),
            (Range::resource("things"), Some("things0")),
            (Range::namespace("things", "default"), Some("things/default0")),
            (Range::names("things", "default", "az"), Some("things/default/a{")),
            (Range::names("things", "default", "a\u{d7ff}"), Some("things/default/a\u{e000}")),
            (Range::names("things", "default", "a\u{10ffff}"), Some("things/default/b")),
            (Range::single(&key), Some("things/default/a\0")),
        ];
        for (range, end) in ends {
            assert_eq!(range.end().as_deref(), end, "{range:?}");
        }
    }

    #[test]
    fn a_range_holds_its_keys_and_no_neighbours() {
        let key = Key::new("packages", "test", "b");
        for range in [
            Range::everything(),
            Range::resource("packages"),
            Range::namespace("packages", "test"),
            Range::names("packages", "test", "b"),
            Range::single(&key),
        ] {
            assert!(range.contains(&key), "{range:?}");
        }
        assert!(!Range::resource("package").contains(&key));
        assert!(!Range::namespace("packages", "tes").contains(&key));
        assert!(!Range::single(&Key::new("packages", "test", "bb")).contains(&key));
    }
}
