//! A meta with its large parts encoded for the spool, and how much of it stays in memory.

use std::sync::Arc;

use super::draft::{BundleSummary, bundle_record, channel_record};
use super::packer::{Packed, Packer};
use crate::model::Icon;
use crate::pipeline::fetch::Digest;
use crate::pipeline::parse::{
    BundleMeta, ChannelMeta, DeprecationMeta, DeprecationsMeta, EntryMeta, Meta, PackageMeta,
};
use crate::store::Dictionary;

/// A meta with its large parts encoded for the spool.
pub(super) enum Prepared {
    Package(PackageMeta, Option<Icon>),
    Channel {
        package: String,
        record: Vec<u8>,
        /// Bytes of texts, and entries and what they skip.
        outline: (usize, usize),
    },
    Bundle {
        package: String,
        name: String,
        version: String,
        record: Result<Vec<u8>, String>,
        /// What was made of it, and is to be stored with its package.
        dictionary: Option<Arc<Dictionary>>,
    },
    Deprecations(DeprecationsMeta),
    Other,
}

impl Prepared {
    pub(super) fn new(meta: Meta, packer: &Packer) -> Self {
        match meta {
            Meta::Package(package) => {
                let icon = package.icon.as_ref().map(|icon| Icon {
                    mediatype: icon.mediatype.clone(),
                    digest: Digest::sha256(&icon.data).to_string(),
                    size: icon.data.len() as i64,
                });
                Prepared::Package(package, icon)
            }
            Meta::Channel(channel) => {
                let (outline, record) = (outline_of(&channel), channel_record(&channel));
                Prepared::Channel { package: channel.package, record, outline }
            }
            Meta::Bundle(bundle) => {
                let BundleMeta { name, package, version, fault, .. } = bundle;
                let (record, dictionary) = match fault {
                    Some(fault) => (Err(fault), None),
                    None => {
                        let Packed { tail, made } = packer.pack(&package, &bundle.text);
                        let summary = BundleSummary {
                            image: bundle.image,
                            provided_apis: bundle.provided_apis,
                            required_apis: bundle.required_apis,
                        };
                        (Ok(bundle_record(&summary, tail)), made)
                    }
                };
                Prepared::Bundle { package, name, version, record, dictionary }
            }
            Meta::Deprecations(deprecations) => Prepared::Deprecations(deprecations),
            Meta::Other => Prepared::Other,
        }
    }

    /// Returns how much of it is in memory at any time: bytes of texts, and things.
    pub(super) fn outline(&self) -> (usize, usize) {
        match self {
            Prepared::Package(package, _) => {
                let PackageMeta { name, default_channel, description, icon } = package;
                let mediatype = icon.as_ref().map_or(0, |icon| icon.mediatype.len());
                (name.len() + default_channel.len() + description.len() + mediatype, 1)
            }
            Prepared::Channel { outline, .. } => *outline,
            Prepared::Bundle { package, name, version, record, dictionary } => {
                let fault = record.as_ref().err().map_or(0, String::len);
                (package.len() + name.len() + version.len() + fault, 1 + usize::from(dictionary.is_some()))
            }
            Prepared::Deprecations(DeprecationsMeta { package, entries }) => {
                let texts = |entry: &DeprecationMeta| {
                    entry.reference.schema.len() + entry.reference.name.len() + entry.message.len()
                };
                (package.len() + entries.iter().map(texts).sum::<usize>(), 1 + entries.len())
            }
            Prepared::Other => (0, 0),
        }
    }
}

/// Returns how much a channel takes up while its package is judged.
fn outline_of(channel: &ChannelMeta) -> (usize, usize) {
    let ChannelMeta { name, package, entries } = channel;
    let texts = |entry: &EntryMeta| {
        let skips = entry.skips.iter().map(String::len).sum::<usize>();
        entry.name.len() + entry.replaces.len() + entry.skip_range.len() + skips
    };
    let things = |entry: &EntryMeta| 1 + entry.skips.len();
    (
        name.len() + package.len() + entries.iter().map(texts).sum::<usize>(),
        1 + entries.iter().map(things).sum::<usize>(),
    )
}
