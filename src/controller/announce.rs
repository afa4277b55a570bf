//! What people are told about a CatalogSource beside its status, in the form of Kubernetes Events.

use super::attempt::AttemptError;
use super::status::{INVALID_PACKAGES, reason, shorten};
use crate::model::CatalogSource;
use crate::pipeline::Report;

/// Packages that an announcement names.
const NAMED: usize = 5;

/// Something that happened to a CatalogSource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Whether somebody should do something about it.
    pub is_warning: bool,
    /// What happened, in a word.
    pub reason: &'static str,
    /// What happened, in at most a kibibyte.
    pub message: String,
}

/// Takes announcements to where people look for them. Must not wait for anything.
pub trait Announcer: Send + Sync {
    /// Announces what happened to a CatalogSource.
    fn announce(&self, source: &CatalogSource, announcement: Announcement);
}

/// Tells nobody: where there is no cluster, log and status have to do.
pub struct Unannounced;

impl Announcer for Unannounced {
    fn announce(&self, _: &CatalogSource, _: Announcement) {}
}

impl Announcement {
    /// Says why an attempt failed.
    pub(super) fn failed(error: &AttemptError) -> Self {
        Announcement { is_warning: true, reason: reason(error), message: shorten(&error.to_string()) }
    }

    /// Says what an ingest changed, and which packages are bad; nothing where there is nothing to say.
    pub(super) fn ingested(report: &Report) -> Vec<Self> {
        let mut announcements = Vec::new();
        let tally = &report.tally;
        if tally.added + tally.modified + tally.deleted > 0 {
            let message = format!(
                "{} packages and {} bundles: {} objects added, {} modified, {} deleted",
                report.packages, report.bundles, tally.added, tally.modified, tally.deleted
            );
            announcements.push(Announcement { is_warning: false, reason: "Ingested", message });
        }
        if !report.invalid.is_empty() {
            let names: Vec<_> = report.invalid.keys().take(NAMED).map(String::as_str).collect();
            let more = if report.invalid.len() > NAMED { ", …" } else { "" };
            let message = format!(
                "{} packages are invalid and stay as they were; see status.invalidPackages: {}{more}",
                report.invalid.len(),
                names.join(", ")
            );
            announcements.push(Announcement {
                is_warning: true,
                reason: INVALID_PACKAGES,
                message: shorten(&message),
            });
        }
        announcements
    }
}
