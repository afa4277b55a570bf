//! The difference between a package as it was read and as it is stored.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::draft::BundleContent;
use super::objects::{Identity, bundle_head, channels, csv_facts, cut};
use super::rules::{ValidBundle, ValidPackage};
use super::{Catalog, JudgedCatalog, Problem, ReconcileError, StoredPackages};
use crate::event::{
    BundleProvenance, DERIVATION, MetaHash, PackageEvents, Presentation, Provenance, RecordChange, Tally,
    decode_record, provenance_key,
};
use crate::model::{ICONS, Icon, Metadata};
use crate::store::{DICTIONARIES, Expect, Key, Object, Operation, Store, Stored, Tail};

const PACKAGES: &str = "packages";
pub(in crate::pipeline) const BUNDLES: &str = "bundlemetadata";

/// What is to be done for one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Make what is stored what was read.
    Update(usize),
    /// Remove what is stored: the catalog does not have it any more.
    Remove(String),
}

/// How the state of the store is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// New names are free, and records are as they were loaded. An append that fails shows that it is not so.
    Assumed,
    /// Everything is read.
    Read,
}

/// Makes events of plans.
pub struct Reconciler<'a> {
    catalog: &'a Catalog,
    store: &'a dyn Store,
    judged: JudgedCatalog,
    stored: Arc<StoredPackages>,
}

impl<'a> Reconciler<'a> {
    /// Compares a catalog with what is stored of it.
    pub fn new(
        catalog: &'a Catalog,
        store: &'a dyn Store,
        judged: JudgedCatalog,
        stored: Arc<StoredPackages>,
    ) -> Self {
        Reconciler { catalog, store, judged, stored }
    }

    /// Removes everything that is stored of a catalog.
    pub fn removal(catalog: &'a Catalog, store: &'a dyn Store, stored: Arc<StoredPackages>) -> Self {
        Reconciler { catalog, store, judged: JudgedCatalog::empty(), stored }
    }

    /// Returns the plans for all packages, sorted by name. Packages that are invalid have none, nor have those that are
    /// what they were: they stay.
    pub fn plans(&self) -> Vec<Plan> {
        let updates =
            self.judged.valid.iter().enumerate().map(|(index, package)| (&package.name, Plan::Update(index)));
        let mut plans: BTreeMap<_, _> = updates.collect();
        for name in self.stored.keys() {
            if !plans.contains_key(name) && !self.stays(name) {
                plans.insert(name, Plan::Remove(name.clone()));
            }
        }
        plans.into_values().collect()
    }

    /// Returns the name of the package that a plan is for.
    pub fn package<'p>(&'p self, plan: &'p Plan) -> &'p str {
        match plan {
            Plan::Update(index) => &self.judged.valid[*index].name,
            Plan::Remove(name) => name,
        }
    }

    /// Returns the catalog as it was judged.
    pub fn judged(&self) -> &JudgedCatalog {
        &self.judged
    }

    fn stays(&self, name: &str) -> bool {
        self.judged.invalid.contains_key(name) || self.judged.kept.contains(name)
    }

    /// Returns how many packages and bundles are served when all plans are done but those of `refused` packages, which
    /// stay as they are stored.
    pub fn counts<T>(&self, refused: &BTreeMap<String, T>) -> (u64, u64) {
        let taken = self.judged.valid.iter().filter(|package| !refused.contains_key(&package.name));
        let stays = |name: &String| self.stays(name) || refused.contains_key(name);
        let stored = self.stored.iter().filter(|(name, _)| stays(name));
        let bundles = taken.map(|package| package.bundles.len());
        let bundles: Vec<_> = bundles.chain(stored.map(|(_, (_, record))| record.bundles.len())).collect();
        (bundles.len() as u64, bundles.iter().sum::<usize>() as u64)
    }

