//! The store on etcd: its keys and revisions are the log, a batch is one of its transactions.
//!
//! What comes in: batches, each of which is one transaction, compared first and committed whole. What goes out: states and
//! events with the versions that the batches gave them. etcd knows revisions only; the index of an event within its
//! revision is in the envelope of what was put, and in the tip of its resource (see `etcd/tip.rs`).
//!
//! Members that do not answer are passed over, and watches go on elsewhere. What is beyond that is an error that says
//! what is known: whether it happened, and what an administrator has to see to.

mod cluster;
mod confirmed;
mod error;
#[cfg(test)]
mod golden;
mod keys;
mod locks;
mod members;
mod read;
mod tip;
mod txn;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    AlarmAction, AlarmMember, AlarmType, Certificate, ConnectOptions, Identity, TlsOptions, Txn,
};
use tokio::sync::watch as latest;

use self::cluster::Cluster;
use self::error::CallError;
use self::keys::Keys;
use self::locks::EtcdLocks;
use self::members::Members;
use crate::store::{
    Batch, Expect, Key, ListRequest, Lock, Locks, Operation, Page, Range, ResourceVersion, Revision, Store,
    StoreError, Stored, WatchStream,
};

/// Returns the transaction of etcd that a batch is, with keys under a prefix: every expectation and the fence as
/// comparisons, then the writes with a tip for each resource, or else a look at what was compared.
pub fn transaction(prefix: &str, batch: &Batch) -> Txn {
    txn::build(&Keys::new(prefix), batch, &BTreeSet::new())
}

/// Where etcd is, and how it is used.
#[derive(Clone)]
pub struct EtcdConfig {
    /// URLs of the members.
    pub endpoints: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// How members are recognised and convinced, where their URLs are https.
    pub tls: Option<EtcdTls>,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// Operations that members allow in a transaction (their `--max-txn-ops`).
    pub max_txn_ops: usize,
    /// Bytes that members allow in a request (their `--max-request-bytes`).
    pub max_request_bytes: usize,
    /// How long a call may take, with all attempts.
    pub timeout: Duration,
    /// How long the locks of a process that is not heard of are kept for it.
    pub lease_duration: Duration,
}

/// What an administrator of etcd looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtcdHealth {
    /// Bytes of the database of the member that answered.
    pub database_bytes: u64,
    /// Whether a member has reached its quota, so that nothing is written until somebody makes room.
    pub is_out_of_space: bool,
    /// Whether a member's data differ from those of the others.
    pub is_corrupt: bool,
}

