//! What can be asked of a cluster, in the terms of a store: a call a function, with the layout and errors seen to.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::{
    Client, GetOptions, GetResponse, KeyValue, KvClient, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use tokio::sync::watch;

use super::confirmed::Confirmed;
use super::error::CallError;
use super::keys::{Interval, Keys};
use super::members::Members;
use super::tip;
use crate::store::{Envelope, Key, ResourceVersion, Revision, StoreError, Stored};

/// Bytes of an answer. etcd itself sets no limit; what is asked for is bounded by the sizes of pages.
const MAX_ANSWER: usize = i32::MAX as usize;

/// A cluster and what is known of it.
pub(super) struct Cluster {
    pub(super) members: Members,
    pub(super) keys: Keys,
    /// Operations of a transaction.
    pub(super) max_txn_ops: usize,
    /// Bytes of a request.
    pub(super) max_request_bytes: usize,
    /// The newest that is known about where the log ends; watches wait on it.
    pub(super) confirmed: watch::Sender<Arc<Confirmed>>,
}

/// Keys of an interval, in a state.
pub(super) struct Found {
    /// The newest revision, whichever was asked for.
    pub(super) current: Revision,
    pub(super) items: Vec<KeyValue>,
    /// How many there are in the interval, with those that were not asked for.
    pub(super) count: u64,
}

impl From<GetResponse> for Found {
    fn from(mut response: GetResponse) -> Self {
        let current = Revision::new(response.header().map_or(0, |header| header.revision() as u64));
        Found { current, count: response.count() as u64, items: response.take_kvs() }
    }
}

/// Returns a client for keys that takes large answers.
pub(super) fn kv(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(MAX_ANSWER)
}

impl Cluster {
    /// Reads an interval, in the state of a revision or in the latest.
    pub(super) async fn range(
        &self,
        interval: &Interval,
        at: Option<Revision>,
        options: GetOptions,
    ) -> Result<Found, CallError> {
        let options = options.with_range(interval.end.clone());
        self.get(&interval.start, at, options).await
    }

    /// Reads one key, in the state of a revision or in the latest.
    pub(super) async fn get(
        &self,
        key: &[u8],
        at: Option<Revision>,
        options: GetOptions,
    ) -> Result<Found, CallError> {
        let options = options.with_revision(at.map_or(0, |revision| revision.get() as i64));
        let response = self.members.read(|client| {
            let (mut kv, key, options) = (kv(client), key.to_vec(), options.clone());
            async move { kv.get(key, Some(options)).await }
        });
        Ok(response.await?.into())
    }

    /// Reads keys in the order in which they are given, all in one state.
    pub(super) async fn get_all(
        &self,
        keys: &[Vec<u8>],
        mut at: Option<Revision>,
    ) -> Result<Vec<Option<KeyValue>>, CallError> {
        let mut found = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(self.max_txn_ops) {
            let options = GetOptions::new().with_revision(at.map_or(0, |revision| revision.get() as i64));
            let look = |key: &Vec<u8>| TxnOp::get(key.clone(), Some(options.clone()));
            let looks = Txn::new().and_then(chunk.iter().map(look).collect::<Vec<_>>());
            let response = self.members.read(|client| {
                let (mut kv, looks) = (kv(client), looks.clone());
                async move { kv.txn(looks).await }
            });
            let response = response.await?;
            at = at.or(response.header().map(|header| Revision::new(header.revision() as u64)));
            found.extend(response.op_responses().into_iter().map(|response| match response {
                TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
                _ => None,
            }));
        }
        Ok(found)
    }

    /// Carries out a transaction that writes. It is made anew for each attempt, and there is nearly always one.
    pub(super) async fn commit(&self, txn: impl Fn() -> Txn) -> Result<TxnResponse, CallError> {
        let call = |client: &Client| {
            let (mut kv, txn) = (kv(client), txn());
            async move { kv.txn(txn).await }
        };
        self.members.write(call).await
    }

    /// Finds out where the log ends now, and tells everybody.
    pub(super) async fn confirm(&self) -> Result<Arc<Confirmed>, CallError> {
        let found = self.range(&self.keys.tips(), None, GetOptions::new().with_keys_only()).await?;
        let tip = |item: &KeyValue| {
            let resource = self.keys.parse_tip(item.key())?;
            Some((resource.to_owned(), Revision::new(item.mod_revision() as u64)))
        };
        let confirmed = Arc::new(Confirmed::new(found.current, found.items.iter().filter_map(tip)));
        self.confirmed.send_if_modified(|known| {
            let is_newer = confirmed.now() > known.now();
            if is_newer {
                *known = Arc::clone(&confirmed);
            }
            is_newer
        });
        Ok(confirmed)
    }

    /// Returns the events that a revision had of some resources; of all, where none is named.
    pub(super) async fn events_of(
        &self,
        revision: Revision,
        resource: Option<&str>,
    ) -> Result<tip::Events, ReadError> {
        let interval = match resource {
            Some(resource) => {
                let start = self.keys.tip(resource);
                Interval { end: [&start[..], b"\0"].concat(), start }
            }
            None => self.keys.tips(),
        };
        let found = self.range(&interval, Some(revision), GetOptions::new()).await?;
        let mut events = tip::Events::new();
        for item in found.items.iter().filter(|item| item.mod_revision() as u64 == revision.get()) {
            let resource = self.keys.parse_tip(item.key()).unwrap_or_default();
            let of_resource = tip::decode(resource, item.value())
                .map_err(|error| StoreError::Unavailable(error.to_string()))?;
            events.extend(of_resource);
        }
        events.sort();
        Ok(events)
    }

    /// Decodes an object.
    pub(super) fn decode(&self, item: KeyValue) -> Result<Option<Stored>, StoreError> {
        let revision = Revision::new(item.mod_revision() as u64);
        let (key, value) = item.into_key_value();
        let Some(key) = self.keys.parse_object(&key) else { return Ok(None) };
        let envelope = decode_envelope(&key, value)?;
        let version = ResourceVersion::new(revision, envelope.index);
        Ok(envelope.object.map(|object| Stored { key, version, object }))
    }

    /// Returns the keys of a set of operations that etcd is to be asked about.
    pub(super) fn objects<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> Vec<Vec<u8>> {
        keys.into_iter().map(|key| self.keys.object(key)).collect()
    }

    /// Returns which of some versions are not the ones that are stored, though the revision is the same.
    pub(super) async fn mismatched(
        &self,
        expected: &[(usize, &Key, ResourceVersion)],
    ) -> Result<BTreeSet<usize>, StoreError> {
        let keys = self.objects(expected.iter().map(|(_, key, _)| *key));
        let found = self.get_all(&keys, None).await?;
        let mut mismatched = BTreeSet::new();
        for ((position, _, version), found) in expected.iter().zip(found) {
            if let Some(stored) = found.map(|item| self.decode(item)).transpose()?.flatten()
                && stored.version != *version
                && stored.version.revision() == version.revision()
            {
                mismatched.insert(*position);
            }
        }
        Ok(mismatched)
    }
}

/// Decodes what was put under a key.
pub(super) fn decode_envelope(key: &Key, value: Vec<u8>) -> Result<Envelope, StoreError> {
    Envelope::decode(&Bytes::from(value)).map_err(|source| StoreError::Corrupt { key: key.clone(), source })
}

/// A read that failed: the call, or what was read.
#[derive(Debug)]
pub(super) enum ReadError {
    Call(CallError),
    Store(StoreError),
}

impl From<CallError> for ReadError {
    fn from(error: CallError) -> Self {
        ReadError::Call(error)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        ReadError::Store(error)
    }
}