    /// Returns the objects that nobody looked at, because they are what they were.
    pub fn untouched(&self) -> Tally {
        let kept = self.judged.kept.iter().filter_map(|name| self.stored.get(name));
        Tally { unchanged: kept.map(|(_, record)| 1 + record.bundles.len() as u64).sum(), ..Tally::default() }
    }

    /// Returns what is wrong with a package when one of its objects cannot be stored.
    pub fn problem(&self, plan: &Plan, key: Option<&Key>, message: String) -> Problem {
        let Plan::Update(index) = plan else { return Problem { file: None, offset: None, message } };
        let package = &self.judged.valid[*index];
        // An object is named for its bundle, or for its bundle and more.
        let is_named = |bundle: &&ValidBundle| {
            key.is_some_and(|key| key.resource() == BUNDLES && key.name().starts_with(&bundle.name))
        };
        let bundle = package.bundles.iter().filter(is_named).max_by_key(|bundle| bundle.name.len());
        let place = bundle.map_or(package.place, |bundle| bundle.place);
        Problem::at(self.judged.content.path(place.file), place.offset, message)
    }

    /// Returns the events of a plan; none when nothing changed.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`] when the store or the spool cannot be read.
    pub async fn events(&self, plan: &Plan, known: Known) -> Result<PackageEvents, ReconcileError> {
        let name = self.package(plan);
        let record = self.record(name, known).await?;
        match plan {
            Plan::Update(index) => self.update(&self.judged.valid[*index], record, known).await,
            Plan::Remove(_) => self.remove(name, record).await,
        }
    }

    async fn record(&self, package: &str, known: Known) -> Result<Option<Record>, ReconcileError> {
        if known == Known::Assumed {
            let stored = self.stored.get(package).cloned();
            return Ok(stored.map(|(version, provenance)| Record { version, provenance }));
        }
        let key = provenance_key(&self.catalog.namespace, &self.catalog.name, package);
        let Some(stored) = self.store.get(&key).await? else {
            return Ok(None);
        };
        let provenance =
            decode_record(&stored.object).map_err(|error| ReconcileError::Damaged(error.to_string()))?;
        Ok(Some(Record { version: stored.version, provenance }))
    }

    async fn update(
        &self,
        package: &ValidPackage,
        record: Option<Record>,
        known: Known,
    ) -> Result<PackageEvents, ReconcileError> {
        let next = self.next_provenance(package, record.as_ref());
        let mut events = Events::new(package.name.clone());
        if record.as_ref().is_some_and(|record| record.provenance == next) {
            events.tally.unchanged = 1 + next.bundles.len() as u64;
            return Ok(events.finish());
        }
        let mut update =
            Update { reconciler: self, package, record, next, known, read: HashMap::new(), events };
        update.dictionaries().await?;
        update.bundles().await?;
        update.package().await?;
        update.removed_bundles().await?;
        update.provenance();
        Ok(update.events.finish())
    }

    async fn remove(&self, package: &str, record: Option<Record>) -> Result<PackageEvents, ReconcileError> {
        let mut events = Events::new(package.to_owned());
        let Some(Record { version, provenance }) = record else {
            return Ok(events.finish());
        };
        let object = &provenance.object;
        let mut keys = vec![self.key(PACKAGES, object), self.key(ICONS, object)];
        keys.extend(provenance.bundles.iter().map(|bundle| self.key(BUNDLES, bundle.object_name())));
        // Last, so that no reader finds a bundle without them.
        keys.extend(provenance.dictionaries.iter().map(|id| id.key(&self.catalog.namespace)));
        let mut name_is_taken = false;
        for stored in self.store.read(&keys).await?.into_iter().flatten() {
            let is_own = match stored.key.resource() {
                ICONS => !name_is_taken,
                DICTIONARIES => true,
                _ => self.owns(package, &stored),
            };
            if is_own {
                events.delete(stored);
            } else if stored.key.resource() == PACKAGES {
                name_is_taken = true; // And the icon is not this package's.
            }
        }
        events.record = Some(RecordChange {
            key: provenance_key(&self.catalog.namespace, &self.catalog.name, package),
            from: Some((version, provenance)),
            to: None,
        });
        Ok(events.finish())
    }

