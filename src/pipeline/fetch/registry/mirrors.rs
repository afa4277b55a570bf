//! Where else an image can be pulled from: the configuration that container tools read, `registries.conf`, version 2.
//!
//! See containers-registries.conf(5). What comes in: its text. What goes out: for an image, the places to ask, in order.
//! What it refuses: version 1, and keys it does not know in the tables that decide what is pulled from where, because a
//! `blocked` that is misspelt must not let anything pass.
//!
//! An image without a registry is one of docker.io's, as everywhere in Kubernetes; the keys about short names are read
//! over.

use oci_client::Reference;
use serde::Deserialize;

/// What is configured about registries.
#[derive(Clone, Debug, Default)]
pub struct Mirrors {
    registries: Vec<Registry>,
}

/// Text that is no `registries.conf`.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMirrors {
    /// Not TOML, or not these keys.
    #[error("{0}")]
    Toml(String),
    /// Version 1.
    #[error("[registries] is version 1 of the format; only version 2, with [[registry]], is read")]
    Version1,
    /// A table that makes no sense.
    #[error("registry `{registry}`: {reason}")]
    Registry {
        /// Its prefix or location.
        registry: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A place that an image is pulled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Host and port, as images name it.
    pub(super) registry: String,
    pub(super) repository: String,
    /// Whether it may be spoken to without a verified certificate, or in plain HTTP.
    pub(super) is_insecure: bool,
}

/// Images under this prefix must not be pulled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blocked(pub(super) String);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Registry>,
    #[serde(default)]
    registries: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[derive(Default)]
struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Option<PullFromMirror>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum PullFromMirror {
    All,
    DigestOnly,
    TagOnly,
}

impl Mirrors {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// [`InvalidMirrors`].
    pub fn parse(text: &str) -> Result<Self, InvalidMirrors> {
        let file: File = toml::from_str(text).map_err(|error| InvalidMirrors::Toml(error.to_string()))?;
        if file.registries.is_some() {
            return Err(InvalidMirrors::Version1);
        }
        let mut registries = file.registry;
        for registry in &mut registries {
            registry.settle()?;
        }
        Ok(Mirrors { registries })
    }

    /// Returns the places to pull an image from, in the order to ask them in; the last one is the registry itself.
    pub(super) fn places(&self, reference: &Reference) -> Result<Vec<Place>, Blocked> {
        let image = format!("{}/{}", reference.registry(), reference.repository());
        let fitting = self.registries.iter().filter_map(|registry| Some((registry, registry.fits(&image)?)));
        let Some((registry, length)) = fitting.max_by_key(|(registry, _)| registry.prefix.len()) else {
            return Ok(vec![Place::of(&image, false)]);
        };
        if registry.blocked {
            return Err(Blocked(registry.prefix.clone()));
        }
        let is_pinned = reference.digest().is_some();
        let usable = registry.mirror.iter().filter(|mirror| match mirror.pull_from_mirror {
            Some(PullFromMirror::DigestOnly) => is_pinned,
            Some(PullFromMirror::TagOnly) => !is_pinned,
            Some(PullFromMirror::All) => true,
            None => is_pinned || !registry.mirror_by_digest_only,
        });
        let rest = &image[length..];
        let mirrors = usable.map(|mirror| Place::of(&format!("{}{rest}", mirror.location), mirror.insecure));
        let own = match registry.location.as_str() {
            "" => image.clone(),
            location => format!("{location}{rest}"),
        };
        Ok(mirrors.chain([Place::of(&own, registry.insecure)]).collect())
    }
}

impl Registry {
    /// Fills in what may be left out, and checks the rest.
    fn settle(&mut self) -> Result<(), InvalidMirrors> {
        let registry = if self.prefix.is_empty() { self.location.clone() } else { self.prefix.clone() };
        let wrong = |reason| InvalidMirrors::Registry { registry: registry.clone(), reason };
        if registry.is_empty() {
            return Err(wrong("neither a prefix nor a location"));
        }
        self.prefix.clone_from(&registry);
        for name in [&mut self.prefix, &mut self.location] {
            clean(name).map_err(wrong)?;
        }
        if self.prefix.strip_prefix("*.").unwrap_or(&self.prefix).contains('*') {
            return Err(wrong("a wildcard can only stand for the first labels of the host: `*.example.com`"));
        }
        if self.location.contains('*') {
            return Err(wrong("the location holds a wildcard"));
        }
        for mirror in &mut self.mirror {
            if mirror.location.is_empty() || mirror.location.contains('*') {
                return Err(wrong("a mirror without a location"));
            }
            if self.mirror_by_digest_only && mirror.pull_from_mirror.is_some() {
                return Err(wrong("mirror-by-digest-only and pull-from-mirror exclude each other"));
            }
            clean(&mut mirror.location).map_err(wrong)?;
        }
        Ok(())
    }

