//! Watches: etcd's stream of changes as a stream of events, which goes on when a connection or a member does not.
//!
//! ```text
//!           ┌────────────── the stream broke, or stalled ──────────────┐
//!           ▼                                                          │
//!        Closed ── open after the cursor ──▶ Replaying ── intact ──▶ Live ──▶ items
//!                                                │                     │
//!                                                └── compacted, denied, damaged: the last item is an error
//! ```
//!
//! etcd watches from a revision, a reader may have stopped in the middle of one: what was delivered already is passed
//! over. A watch of everything sees each revision whole, so the index of a deletion is its position; a watch of one
//! resource looks it up in the tip.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::PbEvent;
use etcd_client::{Client, EventType, WatchOptions, WatchResponse, WatchStream as Stream};
use futures::stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::cluster::{Cluster, ReadError, decode_envelope};
use super::confirmed::Confirmed;
use super::error::CallError;
use super::keys::{Interval, resource};
use super::tip;
use crate::store::{
    Change, Envelope, Key, Range, ResourceVersion, Revision, StoreError, WatchItem, WatchStream,
};

/// Bytes of a message. etcd cuts what it sends into pieces of about a request's size, but for what waits when a watch
/// is created.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// After this time without news a watch finds out where the log ends, and whether it should have had news.
const QUIET: Duration = Duration::from_secs(10);

/// The first pause before a watch is opened again, and the last: each further one is twice as long.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long etcd may take to say that a revision is compacted.
const OLDEST: Duration = Duration::from_secs(2);

struct Watcher {
    cluster: Arc<Cluster>,
    range: Range,
    /// The last version that was delivered, or after which to begin.
    cursor: ResourceVersion,
    /// Every event of the range up to this revision has been read.
    read: Revision,
    /// The revision that is being read, and how many events of it there were so far.
    position: (Revision, u16),
    /// The events of the revision that was looked up last.
    looked_up: Option<(Revision, tip::Events)>,
    /// Read, and not delivered yet.
    ready: VecDeque<WatchItem>,
    confirmed: watch::Receiver<Arc<Confirmed>>,
    state: State,
    /// When to find out whether nothing happens, or nothing is heard.
    quiet_until: Instant,
    /// The tip as it was found then.
    awaited: Revision,
}

enum State {
    Closed {
        pause: Duration,
    },
    Open {
        stream: Box<Stream>,
        member: usize,
        /// The revision whose state has to be readable for the history behind it to be whole; none when there is no
        /// history to be read.
        replaying: Option<Revision>,
    },
}

enum Wake {
    Message(Result<Option<WatchResponse>, etcd_client::Error>),
    Confirmed,
    Quiet,
}

/// Opens a watch.
///
/// # Errors
///
/// [`StoreError::Compacted`] and whatever else makes no sense to be tried again.
pub(super) async fn open(
    cluster: Arc<Cluster>,
    range: Range,
    after: ResourceVersion,
) -> Result<WatchStream, StoreError> {
    let confirmed = cluster.confirmed.subscribe();
    let mut watcher = Watcher {
        cluster,
        range,
        cursor: after,
        read: Revision::default(),
        position: (Revision::default(), 0),
        looked_up: None,
        ready: VecDeque::new(),
        confirmed,
        state: State::Closed { pause: Duration::ZERO },
        quiet_until: Instant::now() + QUIET,
        awaited: Revision::default(),
    };
    // The first attempt is the caller's to know about; afterwards the watch sees to itself.
    match watcher.connect().await {
        Ok(()) => {}
        Err(Failure::Passing(error) | Failure::Final(error)) => return Err(error),
    }
    Ok(Box::pin(stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(item) => Some((Ok(item), Some(watcher))),
            Err(error) => Some((Err(error), None)),
        }
    })))
}

/// What became of a step that failed.
enum Failure {
    /// The same again may succeed.
    Passing(StoreError),
    /// It will not, and the reader has to know.
    Final(StoreError),
}

