//! Stage 5: metas → packages → the difference from what is stored → events.
//!
//! What comes in: metas in any order, through the [`Collector`]. What goes out, when the whole catalog was read: for each
//! package that changed, its [`PackageEvents`](crate::event::PackageEvents), in the order of the packages. What it refuses: packages that break
//! the rules of File-Based Catalogs; each stays as it is stored, and is reported, and the rest goes on.

mod channel;
mod collect;
mod diff;
mod draft;
mod known;
mod live;
mod objects;
mod packer;
mod prepared;
mod rules;
mod spool;

use std::collections::{BTreeMap, BTreeSet};

pub use self::collect::Collector;
pub(super) use self::diff::{BUNDLES, presentation_hash};
pub use self::diff::{Known, Plan, Reconciler};
pub use self::draft::CatalogDraft;
use self::draft::Content;
pub use self::known::Before;
use self::rules::ValidPackage;
use crate::event::{Presentation, Provenance};
use crate::pipeline::limits::{LimitExceeded, Limits, check};
use crate::store::{Key, StoreError};

/// The catalog that objects are made for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// The namespace of the CatalogSource, and of its objects.
    pub namespace: String,
    /// The name of the CatalogSource.
    pub name: String,
    /// The uid of the CatalogSource.
    pub uid: String,
    /// What its Packages say about it.
    pub presentation: Presentation,
}

/// What is wrong with a package, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file within the catalog.
    pub file: Option<String>,
    /// Bytes from the start of the file.
    pub offset: Option<u64>,
    /// What is wrong.
    pub message: String,
}

/// A catalog that cannot be reconciled at all.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Every file is ignored.
    #[error("no files in the catalog but ignored ones")]
    Empty,
    /// There are no packages.
    #[error("no packages in the catalog")]
    NoPackages,
    /// An ignore file makes no sense.
    #[error("`{path}`: {reason}")]
    IgnoreFile {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// What waits for the verdict on the layers cannot be kept.
    #[error("cannot spool: {0}")]
    Spool(#[source] std::io::Error),
    /// There is more than may be.
    #[error("the catalog has {0}")]
    TooLarge(#[source] LimitExceeded),
    /// What is stored is not what was written.
    #[error("stored object cannot be read: {0}")]
    Damaged(String),
    /// Somebody else's objects have every name that one of the package's could have.
    #[error("the name `{name}` is taken")]
    Taken {
        /// The last name that was tried.
        name: String,
    },
    /// Others keep writing to the same names.
    #[error("package `{package}` could not be stored in {attempts} attempts")]
    Contended {
        /// The package.
        package: String,
        /// How often it was tried.
        attempts: usize,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A catalog, judged.
#[derive(Debug)]
pub struct JudgedCatalog {
    valid: Vec<ValidPackage>,
    /// Packages that break a rule, and which.
    pub invalid: BTreeMap<String, Vec<Problem>>,
    /// Packages that are what they were.
    kept: BTreeSet<String>,
    content: Content,
}

impl Problem {
    fn at(file: &str, offset: u64, message: String) -> Self {
        Problem { file: Some(file.to_owned()), offset: Some(offset), message }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.file, self.offset) {
            (Some(file), Some(offset)) => write!(f, "`{file}` at byte {offset}: {}", self.message),
            (Some(file), None) => write!(f, "`{file}`: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

impl CatalogDraft {
    /// Judges every package.
    ///
    /// # Errors
    ///
    /// [`ReconcileError::TooLarge`] when there are too many, [`ReconcileError::NoPackages`] when there is nothing to judge:
    /// an image that lost its content by mistake must not delete everything; [`ReconcileError::Spool`] when what waits
    /// cannot be read.
    pub fn judge(self, limits: &Limits) -> Result<JudgedCatalog, ReconcileError> {
        let CatalogDraft { packages, mut broken, kept, content } = self;
        let names = packages.keys().chain(broken.keys().filter(|name| !packages.contains_key(*name)));
        let count = names.count() + kept.len();
        check("packages", count as u64, limits.packages as u64).map_err(ReconcileError::TooLarge)?;
        let mut valid = Vec::new();
        let mut invalid = BTreeMap::new();
        for (name, draft) in packages {
            if let Some(problems) = broken.remove(&name) {
                invalid.insert(name, problems);
                continue;
            }
            match rules::judge(&name, draft, &content, limits.package_objects)? {
                Ok(package) => valid.push(package),
                Err(problems) => {
                    invalid.insert(name, problems);
                }
            }
        }
        invalid.append(&mut broken);
        if valid.is_empty() && invalid.is_empty() && kept.is_empty() {
            return Err(ReconcileError::NoPackages);
        }
        Ok(JudgedCatalog { valid, invalid, kept, content })
    }
}

impl JudgedCatalog {
    fn empty() -> Self {
        JudgedCatalog {
            valid: Vec::new(),
            invalid: BTreeMap::new(),
            kept: BTreeSet::new(),
            content: Content::empty(),
        }
    }

    /// Returns whether no package keeps the rules.
    pub fn is_invalid(&self) -> bool {
        self.valid.is_empty() && self.kept.is_empty()
    }
}

/// Returns where an object of a catalog is kept under its plain name.
fn plain_key(catalog: &Catalog, resource: &str, name: &str) -> Key {
    Key::new(resource, &catalog.namespace, name)
}

/// A package as it was stored last.
pub(crate) type StoredPackages = BTreeMap<String, (crate::store::ResourceVersion, Provenance)>;
