//! Stage 1: a source → the digest it stands for now.
//!
//! What comes in: what `spec.image` names. What goes out: the opened source and its digest, after one request. What it
//! refuses: local sources, where they are not allowed or lead out of the directory that is.

use std::path::{Path, PathBuf};

use super::fetch::{Access, Digest, FetchError, ImageSource, LayoutImage, RegistryClient};
use super::limits::Limits;
use crate::model::SourceReference;

/// Opens sources.
#[derive(Clone)]
pub struct Sources {
    registries: RegistryClient,
    access: Access,
    local: LocalSources,
    limits: Limits,
}

/// Which of this machine's files a source may name.
#[derive(Clone, Debug)]
pub enum LocalSources {
    /// None.
    Denied,
    /// Those under a directory; relative paths start there.
    Under(PathBuf),
    /// All: whoever names them can read them anyway.
    Anywhere,
}

/// A source that was found.
pub struct Discovered {
    /// What it stands for; none for a plain directory.
    pub digest: Option<Digest>,
    /// The image by digest.
    pub resolved_image: Option<String>,
    /// Where its content is read from.
    pub content: Content,
}

/// Where content is read from.
pub enum Content {
    /// An image.
    Image(Box<dyn ImageSource>),
    /// A plain directory.
    Directory(PathBuf),
}

/// A source that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// It is not there, or cannot be asked for.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It is local, and the server was started without allowing that.
    #[error("local sources are not allowed; start the server with --allow-local-sources DIR")]
    LocalDenied,
    /// It is local and not under the directory that is allowed.
    #[error("`{0}` is not under the directory that --allow-local-sources names")]
    Outside(String),
    /// It is local and cannot be found.
    #[error("`{path}`: {reason}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Sources {
    /// Makes an opener of sources.
    pub fn new(registries: RegistryClient, local: LocalSources, limits: Limits) -> Self {
        Sources { registries, access: Access::default(), local, limits }
    }

    /// Returns an opener that has credentials and certificates of its own.
    pub fn with_access(&self, access: Access) -> Self {
        Sources { access, ..self.clone() }
    }

    /// Finds a source, and what it stands for now.
    ///
    /// # Errors
    ///
    /// [`DiscoverError`].
    pub async fn discover(&self, reference: &SourceReference) -> Result<Discovered, DiscoverError> {
        let image: Box<dyn ImageSource> = match reference {
            SourceReference::Registry(reference) => {
                Box::new(self.registries.image(reference, &self.access).await?)
            }
            SourceReference::Layout { path, tag } => {
                Box::new(LayoutImage::directory(&self.local(path)?, tag.clone(), &self.limits))
            }
            SourceReference::Archive { path, tag } => {
                Box::new(LayoutImage::archive(&self.local(path)?, tag.clone(), &self.limits).await?)
            }
            SourceReference::Directory { path } => {
                let content = Content::Directory(self.local(path)?);
                return Ok(Discovered { digest: None, resolved_image: None, content });
            }
        };
        let digest = image.resolve().await?;
        let name = match reference {
            SourceReference::Registry(reference) => {
                format!("{}/{}", reference.registry(), reference.repository())
            }
            local => local.to_string(),
        };
        Ok(Discovered {
            resolved_image: Some(format!("{name}@{digest}")),
            digest: Some(digest),
            content: Content::Image(image),
        })
    }

    /// Returns the real path of a local source.
    fn local(&self, path: &Path) -> Result<PathBuf, DiscoverError> {
        let real = |path: &Path| {
            path.canonicalize().map_err(|error| DiscoverError::Path {
                path: path.display().to_string(),
                reason: error.to_string(),
            })
        };
        match &self.local {
            LocalSources::Denied => Err(DiscoverError::LocalDenied),
            LocalSources::Anywhere => real(path),
            LocalSources::Under(directory) => {
                let directory = real(directory)?;
                // Whether something outside exists is not told either.
                let outside = || DiscoverError::Outside(path.display().to_string());
                match directory.join(path).canonicalize() {
                    Ok(real) if real.starts_with(&directory) => Ok(real),
                    Err(_) if !escapes(path) => real(&directory.join(path)),
                    _ => Err(outside()),
                }
            }
        }
    }
}

/// Returns whether a path can lead out of where it starts.
fn escapes(path: &Path) -> bool {
    path.components().any(|component| !matches!(component, std::path::Component::Normal(_)))
}
