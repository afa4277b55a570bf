//! Streams of HTTP/2 whose client has to read what it asked for (C114).
//!
//! A client says how much of each stream it takes. One that says nothing leaves the connection alone, so that a limit on
//! what is written to that (see [`super::patience`]) does not see it, and an answer that waits is not even asked for more.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::rt::Executor;
use tokio::time::{Instant, sleep_until};

use super::UNREAD;

tokio::task_local! {
    /// That of the stream whose task this is.
    static READING: Arc<Reading>;
}

/// Whether the client of a stream reads.
#[derive(Debug, Default)]
pub(in crate::api) struct Reading {
    /// Since when there is something that it does not take; none while it waits for us.
    unread: Mutex<Option<Instant>>,
}

impl Reading {
    /// Returns that of the stream that is being answered; none where there are no streams.
    pub(in crate::api) fn of_stream() -> Option<Arc<Self>> {
        READING.try_with(Arc::clone).ok()
    }

    /// Notes that there is something to be read.
    pub(in crate::api) fn begin(&self) {
        self.set(Some(Instant::now()));
    }

    /// Notes that all of it was taken.
    pub(in crate::api) fn end(&self) {
        self.set(None);
    }

    fn set(&self, unread: Option<Instant>) {
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = unread;
    }

    /// Waits until something was not read for too long.
    async fn given_up(&self) {
        loop {
            let unread = *self.unread.lock().unwrap_or_else(PoisonError::into_inner);
            let until = unread.unwrap_or_else(Instant::now) + UNREAD;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// Runs the streams of a connection, and resets those that are not read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let reading = Arc::new(Reading::default());
        tokio::spawn(READING.scope(Arc::clone(&reading), async move {
            tokio::select! {
                _ = stream => {}
                () = reading.given_up() => tracing::debug!("a stream was reset: its client does not read"),
            }
        }));
    }
}
