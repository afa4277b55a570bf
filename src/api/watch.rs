//! watch: the log as a stream of events (C84–C124).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::encode::Encoder;
use super::frames::{EventType, Frames, write_frame};
use super::params::ListOptions;
use super::read::{select, wait_until};
use super::respond;
use super::selector::Selector;
use super::status::ApiError;
use crate::store::{
    At, Change, Key, ListRequest, Range, ResourceVersion, Store, StoreError, Stored, WatchItem, WatchStream,
};
use crate::telemetry::metrics::WatchMetrics;

/// Time between two bookmarks (C100).
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);

/// How long before its end a watch sends a last bookmark (C100).
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// How long a watch lasts at least when no time is asked for; at most it is twice that (C113).
const MIN_DURATION: Duration = Duration::from_secs(30 * 60);

/// The longest time that may be asked for.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// Objects of the initial state that are read, and held, at once.
const PAGE: usize = 100;

/// A watch that was asked for.
pub(super) struct WatchQuery {
    pub(super) store: Arc<dyn Store>,
    pub(super) frames: Arc<Frames>,
    pub(super) encoder: Encoder,
    pub(super) range: Range,
    pub(super) options: ListOptions,
    /// Cancelled when the watch is to end.
    pub(super) drain: CancellationToken,
    pub(super) metrics: WatchMetrics,
}

/// Answers a watch. Once there is a stream, what goes wrong is its last event.
///
/// # Errors
///
/// 429 when the store has nothing to read from yet (C112).
pub(super) async fn watch(query: WatchQuery) -> Result<Response<Body>, ApiError> {
    let current = query.store.current().await.map_err(|error| match error {
        StoreError::Unavailable(_) | StoreError::Unknown(_) => ApiError::not_ready(),
        error => error.into(),
    })?;
    let session = Session::new(query, current);
    let frames = stream::unfold(session, |mut session| async move {
        let frame = session.next().await?;
        session.metrics.sent(frame.len());
        Some((Ok::<_, std::convert::Infallible>(frame), session))
    });
    Ok(respond::stream(Body::from_stream(frames)))
}

/// Where a watch stands. It goes from one state to the next and never back.
enum State {
    /// Nothing was done yet.
    Opening,
    /// The state the watch begins with is being sent; what is left of the page that was read.
    Initial { page: VecDeque<Stored>, request: ListRequest, is_last: bool },
    /// Events are sent as they happen.
    Live(WatchStream),
    /// An error was sent, or time is up. Nothing follows (C109).
    Closed,
}

struct Session {
    store: Arc<dyn Store>,
    frames: Arc<Frames>,
    encoder: Encoder,
    range: Range,
    selector: Selector,
    resource_version: Option<ResourceVersion>,
    send_initial_events: Option<bool>,
    allow_bookmarks: bool,
    state: State,
    /// The newest version when the watch was asked for.
    current: ResourceVersion,
    /// The client has been sent everything up to here; none before that is known (C110).
    progress: Option<ResourceVersion>,
    next_bookmark: Instant,
    end: Instant,
    /// Wakes at the next bookmark or at the end, whichever is first.
    timer: Pin<Box<Sleep>>,
    drained: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Tables carry their columns in the first event.
    columns_are_due: bool,
    metrics: WatchMetrics,
}

/// What wakes a live watch.
enum Wake {
    Item(Option<Result<WatchItem, StoreError>>),
    Timer,
    Drained,
}

impl Session {
    fn new(query: WatchQuery, current: ResourceVersion) -> Self {
        let WatchQuery { store, frames, encoder, range, options, drain, metrics } = query;
        let now = Instant::now();
        let duration = options.timeout.unwrap_or_else(|| MIN_DURATION + jitter(MIN_DURATION));
        let end = now + duration.min(MAX_DURATION);
        let next_bookmark = now + until_bookmark(duration);
        let allow_bookmarks = options.allow_bookmarks;
        let wake = if allow_bookmarks { next_bookmark.min(end) } else { end };
        Session {
            store,
            frames,
            encoder,
            range,
            selector: options.selector,
            resource_version: options
                .resource_version
                .filter(|version| *version != ResourceVersion::default()),
            send_initial_events: options.send_initial_events,
            allow_bookmarks,
            state: State::Opening,
            current,
            progress: None,
            next_bookmark,
            end,
            timer: Box::pin(sleep_until(wake)),
            // A token of the watch's own, so that watches do not wait on each other to look at it.
            drained: Box::pin(drain.child_token().cancelled_owned()),
            columns_are_due: true,
            metrics,
        }
    }

