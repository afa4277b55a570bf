//! What a watcher was sent: kept by a client that goes on where it was whenever its watch ends, at another server if there
//! is one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::eventually;
use super::server::client;

/// What may end a watch: the store is away; or, where many go back at the same time, there is no room to.
const AWAY: u64 = 503;
const EXPIRED: u64 = 410;

/// An event: resourceVersion, type, and name of the object.
pub type Seen = (u64, String, String);

/// A client that watches until it is dropped.
pub struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    watching: JoinHandle<()>,
}

impl Recorder {
    /// Watches a path after a version. Each watch lasts so many seconds; the next one is opened at the next server.
    pub fn start(kubeconfigs: Vec<PathBuf>, path: &str, after: u64, seconds: u32) -> Self {
        Self::start_with(kubeconfigs, path, after, seconds, &[AWAY])
    }

    /// As [`Self::start`], among so many watchers that not all of them can go back at the same time.
    pub fn start_among_many(kubeconfigs: Vec<PathBuf>, path: &str, after: u64, seconds: u32) -> Self {
        Self::start_with(kubeconfigs, path, after, seconds, &[AWAY, EXPIRED])
    }

    fn start_with(
        kubeconfigs: Vec<PathBuf>,
        path: &str,
        after: u64,
        seconds: u32,
        ends: &'static [u64],
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let watching =
            tokio::spawn(watch(kubeconfigs, path.to_owned(), after, seconds, ends, Arc::clone(&seen)));
        Recorder { seen, watching }
    }

    /// Returns what was seen so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the version of the last event that was seen.
    pub fn last(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).last().map_or(0, |(version, ..)| *version)
    }

    /// Returns what was seen after a version, up to another.
    pub fn between(&self, after: u64, until: u64) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let start = seen.partition_point(|(version, ..)| *version <= after);
        let end = seen.partition_point(|(version, ..)| *version <= until);
        seen[start..end.max(start)].to_vec()
    }

    /// Waits until some events were seen, and returns all.
    pub async fn until(&self, expected: usize) -> Vec<Seen> {
        eventually("a watcher to have seen every event", || {
            assert!(!self.watching.is_finished(), "the watcher has given up");
            let seen = self.seen();
            async move { (seen.len() >= expected).then_some(seen) }
        })
        .await
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

async fn watch(
    kubeconfigs: Vec<PathBuf>,
    path: String,
    mut last: u64,
    seconds: u32,
    ends: &'static [u64],
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    for kubeconfig in kubeconfigs.iter().cycle() {
        let client = client(kubeconfig).await;
        let Ok(stream) = client.request_stream(request(&path, last, seconds)).await else {
            // Its server is away; the next one may not be.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut lines = stream.lines();
        while let Some(Ok(line)) = lines.next().await {
            let Some(event) = read(&line, ends) else { break };
            last = event.0;
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        }
        if ends.contains(&EXPIRED) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Reads a line of a watch; none where the watch ends. A line that was cut off is not an event.
fn read(line: &str, ends: &[u64]) -> Option<Seen> {
    let event: Value = serde_json::from_str(line).ok()?;
    let kind = event["type"].as_str().unwrap_or_default().to_owned();
    let metadata = &event["object"]["metadata"];
    if kind == "ERROR" {
        assert!(event["object"]["code"].as_u64().is_some_and(|code| ends.contains(&code)), "{event}");
        return None;
    }
    let version = metadata["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a version");
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    Some((version, kind, name))
}

/// Watches once, for so many seconds or until the server is gone, and returns what was seen; none where the server did not
/// take the watch.
pub async fn watch_once(client: &kube::Client, path: &str, after: u64, seconds: u32) -> Option<Vec<Seen>> {
    let stream = client.request_stream(request(path, after, seconds)).await.ok()?;
    let mut lines = stream.lines();
    let mut seen = Vec::new();
    while let Some(Ok(line)) = lines.next().await {
        let Some(event) = read(&line, &[AWAY, EXPIRED]) else { break };
        seen.push(event);
    }
    Some(seen)
}

fn request(path: &str, after: u64, seconds: u32) -> http::Request<Vec<u8>> {
    let query = format!("watch=true&resourceVersion={after}&timeoutSeconds={seconds}");
    http::Request::get(format!("{path}?{query}"))
        .header("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        .body(Vec::new())
        .expect("a path is a URL")
}
