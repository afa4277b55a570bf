//! Gathers the metas of a catalog by package, whatever file and order they come in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::{Deserialize, Serialize};

use super::spool::{Spool, SpoolRef};
use super::{Problem, ReconcileError};
use crate::event::{MetaHash, Provenance};
use crate::model::{ApiKey, Icon};
use crate::pipeline::fetch::Digest;
use crate::pipeline::parse::{
    BundleMeta, ChannelMeta, DeprecationsMeta, FileId, INDEX_IGNORE, Meta, MetaSink, PackageMeta,
    Place,
};
use crate::store::{Envelope, Object};

/// A catalog as it was read, before it was judged.
#[derive(Debug)]
pub struct CatalogDraft {
    /// Its packages by name. A package that only a channel or a bundle names is here too.
    pub(super) packages: BTreeMap<String, PackageDraft>,
    /// Packages with metas in a file that could not be read to its end, and why.
    pub(super) broken: BTreeMap<String, Vec<Problem>>,
    pub(super) content: Content,
}

/// The metas of one package.
#[derive(Debug, Default)]
pub(super) struct PackageDraft {
    pub(super) packages: Vec<Found<PackageFacts>>,
    pub(super) channels: Vec<Found<ChannelMeta>>,
    pub(super) bundles: Vec<Found<BundleFacts>>,
    pub(super) deprecations: Vec<Found<DeprecationsMeta>>,
}

/// Something, and where and from which text it was read.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) place: Place,
    pub(super) hash: MetaHash,
    pub(super) what: T,
}

#[derive(Debug)]
pub(super) struct PackageFacts {
    pub(super) default_channel: String,
    pub(super) description: String,
    pub(super) icon: Option<(Icon, SpoolRef)>,
}

#[derive(Debug)]
pub(super) struct BundleFacts {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) content: BundleContent,
}

/// Where the body of a bundle is.
#[derive(Debug)]
pub(super) enum BundleContent {
    /// It has not changed since it was stored.
    Stored,
    /// It was read now.
    Spooled(SpoolRef),
    /// It makes no sense.
    Faulty(String),
}

/// The small part of a bundle that is not known before the whole catalog is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BundleSummary {
    pub(super) image: String,
    pub(super) provided_apis: Vec<ApiKey>,
    pub(super) required_apis: Vec<ApiKey>,
}

/// The large parts, and the names of the files.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) spool: Spool,
    files: Vec<String>,
}

/// Takes metas from the parsers.
pub struct Collector {
    /// Bundles that are stored: hash of the meta → package, name, version.
    stored: HashMap<MetaHash, (String, String, String)>,
    state: Mutex<State>,
}

struct State {
    packages: BTreeMap<String, PackageDraft>,
    malformed: Vec<(Place, String)>,
    ignore_files: BTreeMap<String, Vec<u8>>,
    /// Path → the file that holds it now: a later file of the same path wins.
    by_path: HashMap<String, FileId>,
    content: Content,
    failure: Option<std::io::Error>,
}

