//! A catalog as it was read and before it is judged: metas by package, with their places; what is large of them in the spool.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::known::SHARED;
use super::spool::{Spool, SpoolRef};
use super::{Problem, ReconcileError};
use crate::event::{FileFacts, FileProvenance, MetaHash};
use crate::model::{ApiKey, Icon};
use crate::pipeline::parse::{ChannelMeta, DeprecationsMeta, FileId, Place};
use crate::store::{Dictionary, DictionaryId, Envelope, Object, Tail};

/// A catalog as it was read, before it was judged.
#[derive(Debug)]
pub struct CatalogDraft {
    /// Its packages by name. A package that only a channel or a bundle names is here too.
    pub(super) packages: BTreeMap<String, PackageDraft>,
    /// Packages with metas that could not be read, or in a file that could not be read to its end, and why.
    pub(super) broken: BTreeMap<String, Vec<Problem>>,
    /// Packages that are what they were: every file of theirs is.
    pub(super) kept: BTreeSet<String>,
    pub(super) content: Content,
}

/// The metas of one package.
#[derive(Debug, Default)]
pub(super) struct PackageDraft {
    pub(super) packages: Vec<Found<PackageFacts>>,
    /// Their entries are several times what else is kept of a bundle.
    pub(super) channels: Vec<Found<SpoolRef>>,
    pub(super) bundles: Vec<Found<BundleFacts>>,
    pub(super) deprecations: Vec<Found<DeprecationsMeta>>,
    /// What its bundles are packed with.
    pub(super) dictionaries: Vec<(DictionaryId, SpoolRef)>,
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
    pub(super) files: Vec<ReadFile>,
}

#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) path: String,
    pub(super) facts: FileFacts,
    /// Whether its content was not looked into, because it is known.
    pub(super) is_kept: bool,
    /// The package it is about; none while nothing was read of it.
    pub(super) package: Option<String>,
    /// Whether it is about several.
    pub(super) is_shared: bool,
}

impl PackageDraft {
    /// Drops what other files hold, and puts the rest in the order of its places: parsers finish in any order.
    pub(super) fn retain(&mut self, live: &BTreeSet<FileId>) {
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

    pub(super) fn is_empty(&self) -> bool {
        self.places().next().is_none()
    }
}

impl Content {
    pub(super) fn empty() -> Self {
        Content { spool: Spool::new(0, 0), files: Vec::new() }
    }

    /// Returns the path of a file within the catalog.
    pub(super) fn path(&self, file: FileId) -> &str {
        &self.files[file.0 as usize].path
    }

    /// Returns what is to be remembered of a file.
    pub(super) fn file(&self, file: FileId) -> FileProvenance {
        let ReadFile { path, facts, is_shared, .. } = &self.files[file.0 as usize];
        let hash = if *is_shared { SHARED } else { facts.hash };
        FileProvenance { path: path.clone(), facts: FileFacts { hash, ..*facts } }
    }

    /// Notes that a file is about a package.
    pub(super) fn is_about(&mut self, file: FileId, package: &str) {
        let file = &mut self.files[file.0 as usize];
        match &file.package {
            None => file.package = Some(package.to_owned()),
            Some(first) => file.is_shared |= first != package,
        }
    }

    /// Returns a bundle that was spooled, as summary and tail.
    pub(super) fn bundle(&self, at: SpoolRef) -> Result<(BundleSummary, Object), ReconcileError> {
        let record = Bytes::from(self.spool.read(at).map_err(ReconcileError::Spool)?);
        let mut summaries = serde_json::Deserializer::from_slice(&record).into_iter();
        let summary = summaries.next().ok_or_else(|| damaged(&"empty"))?.map_err(|error| damaged(&error))?;
        Ok((summary, decode(&record.slice(summaries.byte_offset()..))?))
    }

