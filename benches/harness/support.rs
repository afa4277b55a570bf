//! What the tests have already: programs that end with whoever started them, images, a registry, etcd, kubectl.

#[path = "../../tests/it/support/etcd.rs"]
pub mod etcd;
#[path = "../../tests/it/support/image.rs"]
pub mod image;
#[path = "../../tests/it/support/kubectl.rs"]
pub mod kubectl;
#[path = "../../tests/it/support/process.rs"]
pub mod process;
#[path = "../../tests/it/support/registry.rs"]
pub mod registry;

use std::time::{Duration, Instant};

/// How long anything may take before a bench gives up on it.
const PATIENCE: Duration = Duration::from_secs(180);

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
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