impl Collector {
    /// Begins with what is stored: its bundles need not be parsed again.
    pub fn new<'a>(
        stored: impl IntoIterator<Item = (&'a str, &'a Provenance)>,
        spool_memory_bytes: usize,
    ) -> Self {
        let stored = stored.into_iter().flat_map(|(package, provenance)| {
            provenance.bundles.iter().map(|bundle| {
                (
                    bundle.hash,
                    (
                        package.to_owned(),
                        bundle.name.clone(),
                        bundle.version.clone(),
                    ),
                )
            })
        });
        let content = Content {
            spool: Spool::new(spool_memory_bytes),
            ..Content::empty()
        };
        Collector {
            stored: stored.collect(),
            state: Mutex::new(State {
                packages: BTreeMap::new(),
                malformed: Vec::new(),
                ignore_files: BTreeMap::new(),
                by_path: HashMap::new(),
                content,
                failure: None,
            }),
        }
    }

    /// Returns the catalog, without the files that `.indexignore` files exclude.
    ///
    /// `stored` are the packages by the files they were last read from.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`] when the spool could not be written or an `.indexignore` file makes no sense.
    pub fn finish<'a>(
        self,
        stored: impl IntoIterator<Item = (&'a str, &'a Provenance)>,
    ) -> Result<CatalogDraft, ReconcileError> {
        let mut state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.failure {
            return Err(ReconcileError::Spool(error));
        }
        let live = live_files(&state.content.files, &state.by_path, &state.ignore_files)?;
        if live.is_empty() {
            return Err(ReconcileError::Empty);
        }
        let mut packages = state.packages;
        for draft in packages.values_mut() {
            draft.retain(&live);
        }
        packages.retain(|_, draft| !draft.is_empty());
        state
            .malformed
            .retain(|(place, _)| live.contains(&place.file));
        state.malformed.sort();

        let mut broken: BTreeMap<String, Vec<Problem>> = BTreeMap::new();
        let stored: Vec<_> = stored.into_iter().collect();
        for (place, reason) in &state.malformed {
            let file = state.content.path(place.file);
            let problem = Problem::at(file, place.offset, reason.clone());
            for package in packages_in(place.file, file, &packages, &stored) {
                broken.entry(package).or_default().push(problem.clone());
            }
        }
        Ok(CatalogDraft {
            packages,
            broken,
            content: state.content,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetaSink for Collector {
    fn file(&self, id: FileId, path: &str) {
        let mut state = self.lock();
        state.by_path.insert(path.to_owned(), id);
        state.content.files.push(path.to_owned());
    }

    fn ignore_file(&self, path: &str, content: &[u8]) {
        self.lock()
            .ignore_files
            .insert(path.to_owned(), content.to_owned());
    }

    fn knows(&self, place: Place, hash: MetaHash) -> bool {
        let Some((package, name, version)) = self.stored.get(&hash) else {
            return false;
        };
        let what = BundleFacts {
            name: name.clone(),
            version: version.clone(),
            content: BundleContent::Stored,
        };
        let mut state = self.lock();
        state
            .package(package)
            .bundles
            .push(Found { place, hash, what });
        true
    }

    fn meta(&self, place: Place, hash: MetaHash, meta: Meta) {
        // What can be made ready without the lock is.
        let meta = Prepared::from(meta);
        let mut state = self.lock();
        if let Err(error) = state.take(place, hash, meta) {
            state.failure.get_or_insert(error);
        }
    }

    fn malformed(&self, place: Place, reason: String) {
        self.lock().malformed.push((place, reason));
    }
}

/// A meta with its large parts encoded for the spool.
enum Prepared {
    Package(PackageMeta, Option<Icon>),
    Channel(ChannelMeta),
    Bundle {
        package: String,
        name: String,
        version: String,
        record: Result<Bytes, String>,
    },
    Deprecations(DeprecationsMeta),
    Other,
}

impl From<Meta> for Prepared {
    fn from(meta: Meta) -> Self {
        match meta {
            Meta::Package(package) => {
                let icon = package.icon.as_ref().map(|icon| Icon {
                    mediatype: icon.mediatype.clone(),
                    digest: Digest::sha256(&icon.data).to_string(),
                    size: icon.data.len() as i64,
                });
                Prepared::Package(package, icon)
            }
            Meta::Channel(channel) => Prepared::Channel(channel),
            Meta::Bundle(bundle) => {
                let BundleMeta {
                    name,
                    package,
                    version,
                    fault,
                    ..
                } = bundle;
                let record = match fault {
                    Some(fault) => Err(fault),
                    None => {
                        let summary = BundleSummary {
                            image: bundle.image,
                            provided_apis: bundle.provided_apis,
                            required_apis: bundle.required_apis,
                        };
                        let head = serde_json::to_vec(&summary).expect("plain data can be written");
                        Ok(Envelope::encode_put(0, &Object::cut(head, bundle.tail)))
                    }
                };
                Prepared::Bundle {
                    package,
                    name,
                    version,
                    record,
                }
            }
            Meta::Deprecations(deprecations) => Prepared::Deprecations(deprecations),
            Meta::Other => Prepared::Other,
        }
    }
}

impl State {
    fn package(&mut self, name: &str) -> &mut PackageDraft {
        if !self.packages.contains_key(name) {
            self.packages
                .insert(name.to_owned(), PackageDraft::default());
        }
        self.packages.get_mut(name).expect("it was just put there")
    }

    fn take(&mut self, place: Place, hash: MetaHash, meta: Prepared) -> std::io::Result<()> {
        match meta {
            Prepared::Package(package, icon) => {
                let icon = match (icon, &package.icon) {
                    (Some(icon), Some(meta)) => {
                        Some((icon, self.content.spool.append(&meta.data)?))
                    }
                    _ => None,
                };
                let what = PackageFacts {
                    default_channel: package.default_channel,
                    description: package.description,
                    icon,
                };
                self.package(&package.name)
                    .packages
                    .push(Found { place, hash, what });
            }
            Prepared::Channel(what) => {
                let package = what.package.clone();
                self.package(&package)
                    .channels
                    .push(Found { place, hash, what });
            }
            Prepared::Bundle {
                package,
                name,
                version,
                record,
            } => {
                let content = match record {
                    Ok(record) => BundleContent::Spooled(self.content.spool.append(&record)?),
                    Err(fault) => BundleContent::Faulty(fault),
                };
                let what = BundleFacts {
                    name,
                    version,
                    content,
                };
                self.package(&package)
                    .bundles
                    .push(Found { place, hash, what });
            }
            Prepared::Deprecations(what) => {
                let package = what.package.clone();
                self.package(&package)
                    .deprecations
                    .push(Found { place, hash, what });
            }
            Prepared::Other => {}
        }
        Ok(())
    }
}

impl PackageDraft {
    /// Drops what other files hold, and puts the rest in the order of its places: parsers finish in any order.
    fn retain(&mut self, live: &BTreeSet<FileId>) {
        fn settle<T>(found: &mut Vec<Found<T>>, live: &BTreeSet<FileId>) {
            found.retain(|found| live.contains(&found.place.file));
            found.sort_by_key(|found| found.place);
        }
        settle(&mut self.packages, live);
        settle(&mut self.channels, live);
        settle(&mut self.bundles, live);
        settle(&mut self.deprecations, live);
    }

    /// Returns the place of every meta.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let packages = self.packages.iter().map(|found| found.place);
        let channels = self.channels.iter().map(|found| found.place);
        let bundles = self.bundles.iter().map(|found| found.place);
        let deprecations = self.deprecations.iter().map(|found| found.place);
        packages.chain(channels).chain(bundles).chain(deprecations)
    }

    fn is_empty(&self) -> bool {
        self.places().next().is_none()
    }
}

impl Content {
    pub(super) fn empty() -> Self {
        Content {
            spool: Spool::new(0),
            files: Vec::new(),
        }
    }

    /// Returns the path of a file within the catalog.
    pub(super) fn path(&self, file: FileId) -> &str {
        &self.files[file.0 as usize]
    }

    /// Returns a bundle that was spooled, as summary and tail.
    pub(super) fn bundle(&self, at: SpoolRef) -> Result<(BundleSummary, Object), ReconcileError> {
        let record = Bytes::from(self.spool.read(at).map_err(ReconcileError::Spool)?);
        let damaged = |error: String| ReconcileError::Spool(std::io::Error::other(error));
        let envelope = Envelope::decode(&record).map_err(|error| damaged(error.to_string()))?;
        let object = envelope
            .object
            .ok_or_else(|| damaged("a record without a bundle".to_owned()))?;
        let summary =
            serde_json::from_slice(object.head()).map_err(|error| damaged(error.to_string()))?;
        Ok((summary, object))
    }
}

/// Returns the files that are part of the catalog: not replaced by a later one, and not ignored.
fn live_files(
    files: &[String],
    by_path: &HashMap<String, FileId>,
    ignore_files: &BTreeMap<String, Vec<u8>>,
) -> Result<BTreeSet<FileId>, ReconcileError> {
    let matchers: Vec<(&str, Gitignore)> = ignore_files
        .iter()
        .map(|(path, content)| {
            let directory = path.strip_suffix(INDEX_IGNORE).unwrap_or_default();
            let wrong = |reason: String| ReconcileError::IgnoreFile {
                path: path.clone(),
                reason,
            };
            let mut builder = GitignoreBuilder::new("");
            for line in String::from_utf8_lossy(content).lines() {
                builder
                    .add_line(None, line)
                    .map_err(|error| wrong(error.to_string()))?;
            }
            Ok((
                directory,
                builder.build().map_err(|error| wrong(error.to_string()))?,
            ))
        })
        .collect::<Result<_, ReconcileError>>()?;
    let is_ignored = |path: &str| {
        let mut verdict = false;
        for (directory, matcher) in &matchers {
            let Some(within) = path.strip_prefix(directory) else {
                continue;
            };
            match matcher.matched_path_or_any_parents(within, false) {
                ignore::Match::None => {}
                ignore::Match::Ignore(_) => verdict = true,
                ignore::Match::Whitelist(_) => verdict = false,
            }
        }
        verdict
    };
    let is_live = |(index, path): (usize, &String)| {
        let id = FileId(index as u32);
        (by_path.get(path) == Some(&id) && !is_ignored(path)).then_some(id)
    };
    Ok(files.iter().enumerate().filter_map(is_live).collect())
}

/// Returns the packages that a file is about: those with metas in it, those last read from it, or else, because
/// catalogs are laid out so, the one its directory is named for.
fn packages_in(
    id: FileId,
    path: &str,
    packages: &BTreeMap<String, PackageDraft>,
    stored: &[(&str, &Provenance)],
) -> BTreeSet<String> {
    let read = packages
        .iter()
        .filter(|(_, draft)| draft.places().any(|place| place.file == id))
        .map(|(name, _)| name.clone());
    let known = stored
        .iter()
        .filter(|(_, provenance)| provenance.files.iter().any(|file| file == path))
        .map(|(name, _)| (*name).to_owned());
    let mut found: BTreeSet<_> = read.chain(known).collect();
    if found.is_empty() {
        found.insert(path.split('/').next().unwrap_or(path).to_owned());
    }
    found
}
