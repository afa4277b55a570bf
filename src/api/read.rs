//! get and list: objects in one state (C53–C83).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::accept::{Format, Representation};
use super::encode::{Encoder, ListMeta};
use super::params::{ListOptions, Match};
use super::respond;
use super::selector::Selector;
use super::status::ApiError;
use super::token::ContinueToken;
use crate::resource::ResourceType;
use crate::store::{
    At, Key, ListRequest, Page, Range, ResourceVersion, Store, StoreError, Stored, WatchItem,
};

/// Objects read from the store at once.
const PAGE: usize = 500;

/// How many bytes of a list are written at a time, unless a single object has more.
const PART: usize = 128 << 10;

/// A list of more bytes is sent while it is written.
const LONG: usize = 1 << 20;

/// How long a request for a version that is not there yet waits for it (C54).
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// A list that was asked for.
pub(super) struct ListQuery {
    pub(super) encoder: Encoder,
    pub(super) representation: Representation,
    pub(super) range: Range,
    pub(super) options: ListOptions,
    pub(super) pretty: bool,
}

/// Returns an object.
pub(super) async fn get(
    store: &dyn Store,
    resource: &ResourceType,
    key: &Key,
    at_least: Option<ResourceVersion>,
) -> Result<Stored, ApiError> {
    wait_until(store, at_least).await?;
    store.get(key).await?.ok_or_else(|| ApiError::not_found(resource, key.name()))
}

/// Answers a list.
pub(super) async fn list(store: &Arc<dyn Store>, query: ListQuery) -> Result<Response<Body>, ApiError> {
    let (at, after) = start(store, &query).await?;
    match query.options.limit {
        Some(limit) => list_page(store, query, at, after, limit).await,
        None => list_all(store, query, at, after).await,
    }
}

/// Finds out in which state a list is taken, and where it begins.
async fn start(store: &Arc<dyn Store>, query: &ListQuery) -> Result<(At, Option<Key>), ApiError> {
    let options = &query.options;
    if let Some(token) = &options.continue_token {
        let token = ContinueToken::decode(token, &query.range)?;
        return Ok((token.version.map_or(At::Latest, At::Exactly), Some(token.after)));
    }
    let at = match (options.resource_version, options.version_match) {
        (None, _) => At::Latest,
        (Some(version), _) if version == ResourceVersion::default() => At::Latest,
        (Some(version), Some(Match::Exact)) => At::Exactly(version),
        (Some(version), None) if options.limit.is_some() => At::Exactly(version),
        (Some(version), _) => {
            wait_until(&**store, Some(version)).await?;
            At::Latest
        }
    };
    Ok((at, None))
}

/// Collects one page. Pages are filled up to the limit however few objects are selected (C76).
async fn list_page(
    store: &Arc<dyn Store>,
    query: ListQuery,
    at: At,
    after: Option<Key>,
    limit: usize,
) -> Result<Response<Body>, ApiError> {
    // One more than asked for tells whether there is more; a selector may pass over any number.
    let most = match query.options.selector.is_everything() {
        true => limit.saturating_add(1).min(PAGE),
        false => PAGE,
    };
    let mut request = ListRequest { range: query.range.clone(), at, after, limit: most };
    let mut items: Vec<Stored> = Vec::new();
    let (version, left) = loop {
        let page = read_page(store, &query, &request).await?;
        request.at = At::Exactly(page.version);
        let last = page.items.last().map(|stored| stored.key.clone());
        let mut selected = select(&query.options.selector, query.encoder.resource, page.items)?;
        let room = limit - items.len();
        if selected.len() > room {
            // What did not fit, and what was not read, is left for the next page.
            let left = (selected.len() - room) as u64 + page.remaining;
            selected.truncate(room);
            items.extend(selected);
            break (page.version, left);
        }
        items.extend(selected);
        match last {
            Some(last) if page.remaining > 0 => request.after = Some(last),
            _ => break (page.version, 0),
        }
    };
    let token =
        |stored: &Stored| ContinueToken { version: Some(version), after: stored.key.clone() }.encode();
    let meta = ListMeta {
        resource_version: version.to_string(),
        continue_token: items.last().filter(|_| left > 0).map(token),
        remaining_item_count: (left > 0 && query.options.selector.is_everything()).then_some(left),
    };
    query.encoder.complete(&**store, &mut items).await?;
    Text::new(store, query, items, None).respond(&meta).await
}

/// Lists everything: what is in memory at any time is one page.
async fn list_all(
    store: &Arc<dyn Store>,
    query: ListQuery,
    at: At,
    after: Option<Key>,
) -> Result<Response<Body>, ApiError> {
    let request = ListRequest { range: query.range.clone(), at, after, limit: PAGE };
    let page = read_page(store, &query, &request).await?;
    let meta = ListMeta {
        resource_version: page.version.to_string(),
        continue_token: None,
        remaining_item_count: None,
    };
    let mut text = Text::new(store, query, Vec::new(), Some(request));
    text.turn_to(page).await?;
    text.respond(&meta).await
}

/// A list on its way out, written a part at a time: what is packed is unpacked when its turn comes.
struct Text {
    store: Arc<dyn Store>,
    query: ListQuery,
    items: std::vec::IntoIter<Stored>,
    /// What the next page is asked for with; none when there is no further one.
    next: Option<ListRequest>,
    is_first: bool,
}