/// Certificates and keys, as PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// The authorities of the members.
    pub authority: Option<Vec<u8>>,
    /// Our own certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Default for EtcdConfig {
    /// A member on this machine, with the limits that etcd has by itself.
    fn default() -> Self {
        EtcdConfig {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            prefix: "/registry/core.rukpak.io".to_owned(),
            tls: None,
            user: None,
            max_txn_ops: 128,
            max_request_bytes: 1536 << 10,
            timeout: Duration::from_secs(10),
            lease_duration: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for EtcdConfig {
    /// Leaves secrets out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EtcdConfig { endpoints, prefix, .. } = self;
        f.debug_struct("EtcdConfig")
            .field("endpoints", endpoints)
            .field("prefix", prefix)
            .finish_non_exhaustive()
    }
}

/// A [`Store`] on etcd, and its [`Locks`].
pub struct EtcdStore {
    cluster: Arc<Cluster>,
    locks: EtcdLocks,
    user: Option<(String, String)>,
}

impl EtcdStore {
    /// Makes a store. Nothing is connected before it is used, and etcd may come later.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] when there are no endpoints, or the limits leave no room.
    pub fn new(config: EtcdConfig) -> Result<Self, StoreError> {
        if config.endpoints.is_empty() {
            return Err(StoreError::Invalid("no endpoints of etcd"));
        }
        if config.max_txn_ops < 2 {
            return Err(StoreError::Invalid("a transaction has to have room for two operations"));
        }
        let options = options(config.tls, config.user.as_ref());
        let cluster = Arc::new(Cluster {
            members: Members::new(config.endpoints, options, config.timeout),
            keys: Keys::new(&config.prefix),
            max_txn_ops: config.max_txn_ops,
            max_request_bytes: config.max_request_bytes,
            confirmed: latest::Sender::default(),
        });
        let locks = EtcdLocks::new(Arc::clone(&cluster), config.lease_duration);
        Ok(EtcdStore { locks, cluster, user: config.user })
    }

    /// Returns what an administrator of etcd looks at.
    ///
    /// # Errors
    ///
    /// As those of reads.
    pub async fn health(&self) -> Result<EtcdHealth, StoreError> {
        let members = &self.cluster.members;
        let status = members.read(|client| {
            let mut client = client.clone();
            async move { client.status().await }
        });
        let status = status.await?;
        let alarms = members.read(|client| {
            let mut client = client.clone();
            async move { client.alarm(AlarmAction::Get, AlarmType::None, None).await }
        });
        let is = |kind| move |alarm: &AlarmMember| alarm.alarm() == kind;
        let alarms = alarms.await?;
        Ok(EtcdHealth {
            database_bytes: status.db_size().try_into().unwrap_or_default(),
            is_out_of_space: alarms.alarms().iter().any(is(AlarmType::Nospace)),
            is_corrupt: alarms.alarms().iter().any(is(AlarmType::Corrupt)),
        })
    }

    /// Has new connections made with other certificates from now on. What is under way goes on over the old ones.
    pub fn set_tls(&self, tls: EtcdTls) {
        self.cluster.members.set_options(options(Some(tls), self.user.as_ref()));
    }
}

fn options(tls: Option<EtcdTls>, user: Option<&(String, String)>) -> ConnectOptions {
    let mut options = ConnectOptions::new();
    if let Some(EtcdTls { authority, identity }) = tls {
        let mut tls = TlsOptions::new();
        if let Some(authority) = authority {
            tls = tls.ca_certificate(Certificate::from_pem(authority));
        }
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        options = options.with_tls(tls);
    }
    match user {
        Some((name, password)) => options.with_user(name, password),
        None => options,
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError> {
        batch.check()?;
        if batch.operations.len() + txn::overhead(&batch) > self.cluster.max_txn_ops {
            return Err(StoreError::Invalid("more operations than a transaction of etcd can have"));
        }
        let too_large = |size| {
            let largest = batch.operations.iter().max_by_key(|operation| operation.size());
            let key = largest.expect("a batch that was checked has operations").key.clone();
            StoreError::TooLarge { key, size, limit: self.cluster.max_request_bytes }
        };
        let size = batch.operations.iter().map(Operation::size).sum();
        if size > self.cluster.max_request_bytes {
            return Err(too_large(size));
        }
        let mismatched = self.mismatched(&batch).await?;
        let txn = || txn::build(&self.cluster.keys, &batch, &mismatched);
        let response = self.cluster.commit(txn).await.map_err(|error| match error {
            CallError::TooLarge => too_large(size),
            error => error.into(),
        })?;
        if !response.succeeded() {
            return Err(txn::refusal(&batch, &mismatched, &response));
        }
        let revision = response.header().map(|header| Revision::new(header.revision() as u64));
        revision.ok_or_else(|| StoreError::Unknown("etcd did not name the revision".to_owned()))
    }

    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
        self.cluster.read(keys).await
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        self.cluster.list(&request).await
    }

    async fn watch(&self, range: Range, after: ResourceVersion) -> Result<WatchStream, StoreError> {
        watch::open(Arc::clone(&self.cluster), range, after).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let compacted = self.cluster.members.write(|client| {
            let mut kv = cluster::kv(client);
            let revision = i64::try_from(revision.get()).unwrap_or(i64::MAX);
            async move { kv.compact(revision, None).await }
        });
        match compacted.await {
            Ok(_) | Err(CallError::Compacted) => Ok(()),
            Err(CallError::Future) => {
                let current = self.current().await?;
                Err(StoreError::Future { requested: ResourceVersion::end_of(revision), current })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn current(&self) -> Result<ResourceVersion, StoreError> {
        Ok(ResourceVersion::end_of(self.cluster.confirm().await?.now()))
    }
}

impl EtcdStore {
    /// Returns the positions of operations that expect another event of the revision that wrote their object: etcd compares
    /// revisions only.
    async fn mismatched(&self, batch: &Batch) -> Result<BTreeSet<usize>, StoreError> {
        let mut mismatched = BTreeSet::new();
        let mut expected = Vec::new();
        for (position, operation) in batch.operations.iter().enumerate() {
            match operation.expect {
                Expect::Version(version)
                    if version.index() == 0 || version.index() > ResourceVersion::MAX_INDEX =>
                {
                    mismatched.insert(position);
                }
                Expect::Version(version) => expected.push((position, &operation.key, version)),
                Expect::Absent => {}
            }
        }
        if !expected.is_empty() {
            mismatched.extend(self.cluster.mismatched(&expected).await?);
        }
        Ok(mismatched)
    }
}

#[async_trait]
impl Locks for EtcdStore {
    async fn acquire(&self, name: &str) -> Result<Lock, StoreError> {
        self.locks.acquire(name).await
    }
}
