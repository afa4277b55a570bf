//! What makes the metas of a package a package.
//!
//! The rules are those of operator-registry's `alpha/declcfg` and `alpha/model`, so that what `opm validate` accepts is
//! accepted here and the other way round, plus one: names have to be names in Kubernetes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::channel::find_head;
use super::draft::{BundleContent, BundleFacts, Content, Found, PackageDraft, PackageFacts};
use super::spool::SpoolRef;
use super::{Problem, ReconcileError};
use crate::event::{FileProvenance, MetaHash};
use crate::model::Deprecation;
use crate::pipeline::limits::check;
use crate::pipeline::parse::{ChannelMeta, DeprecationReference, Place};
use crate::resource::{is_dns_label, is_dns_subdomain};
use crate::store::DictionaryId;

const PACKAGE: &str = "olm.package";
const CHANNEL: &str = "olm.channel";
const BUNDLE: &str = "olm.bundle";

/// Problems of one package that are told.
const MAX_PROBLEMS: usize = 1000;

/// A package that keeps the rules.
#[derive(Debug)]
pub(super) struct ValidPackage {
    pub(super) name: String,
    pub(super) facts: PackageFacts,
    pub(super) channels: Vec<ValidChannel>,
    pub(super) bundles: Vec<ValidBundle>,
    pub(super) deprecation: Option<Deprecation>,
    /// What its bundles are packed with.
    pub(super) dictionaries: Vec<(DictionaryId, SpoolRef)>,
    /// The hashes of the metas other than bundles, sorted.
    pub(super) hashes: Vec<MetaHash>,
    /// The files that hold it, sorted.
    pub(super) files: Vec<FileProvenance>,
    /// Where its `olm.package` is.
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) struct ValidChannel {
    pub(super) name: String,
    pub(super) head: String,
    pub(super) deprecation: Option<Deprecation>,
    /// The channel as it was read, with its entries.
    pub(super) spooled: SpoolRef,
}

#[derive(Debug)]
pub(super) struct ValidBundle {
    pub(super) name: String,
    pub(super) version: semver::Version,
    pub(super) hash: MetaHash,
    pub(super) place: Place,
    pub(super) content: BundleContent,
    /// The channels that hold it, sorted.
    pub(super) channels: Vec<Arc<str>>,
    pub(super) deprecation: Option<Deprecation>,
}

/// Judges a package. Every rule that is broken is reported, not only the first.
///
/// # Errors
///
/// [`ReconcileError::Spool`] when its channels cannot be read.
pub(super) fn judge(
    name: &str,
    draft: PackageDraft,
    content: &Content,
    max_objects: usize,
) -> Result<Result<ValidPackage, Vec<Problem>>, ReconcileError> {
    let read = |found: &Found<SpoolRef>| {
        let Found { place, hash, what } = *found;
        content.channel(what).map(|what| Found { place, hash, what })
    };
    let channels: Vec<Found<ChannelMeta>> = draft.channels.iter().map(read).collect::<Result<_, _>>()?;
    let mut judge = Judge { content, channels: &channels, problems: Vec::new() };
    judge.size(&draft, max_objects);
    judge.names(name, &draft);
    judge.packages(name, &draft.packages);
    judge.channels(&draft);
    judge.bundles(&draft);
    let deprecations = judge.deprecations(&draft);
    if !judge.problems.is_empty() {
        return Ok(Err(judge.problems));
    }
    Ok(build(name, draft, &channels, &deprecations, content).map_err(|problem| vec![problem]))
}

struct Judge<'a> {
    content: &'a Content,
    channels: &'a [Found<ChannelMeta>],
    problems: Vec<Problem>,
}

type Deprecations = BTreeMap<DeprecationReference, Deprecation>;

