//! What the tests share: processes that end with the test, catalogs, images, clients.

pub mod archive;
pub mod catalog;
pub mod clock;
pub mod etcd;
pub mod etcd_proxy;
pub mod fake_registry;
pub mod golden;
pub mod hooked_store;
pub mod hostile;
pub mod http_proxy;
pub mod image;
pub mod ingest;
pub mod kubectl;
pub mod objects;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod reading;
pub mod record;
pub mod registry;
pub mod router;
pub mod server;
pub mod tls;
pub mod watching;
pub mod writing;

use std::time::{Duration, Instant};

/// How long anything may take to come about before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Where this is set, tests that take their time do more rounds.
const LONG: &str = "PACKAGESERVER_LONG_TESTS";

/// Returns how often something is done: a few times, or often where somebody has the time for it.
pub fn rounds(short: u32, long: u32) -> u32 {
    if std::env::var_os(LONG).is_some() { long } else { short }
}

/// Returns a runtime for tests that are not asynchronous. Its time stands still until it is waited for.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime can be made")
}

/// Waits until something is there, and returns it. Panics with a description when it does not come.
pub async fn eventually<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        // A poll of another process's state, for want of an event to wait for.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
