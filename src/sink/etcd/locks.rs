//! Locks in etcd: a key that lives as long as the lease of its holder, and no longer.
//!
//! One lease a process covers all of its locks, and is renewed while there is one. A lock that is taken has the revision
//! in which its key was created as the number of its holding, which is what fences compare. What a process believes
//! about its lease it counts from before it asked, so it gives up before etcd does.

use std::sync::{Arc, Weak};
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use tokio::sync::{Mutex, broadcast};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cluster::Cluster;
use super::error::CallError;
use super::watch::open_stream;
use crate::store::{Fence, Lock, StoreError};

/// A lease is renewed when this part of it is over.
const RENEW: f64 = 1.0 / 3.0;

/// Pause after a renewal that failed.
const RENEW_PAUSE: Duration = Duration::from_millis(200);

/// Pause after the watch of the locks broke.
const WATCH_PAUSE: Duration = Duration::from_millis(200);

/// Notices of released locks that somebody who waits can be behind, before it has to look by itself.
const NOTICES: usize = 256;

/// How often it is tried to release a lock; after that it is left to the lease.
const RELEASES: usize = 3;

/// What a process has of locks.
pub(super) struct EtcdLocks {
    cluster: Arc<Cluster>,
    duration: Duration,
    session: Mutex<Option<Arc<Session>>>,
    /// Names of locks that were released by anybody.
    released: broadcast::Sender<String>,
    /// The task that listens for them, once somebody had to wait.
    listening: Mutex<Option<DropGuard>>,
}

/// A lease that is being renewed.
struct Session {
    lease: i64,
    /// Cancelled when the lease is over, or may be.
    lost: CancellationToken,
    /// Ends the renewals.
    _renewing: DropGuard,
}

impl EtcdLocks {
    pub(super) fn new(cluster: Arc<Cluster>, duration: Duration) -> Self {
        let released = broadcast::Sender::new(NOTICES);
        EtcdLocks { cluster, duration, session: Mutex::default(), released, listening: Mutex::default() }
    }

    pub(super) async fn acquire(&self, name: &str) -> Result<Lock, StoreError> {
        let token = token();
        let mut released = self.released.subscribe();
        loop {
            let session = self.session().await?;
            match self.take(name, &token, session.lease).await? {
                Some(holding) => return Ok(self.lock(Fence { lock: name.to_owned(), holding }, &session)),
                None => self.wait(name, &mut released).await,
            }
        }
    }

    /// Takes a lock if nobody holds it; returns the number of the holding.
    async fn take(&self, name: &str, token: &str, lease: i64) -> Result<Option<u64>, StoreError> {
        let key = self.cluster.keys.lock(name);
        // Looking costs the cluster nothing; an attempt, also one in vain, goes through its log.
        let held = self.cluster.get(&key, None, GetOptions::new()).await?.items.into_iter().next();
        if let Some(held) = held {
            return Ok(own_holding(&held, token, lease));
        }
        let txn = Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.clone(), token, Some(PutOptions::new().with_lease(lease)))])
            .or_else([TxnOp::get(key, None)]);
        let response = match self.cluster.commit(|| txn.clone()).await {
            Ok(response) => response,
            // Taken or not: the next attempt finds it taken by this token.
            Err(CallError::Store(StoreError::Unknown(reason))) => {
                tracing::debug!(lock = name, reason, "an attempt to take a lock was not answered");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if response.succeeded() {
            return Ok(response.header().map(|header| header.revision() as u64));
        }
        let held = response.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
            _ => None,
        });
        Ok(held.and_then(|held| own_holding(&held, token, lease)))
    }

    /// Waits until a lock may be free.
    async fn wait(&self, name: &str, released: &mut broadcast::Receiver<String>) {
        self.listen().await;
        let notice = async { while released.recv().await.is_ok_and(|other| other != name) {} };
        // Notices may be missed while etcd is away.
        let _ = timeout(self.duration, notice).await;
    }

    /// Returns the lease of this process, a new one where there is none.
    async fn session(&self) -> Result<Arc<Session>, StoreError> {
        let mut session = self.session.lock().await;
        if let Some(session) = session.as_ref().filter(|session| !session.lost.is_cancelled()) {
            return Ok(Arc::clone(session));
        }
        let asked = Instant::now();
        let seconds = self.duration.as_secs().max(1) as i64;
        let granted = self.cluster.members.write(|client| {
            let mut leases = client.lease_client();
            async move { leases.grant(seconds, None).await }
        });
        let granted = granted.await?;
        let ttl = Duration::from_secs(granted.ttl().max(1) as u64);
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let renewal = Renewal {
            cluster: Arc::downgrade(&self.cluster),
            lease: granted.id(),
            lost: lost.clone(),
            expires: asked + ttl,
            ttl,
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(renewal.run()));
        let new = Arc::new(Session { lease: granted.id(), lost, _renewing: stop.drop_guard() });
        *session = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Wraps a lock that was taken; what lets go of it runs beside.
    fn lock(&self, fence: Fence, session: &Arc<Session>) -> Lock {
        let [done, released] = [(); 2].map(|()| CancellationToken::new());
        let lost = session.lost.clone();
        let lock = Lock::new(fence.clone(), lost.clone(), done.clone(), released.clone());
        // The session is kept while there is a lock.
        let (cluster, session) = (Arc::clone(&self.cluster), Arc::clone(session));
        tokio::spawn(async move {
            done.cancelled().await;
            if !lost.is_cancelled() {
                release(&cluster, &fence).await;
            }
            released.cancel();
            drop(session);
        });
        lock
    }

    /// Makes sure that releases are listened for.
    async fn listen(&self) {
        let mut listening = self.listening.lock().await;
        if listening.is_none() {
            let stop = CancellationToken::new();
            let listener = listener(Arc::downgrade(&self.cluster), self.released.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(listener));
            *listening = Some(stop.drop_guard());
        }
    }
}

