//! Lists: a state at a revision is etcd's own; one within a batch is that with the later events of the batch undone.

use std::collections::BTreeMap;

use etcd_client::GetOptions;

use super::cluster::{Cluster, Found, ReadError};
use super::error::CallError;
use super::keys::resource;
use crate::store::{At, Key, ListRequest, Page, ResourceVersion, Revision, StoreError, Stored};

impl Cluster {
    /// Returns the current objects under some keys.
    pub(super) async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
        let found = match keys {
            [key] => {
                let found = self.get(&self.keys.object(key), None, GetOptions::new()).await?;
                vec![found.items.into_iter().next()]
            }
            keys => self.get_all(&self.objects(keys), None).await?,
        };
        found.into_iter().map(|item| Ok(item.map(|item| self.decode(item)).transpose()?.flatten())).collect()
    }

    /// Returns a page of a list.
    pub(super) async fn list(&self, request: &ListRequest) -> Result<Page, StoreError> {
        let page = match request.at {
            At::Latest => self.page(request, None).await,
            At::Exactly(version) if is_between_batches(version) => self.page(request, Some(version)).await,
            At::Exactly(version) => self.page_within(request, version).await,
        };
        match (page, request.at) {
            (Ok(page), _) => Ok(page),
            (Err(ReadError::Call(CallError::Compacted)), At::Exactly(requested)) => {
                Err(StoreError::Compacted { requested, oldest: self.oldest().await? })
            }
            (Err(ReadError::Call(CallError::Future)), At::Exactly(requested)) => {
                let current = ResourceVersion::end_of(self.confirm().await?.now());
                Err(StoreError::Future { requested, current })
            }
            (Err(ReadError::Call(error)), _) => Err(error.into()),
            (Err(ReadError::Store(error)), _) => Err(error),
        }
    }

    /// Returns a page of a state that etcd has: the latest, or the one after a revision.
    async fn page(&self, request: &ListRequest, at: Option<ResourceVersion>) -> Result<Page, ReadError> {
        let (found, items) = self.read_page(request, at.map(read_at), request.limit).await?;
        let current = ResourceVersion::end_of(found.current);
        let version = at.unwrap_or(current);
        if version > current {
            return Err(StoreError::Future { requested: version, current }.into());
        }
        let remaining = found.count.saturating_sub(items.len() as u64);
        Ok(Page { version, items, remaining })
    }

    /// Returns a page of the state after an event in the middle of a batch.
    async fn page_within(&self, request: &ListRequest, at: ResourceVersion) -> Result<Page, ReadError> {
        let revision = at.revision();
        let later = self.events_of(revision, resource(&request.range)).await?;
        let is_wanted = |(index, key): &(u16, Key)| {
            *index > at.index()
                && request.range.contains(key)
                && request.after.as_ref().is_none_or(|after| key > after)
        };
        let undone: Vec<_> = later.into_iter().filter(is_wanted).map(|(_, key)| key).collect();
        // Each key that the later events wrote to, as it was before them, which is as it was before the batch.
        let before = match undone.is_empty() {
            true => Vec::new(),
            false => self.get_all(&self.objects(&undone), Some(revision.previous())).await?,
        };
        let mut overlay = BTreeMap::new();
        for (key, item) in undone.into_iter().zip(before) {
            overlay.insert(key, item.map(|item| self.decode(item)).transpose()?.flatten());
        }

        // What the later events created is read in vain, so more is read.
        let created = overlay.values().filter(|before| before.is_none()).count();
        let (found, items) = self.read_page(request, Some(revision), request.limit + created).await?;
        let unread = found.count.saturating_sub(items.len() as u64);
        let last = items.last().filter(|_| unread > 0).map(|stored| stored.key.clone());
        let mut merged: BTreeMap<Key, Stored> =
            items.into_iter().map(|stored| (stored.key.clone(), stored)).collect();
        let mut behind = Vec::new();
        let mut unread = unread as usize;
        for (key, before) in overlay {
            let is_read = last.as_ref().is_none_or(|last| key <= *last);
            match (is_read, before) {
                (true, Some(stored)) => drop(merged.insert(key, stored)),
                (true, None) => drop(merged.remove(&key)),
                // Behind what was read only the number matters.
                (false, Some(_)) => behind.push(key),
                (false, None) => unread = unread.saturating_sub(1),
            }
        }
        if !behind.is_empty() {
            let after = self.get_all(&self.objects(&behind), Some(revision)).await?;
            unread += after.iter().filter(|item| item.is_none()).count();
        }
        unread += merged.len().saturating_sub(request.limit);
        let items = merged.into_values().take(request.limit).collect();
        Ok(Page { version: at, items, remaining: unread as u64 })
    }

    async fn read_page(
        &self,
        request: &ListRequest,
        at: Option<Revision>,
        limit: usize,
    ) -> Result<(Found, Vec<Stored>), ReadError> {
        let interval = self.keys.objects(&request.range, request.after.as_ref());
        if interval.start >= interval.end {
            // Behind the last key of the range. The state has to be one that can be read all the same.
            let found = self.get(&interval.start, at, GetOptions::new().with_count_only()).await?;
            return Ok((Found { count: 0, ..found }, Vec::new()));
        }
        let options = GetOptions::new().with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        let mut found = self.range(&interval, at, options).await?;
        let mut items = Vec::with_capacity(found.items.len());
        for item in std::mem::take(&mut found.items) {
            items.extend(self.decode(item)?);
        }
        Ok((found, items))
    }

    /// Returns whether a state can be read.
    pub(super) async fn is_readable(&self, revision: Revision) -> Result<bool, CallError> {
        let options = GetOptions::new().with_count_only();
        match self.get(&self.keys.tip("none"), Some(revision.max(Revision::FIRST)), options).await {
            Ok(_) => Ok(true),
            Err(CallError::Compacted) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Returns whether a version lies between two batches: what etcd has a state of.
fn is_between_batches(version: ResourceVersion) -> bool {
    let revision = version.revision();
    version.index() == 0 || version == ResourceVersion::end_of(revision) || revision < Revision::FIRST
}

/// Returns the revision whose state is the one after a version that lies between two batches.
fn read_at(version: ResourceVersion) -> Revision {
    let revision = match version.index() {
        0 => version.revision().previous(),
        _ => version.revision(),
    };
    // What lies before the first revision is as empty as that.
    revision.max(Revision::FIRST)
}
