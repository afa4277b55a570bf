//! The store that a command works on, with what the other parts have to know of it.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, bail};
use prometheus::Registry;

use super::data_dir::DataDir;
use crate::args::EtcdArgs;
use crate::model::{GROUP, RESOURCES};
use crate::pipeline::submit::BatchLimits;
use crate::sink::{
    CachedResource, CachedStore, CatalogCacheStore, EmbeddedStore, EtcdConfig, EtcdStore, EtcdTls,
    MeasuredStore,
};
use crate::store::{DICTIONARIES, Locks, Store};

/// The environment variable with the password of the etcd user.
const PASSWORD: &str = "PACKAGESERVER_ETCD_PASSWORD";

/// The resource whose objects are large, and how many bytes of their tails are held in memory, as they are stored.
const LARGE_RESOURCE: &str = "bundlemetadata";
const LARGE_TAIL_BYTES: usize = 24 << 20;

/// How many bytes of dictionaries are held in memory, as they are stored.
const DICTIONARY_BYTES: usize = 16 << 20;

/// Time between two looks at the files with certificates.
const CERTIFICATE_PAUSE: Duration = Duration::from_secs(60);

/// Operations of a transaction that are left for what the store adds to each: one a resource.
const RESERVED_OPERATIONS: usize = 8;

/// A store, its locks, and how large batches may be.
pub(super) struct Backend {
    pub(super) store: Arc<dyn Store>,
    pub(super) locks: Arc<dyn Locks>,
    pub(super) batches: BatchLimits,
}

impl Backend {
    /// Opens the database of a data directory.
    pub(super) fn embedded(data_dir: &DataDir) -> anyhow::Result<Self> {
        let store = Arc::new(EmbeddedStore::open(&data_dir.database())?);
        Ok(Backend { locks: Arc::clone(&store) as _, store, batches: BatchLimits::default() })
    }

    /// Makes a store on etcd, which need not be there yet.
    pub(super) fn etcd(args: &EtcdArgs) -> anyhow::Result<Self> {
        let config = etcd_config(args)?;
        let batches = BatchLimits {
            operations: config.max_txn_ops - RESERVED_OPERATIONS,
            // Less head-room for framing and for what the store adds.
            bytes: config.max_request_bytes / 9 * 8,
        };
        let tls = config.tls.clone();
        let store = Arc::new(EtcdStore::new(config)?);
        if let Some(tls) = tls {
            tokio::spawn(follow_certificates(Arc::downgrade(&store), args.clone(), tls));
        }
        Ok(Backend { locks: Arc::clone(&store) as _, store, batches })
    }

    /// Counts from now on what the store is asked.
    pub(super) fn measured(self, registry: &Registry) -> anyhow::Result<Self> {
        let Backend { store, locks, batches } = self;
        let measured = Arc::new(MeasuredStore::new(store, locks, registry)?);
        Ok(Backend { locks: Arc::clone(&measured) as _, store: measured, batches })
    }

    /// Returns the store as the API reads it: from memory, and with CatalogCaches put together.
    pub(super) fn served(&self) -> Arc<dyn Store> {
        let cached = |name: &'static str| {
            let tail_bytes = if name == LARGE_RESOURCE { LARGE_TAIL_BYTES } else { usize::MAX };
            CachedResource { name, tail_bytes }
        };
        let mut resources: Vec<_> = RESOURCES.iter().map(|resource| cached(resource.plural)).collect();
        resources.push(CachedResource { name: DICTIONARIES, tail_bytes: DICTIONARY_BYTES });
        let cached = CachedStore::new(Arc::clone(&self.store), &resources);
        Arc::new(CatalogCacheStore::new(Arc::new(cached)))
    }
}

/// Returns what the arguments say about etcd.
pub(super) fn etcd_config(args: &EtcdArgs) -> anyhow::Result<EtcdConfig> {
    Ok(EtcdConfig {
        endpoints: args.etcd_servers.clone(),
        prefix: format!("{}/{GROUP}", args.etcd_prefix.trim_end_matches('/')),
        tls: tls(args)?,
        user: user(args)?,
        max_txn_ops: args.etcd_max_txn_ops.into(),
        max_request_bytes: args.etcd_max_request_bytes as usize,
        timeout: args.etcd_timeout,
        lease_duration: args.lease_duration,
    })
}

/// Takes up certificates that take the place of others in the same files, for as long as there is a store.
async fn follow_certificates(store: Weak<EtcdStore>, args: EtcdArgs, mut current: EtcdTls) {
    loop {
        tokio::time::sleep(CERTIFICATE_PAUSE).await;
        let Some(store) = store.upgrade() else { return };
        match tls(&args) {
            Ok(Some(found)) if found != current => {
                tracing::info!(
                    "the certificates for etcd have changed; new connections are made with the new ones"
                );
                store.set_tls(found.clone());
                current = found;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("cannot read the certificates for etcd: {error:#}"),
        }
    }
}

fn tls(args: &EtcdArgs) -> anyhow::Result<Option<EtcdTls>> {
    let is_secure = args.etcd_servers.iter().any(|url| url.starts_with("https://"));
    if !is_secure {
        return Ok(None);
    }
    if args.etcd_servers.iter().any(|url| !url.starts_with("https://")) {
        bail!("--etcd-servers: either all are https, or none is");
    }
    let Some(authority) = &args.etcd_cafile else {
        bail!("--etcd-servers: for https, --etcd-cafile has to say whom to trust");
    };
    let identity = match (&args.etcd_certfile, &args.etcd_keyfile) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        _ => None,
    };
    Ok(Some(EtcdTls { authority: Some(read(authority)?), identity }))
}

fn user(args: &EtcdArgs) -> anyhow::Result<Option<(String, String)>> {
    let Some(name) = &args.etcd_user else { return Ok(None) };
    let password = match (&args.etcd_password_file, std::env::var(PASSWORD)) {
        (Some(file), _) => String::from_utf8(read(file)?)
            .with_context(|| format!("`{}` is not UTF-8", file.display()))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
        (None, Ok(password)) => password,
        (None, Err(_)) => bail!("--etcd-user: the password has to be in --etcd-password-file or {PASSWORD}"),
    };
    Ok(Some((name.clone(), password)))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
}