impl Watcher {
    /// Returns the next item.
    async fn next(&mut self) -> Result<WatchItem, StoreError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            match self.step().await {
                Ok(()) => {}
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error)) => {
                    let pause = match self.state {
                        State::Closed { pause } => (pause * 2).clamp(PAUSES.0, PAUSES.1),
                        State::Open { .. } => Duration::ZERO,
                    };
                    tracing::debug!(range = self.range.start(), %error, "a watch of etcd ended; opening it again");
                    self.state = State::Closed { pause };
                }
            }
        }
    }

    async fn step(&mut self) -> Result<(), Failure> {
        let State::Open { stream, .. } = &mut self.state else {
            if let State::Closed { pause } = self.state {
                sleep(pause).await;
            }
            return self.connect().await;
        };
        let wake = tokio::select! {
            message = stream.message() => Wake::Message(message),
            Ok(()) = self.confirmed.changed() => Wake::Confirmed,
            () = sleep_until(self.quiet_until) => Wake::Quiet,
        };
        match wake {
            Wake::Message(Ok(Some(response))) => {
                self.quiet_until = Instant::now() + QUIET;
                self.awaited = Revision::default();
                self.take(response).await
            }
            Wake::Message(Ok(None)) => {
                Err(Failure::Passing(StoreError::Unknown("the stream ended".to_owned())))
            }
            // Whatever it is, it is the connection's or the member's; opening the watch again tells more.
            Wake::Message(Err(error)) => Err(Failure::Passing(CallError::of(error).into())),
            Wake::Confirmed => {
                self.advance();
                Ok(())
            }
            Wake::Quiet => self.look_around().await,
        }
    }

    /// Opens etcd's watch behind what was delivered.
    async fn connect(&mut self) -> Result<(), Failure> {
        let start = match self.cursor.revision() {
            revision if self.cursor == ResourceVersion::end_of(revision) => revision.next(),
            revision => revision.max(Revision::FIRST),
        };
        let Interval { start: key, end } = self.cluster.keys.objects(&self.watched(), None);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(i64::try_from(start.get()).unwrap_or(i64::MAX))
            .with_prev_key()
            .with_fragment();
        let member = self.cluster.members.preferred();
        let (stream, created) =
            open_stream(&self.cluster, key, options).await.map_err(|error| match error {
                CallError::Store(error @ StoreError::Denied(_)) => Failure::Final(error),
                error => Failure::Passing(error.into()),
            })?;
        self.check_canceled(&created)?;
        let now = Revision::new(created.header().map_or(0, |header| header.revision() as u64));
        let replaying = (start <= now).then(|| start.previous());
        self.read = start.previous();
        self.position = (Revision::default(), 0);
        self.awaited = Revision::default();
        self.state = State::Open { stream: Box::new(stream), member, replaying };
        self.quiet_until = Instant::now() + QUIET;
        if let Err(error) = self.cluster.confirm().await {
            // Events come without it, and so does the next occasion.
            tracing::debug!(error = %StoreError::from(error), "cannot read where the log ends");
        }
        self.advance();
        Ok(())
    }

    /// Returns the range that etcd is asked for: a whole resource, or everything, so that the tip says how far it is.
    fn watched(&self) -> Range {
        resource(&self.range).map_or_else(Range::everything, Range::resource)
    }

    fn check_canceled(&self, response: &WatchResponse) -> Result<(), Failure> {
        if !response.canceled() {
            return Ok(());
        }
        if response.compact_revision() > 0 {
            let oldest = ResourceVersion::end_of(Revision::new(response.compact_revision() as u64));
            return Err(Failure::Final(StoreError::Compacted { requested: self.cursor, oldest }));
        }
        Err(Failure::Passing(CallError::of_reason(response.cancel_reason()).into()))
    }

    /// Takes in what etcd sent.
    async fn take(&mut self, response: WatchResponse) -> Result<(), Failure> {
        self.check_canceled(&response)?;
        let response = response.0;
        let Some(last) = response.events.iter().filter_map(|event| event.kv.as_ref()).next_back() else {
            return Ok(());
        };
        let last = Revision::new(last.mod_revision as u64);
        self.check_whole().await?;
        for event in response.events {
            self.event(event).await?;
        }
        // A piece may end in the middle of a revision.
        self.read = if response.fragment { last.previous().max(self.read) } else { last };
        self.advance();
        Ok(())
    }

    /// Makes sure that the history that is being read has no holes: compaction makes some at its own revision, and etcd does
    /// not say so.
    async fn check_whole(&mut self) -> Result<(), Failure> {
        let State::Open { replaying, .. } = &mut self.state else { return Ok(()) };
        let Some(before) = replaying.take() else { return Ok(()) };
        match self.cluster.is_readable(before).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.compacted().await),
            Err(error) => Err(Failure::Passing(error.into())),
        }
    }

    async fn compacted(&self) -> Failure {
        match self.cluster.oldest().await {
            Ok(oldest) => Failure::Final(StoreError::Compacted { requested: self.cursor, oldest }),
            Err(error) => Failure::Passing(error),
        }
    }

    /// Takes in one event.
    async fn event(&mut self, event: PbEvent) -> Result<(), Failure> {
        let PbEvent { kv: Some(kv), prev_kv, r#type } = event else { return Ok(()) };
        let revision = Revision::new(kv.mod_revision as u64);
        let is_deletion = r#type == EventType::Delete as i32;
        let is_creation = !is_deletion && kv.create_revision == kv.mod_revision;
        self.position = match self.position {
            (read, count) if read == revision => (read, (count + 1).min(ResourceVersion::MAX_INDEX)),
            _ => (revision, 1),
        };
        let Some(key) = self.cluster.keys.parse_object(&kv.key) else { return Ok(()) };
        let (index, after) = if is_deletion {
            (self.index_of_deletion(revision, &key).await?, None)
        } else {
            let Envelope { index, object } = decode_envelope(&key, kv.value).map_err(Failure::Final)?;
            (index, object)
        };
        let version = ResourceVersion::new(revision, index.min(ResourceVersion::MAX_INDEX));
        if version <= self.cursor || !self.range.contains(&key) {
            return Ok(());
        }
        let before = match prev_kv {
            Some(before) => decode_envelope(&key, before.value).map_err(Failure::Final)?.object,
            None if is_creation => None,
            // What was there before the event is compacted, so this reader is too late.
            None => return Err(self.compacted().await),
        };
        self.cursor = version;
        self.ready.push_back(WatchItem::Change(Arc::new(Change { key, version, before, after })));
        Ok(())
    }

    /// Returns the index of a deletion within its revision.
    async fn index_of_deletion(&mut self, revision: Revision, key: &Key) -> Result<u16, Failure> {
        let (_, position) = self.position;
        let Some(resource) = resource(&self.range) else { return Ok(position) };
        if self.looked_up.as_ref().is_none_or(|(known, _)| *known != revision) {
            let events = match self.cluster.events_of(revision, Some(resource)).await {
                Ok(events) => events,
                Err(ReadError::Call(CallError::Compacted)) => return Err(self.compacted().await),
                Err(ReadError::Call(error)) => return Err(Failure::Passing(error.into())),
                Err(ReadError::Store(error)) => return Err(Failure::Final(error)),
            };
            self.looked_up = Some((revision, events));
        }
        let events = self.looked_up.as_ref().map(|(_, events)| events.as_slice()).unwrap_or_default();
        let found = events.iter().find(|(_, found)| found == key).map(|(index, _)| *index);
        // What something else deleted is in no tip.
        Ok(found.unwrap_or(position))
    }

    /// Tells the reader how far it is, when that is farther than it knows.
    fn advance(&mut self) {
        let reach = self.confirmed.borrow_and_update().reach(resource(&self.range), self.read);
        let progress = ResourceVersion::end_of(reach);
        if progress > self.cursor {
            self.cursor = progress;
            self.ready.push_back(WatchItem::Progress(progress));
        }
    }

    /// Finds out, after some time without news, where the log ends. A watch that has not brought what was there already the
    /// last time is opened again, at another member.
    async fn look_around(&mut self) -> Result<(), Failure> {
        self.quiet_until = Instant::now() + QUIET;
        let State::Open { member, .. } = self.state else { return Ok(()) };
        if self.awaited > self.read {
            self.cluster.members.avoid(member);
            let reason = format!("no news from {}", self.cluster.members.endpoint(member));
            return Err(Failure::Passing(StoreError::Unknown(reason)));
        }
        match self.cluster.confirm().await {
            Ok(confirmed) => self.awaited = confirmed.tip(resource(&self.range)),
            Err(error) => tracing::debug!(error = %StoreError::from(error), "cannot read where the log ends"),
        }
        self.advance();
        Ok(())
    }
}

