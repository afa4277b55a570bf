//! What came of an ingest.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::discover::DiscoverError;
use super::fetch::FetchError;
use super::inflate::InflateError;
use super::reconcile::{Problem, ReconcileError};
use crate::event::Tally;

/// What an ingest did.
#[derive(Debug)]
pub struct Report {
    /// When it began.
    pub started_at: Timestamp,
    /// When its last event was committed.
    pub completed_at: Timestamp,
    /// The image by digest; none for a plain directory.
    pub resolved_image: Option<String>,
    /// Bytes read from the image, as transferred.
    pub bytes_read: u64,
    /// What happened to served objects.
    pub tally: Tally,
    /// Packages that were not taken over, and why.
    pub invalid: BTreeMap<String, Vec<Problem>>,
    /// How many packages are served now.
    pub packages: u64,
    /// How many bundles are served now.
    pub bundles: u64,
}

/// An ingest that failed. Nothing that is served has changed, unless the store failed in the middle; then the next
/// attempt does the rest.
#[derive(Debug, thiserror::Error)]
#[error("`{image}`: {cause}")]
pub struct IngestError {
    /// The source, as it was named.
    pub image: String,
    /// What went wrong.
    pub cause: IngestErrorCause,
}

impl IngestError {
    /// Returns how long the registry asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match &self.cause {
            IngestErrorCause::Fetch(error) | IngestErrorCause::Discover(DiscoverError::Fetch(error)) => {
                error.retry_after()
            }
            _ => None,
        }
    }
}

/// What went wrong in an ingest.
#[derive(Debug, thiserror::Error)]
pub enum IngestErrorCause {
    /// The source cannot be opened.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// It cannot be read, or is not what it claims to be.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It does not unpack.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// It cannot be made into events, or those cannot be stored.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// No package keeps the rules.
    #[error("{}", first_problem(.0))]
    Invalid(BTreeMap<String, Vec<Problem>>),
    /// It was told to stop in the middle; what was committed stays, and the next attempt does the rest.
    #[error("stopped")]
    Stopped,
    /// A bug.
    #[error("internal error: {0}")]
    Internal(String),
}

fn first_problem(invalid: &BTreeMap<String, Vec<Problem>>) -> String {
    let mut problems =
        invalid.iter().flat_map(|(package, problems)| problems.iter().map(move |problem| (package, problem)));
    match problems.next() {
        None => "no valid packages".to_owned(),
        Some((package, problem)) => match problems.count() {
            0 => format!("package `{package}`: {problem}"),
            more => format!("package `{package}`: {problem} (and {more} more problems)"),
        },
    }
}
