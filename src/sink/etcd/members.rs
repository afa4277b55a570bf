//! Calls to the members of an etcd cluster: each with a limit in time, and to another member when one fails.
//!
//! All calls go to one member until it fails. That way its answers are all of one kind: what one member has seen, it
//! does not forget.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::error::CallError;
use crate::store::StoreError;

/// How long connecting to a member may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How often a connection without traffic is asked whether there is still somebody, and how long the answer may take.
/// etcd disconnects clients that ask more often than every 5 seconds.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// The members of a cluster.
pub(super) struct Members {
    members: Vec<Member>,
    /// The member that is called first, by its position.
    preferred: AtomicUsize,
    options: RwLock<ConnectOptions>,
    timeout: Duration,
}

/// A member, and the connection to it once there was one.
struct Member {
    endpoint: String,
    client: RwLock<Arc<OnceCell<Client>>>,
}

impl Members {
    /// Names the members; nothing is connected yet. `timeout` is for a whole call, with all its attempts.
    pub(super) fn new(endpoints: Vec<String>, options: ConnectOptions, timeout: Duration) -> Self {
        let member = |endpoint| Member { endpoint, client: RwLock::default() };
        let members = endpoints.into_iter().map(member).collect();
        Members { members, preferred: AtomicUsize::new(0), options: RwLock::new(complete(options)), timeout }
    }

    /// Has new connections made with other options from now on. What is under way goes on over the old ones.
    pub(super) fn set_options(&self, options: ConnectOptions) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = complete(options);
        for member in &self.members {
            *member.client.write().unwrap_or_else(PoisonError::into_inner) = Arc::default();
        }
    }

    /// Makes a call that changes nothing: it may be repeated.
    pub(super) async fn read<T, F>(&self, call: impl Fn(&Client) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        // Half the time is left for another member, when one does not answer at all.
        self.call(self.timeout / 2, CallError::is_worth_another_try, call).await
    }

    /// Makes a call that changes something: it is repeated only where it certainly was not carried out.
    pub(super) async fn write<T, F>(&self, call: impl Fn(&Client) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.call(self.timeout, CallError::can_be_moved, call).await
    }

    async fn call<T, F>(
        &self,
        attempt: Duration,
        may_be_repeated: fn(&CallError) -> bool,
        call: impl Fn(&Client) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut attempts = 0;
        loop {
            let position = self.preferred.load(Ordering::Relaxed);
            let limit = deadline.min(Instant::now() + attempt);
            let answer = timeout_at(limit, self.attempt(position, &call)).await;
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => CallError::Store(StoreError::Unknown(format!(
                    "{} did not answer in time",
                    self.members[position].endpoint
                ))),
            };
            attempts += 1;
            if error.is_worth_another_try() {
                self.avoid(position);
            }
            // A round and one more: the first member may have a new connection by then.
            let is_over = attempts > self.members.len() || Instant::now() >= deadline;
            if is_over || !may_be_repeated(&error) {
                return Err(error);
            }
        }
    }

    async fn attempt<T, F>(&self, position: usize, call: impl Fn(&Client) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let member = &self.members[position];
        let connect = || async {
            let options = Some(self.options.read().unwrap_or_else(PoisonError::into_inner).clone());
            let endpoint = [member.endpoint.as_str()];
            // Where there is a user, connecting asks for a token, which changes nothing.
            Client::connect(endpoint, options).await.map_err(|error| match CallError::of(error) {
                CallError::Store(StoreError::Unknown(reason)) => CallError::NotSent(reason),
                error => error,
            })
        };
        let client = Arc::clone(&*member.client.read().unwrap_or_else(PoisonError::into_inner));
        let client = client.get_or_try_init(connect).await?;
        call(client).await.map_err(CallError::of)
    }

    /// Goes on to the next member, unless somebody else did already.
    pub(super) fn avoid(&self, position: usize) {
        let next = (position + 1) % self.members.len();
        let _ = self.preferred.compare_exchange(position, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns the member that is called first.
    pub(super) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// Returns the name of a member.
    pub(super) fn endpoint(&self, position: usize) -> &str {
        &self.members[position].endpoint
    }
}

/// Adds what holds for every connection.
fn complete(options: ConnectOptions) -> ConnectOptions {
    options
        .with_connect_timeout(CONNECT)
        .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true)
        .with_auto_token_refresh(true)
}
