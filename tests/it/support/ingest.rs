//! The pipeline on a store of one test, without a server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use packageserver::event::{PROVENANCE, Provenance, decode_record};
use packageserver::pipeline::discover::{LocalSources, Sources};
use packageserver::pipeline::fetch::{Access, RegistryClient, RegistryOptions};
use packageserver::pipeline::limits::Limits;
use packageserver::pipeline::progress::Progress;
use packageserver::pipeline::reconcile::Catalog;
use packageserver::pipeline::submit::BatchLimits;
use packageserver::pipeline::{IngestError, Pipeline, Report};
use packageserver::sink::EmbeddedStore;
use packageserver::store::{
    At, Change, DICTIONARIES, DictionaryId, Pager, Range, ResourceVersion, Revision, Store, Stored, Tail,
    WatchItem,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A store in memory and a pipeline that writes to it.
pub struct Ingest {
    pub store: Arc<dyn Store>,
    pub limits: Limits,
    pub batches: BatchLimits,
    pub catalog: Catalog,
    pub registries: RegistryClient,
    pub access: Access,
}

impl Ingest {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        let store = Arc::new(EmbeddedStore::in_memory().expect("there is memory"));
        Ingest { limits, ..Self::on(store) }
    }

    /// Writes to a store.
    pub fn on(store: Arc<dyn Store>) -> Self {
        Ingest {
            store,
            limits: Limits::default(),
            batches: BatchLimits::default(),
            catalog: catalog("catalog", 1),
            registries: RegistryClient::new(RegistryOptions::default()),
            access: Access::default(),
        }
    }

    /// Speaks to registries in some way.
    pub fn with_registries(options: RegistryOptions) -> Self {
        Ingest { registries: RegistryClient::new(options), ..Self::new() }
    }

    /// Ingests a source; where it stands for what is stored already, does nothing and returns none.
    pub async fn refresh(&self, source: &str) -> Result<Option<Report>, IngestError> {
        self.refresh_with(source, &Progress::default()).await
    }

    /// As [`Self::refresh`], and counts what is done.
    pub async fn refresh_with(
        &self,
        source: &str,
        progress: &Progress,
    ) -> Result<Option<Report>, IngestError> {
        let sources = Sources::new(self.registries.clone(), LocalSources::Anywhere, self.limits.clone());
        let sources = sources.with_access(self.access.clone());
        let pipeline = self.pipeline(&sources);
        let source = source.parse().expect("a source");
        let discovery = pipeline.discover(&source, &self.catalog).await?;
        if discovery.unchanged(&self.catalog).is_some() {
            return Ok(None);
        }
        pipeline.ingest(discovery, &self.catalog, progress).await.map(Some)
    }

    /// Ingests a source that is not stored yet.
    pub async fn run(&self, source: &str) -> Result<Report, IngestError> {
        Ok(self.refresh(source).await?.expect("the source is another one than before"))
    }

    /// Ingests an OCI layout.
    pub async fn run_layout(&self, directory: &Path) -> Result<Report, IngestError> {
        self.run(&format!("oci:{}", directory.display())).await
    }

    /// Removes everything that came of the catalog.
    pub async fn remove(&self) -> Result<(), packageserver::pipeline::IngestErrorCause> {
        let sources = Sources::new(self.registries.clone(), LocalSources::Denied, self.limits.clone());
        self.pipeline(&sources).remove(&self.catalog).await
    }

    fn pipeline<'a>(&'a self, sources: &'a Sources) -> Pipeline<'a> {
        Pipeline {
            sources,
            store: &*self.store,
            limits: &self.limits,
            batches: self.batches,
            stop: CancellationToken::new(),
        }
    }

    /// Returns everything that is stored.
    pub async fn stored(&self) -> Vec<Stored> {
        everything(&*self.store).await
    }

    /// Returns what is served, and the icons, without what differs from one ingest to the next.
    pub async fn content(&self) -> BTreeMap<String, Value> {
        let stored = self.stored().await;
        stored.iter().filter_map(|stored| Some((stored.key.to_string(), content(stored)?))).collect()
    }

    /// Returns the dictionaries that are stored, after a look whether their packages know of all of them.
    pub async fn dictionaries(&self) -> BTreeSet<DictionaryId> {
        let (mut stored, mut known) = (BTreeSet::new(), BTreeSet::new());
        for object in self.stored().await {
            match object.key.resource() {
                DICTIONARIES => {
                    let id = serde_json::from_value(object.key.name().into());
                    stored.insert(id.expect("dictionaries are named by their ids"));
                }
                PROVENANCE => {
                    let record: Provenance = decode_record(&object.object).expect("records can be read");
                    known.extend(record.dictionaries);
                }
                _ => {}
            }
        }
        assert!(stored.is_subset(&known), "{stored:?} of {known:?}");
        stored
    }

    /// Returns the newest version, and its revision.
    pub async fn now(&self) -> (ResourceVersion, Revision) {
        let version = self.store.current().await.expect("the store can be read");
        (version, version.revision())
    }

    /// Returns the events after a version.
    pub async fn changes(&self, after: ResourceVersion) -> Vec<Arc<Change>> {
        changes(&*self.store, Range::everything(), after).await
    }

    /// Returns the events after a version that readers see, as `ADDED packages/x`.
    pub async fn events(&self, after: ResourceVersion) -> Vec<String> {
        let changes = self.changes(after).await;
        changes
            .iter()
            .filter(|change| is_served(change.key.resource()))
            .map(|change| describe(change))
            .collect()
    }
}