    /// Returns how much of an image's name the prefix is for, if it is for the image.
    fn fits(&self, image: &str) -> Option<usize> {
        let length = match self.prefix.strip_prefix('*') {
            None => image.starts_with(&self.prefix).then_some(self.prefix.len())?,
            Some(suffix) => {
                // The wildcard stands for labels of the host only.
                let host = image.split('/').next().unwrap_or_default();
                let at = image.find(suffix).filter(|at| *at > 0 && *at < host.len())?;
                at + suffix.len()
            }
        };
        matches!(image.as_bytes().get(length), None | Some(b'/' | b':')).then_some(length)
    }
}

/// Takes off what people add to names of registries, and refuses what is none.
fn clean(name: &mut String) -> Result<(), &'static str> {
    if name.contains("://") {
        return Err("a registry is named without a scheme such as https://");
    }
    if name.contains('@')
        || name.rsplit('/').next().is_some_and(|last| last.contains(':') && name.contains('/'))
    {
        return Err("tags and digests cannot be part of a prefix or location");
    }
    name.truncate(name.trim_end_matches('/').len());
    Ok(())
}

impl Place {
    fn of(image: &str, is_insecure: bool) -> Self {
        let (registry, repository) = image.split_once('/').unwrap_or((image, ""));
        Place { registry: registry.to_owned(), repository: repository.to_owned(), is_insecure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(config: &str, image: &str) -> Result<Vec<String>, Blocked> {
        let reference = image.parse().unwrap();
        let places = Mirrors::parse(config).unwrap().places(&reference)?;
        let show = |place: Place| {
            let mark = if place.is_insecure { " insecure" } else { "" };
            format!("{}/{}{mark}", place.registry, place.repository)
        };
        Ok(places.into_iter().map(show).collect())
    }

    const CONFIG: &str = r#"
        unqualified-search-registries = ["quay.io"]
        short-name-mode = "enforcing"
        [aliases]
        "fedora" = "registry.fedoraproject.org/fedora"

        [[registry]]
        location = "quay.io"
        [[registry.mirror]]
        location = "mirror.test:5000/quay/"
        insecure = true

        [[registry]]
        prefix = "quay.io/acme"
        location = "internal.test/copies"
        insecure = true

        [[registry]]
        prefix = "quay.io/acme/secret"
        blocked = true

        [[registry]]
        prefix = "*.example.com"
        [[registry.mirror]]
        location = "mirror.test/example"

        [[registry]]
        prefix = "registry.test"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "digests.test"

        [[registry]]
        prefix = "mixed.test:5000"
        location = "mixed.test:5000"
        [[registry.mirror]]
        location = "digests.test"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.test"
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "all.test"
        pull-from-mirror = "all"
    "#;

    #[test]
    fn the_longest_prefix_decides_where_an_image_is_pulled_from() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        for (image, expected) in [
            ("quay.io/x/y:v1", &["mirror.test:5000/quay/x/y insecure", "quay.io/x/y"][..]),
            ("quay.io/acme/catalog:v1", &["internal.test/copies/catalog insecure"]),
            (
                "quay.io/acmes/catalog:v1",
                &["mirror.test:5000/quay/acmes/catalog insecure", "quay.io/acmes/catalog"],
            ),
            ("quay.iox/acme:v1", &["quay.iox/acme"]),
            ("a.b.example.com/x:v1", &["mirror.test/example/x", "a.b.example.com/x"]),
            ("example.com/x:v1", &["example.com/x"]),
            ("host.test/a.example.com/x:v1", &["host.test/a.example.com/x"]),
            ("registry.test/x:v1", &["registry.test/x"]),
            (&format!("registry.test/x{digest}"), &["digests.test/x", "registry.test/x"]),
            ("mixed.test:5000/x:v1", &["tags.test/x", "all.test/x", "mixed.test:5000/x"]),
            (&format!("mixed.test:5000/x{digest}"), &["digests.test/x", "all.test/x", "mixed.test:5000/x"]),
            ("fedora:latest", &["docker.io/library/fedora"]),
        ] {
            assert_eq!(places(CONFIG, image).unwrap(), expected, "{image}");
        }
        let blocked = Err(Blocked("quay.io/acme/secret".to_owned()));
        assert_eq!(places(CONFIG, "quay.io/acme/secret/x:v1"), blocked);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, expected) in [
            ("[registries.search]\nregistries = ['x']", "version 1"),
            ("[[registry]]\nprefix = 'x'\nblokced = true", "unknown field `blokced`"),
            ("[[registry]]\ninsecure = true", "neither a prefix nor a location"),
            ("[[registry]]\nlocation = 'https://x'", "without a scheme"),
            ("[[registry]]\nprefix = 'x/y:v1'", "tags and digests"),
            ("[[registry]]\nprefix = 'x.*.y'", "wildcard"),
            ("[[registry]]\nprefix = 'x'\n[[registry.mirror]]\nlocation = ''", "a mirror without a location"),
            (
                "[[registry]]\nprefix = 'x'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'y'\npull-from-mirror = 'all'",
                "exclude each other",
            ),
            ("[[registry", "line 1"),
        ] {
            let error = Mirrors::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
