//! Watches read event by event.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Response;
use futures::StreamExt;
use serde_json::Value;

use super::objects::version;
use super::router::{Call, TestApi};

/// How long an event is waited for: longer than any watch lasts, where time is paused and goes by in a moment.
const PATIENCE: Duration = Duration::from_secs(2 * 60 * 60);

/// An open watch.
pub struct Watch {
    body: BodyDataStream,
    read: Vec<u8>,
}

impl Watch {
    /// Opens a watch, which has to be accepted.
    pub async fn open(api: &TestApi, path_and_query: &str) -> Self {
        Self::of(api.get(path_and_query)).await
    }

    /// As [`Self::open`], with more said about the request.
    pub async fn of(call: Call) -> Self {
        let response = call.response().await;
        assert_eq!(response.status(), 200);
        Self::read(response)
    }

    pub fn read(response: Response<Body>) -> Self {
        Watch { body: response.into_body().into_data_stream(), read: Vec::new() }
    }

    /// Waits for the next event; none when the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.line());
        let line = line.await.expect("an event comes")?;
        Some(serde_json::from_slice(&line).expect("events are JSON"))
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                return Some(self.read.drain(..=end).collect());
            }
            match self.body.next().await {
                Some(data) => {
                    self.read.extend_from_slice(&data.expect("a watch ends, it does not break off"))
                }
                None => {
                    assert!(self.read.is_empty(), "a watch ends behind an event");
                    return None;
                }
            }
        }
    }

    /// Waits for the next event, and returns it as `TYPE name version`.
    pub async fn brief(&mut self) -> String {
        self.next().await.as_ref().map_or("END".to_owned(), brief)
    }

    /// As [`Self::brief`], for so many events.
    pub async fn briefs(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        for _ in 0..count {
            events.push(self.brief().await);
        }
        events
    }

    /// Returns all events up to the end of the watch.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// Asserts that nothing comes for a time. Only for tests in which time is paused.
    pub async fn is_silent_for(&mut self, duration: Duration) {
        if let Ok(line) = tokio::time::timeout(duration, self.line()).await {
            panic!("an event: {:?}", line.map(|line| String::from_utf8_lossy(&line).into_owned()));
        }
    }
}

/// Returns an event as `TYPE name version`.
#[track_caller]
pub fn brief(event: &Value) -> String {
    let (kind, object) = (event["type"].as_str().unwrap_or_default(), &event["object"]);
    match kind {
        "ERROR" => format!("ERROR {} {}", object["code"], object["reason"].as_str().unwrap_or_default()),
        "BOOKMARK" => format!("BOOKMARK {}", version(object)),
        kind => {
            format!("{kind} {} {}", object["metadata"]["name"].as_str().unwrap_or_default(), version(object))
        }
    }
}