    /// Returns the record that describes a package as it was read. Names of objects that exist are kept.
    fn next_provenance(&self, package: &ValidPackage, record: Option<&Record>) -> Provenance {
        let old: HashMap<_, _> = record
            .iter()
            .flat_map(|record| &record.provenance.bundles)
            .map(|bundle| (bundle.name.as_str(), bundle))
            .collect();
        let bundles = package.bundles.iter().map(|bundle| BundleProvenance {
            name: bundle.name.clone(),
            object: old.get(bundle.name.as_str()).and_then(|old| old.object.clone()),
            version: bundle.version.to_string(),
            hash: bundle.hash,
            placement: placement(bundle),
        });
        // Whatever was packed with an older one may stay as it is.
        let mut dictionaries = record.map_or_else(Vec::new, |record| record.provenance.dictionaries.clone());
        dictionaries.extend(package.dictionaries.iter().map(|(id, _)| *id));
        dictionaries.sort_unstable();
        dictionaries.dedup();
        Provenance {
            object: record.map_or_else(|| package.name.clone(), |record| record.provenance.object.clone()),
            fingerprint: self.fingerprint(package),
            derivation: DERIVATION,
            presentation: presentation_hash(&self.catalog.presentation),
            files: package.files.clone(),
            icon: package.facts.icon.as_ref().map(|(icon, _)| icon.digest.clone()),
            bundles: bundles.collect(),
            dictionaries,
        }
    }

    /// Hashes everything a Package object is made from.
    fn fingerprint(&self, package: &ValidPackage) -> MetaHash {
        let versions: Vec<_> =
            package.bundles.iter().map(|bundle| (&bundle.name, bundle.version.to_string())).collect();
        let head = head(package).map(|bundle| bundle.hash);
        hash(&(DERIVATION, &package.hashes, &self.catalog.presentation, versions, head))
    }

    fn key(&self, resource: &str, name: &str) -> Key {
        super::plain_key(self.catalog, resource, name)
    }

    /// Returns whether a served object is one of this catalog's, made for this package.
    fn owns(&self, package: &str, stored: &Stored) -> bool {
        #[derive(Deserialize)]
        struct Owned {
            metadata: Metadata,
            spec: OwnedSpec,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct OwnedSpec {
            catalog_source: String,
            #[serde(alias = "packageName")]
            package: String,
        }
        let Ok(owned) = serde_json::from_slice::<Owned>(&stored.object.summary()) else {
            return false;
        };
        let mut owners = owned.metadata.owner_references.iter();
        owned.spec.catalog_source == self.catalog.name
            && owned.spec.package == package
            && owners.any(|owner| owner.uid == self.catalog.uid)
    }
}

/// What is stored about a package, and the event that wrote it.
struct Record {
    version: crate::store::ResourceVersion,
    provenance: Provenance,
}

/// The update of one package on its way to events.
struct Update<'a> {
    reconciler: &'a Reconciler<'a>,
    package: &'a ValidPackage,
    record: Option<Record>,
    next: Provenance,
    known: Known,
    /// What was read of the store already.
    read: HashMap<Key, Option<Stored>>,
    events: Events,
}

/// A name for an object, and what is there now.
struct Slot {
    key: Key,
    stored: Option<Stored>,
}

impl Slot {
    /// Returns what the object that goes here is told from others by.
    fn identity(&self) -> Result<Identity, ReconcileError> {
        match &self.stored {
            Some(stored) => Identity::of(&stored.object),
            None => Ok(Identity::new(self.key.name())),
        }
    }
}