/// Returns a catalog of a name; the number tells CatalogSources of the same name apart.
pub fn catalog(name: &str, number: u64) -> Catalog {
    Catalog {
        namespace: "test".to_owned(),
        name: name.to_owned(),
        uid: format!("0b0c4bd5-6b4e-4d57-8f2e-{number:012}"),
        ..Catalog::default()
    }
}

/// Returns an object without what differs from one ingest to the next; none where it is not part of the content.
fn content(stored: &Stored) -> Option<Value> {
    let object = &stored.object;
    match stored.key.resource() {
        "icons" => {
            let text = object.tail().unpack().expect("it was just stored");
            Some(serde_json::json!([String::from_utf8_lossy(object.head()), String::from_utf8_lossy(&text)]))
        }
        "packages" | "bundlemetadata" => {
            let text = object.json().expect("it was just stored");
            let mut value: Value = serde_json::from_slice(&text).expect("objects are JSON");
            let metadata = value["metadata"].as_object_mut().expect("objects have metadata");
            metadata.retain(|field, _| field != "uid" && field != "creationTimestamp");
            Some(value)
        }
        _ => None,
    }
}

/// Returns whether objects of a resource are served.
pub fn is_served(resource: &str) -> bool {
    matches!(resource, "packages" | "bundlemetadata" | "catalogcaches" | "catalogsources")
}

fn describe(change: &Change) -> String {
    let what = match (&change.before, &change.after) {
        (None, _) => "ADDED",
        (Some(_), Some(_)) => "MODIFIED",
        (Some(_), None) => "DELETED",
    };
    format!("{what} {}/{}", change.key.resource(), change.key.name())
}

/// Returns everything that a store holds.
pub async fn everything(store: &dyn Store) -> Vec<Stored> {
    let mut pager = Pager::new(store, Range::everything(), At::Latest, 1000);
    let mut all = Vec::new();
    while let Some(page) = pager.next().await.expect("the store can be read") {
        for stored in page.items {
            // What is made when it is read stays as it is stored.
            let object = match stored.object.tail() {
                Tail::Referring { .. } => store.complete(&stored).await.expect("its dictionary is there"),
                _ => stored.object.clone(),
            };
            all.push(Stored { object, ..stored });
        }
    }
    all
}

/// Returns the events of a range after a version, up to now.
pub async fn changes(store: &dyn Store, range: Range, after: ResourceVersion) -> Vec<Arc<Change>> {
    let end = store.current().await.expect("the store can be read");
    let mut changes = Vec::new();
    if after >= end {
        // Who starts at the end has caught up, and is not told so.
        return changes;
    }
    let mut watch = store.watch(range, after).await.expect("the store can be watched");
    loop {
        match watch.next().await.expect("a watch goes on").expect("the store can be watched") {
            WatchItem::Change(change) => changes.push(change),
            WatchItem::Progress(version) if version >= end => return changes,
            WatchItem::Progress(_) => {}
        }
    }
}