impl Text {
    fn new(store: &Arc<dyn Store>, query: ListQuery, items: Vec<Stored>, next: Option<ListRequest>) -> Self {
        Text { store: Arc::clone(store), query, items: items.into_iter(), next, is_first: true }
    }

    /// Goes on with a page.
    async fn turn_to(&mut self, page: Page) -> Result<(), ApiError> {
        let last = page.items.last().filter(|_| page.remaining > 0).map(|last| last.key.clone());
        self.next = match (self.next.take(), last) {
            (Some(request), Some(last)) => {
                Some(ListRequest { at: At::Exactly(page.version), after: Some(last), ..request })
            }
            _ => None,
        };
        let mut items = select(&self.query.options.selector, self.query.encoder.resource, page.items)?;
        self.query.encoder.complete(&*self.store, &mut items).await?;
        self.items = items.into_iter();
        Ok(())
    }

    /// Reads further pages until there are items. Returns whether there are.
    async fn has_items(&mut self) -> Result<bool, ApiError> {
        while self.items.as_slice().is_empty() {
            let Some(request) = &self.next else { return Ok(false) };
            let page = read_page(&self.store, &self.query, request).await?;
            self.turn_to(page).await?;
        }
        Ok(true)
    }

    /// Writes some of the items that are there.
    fn part(&mut self) -> Result<Bytes, ApiError> {
        let mut part = Vec::new();
        while let Some(stored) = self.items.as_slice().first() {
            let length = self.query.encoder.length(std::slice::from_ref(stored));
            if part.is_empty() {
                // Nothing is moved while it grows.
                part.reserve(length.max(PART));
            } else if part.len() + length > PART {
                break;
            }
            if !std::mem::take(&mut self.is_first) {
                part.push(b',');
            }
            self.query.encoder.item(stored, &mut part)?;
            self.items.next();
        }
        Ok(part.into())
    }

    /// Returns whether this is long enough to be sent before all of it is written. What is wrong after that can be told by
    /// nothing but an end, so everything that may be missing has been read, except further pages.
    fn is_long(&self) -> bool {
        self.next.is_some() || self.query.encoder.length(self.items.as_slice()) > LONG
    }

    /// Answers with the list.
    async fn respond(mut self, meta: &ListMeta) -> Result<Response<Body>, ApiError> {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        self.query.encoder.begin_list(meta, &mut head);
        self.query.encoder.end_list(&mut tail);
        let (representation, pretty) = (self.query.representation, self.query.pretty);
        let is_streamed = self.is_long() && !pretty && representation.format == Format::Json;
        if is_streamed {
            let parts = stream::try_unfold(self, |mut text| async move {
                let part = match text.has_items().await? {
                    true => Some(text.part()?),
                    false => None,
                };
                Ok::<_, ApiError>(part.map(|part| (part, text)))
            });
            let parts = parts.map_err(|error| io::Error::other(format!("{error:?}")));
            let [head, tail] = [head, tail].map(|text| stream::once(async { Ok(Bytes::from(text)) }));
            return Ok(respond::stream(Body::from_stream(head.chain(parts).chain(tail))));
        }
        let mut text = head;
        text.reserve(self.query.encoder.length(self.items.as_slice()) + self.items.len() + tail.len());
        while self.has_items().await? {
            text.extend_from_slice(&self.part()?);
        }
        text.extend_from_slice(&tail);
        respond::object(text, representation, pretty)
    }
}

async fn read_page(
    store: &Arc<dyn Store>,
    query: &ListQuery,
    request: &ListRequest,
) -> Result<Page, ApiError> {
    store.list(request.clone()).await.map_err(|error| match (&query.options.continue_token, error) {
        (Some(token), StoreError::Compacted { .. }) => {
            // A token of the present is given instead; what it leads to is not one state with what was read.
            match ContinueToken::decode(token, &query.range) {
                Ok(token) => ApiError::expired_continue(ContinueToken { version: None, ..token }.encode()),
                Err(error) => error,
            }
        }
        (_, error) => error.into(),
    })
}

/// Keeps the objects that are selected.
pub(super) fn select(
    selector: &Selector,
    resource: &ResourceType,
    mut items: Vec<Stored>,
) -> Result<Vec<Stored>, ApiError> {
    if selector.is_everything() {
        return Ok(items);
    }
    let mut failed = None;
    items.retain(|stored| {
        selector.selects(resource, &stored.key, &stored.object).unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    });
    failed.map_or(Ok(items), Err)
}

/// Waits until the store has reached a version.
pub(super) async fn wait_until(store: &dyn Store, version: Option<ResourceVersion>) -> Result<(), ApiError> {
    let Some(version) = version else { return Ok(()) };
    let current = store.current().await?;
    if version <= current {
        return Ok(());
    }
    // Any progress past the version will do; no key is of interest.
    let nothing = Range::single(&Key::new("none", "none", "none"));
    let mut watch = store.watch(nothing, current).await?;
    let reached = async {
        while let Some(item) = watch.try_next().await? {
            if let WatchItem::Progress(now) = item
                && now >= version
            {
                break;
            }
        }
        Ok::<_, StoreError>(())
    };
    match tokio::time::timeout(FUTURE_WAIT, reached).await {
        Ok(reached) => Ok(reached?),
        Err(_) => {
            let current = store.current().await?;
            Err(ApiError::too_large_resource_version(version.get(), current.get()))
        }
    }
}
