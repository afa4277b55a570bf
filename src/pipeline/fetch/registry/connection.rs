//! Connections: which certificates are trusted, which proxies used, and what is said when one fails.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client};

use super::redirect::{Resolver, redirects};
use crate::pipeline::fetch::FetchError;
use crate::pipeline::limits::read_bounded;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients that are kept: one for each registry and set of certificates in use.
const MAX_CLIENTS: usize = 64;

/// Bytes of a file with certificates, and how many files a directory of them may have.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_FILES: usize = 1000;

/// Clients, by what they trust. Each keeps its connections open for a while.
pub(super) struct Connections {
    read_timeout: Duration,
    clients: Mutex<HashMap<Trust, Client>>,
}

/// What is trusted about whoever answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    /// Certificates of authorities beside the machine's own, as PEM.
    pub(super) authorities: String,
    /// Whether any certificate will do.
    pub(super) is_insecure: bool,
    /// Whether it is this machine, which no proxy leads to.
    pub(super) is_here: bool,
    /// Its host.
    pub(super) host: String,
}

impl Connections {
    pub(super) fn new(read_timeout: Duration) -> Self {
        Connections { read_timeout, clients: Mutex::default() }
    }

    /// Returns a client.
    pub(super) fn client(&self, trust: &Trust) -> Result<Client, FetchError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(trust) {
            return Ok(client.clone());
        }
        let client = self.build(trust).map_err(|error| FetchError::Configuration(chain(&error)))?;
        if clients.len() == MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(trust.clone(), client.clone());
        Ok(client)
    }

    fn build(&self, trust: &Trust) -> Result<Client, reqwest::Error> {
        let mut builder = Client::builder()
            .user_agent(concat!("packageserver/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(self.read_timeout)
            .redirect(redirects(&trust.host))
            .dns_resolver(Resolver::for_registry(&trust.host))
            .referer(false);
        if !trust.authorities.is_empty() {
            builder = builder.tls_certs_merge(Certificate::from_pem_bundle(trust.authorities.as_bytes())?);
        }
        if trust.is_insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        if trust.is_here {
            builder = builder.no_proxy();
        }
        builder.build()
    }
}

/// Reads the certificates in a directory: all files named `*.crt` or `*.pem`. Blocks.
pub(super) fn read_authorities(directory: &Path) -> Result<String, FetchError> {
    let failed = |path: &Path, reason: &dyn std::fmt::Display| {
        FetchError::Configuration(format!("certificates in `{}`: {reason}", path.display()))
    };
    let entries = std::fs::read_dir(directory).map_err(|error| failed(directory, &error))?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries.take(MAX_FILES) {
        paths.push(entry.map_err(|error| failed(directory, &error))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "crt" || extension == "pem"));
    paths.sort();
    let mut authorities = String::new();
    for path in paths {
        let read =
            || read_bounded(std::fs::File::open(&path)?, "bytes in a file with certificates", MAX_FILE_BYTES);
        let text = String::from_utf8(read().map_err(|error| failed(&path, &error))?)
            .map_err(|error| failed(&path, &error))?;
        check_authorities(&text).map_err(|reason| failed(&path, &reason))?;
        authorities.push_str(&text);
        authorities.push('\n');
    }
    Ok(authorities)
}

/// Checks that a text holds certificates, as PEM.
pub(super) fn check_authorities(text: &str) -> Result<(), String> {
    crate::tls::server::authorities(text).map(drop).map_err(|error| error.to_string())
}

/// Returns a registry without its port.
pub(super) fn host_of(registry: &str) -> &str {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Returns whether a registry is on this machine.
pub(super) fn is_here(registry: &str) -> bool {
    let host = host_of(registry);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns whether a connection failed because the other side showed a certificate that is not trusted.
pub(super) fn is_distrust(error: &reqwest::Error) -> bool {
    let found = find(error, |error| {
        matches!(
            error.downcast_ref(),
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
        )
    });
    found.is_some()
}

/// Returns whether sending a request again is any use.
pub(super) fn is_worth_another(error: &reqwest::Error) -> bool {
    !error.is_redirect() && !error.is_builder() && !is_distrust(error)
}

/// Puts an error and its causes in one line, without URLs, which may hold tokens.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = match error {
        error if error.is_timeout() => "timed out".to_owned(),
        error if error.is_connect() => "cannot connect".to_owned(),
        error if error.is_redirect() => "refused redirect".to_owned(),
        error if error.is_builder() => "cannot make a client".to_owned(),
        _ => "connection failed".to_owned(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let said = error.to_string();
        // Some wrappers say what their cause says.
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// Looks for an error among the causes of another, also those that an I/O error hides.
fn find<'a>(
    error: &'a (dyn std::error::Error + 'static),
    is_it: impl Fn(&(dyn std::error::Error + 'static)) -> bool,
) -> Option<&'a (dyn std::error::Error + 'static)> {
    let mut next = Some(error);
    while let Some(error) = next {
        if is_it(error) {
            return Some(error);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_here() {
        for registry in ["localhost:5000", "localhost", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            assert!(is_here(registry), "{registry}");
        }
        for registry in
            ["quay.io", "localhost.example.com:5000", "128.0.0.1:5000", "10.0.0.1", "registry:5000"]
        {
            assert!(!is_here(registry), "{registry}");
        }
    }

    #[test]
    fn files_that_hold_no_certificates_are_named() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read_authorities(directory.path()).unwrap(), "");
        std::fs::write(directory.path().join("notes.txt"), "not read").unwrap();
        let (authority, _) =
            crate::tls::authority::Authority::generate("test", crate::tls::authority::Validity::days(1))
                .unwrap();
        std::fs::write(directory.path().join("a.crt"), authority.certificate()).unwrap();
        assert!(read_authorities(directory.path()).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        for nonsense in ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(directory.path().join("b.pem"), nonsense).unwrap();
            let error = read_authorities(directory.path()).unwrap_err().to_string();
            assert!(error.contains("b.pem"), "{error}");
        }
    }
}