impl Judge<'_> {
    fn size(&mut self, draft: &PackageDraft, max_objects: usize) {
        let entries: usize = self.channels.iter().map(|channel| channel.what.entries.len()).sum();
        let count = draft.bundles.len() + self.channels.len() + entries;
        if let Err(exceeded) = check("bundles, channels and entries", count as u64, max_objects as u64) {
            self.report(draft.places().min(), format!("the package has {exceeded}"));
        }
    }

    fn names(&mut self, name: &str, draft: &PackageDraft) {
        if !is_dns_label(name) {
            let place = draft.places().min();
            self.report(place, "the name of the package is not a DNS label (RFC 1123)".to_owned());
        }
        for bundle in &draft.bundles {
            let faulty = matches!(bundle.what.content, BundleContent::Faulty(_));
            if !faulty && !is_dns_subdomain(&bundle.what.name) {
                let name = &bundle.what.name;
                let reason = format!("the name of bundle `{name}` is not a DNS subdomain (RFC 1123)");
                self.report(Some(bundle.place), reason);
            }
        }
    }

    fn packages(&mut self, name: &str, packages: &[Found<PackageFacts>]) {
        match packages {
            [] => self.report(None, format!("there is no `{PACKAGE}` for package `{name}`")),
            [_] => {}
            [_, others @ ..] => {
                for other in others {
                    self.report(Some(other.place), format!("package `{name}` is declared again"));
                }
            }
        }
    }

    fn channels(&mut self, draft: &PackageDraft) {
        if self.channels.is_empty() {
            self.report(draft.places().min(), "the package has no channels".to_owned());
        }
        let bundles: BTreeSet<_> = draft.bundles.iter().map(|bundle| bundle.what.name.as_str()).collect();
        let mut seen = BTreeSet::new();
        for found in self.channels {
            let channel = &found.what;
            let mut fault = |reason: String| {
                self.report(Some(found.place), format!("channel `{}` {reason}", channel.name));
            };
            if channel.name.is_empty() {
                fault("has no name".to_owned());
            }
            if !seen.insert(&channel.name) {
                fault("is declared again".to_owned());
            }
            if channel.entries.is_empty() {
                fault("has no entries".to_owned());
                continue;
            }
            let mut names = BTreeSet::new();
            for entry in &channel.entries {
                if !names.insert(&entry.name) {
                    fault(format!("has entry `{}` twice", entry.name));
                }
                if !bundles.contains(entry.name.as_str()) {
                    fault(format!("has entry `{}`, and there is no such bundle", entry.name));
                }
                if entry.skips.iter().any(String::is_empty) {
                    fault(format!("has entry `{}` that skips a bundle without a name", entry.name));
                }
            }
            if let Err(reason) = find_head(&channel.entries) {
                fault(reason);
            }
        }
        if let [package] = &draft.packages[..] {
            let default = &package.what.default_channel;
            if default.is_empty() {
                self.report(Some(package.place), "the package has no default channel".to_owned());
            } else if !self.channels.is_empty() && !seen.contains(default) {
                let reason = format!("the default channel `{default}` is not a channel of the package");
                self.report(Some(package.place), reason);
            }
        }
    }

    fn bundles(&mut self, draft: &PackageDraft) {
        let entries: BTreeSet<_> = self
            .channels
            .iter()
            .flat_map(|channel| &channel.what.entries)
            .map(|entry| entry.name.as_str())
            .collect();
        let mut names = BTreeSet::new();
        let mut versions: HashMap<&str, &str> = HashMap::new();
        for found in &draft.bundles {
            let BundleFacts { name, version, content } = &found.what;
            let mut fault = |reason: &str| {
                self.report(Some(found.place), format!("bundle `{name}`: {reason}"));
            };
            if let BundleContent::Faulty(reason) = content {
                fault(reason);
                continue;
            }
            if !names.insert(name) {
                fault("is declared again");
            } else if let Some(other) = versions.insert(version, name) {
                fault(&format!("has version {version}, as has `{other}`"));
            }
            if !entries.contains(name.as_str()) {
                fault("is in no channel");
            }
        }
    }

    fn deprecations(&mut self, draft: &PackageDraft) -> Deprecations {
        let mut deprecations = Deprecations::new();
        let channels: BTreeSet<_> = self.channels.iter().map(|channel| channel.what.name.as_str()).collect();
        let bundles: BTreeSet<_> = draft.bundles.iter().map(|bundle| bundle.what.name.as_str()).collect();
        for (index, found) in draft.deprecations.iter().enumerate() {
            if index > 0 {
                self.report(Some(found.place), "deprecations of the package are declared again".to_owned());
            }
            for entry in &found.what.entries {
                let reference = &entry.reference;
                let name = &reference.name;
                let is_known = match reference.schema.as_str() {
                    PACKAGE => name.is_empty(),
                    CHANNEL => channels.contains(name.as_str()),
                    BUNDLE => bundles.contains(name.as_str()),
                    _ => false,
                };
                if !is_known {
                    let reason =
                        format!("a deprecation of `{}` `{name}`, which is not there", reference.schema);
                    self.report(Some(found.place), reason);
                }
                let deprecation = Deprecation { message: entry.message.clone() };
                if deprecations.insert(reference.clone(), deprecation).is_some() {
                    let reason = format!("a deprecation of `{}` `{name}` again", reference.schema);
                    self.report(Some(found.place), reason);
                }
            }
        }
        deprecations
    }

    fn report(&mut self, place: Option<Place>, message: String) {
        if self.problems.len() == MAX_PROBLEMS {
            return;
        }
        self.problems.push(match place {
            Some(place) => Problem::at(self.content.path(place.file), place.offset, message),
            None => Problem { file: None, offset: None, message },
        });
    }
}

