//! Events of the store as watchers see them, made once and shared by all who want the same form (C121).
//!
//! A version names one event for good, so what was made for it never becomes wrong; it is only ever forgotten.

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::accept::Form;
use super::encode::{Encoder, Include};
use super::facts::Facts;
use super::status::ApiError;
use crate::store::{Change, ResourceVersion, Store, Stored};

/// Bytes of frames that are kept. Watchers who keep up ask for a frame within moments of each other, so this has to
/// hold the events of a busy moment and no more.
const FRAME_BYTES: u64 = 8 << 20;

/// Bytes of a frame, as a guess to begin with.
const TYPICAL_FRAME: usize = 4 << 10;

/// Events whose facts are kept.
const FACTS: usize = 1024;

/// What an event is to a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    fn name(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// What selectors look at, before and after an event.
#[derive(Debug, Default)]
pub(super) struct ChangeFacts {
    pub(super) before: Option<Facts>,
    pub(super) after: Option<Facts>,
}

/// Everything that decides what a frame looks like.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FrameKey {
    version: ResourceVersion,
    event_type: EventType,
    form: Form,
    include: Include,
    with_columns: bool,
    /// Tables tell ages: the second in which they are told.
    second: i64,
}

/// The frames and facts of recent events.
pub(super) struct Frames {
    frames: Cache<FrameKey, Bytes, FrameWeight>,
    facts: Cache<ResourceVersion, Arc<ChangeFacts>>,
}

#[derive(Clone)]
struct FrameWeight;

impl Weighter<FrameKey, Bytes> for FrameWeight {
    fn weight(&self, _: &FrameKey, frame: &Bytes) -> u64 {
        (size_of::<FrameKey>() + size_of::<Bytes>() + frame.len()) as u64
    }
}

impl Frames {
    pub(super) fn new() -> Self {
        // In one piece, so that even a frame of some MiB finds room.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(FRAME_BYTES as usize / TYPICAL_FRAME)
            .weight_capacity(FRAME_BYTES)
            .build()
            .expect("the options are complete");
        let frames = Cache::with_options(
            options,
            FrameWeight,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        Frames { frames, facts: Cache::new(FACTS) }
    }

    /// Returns what selectors look at in an event.
    ///
    /// # Errors
    ///
    /// When one of the objects is damaged.
    pub(super) fn facts(&self, encoder: &Encoder, change: &Change) -> Result<Arc<ChangeFacts>, ApiError> {
        self.facts.get_or_insert_with(&change.version, || {
            let of = |object| Facts::of(encoder.resource, object);
            Ok(Arc::new(ChangeFacts {
                before: change.before.as_ref().map(of).transpose()?,
                after: change.after.as_ref().map(of).transpose()?,
            }))
        })
    }

    /// Returns an event as one line of a watch. However many ask at once, it is written once.
    ///
    /// # Errors
    ///
    /// As [`Encoder::item`].
    pub(super) async fn frame(
        &self,
        store: &dyn Store,
        encoder: &Encoder,
        event_type: EventType,
        stored: &Stored,
        with_columns: bool,
    ) -> Result<Bytes, ApiError> {
        let (second, with_columns) = match encoder.form {
            Form::Table(_) => (Timestamp::now().as_second(), with_columns),
            Form::Object | Form::Metadata(_) => (0, false),
        };
        let key = FrameKey {
            version: stored.version,
            event_type,
            form: encoder.form,
            include: encoder.include,
            with_columns,
            second,
        };
        self.frames
            .get_or_insert_async(&key, write_frame(store, encoder, event_type, stored, with_columns))
            .await
    }
}

/// Writes an event as one line of a watch.
///
/// # Errors
///
/// As [`Encoder::item`].
pub(super) async fn write_frame(
    store: &dyn Store,
    encoder: &Encoder,
    event_type: EventType,
    stored: &Stored,
    with_columns: bool,
) -> Result<Bytes, ApiError> {
    let mut frame = format!("{{\"type\":\"{}\",\"object\":", event_type.name()).into_bytes();
    // What was deleted goes by the version of its deletion, which names other cells, if any.
    let without_cells =
        (event_type == EventType::Deleted).then(|| Encoder { cells: None, ..encoder.clone() });
    let encoder = without_cells.as_ref().unwrap_or(encoder);
    encoder.framed(store, stored, with_columns, &mut frame).await?;
    frame.extend_from_slice(b"}\n");
    Ok(frame.into())
}