/// Returns what tells this attempt from all others, so that one whose answer is lost is recognised; and, to people, whose it
/// is.
fn token() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned());
    format!("{host} {} {}", std::process::id(), uuid::Uuid::new_v4())
}

/// Returns the number of a holding, if it is that of an attempt of one's own, whose answer was lost.
fn own_holding(held: &KeyValue, token: &str, lease: i64) -> Option<u64> {
    let is_own = held.value() == token.as_bytes() && held.lease() == lease;
    is_own.then(|| held.create_revision() as u64)
}

/// Keeps a lease alive.
struct Renewal {
    cluster: Weak<Cluster>,
    lease: i64,
    lost: CancellationToken,
    ttl: Duration,
    /// When the lease is over, unless it is renewed: counted from before the last answered renewal was asked for.
    expires: Instant,
}

impl Renewal {
    /// Renews the lease until that fails for too long.
    async fn run(mut self) {
        let lost = self.lost.clone().drop_guard();
        let mut pause = self.ttl.mul_f64(RENEW);
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = sleep_until(self.expires) => break,
            }
            let Some(cluster) = self.cluster.upgrade() else { break };
            let asked = Instant::now();
            let renewing = renew(&cluster, self.lease);
            let renewed = tokio::select! {
                renewed = renewing => renewed,
                () = sleep_until(self.expires) => break,
            };
            match renewed {
                Ok(true) => {
                    self.expires = asked + self.ttl;
                    pause = self.ttl.mul_f64(RENEW);
                }
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "cannot renew the lease of this process");
                    pause = RENEW_PAUSE;
                }
            }
        }
        tracing::warn!("the lease of this process is over; its locks are lost");
        drop(lost);
    }
}

/// Renews a lease once; returns whether there was one.
async fn renew(cluster: &Cluster, lease: i64) -> Result<bool, StoreError> {
    let renewed = cluster.members.read(|client| {
        let mut leases = client.lease_client();
        async move {
            match leases.keep_alive(lease).await {
                Ok(_) => Ok(true),
                Err(etcd_client::Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(error),
            }
        }
    });
    Ok(renewed.await?)
}

/// Deletes the key of a lock, if it is still the same holding.
async fn release(cluster: &Cluster, fence: &Fence) {
    let key = cluster.keys.lock(&fence.lock);
    for _ in 0..RELEASES {
        let txn = Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, fence.holding as i64)])
            .and_then([TxnOp::delete(key.clone(), None)]);
        match cluster.commit(|| txn.clone()).await.map_err(StoreError::from) {
            Ok(_) => return,
            Err(error) => tracing::debug!(lock = fence.lock, %error, "cannot release a lock"),
        }
    }
}

/// Tells whoever waits about every lock that is released, until the cluster is not needed any more.
async fn listener(cluster: Weak<Cluster>, released: broadcast::Sender<String>) {
    loop {
        let Some(cluster) = cluster.upgrade() else { return };
        let interval = cluster.keys.locks();
        let options = WatchOptions::new().with_range(interval.end);
        let opened = open_stream(&cluster, interval.start, options).await;
        let keys = cluster.keys.clone();
        drop(cluster);
        let Ok((mut stream, _)) = opened else {
            sleep(WATCH_PAUSE).await;
            continue;
        };
        while let Ok(Some(message)) = stream.message().await {
            for event in message.events() {
                let is_gone = event.event_type() == etcd_client::EventType::Delete;
                if let Some(name) =
                    event.kv().filter(|_| is_gone).and_then(|item| keys.parse_lock(item.key()))
                {
                    // Nobody may be waiting.
                    let _ = released.send(name.to_owned());
                }
            }
        }
        sleep(WATCH_PAUSE).await;
    }
}