impl Update<'_> {
    /// Reads at once what the operations on bundles will have to be compared with.
    async fn read_ahead(&mut self, old: &HashMap<String, BundleProvenance>) -> Result<(), ReconcileError> {
        let changed = self.next.bundles.iter().filter(|next| old.get(&next.name) != Some(next));
        let keys: Vec<_> = changed
            .filter(|next| self.known == Known::Read || old.contains_key(&next.name))
            .map(|next| self.reconciler.key(BUNDLES, next.object_name()))
            .collect();
        let found = self.reconciler.store.read(&keys).await?;
        self.read = keys.into_iter().zip(found).collect();
        Ok(())
    }

    /// Puts what bundles are packed with, before them.
    async fn dictionaries(&mut self) -> Result<(), ReconcileError> {
        let Reconciler { catalog, judged, store, .. } = self.reconciler;
        for (id, at) in &self.package.dictionaries {
            let key = id.key(&catalog.namespace);
            let is_new = self.record.is_none() && self.known == Known::Assumed;
            if is_new || store.get(&key).await?.is_none() {
                self.events.operations.push(Operation::create(key, judged.content.dictionary(*at)?));
            }
        }
        Ok(())
    }

    async fn bundles(&mut self) -> Result<(), ReconcileError> {
        let old: HashMap<String, BundleProvenance> = self
            .record
            .iter()
            .flat_map(|record| &record.provenance.bundles)
            .map(|bundle| (bundle.name.clone(), bundle.clone()))
            .collect();
        self.read_ahead(&old).await?;
        for (index, bundle) in self.package.bundles.iter().enumerate() {
            let old = old.get(&bundle.name);
            if old == Some(&self.next.bundles[index]) {
                self.events.tally.unchanged += 1;
                continue;
            }
            let package = &self.package.name;
            let alternative = format!("{}.{package}.{}", bundle.name, self.reconciler.catalog.name);
            let known_name = old.map(|old| old.object_name().to_owned());
            let slot = self.slot(BUNDLES, known_name, &bundle.name, &alternative).await?;
            let name = slot.key.name();
            self.next.bundles[index].object = (name != bundle.name).then(|| name.to_owned());
            let object = self.bundle_object(bundle, &slot)?;
            self.put(slot, object).await?;
        }
        Ok(())
    }

    fn bundle_object(&self, bundle: &ValidBundle, slot: &Slot) -> Result<Object, ReconcileError> {
        let Reconciler { catalog, judged, .. } = self.reconciler;
        match (&bundle.content, &slot.stored) {
            (BundleContent::Spooled(at), _) => {
                let (summary, object) = judged.content.bundle(*at)?;
                let tail = object.tail().clone();
                let identity = slot.identity()?;
                Ok(catalog.bundle(identity, &self.package.name, bundle, summary, tail))
            }
            (_, Some(stored)) => {
                let mut head = bundle_head(&stored.object)?;
                head.spec.channels.clone_from(&bundle.channels);
                head.spec.deprecation.clone_from(&bundle.deprecation);
                Ok(cut(&head, stored.object.tail().clone()))
            }
            _ => Err(ReconcileError::Damaged(format!("bundle `{}` is missing", bundle.name))),
        }
    }

    async fn package(&mut self) -> Result<(), ReconcileError> {
        let old = self.record.as_ref().map(|record| &record.provenance);
        if old.is_some_and(|old| old.fingerprint == self.next.fingerprint && old.icon == self.next.icon) {
            self.events.tally.unchanged += 1;
            return Ok(());
        }
        let icon_changed = old.and_then(|old| old.icon.as_ref()) != self.next.icon.as_ref();
        let known_name = old.map(|old| old.object.clone());
        let plain = &self.package.name;
        let alternative = format!("{plain}.{}", self.reconciler.catalog.name);
        let slot = self.slot(PACKAGES, known_name, plain, &alternative).await?;
        self.next.object = slot.key.name().to_owned();
        if icon_changed {
            self.icon(slot.key.name().to_owned()).await?;
        }
        let csv = match head(self.package) {
            Some(head) => match self.whole_bundle(head).await? {
                Some(bundle) => csv_facts(&bundle)?,
                None => {
                    return Err(ReconcileError::Damaged(format!("bundle `{}` is missing", head.name)));
                }
            },
            None => Default::default(),
        };
        let Reconciler { catalog, judged, .. } = self.reconciler;
        let channels = channels(self.package, &judged.content)?;
        let icon = self.package.facts.icon.as_ref().map(|(icon, _)| icon);
        let object = catalog.package(slot.identity()?, self.package, channels, icon, csv);
        self.put(slot, object).await
    }

    /// Puts a served object, unless it says what is there already.
    async fn put(&mut self, slot: Slot, object: Object) -> Result<(), ReconcileError> {
        let operation = self.write(slot, object).await?;
        self.events.put(operation);
        Ok(())
    }

    /// Returns the operation that makes an object be what it should; none when it says the same already.
    async fn write(&self, slot: Slot, object: Object) -> Result<Option<Operation>, ReconcileError> {
        let Some(stored) = slot.stored else {
            return Ok(Some(Operation::create(slot.key, object)));
        };
        let is_same = stored.object == object
            || if stored.object.tail() == object.tail() {
                says_the_same(&stored.object.summary(), &object.summary())
            } else {
                let before = self.reconciler.store.complete(&stored).await?;
                let after = self.reconciler.judged.content.whole(&object, &self.package.dictionaries)?;
                match (before.json(), after.json()) {
                    (Ok(before), Ok(after)) => says_the_same(&before, &after),
                    _ => false,
                }
            };
        Ok((!is_same).then(|| Operation::replace(slot.key, stored.version, object)))
    }

    /// Returns a bundle with its body, from the spool or from the store.
    async fn whole_bundle(&self, bundle: &ValidBundle) -> Result<Option<Object>, ReconcileError> {
        let content = &self.reconciler.judged.content;
        if let BundleContent::Spooled(at) = bundle.content {
            return Ok(Some(content.whole(&content.bundle(at)?.1, &self.package.dictionaries)?));
        }
        let next = self.next.bundles.iter().find(|next| next.name == bundle.name);
        let name = next.map_or(bundle.name.as_str(), BundleProvenance::object_name);
        match self.reconciler.store.get(&self.reconciler.key(BUNDLES, name)).await? {
            Some(stored) => Ok(Some(self.reconciler.store.complete(&stored).await?)),
            None => Ok(None),
        }
    }

    async fn icon(&mut self, name: String) -> Result<(), ReconcileError> {
        let key = self.reconciler.key(ICONS, &name);
        let is_new = self.record.is_none() && self.known == Known::Assumed;
        let stored = if is_new { None } else { self.reconciler.store.get(&key).await? };
        match (&self.package.facts.icon, stored) {
            (Some((icon, at)), stored) => {
                let data = self.reconciler.judged.content.spool.read(*at).map_err(ReconcileError::Spool)?;
                let object = icon_object(icon, &data);
                let operation = self.write(Slot { key, stored }, object).await?;
                self.events.operations.extend(operation);
            }
            (None, Some(stored)) => {
                self.events.operations.push(Operation::delete(key, stored.version));
            }
            (None, None) => {}
        }
        Ok(())
    }

    async fn removed_bundles(&mut self) -> Result<(), ReconcileError> {
        let Some(record) = &self.record else {
            return Ok(());
        };
        let is_gone = |bundle: &&BundleProvenance| {
            self.package.bundles.binary_search_by(|kept| kept.name.cmp(&bundle.name)).is_err()
        };
        let keys: Vec<_> = record
            .provenance
            .bundles
            .iter()
            .filter(is_gone)
            .map(|bundle| self.reconciler.key(BUNDLES, bundle.object_name()))
            .collect();
        for stored in self.reconciler.store.read(&keys).await?.into_iter().flatten() {
            if self.reconciler.owns(&self.package.name, &stored) {
                self.events.delete(stored);
            }
        }
        Ok(())
    }

    /// Notes what was written.
    fn provenance(&mut self) {
        let catalog = self.reconciler.catalog;
        self.events.record = Some(RecordChange {
            key: provenance_key(&catalog.namespace, &catalog.name, &self.package.name),
            from: self.record.take().map(|Record { version, provenance }| (version, provenance)),
            to: Some(std::mem::take(&mut self.next)),
        });
    }

    /// Finds where an object goes: where it is, or under its plain name if that is free or already its own, or else
    /// under the alternative.
    async fn slot(
        &self,
        resource: &str,
        known_name: Option<String>,
        plain: &str,
        alternative: &str,
    ) -> Result<Slot, ReconcileError> {
        let reconciler = self.reconciler;
        if known_name.is_none() && self.known == Known::Assumed {
            return Ok(Slot { key: reconciler.key(resource, plain), stored: None });
        }
        for name in known_name.as_deref().into_iter().chain([plain, alternative]) {
            let key = reconciler.key(resource, name);
            let stored = match self.read.get(&key) {
                Some(stored) => stored.clone(),
                None => reconciler.store.get(&key).await?,
            };
            if stored.as_ref().is_none_or(|stored| reconciler.owns(&self.package.name, stored)) {
                return Ok(Slot { key, stored });
            }
        }
        Err(ReconcileError::Taken { name: alternative.to_owned() })
    }
}

