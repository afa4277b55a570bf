//! Many watches of the same, and when the last of them has an event.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Access, Request};

/// Watches of one connection: as many as kube-apiserver allows where it is not told otherwise.
const STREAMS: usize = 100;

/// How long an event may take to the last watch before a bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Watches that are open. They end with this.
pub struct Watches {
    served: mpsc::Receiver<Instant>,
    _reading: JoinSet<()>,
}

impl Watches {
    /// Opens so many watches, and returns when all are answered.
    pub async fn open(access: &Access, request: Request<'_>, count: usize) -> Self {
        let (serve, served) = mpsc::channel(16);
        let (delivered, mut reading) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        let mut left = count;
        while left > 0 {
            let mut connection = access.connect().await;
            let streams = left.min(STREAMS);
            connection.open(streams, request).await;
            left -= streams;
            let (delivered, serve) = (Arc::clone(&delivered), serve.clone());
            reading.spawn(async move {
                loop {
                    let events = connection.events().await;
                    let before = delivered.fetch_add(events, Ordering::Relaxed);
                    if before / count < (before + events) / count {
                        serve.send(Instant::now()).await.expect("somebody waits for it");
                    }
                }
            });
        }
        Watches { served, _reading: reading }
    }

    /// Returns when the last watch had the next event.
    pub async fn served(&mut self) -> Instant {
        let served = timeout(PATIENCE, self.served.recv()).await;
        served.expect("every watch has the event").expect("the connections hold")
    }
}