    /// Returns the next frame; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        match self.step().await {
            Ok(frame) => frame,
            Err(error) => {
                self.state = State::Closed;
                let mut frame = b"{\"type\":\"ERROR\",\"object\":".to_vec();
                frame.extend_from_slice(&error.to_json());
                frame.extend_from_slice(b"}\n");
                Some(frame.into())
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            match &mut self.state {
                State::Opening => self.open().await?,
                State::Initial { page, request, is_last } => {
                    if let Some(stored) = page.pop_front() {
                        return self.initial(stored).await.map(Some);
                    } else if *is_last {
                        let frame = self.go_live().await?;
                        if frame.is_some() {
                            return Ok(frame);
                        }
                    } else {
                        let request = request.clone();
                        self.read_initial(request).await?;
                    }
                }
                State::Live(_) => match self.live().await? {
                    Some(frame) => return Ok(Some(frame)),
                    None if matches!(self.state, State::Closed) => return Ok(None),
                    None => {}
                },
                State::Closed => return Ok(None),
            }
        }
    }

    /// Decides where the watch begins (C89–C95).
    async fn open(&mut self) -> Result<(), ApiError> {
        match (self.send_initial_events, self.resource_version) {
            (Some(true), version) => {
                wait_until(&*self.store, version).await?;
                self.read_initial(self.first_page()).await
            }
            (None, None) => self.read_initial(self.first_page()).await,
            (_, Some(version)) => {
                self.progress = (version <= self.current).then_some(version);
                self.watch_after(version).await
            }
            (Some(false), None) => {
                self.progress = Some(self.current);
                self.watch_after(self.current).await
            }
        }
    }

    fn first_page(&self) -> ListRequest {
        ListRequest { range: self.range.clone(), at: At::Latest, after: None, limit: PAGE }
    }

    async fn read_initial(&mut self, mut request: ListRequest) -> Result<(), ApiError> {
        let page = self.store.list(request.clone()).await?;
        self.progress = Some(page.version);
        request.at = At::Exactly(page.version);
        request.after = page.items.last().map(|stored| stored.key.clone());
        let mut selected = select(&self.selector, self.encoder.resource, page.items)?;
        self.encoder.complete(&*self.store, &mut selected).await?;
        self.state = State::Initial { page: selected.into(), request, is_last: page.remaining == 0 };
        Ok(())
    }

    async fn initial(&mut self, stored: Stored) -> Result<Bytes, ApiError> {
        self.metrics.initial();
        let with_columns = std::mem::take(&mut self.columns_are_due);
        write_frame(&*self.store, &self.encoder, EventType::Added, &stored, with_columns).await
    }

    /// Goes on from the initial state to the events after it, and says so where that is wanted (C96).
    async fn go_live(&mut self) -> Result<Option<Bytes>, ApiError> {
        let version = self.progress.unwrap_or(self.current);
        self.watch_after(version).await?;
        self.metrics.listed();
        Ok(self.allow_bookmarks.then(|| self.bookmark(version, true)))
    }

    async fn watch_after(&mut self, version: ResourceVersion) -> Result<(), ApiError> {
        let stream = self.store.watch(self.range.clone(), version).await.map_err(for_watch)?;
        self.state = State::Live(stream);
        Ok(())
    }

    async fn live(&mut self) -> Result<Option<Bytes>, ApiError> {
        let State::Live(events) = &mut self.state else { return Ok(None) };
        let wake = tokio::select! {
            biased;
            () = &mut self.drained => Wake::Drained,
            () = &mut self.timer => Wake::Timer,
            item = events.next() => Wake::Item(item),
        };
        match wake {
            Wake::Item(Some(Ok(WatchItem::Change(change)))) => {
                let frame = self.change(&change).await;
                self.progress = Some(change.version);
                frame
            }
            Wake::Item(Some(Ok(WatchItem::Progress(version)))) => {
                self.progress = self.progress.max(Some(version));
                Ok(None)
            }
            Wake::Item(Some(Err(error))) => {
                self.metrics.terminated();
                Err(for_watch(error))
            }
            Wake::Timer => Ok(self.tick()),
            Wake::Item(None) | Wake::Drained => {
                self.state = State::Closed;
                Ok(None)
            }
        }
    }

    /// Does what is due by now: ends the watch, or tells how far it is.
    fn tick(&mut self) -> Option<Bytes> {
        let now = Instant::now();
        if now >= self.end {
            self.state = State::Closed;
            return None;
        }
        self.next_bookmark = now + until_bookmark(self.end - now);
        self.timer.as_mut().reset(self.next_bookmark.min(self.end));
        self.progress.map(|version| self.bookmark(version, false))
    }

    /// Turns an event of the store into what it is to a watcher of a selection (C87).
    async fn change(&mut self, change: &Change) -> Result<Option<Bytes>, ApiError> {
        let Change { key, version, before, after } = change;
        let (was, is) = if self.selector.is_everything() {
            (before.is_some(), after.is_some())
        } else {
            let facts = self.frames.facts(&self.encoder, change)?;
            let selects =
                |facts: &Option<_>| facts.as_ref().is_some_and(|facts| self.selector.matches(key, facts));
            (selects(&facts.before), selects(&facts.after))
        };
        let (event_type, object) = match (was, is, before, after) {
            (false, true, _, Some(after)) => (EventType::Added, after),
            (true, true, _, Some(after)) => (EventType::Modified, after),
            (true, false, Some(before), _) => (EventType::Deleted, before),
            _ => return Ok(None),
        };
        let stored = Stored { key: key.clone(), version: *version, object: object.clone() };
        let with_columns = std::mem::take(&mut self.columns_are_due);
        self.frames.frame(&*self.store, &self.encoder, event_type, &stored, with_columns).await.map(Some)
    }

    fn bookmark(&mut self, version: ResourceVersion, ends_initial_events: bool) -> Bytes {
        let mut frame = b"{\"type\":\"BOOKMARK\",\"object\":".to_vec();
        let with_columns = std::mem::take(&mut self.columns_are_due);
        self.encoder.bookmark(version, ends_initial_events, with_columns, &mut frame);
        frame.extend_from_slice(b"}\n");
        frame.into()
    }
}

