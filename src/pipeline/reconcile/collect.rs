//! Gathers the metas of a catalog by package, whatever file and order they come in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::draft::{
    BundleContent, BundleFacts, CatalogDraft, Content, Found, PackageDraft, PackageFacts, ReadFile,
    dictionary_record,
};
use super::known::{Before, KnownFiles, SHARED};
use super::live::live_files;
use super::packer::Packer;
use super::prepared::Prepared;
use super::spool::Spool;
use super::{Problem, ReconcileError, StoredPackages};
use crate::event::{DERIVATION, FileFacts, MetaHash};
use crate::pipeline::limits::{LimitExceeded, Limits, check};
use crate::pipeline::parse::{FileId, Meta, MetaSink, Place};

/// Takes metas from the parsers.
pub struct Collector {
    /// Bundles that are stored: hash of the meta → package, name, version.
    bundles: HashMap<MetaHash, (String, String, String)>,
    files: KnownFiles,
    packer: Packer,
    state: Mutex<State>,
}

struct State {
    packages: BTreeMap<String, PackageDraft>,
    /// The first places of each file and package.
    malformed: BTreeMap<(FileId, Option<String>), Vec<Malformed>>,
    ignore_files: BTreeMap<String, Vec<u8>>,
    /// Path → the file that holds it now: a later file of the same path wins.
    by_path: HashMap<String, FileId>,
    content: Content,
    failure: Option<ReconcileError>,
    outline: Outline,
}

/// How much is kept in memory.
struct Outline {
    bytes: u64,
    limit: u64,
}

impl Outline {
    fn check(&self) -> Result<(), LimitExceeded> {
        check("bytes of names, channels and descriptions", self.bytes, self.limit)
    }
}

/// A place that makes no sense.
struct Malformed {
    place: Place,
    reason: String,
}

/// Places that are told of one file and package.
const MAX_MALFORMED: usize = 10;

/// Characters of what is wrong with a place; parsers quote what they do not like.
const MAX_REASON: usize = 500;

/// What a package takes up before anything is known of it.
const PACKAGE_BYTES: u64 = 1 << 10;

/// What the smallest thing that is kept takes up, beside its text.
const HELD_BYTES: usize = 128;

impl Collector {
    /// Begins with what is known: it need not be parsed again.
    pub fn new(before: Before<'_>, limits: &Limits) -> Self {
        let made_alike = before.packages.iter().filter(|(_, (_, record))| record.derivation == DERIVATION);
        let bundles = made_alike.flat_map(|(package, (_, provenance))| {
            provenance
                .bundles
                .iter()
                .map(|bundle| (bundle.hash, (package.clone(), bundle.name.clone(), bundle.version.clone())))
        });
        let spool = Spool::new(limits.spool_memory_bytes, limits.spool_bytes);
        let content = Content { spool, ..Content::empty() };
        Collector {
            bundles: bundles.collect(),
            files: KnownFiles::new(before),
            packer: Packer::new(before),
            state: Mutex::new(State {
                packages: BTreeMap::new(),
                malformed: BTreeMap::new(),
                ignore_files: BTreeMap::new(),
                by_path: HashMap::new(),
                content,
                failure: None,
                outline: Outline { bytes: 0, limit: limits.outline_bytes },
            }),
        }
    }

    /// Returns the catalog, without the files that `.indexignore` files exclude; none when a file was not looked into
    /// that turns out to be needed, because other files of its packages changed. It then has to be read once more.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`] when there was too much, the spool could not be written or an `.indexignore` file makes no
    /// sense.
    pub fn finish(self, before: Before<'_>) -> Result<Option<CatalogDraft>, ReconcileError> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.failure {
            return Err(error);
        }
        state.outline.check().map_err(ReconcileError::TooLarge)?;
        let live = live_files(&state.content.files, &state.by_path, &state.ignore_files)?;
        if live.is_empty() {
            return Err(ReconcileError::Empty);
        }
        let mut packages = state.packages;
        for draft in packages.values_mut() {
            draft.retain(&live);
        }
        packages.retain(|_, draft| !draft.is_empty());
        state.malformed.retain(|(file, _), _| live.contains(file));

