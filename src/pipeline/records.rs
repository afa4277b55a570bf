//! The records that an ingest leaves for the next one: reading and writing them.

use super::reconcile::{Catalog, ReconcileError, StoredPackages};
use super::report::Report;
use super::submit::Mark;
use super::{Conclusion, Known, Pipeline};
use crate::event::{
    Checkpoint, Contents, PROVENANCE, Provenance, checkpoint_key, contents_key, decode_record,
};
use crate::store::{At, Batch, Operation, Pager, Range, StoreError, Stored};

/// Records that are read at once.
const RECORDS_PER_PAGE: usize = 500;

/// How often the end of an ingest is written again when what is committed along was changed meanwhile.
const MAX_ATTEMPTS: usize = 10;

/// The end of an ingest.
pub(super) struct End {
    /// Where the checkpoint is now.
    pub(super) mark: Mark,
    /// What it was before this ingest.
    pub(super) before: Checkpoint,
    /// What it is to be.
    pub(super) next: Checkpoint,
    /// What the layers of the image hold; none for a plain directory.
    pub(super) contents: Option<Contents>,
    /// Whether the ingest has written anything.
    pub(super) has_written: bool,
    /// Whether bundles may be others than before.
    pub(super) has_changed_bundles: bool,
}

impl Pipeline<'_> {
    pub(super) async fn read_checkpoint(
        &self,
        catalog: &Catalog,
    ) -> Result<Option<(Stored, Checkpoint)>, ReconcileError> {
        let key = checkpoint_key(&catalog.namespace, &catalog.name);
        let Some(stored) = self.store.get(&key).await? else {
            return Ok(None);
        };
        let checkpoint = decode_record(&stored.object)
            .map_err(|error| ReconcileError::Damaged(format!("`{key}`: {error}")))?;
        Ok(Some((stored, checkpoint)))
    }

    pub(super) async fn read_stored(&self, catalog: &Catalog) -> Result<StoredPackages, ReconcileError> {
        let prefix = format!("{}/", catalog.name);
        let range = Range::names(PROVENANCE, &catalog.namespace, &prefix);
        let mut pager = Pager::new(self.store, range, At::Latest, RECORDS_PER_PAGE);
        let mut packages = StoredPackages::new();
        while let Some(page) = pager.next().await? {
            for Stored { key, version, object } in &page.items {
                let provenance: Provenance = decode_record(object)
                    .map_err(|error| ReconcileError::Damaged(format!("`{key}`: {error}")))?;
                let package = key.name().strip_prefix(&prefix).unwrap_or_default();
                packages.insert(package.to_owned(), (*version, provenance));
            }
        }
        Ok(packages)
    }

    pub(super) async fn read_contents(
        &self,
        catalog: &Catalog,
    ) -> Result<Option<(Stored, Contents)>, ReconcileError> {
        let stored = self.store.get(&contents_key(&catalog.namespace, &catalog.name)).await?;
        // One that cannot be read is replaced; until then everything is fetched.
        Ok(stored.map(|stored| {
            let contents = Contents::decode(&stored.object).unwrap_or_default();
            (stored, contents)
        }))
    }

    /// Moves the checkpoint, tells readers of the CatalogCache when bundles have changed, and commits whatever is to be
    /// known as soon as that.
    pub(super) async fn finish(
        &self,
        catalog: &Catalog,
        known: &Known,
        end: End,
        report: &Report,
        conclusion: &dyn Conclusion,
    ) -> Result<(), ReconcileError> {
        let cache = self.store.get(&catalog.cache_key()).await?;
        let mut own = Vec::new();
        if cache.is_none() || end.has_changed() {
            own.push(catalog.touch_cache(cache.as_ref())?);
        }
        own.extend(end.contents(catalog, known));
        own.extend(end.checkpoint());
        for _ in 0..MAX_ATTEMPTS {
            let mut operations = own.clone();
            operations.extend(conclusion.operations(report).await?);
            if operations.is_empty() {
                return Ok(());
            }
            match self.store.append(Batch::new(operations)).await {
                Ok(_) => return Ok(()),
                // Somebody else wrote to what is committed along.
                Err(StoreError::Conflict { key }) if own.iter().all(|operation| operation.key != key) => {}
                Err(StoreError::Unknown(reason)) => {
                    tracing::warn!(%reason, "the checkpoint's append was not answered");
                    if self.read_checkpoint(catalog).await?.is_some_and(|(_, found)| found == end.next) {
                        own.clear();
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ReconcileError::Contended { package: catalog.name.clone(), attempts: MAX_ATTEMPTS })
    }
}

impl End {
    /// Returns whether bundles were changed that readers of the CatalogCache have not been told of. An ingest before this one
    /// that was cut short may have changed some, too.
    fn has_changed(&self) -> bool {
        self.has_changed_bundles || self.before.is_unsettled
    }

    fn checkpoint(&self) -> Option<Operation> {
        let is_due = self.before != self.next || self.has_written;
        is_due.then(|| self.mark.put(&self.next))
    }

    fn contents(&self, catalog: &Catalog, known: &Known) -> Option<Operation> {
        let next = self.contents.as_ref();
        let object = next.and_then(Contents::encode);
        let key = contents_key(&catalog.namespace, &catalog.name);
        match (&known.contents, object) {
            (Some((_, before)), Some(_)) if Some(before) == next => None,
            (Some((stored, _)), Some(object)) => Some(Operation::replace(key, stored.version, object)),
            (Some((stored, _)), None) => Some(Operation::delete(key, stored.version)),
            (None, Some(object)) => Some(Operation::create(key, object)),
            (None, None) => None,
        }
    }
}
