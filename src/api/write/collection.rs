//! Deletion of everything that is selected (C212, C213).

use serde_json::Value;

use super::delete::{DeleteOptions, Deleted, delete};
use super::{Place, meta};
use crate::api::params::{ListOptions, Match};
use crate::api::read::wait_until;
use crate::api::status::ApiError;
use crate::api::token::ContinueToken;
use crate::store::{At, Key, ListRequest, Range, ResourceVersion, Stored};

/// Objects that are read at once.
const PAGE: usize = 500;

/// The objects that were deleted, or are being deleted.
pub(in crate::api) struct Collection {
    /// The state they were found in.
    pub(in crate::api) version: ResourceVersion,
    /// What they were, or are now.
    pub(in crate::api) items: Vec<Stored>,
    /// Where the next page begins, if there may be one.
    pub(in crate::api) continue_token: Option<String>,
}

/// Deletes the objects of a range that are selected: of one page, where a limit says so.
pub(in crate::api) async fn delete_collection(
    place: &Place<'_>,
    range: Range,
    list: &ListOptions,
    options: &DeleteOptions,
) -> Result<Collection, ApiError> {
    let (at, after) = start(place, &range, list).await?;
    let limit = list.limit.unwrap_or(usize::MAX);
    let mut request = ListRequest { range, at, after, limit: PAGE };
    let mut items = Vec::new();
    loop {
        let page = place.store.list(request.clone()).await?;
        let (version, last) = (page.version, page.items.last().map(|stored| stored.key.clone()));
        request.at = At::Exactly(version);
        for stored in page.items {
            if items.len() == limit {
                let token =
                    request.after.map(|after| ContinueToken { version: Some(version), after }.encode());
                return Ok(Collection { version, items, continue_token: token });
            }
            request.after = Some(stored.key.clone());
            if list.selector.selects(place.resource, &stored.key, &stored.object)? {
                let summary = serde_json::from_slice(&stored.object.summary()).map_err(ApiError::internal)?;
                items.extend(delete_found(place, &stored.key, summary, options).await?);
            }
        }
        if page.remaining == 0 || last.is_none() {
            return Ok(Collection { version, items, continue_token: None });
        }
    }
}

/// Deletes an object that was found. One that is gone by now, or another one of the same name, is none of those that were
/// asked for.
async fn delete_found(
    place: &Place<'_>,
    key: &Key,
    summary: Value,
    options: &DeleteOptions,
) -> Result<Option<Stored>, ApiError> {
    let uid = summary["metadata"]["uid"].as_str().unwrap_or_default();
    match delete(place, key.name(), &options.of(uid)).await {
        Ok(Deleted::Gone { last, .. } | Deleted::Pending(last)) => Ok(Some(last)),
        Err(error) if error.code() == 404 => Ok(None),
        Err(error) => {
            let current = place.store.get(key).await?.map(|stored| super::decode(&stored)).transpose()?;
            match current {
                Some(current) if meta::text(&current, "uid") == uid => Err(error),
                _ => Ok(None),
            }
        }
    }
}

/// Finds out which state the objects are looked up in, and where to begin.
async fn start(place: &Place<'_>, range: &Range, list: &ListOptions) -> Result<(At, Option<Key>), ApiError> {
    if let Some(token) = &list.continue_token {
        let token = ContinueToken::decode(token, range)?;
        return Ok((token.version.map_or(At::Latest, At::Exactly), Some(token.after)));
    }
    match (list.resource_version, list.version_match) {
        (Some(version), Some(Match::Exact)) => Ok((At::Exactly(version), None)),
        (version, _) => {
            wait_until(&**place.store, version).await?;
            Ok((At::Latest, None))
        }
    }
}