        let is_kept = |id: &&FileId| state.content.files[id.0 as usize].is_kept;
        let kept_files: BTreeSet<&str> =
            live.iter().filter(is_kept).map(|id| state.content.path(*id)).collect();
        let Some(kept) = self.files.packages_in(&kept_files) else { return Ok(None) };
        if kept.iter().any(|name| packages.contains_key(name)) {
            return Ok(None);
        }

        let mut broken: BTreeMap<String, Vec<Problem>> = BTreeMap::new();
        let mut packages_of: BTreeMap<FileId, BTreeSet<&String>> = BTreeMap::new();
        for (name, draft) in &packages {
            for place in draft.places() {
                packages_of.entry(place.file).or_default().insert(name);
            }
        }
        for ((file, package), places) in state.malformed {
            let path = state.content.path(file);
            let concerned = match package {
                Some(package) => BTreeSet::from([package]),
                None => concerned(path, packages_of.get(&file), before.packages),
            };
            let problems: Vec<_> =
                places.into_iter().map(|found| Problem::at(path, found.place.offset, found.reason)).collect();
            for package in concerned {
                state.content.is_about(file, &package);
                broken.entry(package).or_default().extend(problems.iter().cloned());
            }
        }
        for problems in broken.values_mut() {
            problems.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        }
        for (name, draft) in &packages {
            for place in draft.places() {
                state.content.is_about(place.file, name);
            }
        }
        if kept.iter().any(|name| broken.contains_key(name)) {
            return Ok(None);
        }
        Ok(Some(CatalogDraft { packages, broken, kept, content: state.content }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetaSink for Collector {
    fn file(&self, id: FileId, path: &str) {
        let mut state = self.lock();
        state.begin(id, path);
    }

    fn file_ends(&self, id: FileId, facts: FileFacts) {
        self.lock().content.files[id.0 as usize].facts = facts;
    }

    fn may_know_file(&self, path: &str, size: u64) -> bool {
        self.files.may_hold(path, size)
    }

    fn knows_file(&self, id: FileId, path: &str, facts: FileFacts) -> bool {
        let is_known = self.files.holds(path, facts);
        self.lock().content.files[id.0 as usize].is_kept = is_known;
        is_known
    }

    fn knows_files(&self, files: &[(&str, FileFacts)]) -> bool {
        self.files.hold_together(files)
    }

    fn keep_file(&self, id: FileId, path: &str, facts: FileFacts) {
        let mut state = self.lock();
        state.begin(id, path);
        let file = &mut state.content.files[id.0 as usize];
        (file.facts, file.is_kept) = (facts, true);
    }

    fn ignore_file(&self, path: &str, content: &[u8]) {
        let mut state = self.lock();
        if state.holds(path.len() + content.len(), 1) {
            state.ignore_files.insert(path.to_owned(), content.to_owned());
        }
    }

    fn knows(&self, place: Place, hash: MetaHash) -> bool {
        let Some((package, name, version)) = self.bundles.get(&hash) else {
            return false;
        };
        let what =
            BundleFacts { name: name.clone(), version: version.clone(), content: BundleContent::Stored };
        let mut state = self.lock();
        if state.holds(name.len() + version.len(), 1) {
            state.package(package).bundles.push(Found { place, hash, what });
        }
        true
    }

    fn meta(&self, place: Place, hash: MetaHash, meta: Meta) {
        // What can be made ready without the lock is.
        let meta = Prepared::new(meta, &self.packer);
        let (bytes, items) = meta.outline();
        let mut state = self.lock();
        if !state.holds(bytes, items) {
            return;
        }
        if let Err(error) = state.take(place, hash, meta) {
            state.fail(match error.downcast::<LimitExceeded>() {
                Ok(exceeded) => ReconcileError::TooLarge(exceeded),
                Err(error) => ReconcileError::Spool(error),
            });
        }
    }

    fn malformed(&self, place: Place, mut reason: String, package: Option<String>) {
        if let Some((end, _)) = reason.char_indices().nth(MAX_REASON) {
            reason.truncate(end);
        }
        let mut state = self.lock();
        if !state.holds(reason.len() + package.as_ref().map_or(0, String::len), 1) {
            return;
        }
        let places = state.malformed.entry((place.file, package)).or_default();
        // Parsers finish in any order; the first places of the file are told, whichever came first.
        let at = places.partition_point(|other| other.place < place);
        places.insert(at, Malformed { place, reason });
        places.truncate(MAX_MALFORMED);
    }
}

impl State {
    /// Makes room for more in memory. Returns whether there is some; the catalog is refused where there is none.
    fn holds(&mut self, bytes: usize, items: usize) -> bool {
        let held = bytes.saturating_add(items.saturating_mul(HELD_BYTES));
        self.outline.bytes = self.outline.bytes.saturating_add(held as u64);
        match self.outline.check() {
            Ok(()) => self.failure.is_none(),
            Err(exceeded) => {
                self.fail(ReconcileError::TooLarge(exceeded));
                false
            }
        }
    }

    fn fail(&mut self, error: ReconcileError) {
        self.failure.get_or_insert(error);
    }

    fn begin(&mut self, id: FileId, path: &str) {
        debug_assert_eq!(id.0 as usize, self.content.files.len());
        self.by_path.insert(path.to_owned(), id);
        let facts = FileFacts { size: 0, hash: SHARED };
        let path = path.to_owned();
        self.content.files.push(ReadFile { path, facts, is_kept: false, package: None, is_shared: false });
    }

    fn package(&mut self, name: &str) -> &mut PackageDraft {
        if !self.packages.contains_key(name) {
            self.outline.bytes += PACKAGE_BYTES;
            self.packages.insert(name.to_owned(), PackageDraft::default());
        }
        self.packages.get_mut(name).expect("it was just put there")
    }

    fn take(&mut self, place: Place, hash: MetaHash, meta: Prepared) -> std::io::Result<()> {
        match meta {
            Prepared::Package(package, icon) => {
                let icon = match (icon, &package.icon) {
                    (Some(icon), Some(meta)) => Some((icon, self.content.spool.append(&meta.data)?)),
                    _ => None,
                };
                let what = PackageFacts {
                    default_channel: package.default_channel,
                    description: package.description,
                    icon,
                };
                self.package(&package.name).packages.push(Found { place, hash, what });
            }
            Prepared::Channel { package, record, .. } => {
                let what = self.content.spool.append(&record)?;
                self.package(&package).channels.push(Found { place, hash, what });
            }
            Prepared::Bundle { package, name, version, record, dictionary } => {
                if let Some(dictionary) = dictionary {
                    let at = self.content.spool.append(&dictionary_record(&package, &dictionary))?;
                    self.package(&package).dictionaries.push((dictionary.id(), at));
                }
                let content = match record {
                    Ok(record) => BundleContent::Spooled(self.content.spool.append(&record)?),
                    Err(fault) => BundleContent::Faulty(fault),
                };
                let what = BundleFacts { name, version, content };
                self.package(&package).bundles.push(Found { place, hash, what });
            }
            Prepared::Deprecations(what) => {
                let package = what.package.clone();
                self.package(&package).deprecations.push(Found { place, hash, what });
            }
            Prepared::Other => {}
        }
        Ok(())
    }
}

/// Returns the packages that a file is about: those with metas in it, those last read from it, or else, because
/// catalogs are laid out so, the one its directory is named for.
fn concerned(path: &str, read: Option<&BTreeSet<&String>>, stored: &StoredPackages) -> BTreeSet<String> {
    let known = stored
        .iter()
        .filter(|(_, (_, record))| record.files.iter().any(|file| file.path == path))
        .map(|(name, _)| name);
    let mut found: BTreeSet<_> = read.into_iter().flatten().copied().chain(known).cloned().collect();
    if found.is_empty() {
        found.insert(path.split('/').next().unwrap_or(path).to_owned());
    }
    found
}