/// Returns the range of a request: narrower than its path where the selector leaves only one namespace, or one name.
pub(super) fn narrow(path: Range, resource: &str, namespace: &str, selector: &Selector) -> Range {
    let fits = |part: &&str| !part.is_empty() && !part.contains('/');
    // A namespace that contradicts the path selects nothing, whatever is read.
    let namespace = match namespace {
        "" => selector.single_namespace().filter(fits),
        namespace => Some(namespace),
    };
    match (namespace, selector.single_name().filter(fits)) {
        (Some(namespace), Some(name)) => Range::single(&Key::new(resource, namespace, name)),
        (Some(namespace), None) => Range::namespace(resource, namespace),
        (None, _) => path,
    }
}

fn for_watch(error: StoreError) -> ApiError {
    match error {
        StoreError::Compacted { requested, oldest } => ApiError::expired_watch(requested.get(), oldest.get()),
        error => error.into(),
    }
}

/// Returns how long the next bookmark has time: it comes after the period, or shortly before the end if that comes first.
fn until_bookmark(left: Duration) -> Duration {
    match left.checked_sub(LAST_BOOKMARK) {
        Some(until_last) if !until_last.is_zero() => BOOKMARK_PERIOD.min(until_last),
        _ => BOOKMARK_PERIOD,
    }
}

/// Returns a random part of a duration, so that watches that began together do not end together.
fn jitter(most: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