    /// Returns a channel that was spooled.
    pub(super) fn channel(&self, at: SpoolRef) -> Result<ChannelMeta, ReconcileError> {
        let record = self.spool.read(at).map_err(ReconcileError::Spool)?;
        serde_json::from_slice(&record).map_err(|error| damaged(&error))
    }

    /// Returns a dictionary that was spooled, as it is stored.
    pub(super) fn dictionary(&self, at: SpoolRef) -> Result<Object, ReconcileError> {
        decode(&Bytes::from(self.spool.read(at).map_err(ReconcileError::Spool)?))
    }

    /// Returns a bundle that was spooled with its tail unpacked, for which it may need one of the dictionaries.
    pub(super) fn whole(
        &self,
        bundle: &Object,
        dictionaries: &[(DictionaryId, SpoolRef)],
    ) -> Result<Object, ReconcileError> {
        let Tail::Referring { dictionary, .. } = bundle.tail() else { return Ok(bundle.clone()) };
        let (_, at) = dictionaries
            .iter()
            .find(|(id, _)| id == dictionary)
            .ok_or_else(|| damaged(&format!("no dictionary {dictionary}")))?;
        let text = self.dictionary(*at)?.tail().unpack().map_err(|error| damaged(&error))?;
        let tail = bundle.tail().unpack_with(&text).map_err(|error| damaged(&error))?;
        Ok(Object::cut(bundle.head().clone(), Tail::Plain(tail)))
    }
}

fn decode(record: &Bytes) -> Result<Object, ReconcileError> {
    let envelope = Envelope::decode(record).map_err(|error| damaged(&error))?;
    envelope.object.ok_or_else(|| damaged(&"nothing in it"))
}

fn damaged(error: &dyn std::fmt::Display) -> ReconcileError {
    ReconcileError::Spool(std::io::Error::other(format!("damaged record: {error}")))
}

/// Returns what waits of a channel.
pub(super) fn channel_record(channel: &ChannelMeta) -> Vec<u8> {
    serde_json::to_vec(channel).expect("plain data can be written")
}

/// Returns what waits of a dictionary: what is to be stored of it, in an envelope.
pub(super) fn dictionary_record(package: &str, dictionary: &Dictionary) -> Bytes {
    let head = serde_json::json!({ "package": package }).to_string();
    Envelope::encode_put(0, &dictionary.object(head))
}

/// Returns what waits of a bundle: its summary, and behind that its tail in an envelope.
pub(super) fn bundle_record(summary: &BundleSummary, tail: Tail) -> Vec<u8> {
    let mut record = serde_json::to_vec(summary).expect("plain data can be written");
    record.extend_from_slice(&Envelope::encode_put(0, &Object::cut(Bytes::new(), tail)));
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::parse::EntryMeta;

    #[test]
    fn channels_read_back_as_they_were_and_damage_is_an_error() {
        let entry = |name: &str, replaces: &str, skips: &[&str], skip_range: &str| EntryMeta {
            name: name.to_owned(),
            replaces: replaces.to_owned(),
            skips: skips.iter().map(|name| (*name).to_owned()).collect(),
            skip_range: skip_range.to_owned(),
        };
        let channel =
            |entries| ChannelMeta { name: "stable \"ä\"".into(), package: "greeter".into(), entries };
        let channels = [
            channel(vec![]),
            channel(vec![entry("", "", &[], ""), entry("b\n", "a", &["", "x"], "<1.0.0 >=0.1.0")]),
        ];
        let mut content = Content { spool: Spool::new(8, u64::MAX), ..Content::empty() };
        for channel in &channels {
            let record = channel_record(channel);
            let at = content.spool.append(&record).unwrap();
            assert_eq!(format!("{:?}", content.channel(at).unwrap()), format!("{channel:?}"));
            let at = content.spool.append(&record[..record.len() - 1]).unwrap();
            let error = content.channel(at).unwrap_err();
            assert!(matches!(&error, ReconcileError::Spool(_)), "{error}");
            assert!(error.to_string().contains("damaged record"), "{error}");
        }
    }
}
