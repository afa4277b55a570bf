//! Credentials for registries: read in the forms of docker's configuration, found as the kubelet finds them.
//!
//! What comes in: `config.json` (also the content of a `kubernetes.io/dockerconfigjson` Secret and of containers'
//! `auth.json`), or the older `.dockercfg`. What goes out: for an image, every credential that fits it, the one for the
//! longest path first. What it refuses: text that is no such configuration; no message quotes any of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::pipeline::limits::read_bounded;

/// The registry that images without one are in, as images name it and as credentials do.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_REGISTRY_KEY: &str = "index.docker.io";

/// Bytes of a file with credentials.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Credentials, sorted so that those for longer paths come first.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    pattern: Pattern,
    credential: Arc<Credential>,
}

/// Which images an entry is for: `host[:port][/path]`, where labels of the host may hold `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern(String);

/// What authorises requests to a registry.
pub(super) struct Credential {
    /// Where it is from, fit to be shown.
    pub(super) origin: String,
    pub(super) secret: Secret,
}

/// A secret, in one of the forms that docker's configuration has.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Secret {
    Password {
        user: String,
        password: String,
    },
    /// A refresh token of the registry's token service.
    Identity {
        token: String,
    },
    /// A bearer token for the registry itself.
    Registry {
        token: String,
    },
}

/// Text that holds no credentials. Never quotes what it is about.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{origin}: {reason}")]
pub struct InvalidCredentials {
    /// Where the text is from.
    pub origin: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Where the server's own credentials are.
#[derive(Clone, Debug, Default)]
pub enum AuthFiles {
    /// In this file.
    Only(PathBuf),
    /// Where container tools keep those of whoever runs them.
    Usual,
    /// Nowhere.
    #[default]
    None,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, RawEntry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Keyring {
    /// Reads the form of `config.json`. `origin` says in messages where the text is from.
    ///
    /// # Errors
    ///
    /// [`InvalidCredentials`].
    pub fn from_docker_config(text: &[u8], origin: &str) -> Result<Self, InvalidCredentials> {
        let config: DockerConfig = decode(text, origin)?;
        Ok(Self::of(config.auths, origin))
    }

    /// Reads the form of `.dockercfg`, which is that of the `auths` of `config.json`.
    ///
    /// # Errors
    ///
    /// [`InvalidCredentials`].
    pub fn from_dockercfg(text: &[u8], origin: &str) -> Result<Self, InvalidCredentials> {
        Ok(Self::of(decode(text, origin)?, origin))
    }

    fn of(entries: BTreeMap<String, RawEntry>, origin: &str) -> Self {
        let mut keyring = Keyring::default();
        for (key, raw) in entries {
            match raw.secret() {
                Ok(Some(secret)) => {
                    let origin = format!("the credentials for `{key}` of {origin}");
                    let credential = Arc::new(Credential { origin, secret });
                    keyring.entries.push(Entry { pattern: Pattern::of(&key), credential });
                }
                // A helper program holds the secret, and none is run here.
                Ok(None) => {}
                Err(reason) => tracing::warn!(origin, key, reason, "credentials that make no sense"),
            }
        }
        keyring.entries.sort_by(|a, b| b.pattern.cmp(&a.pattern));
        keyring
    }

    /// Returns the credentials that fit an image, those to try first in front.
    pub(super) fn candidates(&self, registry: &str, repository: &str) -> Vec<Arc<Credential>> {
        let image = format!("{registry}/{repository}");
        let fitting = |fits: &dyn Fn(&Pattern) -> bool| {
            let entries = self.entries.iter().filter(|entry| fits(&entry.pattern));
            entries.map(|entry| Arc::clone(&entry.credential)).collect::<Vec<_>>()
        };
        let found = fitting(&|pattern| pattern.fits(&image));
        if found.is_empty() && matches!(registry, DEFAULT_REGISTRY | DEFAULT_REGISTRY_KEY) {
            return fitting(&|pattern| pattern.0 == DEFAULT_REGISTRY_KEY);
        }
        found
    }
}

impl AuthFiles {
    /// Reads the files that are there, each anew, so that changed credentials need no restart. Blocks.
    pub(super) fn read(&self) -> Result<Vec<Keyring>, InvalidCredentials> {
        match self {
            AuthFiles::None => Ok(Vec::new()),
            AuthFiles::Only(path) => Ok(vec![read_file(path)?]),
            AuthFiles::Usual => {
                let files = usual_files(|name| std::env::var_os(name).map(PathBuf::from));
                files.iter().filter(|path| path.is_file()).map(|path| read_file(path)).collect()
            }
        }
    }
}

/// Returns where container tools look for credentials, in their order.
fn usual_files(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let home = || variable("HOME");
    let runtime = variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json"));
    let config = variable("XDG_CONFIG_HOME")
        .or_else(|| home().map(|home| home.join(".config")))
        .map(|directory| directory.join("containers/auth.json"));
    let docker = variable("DOCKER_CONFIG")
        .or_else(|| home().map(|home| home.join(".docker")))
        .map(|directory| directory.join("config.json"));
    [runtime, config, docker].into_iter().flatten().collect()
}

fn read_file(path: &Path) -> Result<Keyring, InvalidCredentials> {
    let origin = format!("`{}`", path.display());
    let read =
        || read_bounded(std::fs::File::open(path)?, "bytes in a file with credentials", MAX_FILE_BYTES);
    let text =
        read().map_err(|error| InvalidCredentials { origin: origin.clone(), reason: error.to_string() })?;
    Keyring::from_docker_config(&text, &origin)
}

fn decode<'a, T: Deserialize<'a>>(text: &'a [u8], origin: &str) -> Result<T, InvalidCredentials> {
    serde_json::from_slice(text).map_err(|error| {
        // What the parser says may quote a secret; where it stopped may not.
        let reason = format!(
            "no docker configuration (a problem of {:?} in line {}, column {})",
            error.classify(),
            error.line(),
            error.column()
        );
        InvalidCredentials { origin: origin.to_owned(), reason }
    })
}

impl RawEntry {
    fn secret(self) -> Result<Option<Secret>, &'static str> {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = filled(self.registrytoken) {
            return Ok(Some(Secret::Registry { token }));
        }
        if let Some(token) = filled(self.identitytoken) {
            return Ok(Some(Secret::Identity { token }));
        }
        if let Some(auth) = filled(self.auth) {
            let text = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            // docker pads with zeros.
            let text = text.ok_or("`auth` is not base64")?;
            let (user, password) =
                text.trim_end_matches('\0').split_once(':').ok_or("`auth` has no password")?;
            return Ok(Some(Secret::Password { user: user.to_owned(), password: password.to_owned() }));
        }
        match (filled(self.username), filled(self.password)) {
            (Some(user), Some(password)) => Ok(Some(Secret::Password { user, password })),
            (None, None) => Ok(None),
            _ => Err("a user without a password, or a password without a user"),
        }
    }
}