fn build(
    name: &str,
    draft: PackageDraft,
    channels: &[Found<ChannelMeta>],
    deprecations: &Deprecations,
    content: &Content,
) -> Result<ValidPackage, Problem> {
    let deprecation = |schema: &str, name: &str| {
        let reference = DeprecationReference { schema: schema.to_owned(), name: name.to_owned() };
        deprecations.get(&reference).cloned()
    };
    let impossible = |message: String| Problem { file: None, offset: None, message };

    let files: BTreeSet<_> = draft.places().map(|place| place.file).collect();
    let mut files: Vec<_> = files.into_iter().map(|file| content.file(file)).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let packages = draft.packages.iter().map(|found| found.hash);
    let channel_hashes = channels.iter().map(|found| found.hash);
    let deprecation_hashes = draft.deprecations.iter().map(|found| found.hash);
    let mut hashes: Vec<_> = packages.chain(channel_hashes).chain(deprecation_hashes).collect();
    hashes.sort_unstable();

    let mut channels_of: HashMap<&str, Vec<Arc<str>>> = HashMap::new();
    for Found { what: channel, .. } in channels {
        let name: Arc<str> = channel.name.as_str().into();
        for entry in &channel.entries {
            channels_of.entry(&entry.name).or_default().push(Arc::clone(&name));
        }
    }
    let mut bundles = Vec::with_capacity(draft.bundles.len());
    for Found { place, hash, what } in draft.bundles {
        let version = semver::Version::parse(&what.version)
            .map_err(|error| impossible(format!("bundle `{}`: {error}", what.name)))?;
        let mut channels = channels_of.remove(what.name.as_str()).unwrap_or_default();
        channels.sort_unstable();
        channels.shrink_to_fit();
        bundles.push(ValidBundle {
            deprecation: deprecation(BUNDLE, &what.name),
            name: what.name,
            version,
            hash,
            place,
            content: what.content,
            channels,
        });
    }
    bundles.sort_by(|a, b| a.name.cmp(&b.name));

    let mut valid = Vec::with_capacity(channels.len());
    for (Found { what: channel, .. }, spooled) in channels.iter().zip(&draft.channels) {
        valid.push(ValidChannel {
            name: channel.name.clone(),
            head: find_head(&channel.entries).map_err(impossible)?.to_owned(),
            deprecation: deprecation(CHANNEL, &channel.name),
            spooled: spooled.what,
        });
    }
    valid.sort_by(|a, b| a.name.cmp(&b.name));

    let package = draft.packages.into_iter().next();
    let Found { place, what: facts, .. } =
        package.ok_or_else(|| impossible(format!("there is no `{PACKAGE}`")))?;
    Ok(ValidPackage {
        name: name.to_owned(),
        facts,
        place,
        channels: valid,
        bundles,
        dictionaries: draft.dictionaries,
        deprecation: deprecation(PACKAGE, ""),
        hashes,
        files,
    })
}