/// Gathers the operations of a package and counts them.
struct Events {
    package: String,
    operations: Vec<Operation>,
    record: Option<RecordChange>,
    tally: Tally,
}

impl Events {
    fn new(package: String) -> Self {
        Events { package, operations: Vec::new(), record: None, tally: Tally::default() }
    }

    /// Counts a served object, for which there may be nothing to do.
    fn put(&mut self, operation: Option<Operation>) {
        match operation.as_ref().map(|operation| operation.expect) {
            None => self.tally.unchanged += 1,
            Some(Expect::Absent) => self.tally.added += 1,
            Some(_) => self.tally.modified += 1,
        }
        self.operations.extend(operation);
    }

    fn delete(&mut self, stored: Stored) {
        if !matches!(stored.key.resource(), ICONS | DICTIONARIES) {
            self.tally.deleted += 1;
        }
        self.operations.push(Operation::delete(stored.key, stored.version));
    }

    fn finish(self) -> PackageEvents {
        let Events { package, operations, record, tally } = self;
        PackageEvents { package, operations, record, tally }
    }
}

/// Returns whether two texts say the same in JSON, however they are written.
fn says_the_same(a: &[u8], b: &[u8]) -> bool {
    match (serde_json::from_slice::<Value>(a), serde_json::from_slice::<Value>(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// An icon as it is stored: what it is, then its bytes.
fn icon_object(icon: &Icon, data: &[u8]) -> Object {
    Object::cut(serde_json::to_vec(icon).expect("plain data can be written"), Tail::pack(data))
}

/// Returns the bundle at the head of the default channel.
fn head(package: &ValidPackage) -> Option<&ValidBundle> {
    let default = &package.facts.default_channel;
    let channel = package.channels.iter().find(|channel| channel.name == *default)?;
    package.bundles.iter().find(|bundle| bundle.name == channel.head)
}

/// Hashes what other metas say about a bundle.
fn placement(bundle: &ValidBundle) -> MetaHash {
    hash(&(DERIVATION, &bundle.channels, &bundle.deprecation))
}

/// Hashes what Packages say about their catalog.
pub(in crate::pipeline) fn presentation_hash(presentation: &Presentation) -> MetaHash {
    hash(presentation)
}

fn hash<T: Serialize>(value: &T) -> MetaHash {
    MetaHash::of(&serde_json::to_vec(value).expect("plain data can be written"))
}
