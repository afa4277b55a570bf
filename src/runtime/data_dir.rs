//! The data directory of a server without a cluster: database, authority, kubeconfig. Nobody but its owner may read it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use time::OffsetDateTime;

use crate::api::auth::MASTERS;
use crate::tls::authority::{Authority, Signed, Validity};
use crate::tls::expiry::{expiry, is_of_the_future};

/// How long certificates are valid that are made anew at each start.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long the authority is valid.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A data directory.
pub(super) struct DataDir {
    path: PathBuf,
}

/// What a server of one's own needs to be spoken to.
pub(super) struct Identity {
    /// The certificate it shows.
    pub(super) server: Signed,
    /// Who signed it, and who signs the certificates of its clients; as PEM.
    pub(super) authority: String,
}

impl DataDir {
    /// Opens a data directory, and creates it where there is none.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let create = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            // It may have been there, open to others.
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        };
        create().with_context(|| format!("cannot use the data directory `{}`", path.display()))?;
        Ok(DataDir { path: path.to_owned() })
    }

    /// Names a data directory that has a database.
    pub(super) fn existing(path: &Path) -> anyhow::Result<Self> {
        let directory = DataDir { path: path.to_owned() };
        anyhow::ensure!(directory.database().is_file(), "there is no database in `{}`", path.display());
        Ok(directory)
    }

    /// Returns where the database is.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("packageserver.redb")
    }

    /// Returns where the kubeconfig is.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// Returns a certificate for a server at an address, and writes a kubeconfig with which to use it as administrator.
    pub(super) fn identify(&self, address: SocketAddr) -> anyhow::Result<Identity> {
        let authority = self.authority()?;
        let names = ["localhost".to_owned()];
        let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        if !address.ip().is_loopback() && !address.ip().is_unspecified() {
            addresses.push(address.ip());
        }
        let server = authority.server(&names, &addresses, Validity::from_now(CERTIFICATE_LIFETIME))?;
        let admin = authority.client("admin", &[MASTERS], Validity::from_now(CERTIFICATE_LIFETIME))?;
        let kubeconfig = kubeconfig(reachable(address), authority.certificate(), &admin)?;
        self.write("kubeconfig", &kubeconfig)?;
        tracing::info!(kubeconfig = %self.kubeconfig().display(), "for kubectl");
        Ok(Identity { server, authority: authority.certificate().to_owned() })
    }

    /// Returns the authority that was made at the first start. Of servers that share the directory one makes it. One that
    /// is not good now, and so for nobody, is replaced: it has expired, or a clock made it that was ahead.
    fn authority(&self) -> anyhow::Result<Authority> {
        let path = self.path.join("ca.lock");
        let lock = || -> io::Result<File> {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        let _lock = lock().with_context(|| format!("cannot lock `{}`", path.display()))?;
        let (certificate, key) = (self.path.join("ca.crt"), self.path.join("ca.key"));
        if certificate.exists() && key.exists() {
            let read = |path: &Path| {
                fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
            };
            let kept = Signed { certificate: read(&certificate)?, key: read(&key)? };
            let loaded = Authority::load(&kept).with_context(|| {
                format!(
                    "`{}` and `{}` do not make an authority; remove both to have a new one made",
                    certificate.display(),
                    key.display()
                )
            })?;
            if is_good(kept.certificate.as_bytes(), OffsetDateTime::now_utc()) {
                return Ok(loaded);
            }
            tracing::warn!(certificate = %certificate.display(), "is not good at this time; making a new authority");
        }
        let (authority, kept) = Authority::generate("packageserver", Validity::from_now(AUTHORITY_LIFETIME))?;
        self.write("ca.key", &kept.key)?;
        self.write("ca.crt", &kept.certificate)?;
        Ok(authority)
    }

    /// Writes a file that is there whole or not at all.
    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let (path, aside) = (self.path.join(name), self.path.join(format!(".{name}.new")));
        let write = || -> io::Result<()> {
            let _ = fs::remove_file(&aside);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&aside, &path)
        };
        write().with_context(|| format!("cannot write `{}`", path.display()))
    }
}

/// Returns whether a certificate is good at a time.
fn is_good(certificate: &[u8], now: OffsetDateTime) -> bool {
    !is_of_the_future(certificate, now) && expiry(certificate).is_some_and(|expiry| expiry > now)
}

/// Returns the address under which a server on this machine is reached.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

fn kubeconfig(address: SocketAddr, authority: &str, admin: &Signed) -> anyhow::Result<String> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let name = "packageserver";
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": STANDARD.encode(&admin.certificate),
            "client-key-data": STANDARD.encode(&admin.key),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "admin", "namespace": "default"}}],
    });
    Ok(serde_saphyr::to_string(&config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_for_its_owner_only_and_the_authority_stays_while_it_is_good() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let address = "127.0.0.1:7443".parse().unwrap();
        let first = DataDir::open(&path).unwrap().identify(address).unwrap();
        let second = DataDir::open(&path).unwrap().identify(address).unwrap();
        assert_eq!(first.authority, second.authority);
        assert_eq!(mode(&path), 0o700);
        for name in ["ca.key", "ca.crt", "kubeconfig"] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        // By clocks that are wrong an authority was made that is good for nobody.
        let day = Duration::from_secs(24 * 60 * 60);
        let now = OffsetDateTime::now_utc();
        for from in [now + 2 * day, now - 2 * day] {
            let (_, kept) = Authority::generate("packageserver", Validity { from, lifetime: day }).unwrap();
            fs::write(path.join("ca.key"), kept.key).unwrap();
            fs::write(path.join("ca.crt"), &kept.certificate).unwrap();
            let replaced = DataDir::open(&path).unwrap().identify(address).unwrap();
            assert_ne!(replaced.authority, kept.certificate);
            let again = DataDir::open(&path).unwrap().identify(address).unwrap();
            assert_eq!(replaced.authority, again.authority);
        }
        fs::write(path.join("ca.key"), "nonsense").unwrap();
        let error = DataDir::open(&path).unwrap().identify(address).err().unwrap();
        assert!(error.to_string().contains("remove both"), "{error:#}");
    }
}