impl Pattern {
    /// Reads a key of a configuration, which may be a URL and may name a version of the protocol.
    fn of(key: &str) -> Self {
        let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path);
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        Pattern(if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") })
    }

    /// Returns whether an image, named without tag, is one of those meant: the port is the same, each label of the host
    /// fits, and the path begins with the pattern's.
    fn fits(&self, image: &str) -> bool {
        fn parts(text: &str) -> (&str, &str, &str) {
            let (authority, path) = text.split_once('/').unwrap_or((text, ""));
            match authority.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port, path),
                _ => (authority, "", path),
            }
        }
        let (host, port, path) = parts(&self.0);
        let (image_host, image_port, image_path) = parts(image);
        let (labels, image_labels) = (host.split('.'), image_host.split('.'));
        port == image_port
            && image_path.starts_with(path)
            && labels.clone().count() == image_labels.clone().count()
            && labels.zip(image_labels).all(|(label, found)| matches_glob(label.as_bytes(), found.as_bytes()))
    }
}

/// Returns whether a text fits a pattern in which `*` stands for anything and `?` for one character.
fn matches_glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skipped| matches_glob(rest, &text[skipped..])),
        Some((b'?', rest)) => text.split_first().is_some_and(|(_, text)| matches_glob(rest, text)),
        Some((byte, rest)) => {
            text.split_first().is_some_and(|(first, text)| first == byte && matches_glob(rest, text))
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keyring(keys: &[&str]) -> Keyring {
        let auths: BTreeMap<_, _> =
            keys.iter().map(|key| (*key, json!({"username": key, "password": "secret"}))).collect();
        Keyring::from_docker_config(json!({"auths": auths}).to_string().as_bytes(), "a test").unwrap()
    }

    fn users(keyring: &Keyring, registry: &str, repository: &str) -> Vec<String> {
        let user = |credential: Arc<Credential>| match &credential.secret {
            Secret::Password { user, .. } => user.clone(),
            _ => panic!("a password was given"),
        };
        keyring.candidates(registry, repository).into_iter().map(user).collect()
    }

    #[test]
    fn entries_fit_by_host_port_and_path_and_the_longest_path_comes_first() {
        let keyring = keyring(&[
            "quay.io",
            "quay.io/acme",
            "https://quay.io/acme/tools/v2",
            "quay.io:8443",
            "*.example.com",
            "reg?.example.com/x",
            "http://plain.test/v2/",
            "other.test/v1",
        ]);
        for (registry, repository, expected) in [
            ("quay.io", "acme/catalog", &["quay.io/acme", "quay.io"][..]),
            ("quay.io", "other/catalog", &["quay.io"]),
            ("quay.io", "acme/tools/v2/x", &["https://quay.io/acme/tools/v2", "quay.io/acme", "quay.io"]),
            ("quay.io:8443", "acme/catalog", &["quay.io:8443"]),
            ("quay.io:443", "acme/catalog", &[]),
            ("reg1.example.com", "x/y", &["reg?.example.com/x", "*.example.com"]),
            ("a.b.example.com", "x/y", &[]),
            ("example.com", "x/y", &[]),
            ("plain.test", "x/y", &["http://plain.test/v2/"]),
            ("other.test", "x/y", &["other.test/v1"]),
            ("docker.io", "library/x", &[]),
        ] {
            assert_eq!(users(&keyring, registry, repository), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn the_default_registry_has_a_key_of_its_own() {
        let keyring = keyring(&["https://index.docker.io/v1/"]);
        assert_eq!(users(&keyring, "docker.io", "library/x"), ["https://index.docker.io/v1/"]);
        assert_eq!(users(&keyring, "quay.io", "library/x"), [""; 0]);
    }

    #[test]
    fn every_form_of_an_entry_is_read() {
        let read = |entry: serde_json::Value| {
            let text = json!({"quay.io": entry}).to_string();
            let keyring = Keyring::from_dockercfg(text.as_bytes(), "a test").unwrap();
            keyring.candidates("quay.io", "x").first().map(|credential| credential.secret.clone())
        };
        let password = Secret::Password { user: "me".to_owned(), password: "a:b".to_owned() };
        assert!(read(json!({"auth": STANDARD.encode("me:a:b\0")})).as_ref() == Some(&password));
        assert!(read(json!({"username": "me", "password": "a:b"})).as_ref() == Some(&password));
        let identity = Secret::Identity { token: "t".to_owned() };
        assert!(read(json!({"auth": STANDARD.encode("me:x"), "identitytoken": "t"})) == Some(identity));
        let registry = Secret::Registry { token: "t".to_owned() };
        assert!(read(json!({"registrytoken": "t"})) == Some(registry));
        for nothing in [json!({}), json!({"auth": "%"}), json!({"auth": "bWU="}), json!({"username": "me"})] {
            assert!(read(nothing.clone()).is_none(), "{nothing}");
        }
    }

    #[test]
    fn no_message_and_no_debug_output_holds_a_secret() {
        let text = br#"{"auths": {"quay.io": "hunter2"}}"#;
        let error = Keyring::from_docker_config(text, "Secret `test/pull`").unwrap_err().to_string();
        assert_eq!(
            error,
            "Secret `test/pull`: no docker configuration (a problem of Data in line 1, column 31)"
        );
        let text = br#"{"quay.io": {"username": "me", "password": "hunter2"}}"#;
        let keyring = Keyring::from_dockercfg(text, "Secret `test/pull`").unwrap();
        let shown = format!("{keyring:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("me\""), "{shown}");
    }

    #[test]
    fn usual_files_are_those_of_container_tools() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/me"));
        let expected = ["/home/me/.config/containers/auth.json", "/home/me/.docker/config.json"];
        assert_eq!(usual_files(home), expected.map(PathBuf::from));
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        let expected = [
            "/XDG_RUNTIME_DIR/containers/auth.json",
            "/XDG_CONFIG_HOME/containers/auth.json",
            "/DOCKER_CONFIG/config.json",
        ];
        assert_eq!(usual_files(all), expected.map(PathBuf::from));
        assert_eq!(usual_files(|_| None), Vec::<PathBuf>::new());
    }
}