/// Opens a watch of etcd, and returns it with its first message.
pub(super) async fn open_stream(
    cluster: &Cluster,
    key: Vec<u8>,
    options: WatchOptions,
) -> Result<(Stream, WatchResponse), CallError> {
    cluster
        .members
        .read(|client: &Client| {
            let mut watch = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
            let (key, options) = (key.clone(), options.clone());
            async move {
                let mut stream = watch.watch(key, Some(options)).await?;
                match stream.message().await? {
                    Some(created) => Ok((stream, created)),
                    None => Err(etcd_client::Error::WatchError("the stream ended at once".to_owned())),
                }
            }
        })
        .await
}

impl Cluster {
    /// Returns the oldest version that can be read, once something was compacted: etcd tells it only to watches that come
    /// too late.
    pub(super) async fn oldest(&self) -> Result<ResourceVersion, StoreError> {
        let options = WatchOptions::new().with_start_revision(1);
        let (mut stream, mut response) = open_stream(self, self.keys.tip("none"), options).await?;
        let compacted = async {
            while response.compact_revision() == 0 {
                response = stream.message().await.ok().flatten()?;
            }
            Some(Revision::new(response.compact_revision() as u64))
        };
        match tokio::time::timeout(OLDEST, compacted).await {
            Ok(Some(revision)) => Ok(ResourceVersion::end_of(revision)),
            // What is current can certainly be read.
            _ => Ok(ResourceVersion::end_of(self.confirm().await?.now())),
        }
    }
}
