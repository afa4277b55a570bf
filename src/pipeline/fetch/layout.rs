//! Images on this machine: an OCI layout as a directory, or as a tar.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use oci_client::manifest::OciImageIndex;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{BlobStream, Digest, FetchError, ImageSource, verify};
use crate::pipeline::inflate::Archive;
use crate::pipeline::limits::{Limits, check, read_bounded};

/// The annotation in `index.json` that tags an image.
const TAG_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// Bytes read from a file at once.
const READ_BYTES: usize = 64 << 10;

/// An image in an OCI layout.
pub struct LayoutImage {
    /// What to call it in messages.
    place: String,
    files: Arc<Files>,
    tag: Option<String>,
    limits: Limits,
}

/// The files of a layout.
enum Files {
    Directory(PathBuf),
    Archive {
        path: PathBuf,
        /// Path within the layout → where its bytes are.
        entries: HashMap<String, (u64, u64)>,
    },
}

impl LayoutImage {
    /// Opens the layout in a directory.
    pub fn directory(path: &Path, tag: Option<String>, limits: &Limits) -> Self {
        LayoutImage {
            place: format!("layout `{}`", path.display()),
            files: Arc::new(Files::Directory(path.to_owned())),
            tag,
            limits: limits.clone(),
        }
    }

    /// Opens the layout in a tar and notes where its files are.
    ///
    /// # Errors
    ///
    /// [`FetchError::Transport`] when it cannot be read.
    pub async fn archive(path: &Path, tag: Option<String>, limits: &Limits) -> Result<Self, FetchError> {
        let place = format!("archive `{}`", path.display());
        let failed = |reason: String| FetchError::Transport { place: place.clone(), reason };
        let owned = path.to_owned();
        let owned_limits = limits.clone();
        let entries = tokio::task::spawn_blocking(move || index_archive(&owned, &owned_limits))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        let files = Arc::new(Files::Archive { path: path.to_owned(), entries });
        Ok(LayoutImage { place, files, tag, limits: limits.clone() })
    }

    async fn open(&self, name: String) -> Result<tokio::io::Take<tokio::fs::File>, FetchError> {
        let files = Arc::clone(&self.files);
        let wanted = name.clone();
        let opened = tokio::task::spawn_blocking(move || files.open(&wanted)).await;
        let (file, length) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FetchError::NotFound { what: format!("`{name}`"), place: self.place.clone() });
            }
            Ok(Err(error)) => return Err(self.failed(&error)),
            Err(error) => return Err(self.failed(&error)),
        };
        Ok(tokio::fs::File::from_std(file).take(length))
    }

    async fn read(&self, name: String, limit: u64) -> Result<Bytes, FetchError> {
        let mut bytes = Vec::new();
        let mut file = self.open(name.clone()).await?.take(limit.saturating_add(1));
        file.read_to_end(&mut bytes).await.map_err(|error| self.failed(&error))?;
        check("bytes in a manifest", bytes.len() as u64, limit)
            .map_err(|source| FetchError::TooLarge { what: format!("`{name}`"), source })?;
        Ok(bytes.into())
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> FetchError {
        FetchError::Transport { place: self.place.clone(), reason: error.to_string() }
    }
}

#[async_trait]
impl ImageSource for LayoutImage {
    async fn resolve(&self) -> Result<Digest, FetchError> {
        let bytes = self.read("index.json".to_owned(), self.limits.manifest_bytes).await?;
        let failed = |answer: String| FetchError::Answer { place: self.place.clone(), answer };
        let index: OciImageIndex = serde_json::from_slice(&bytes)
            .map_err(|error| failed(format!("with an `index.json` that is none: {error}")))?;
        let tag_of = |entry: &oci_client::manifest::ImageIndexEntry| {
            entry.annotations.as_ref().and_then(|annotations| annotations.get(TAG_ANNOTATION).cloned())
        };
        let mut matching =
            index.manifests.iter().filter(|entry| self.tag.is_none() || tag_of(entry) == self.tag);
        let entry = matching.next().ok_or_else(|| FetchError::NotFound {
            what: match &self.tag {
                Some(tag) => format!("tag `{tag}`"),
                None => "an image".to_owned(),
            },
            place: self.place.clone(),
        })?;
        if matching.next().is_some() {
            let tags: Vec<_> = index.manifests.iter().filter_map(tag_of).collect();
            return Err(failed(format!("with several images; name one by its tag: {}", tags.join(", "))));
        }
        entry.digest.parse().map_err(|error: super::InvalidDigest| failed(error.to_string()))
    }

    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, FetchError> {
        let bytes = self.read(blob_path(digest), limit).await?;
        verify("manifest", digest, &bytes)?;
        Ok(bytes)
    }

    async fn blob(&self, digest: &Digest, _: u64) -> Result<BlobStream, FetchError> {
        let file = self.open(blob_path(digest)).await?;
        let place = self.place.clone();
        let chunks = ReaderStream::with_capacity(file, READ_BYTES)
            .map_err(move |error| FetchError::Transport { place: place.clone(), reason: error.to_string() });
        Ok(chunks.boxed())
    }
}

impl Files {
    /// Returns a file positioned at the start of an entry, and the entry's length.
    fn open(&self, name: &str) -> io::Result<(File, u64)> {
        match self {
            Files::Directory(root) => {
                let path = root.join(name).canonicalize()?;
                if !path.starts_with(root.canonicalize()?) {
                    return Err(io::Error::other(format!("`{name}` is a link that leads out of the layout")));
                }
                let file = open_file(&path)?;
                let length = file.metadata()?.len();
                Ok((file, length))
            }
            Files::Archive { path, entries } => {
                let (offset, length) =
                    *entries.get(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                let mut file = open_file(path)?;
                file.seek(SeekFrom::Start(offset))?;
                Ok((file, length))
            }
        }
    }
}

/// Opens a plain file; to open a pipe would be to wait for its other end.
fn open_file(path: &Path) -> io::Result<File> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other(format!("`{}` is not a file", path.display())));
    }
    File::open(path)
}

fn blob_path(digest: &Digest) -> String {
    let (algorithm, hash) = digest.parts();
    format!("blobs/{algorithm}/{hash}")
}

fn index_archive(path: &Path, limits: &Limits) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut file = open_file(path)?;
    let magic = read_bounded(io::Read::by_ref(&mut file).take(2), "bytes", 2)?;
    if magic == [0x1f, 0x8b] {
        return Err(io::Error::other("the archive is compressed; unpack it to a plain tar first"));
    }
    file.rewind()?;
    let length = file.metadata()?.len();
    let seek = |file: &mut File, count: u64| {
        let delta = i64::try_from(count).map_err(io::Error::other)?;
        file.seek(SeekFrom::Current(delta)).map(|_| count)
    };
    let mut archive = Archive::with_skip(file, limits.path_bytes, seek);
    let (mut entries, mut paths) = (HashMap::new(), 0);
    let mut count = 0;
    while let Some(member) = archive.next()? {
        count += 1;
        check("entries in an archive", count, limits.archive_entries).map_err(io::Error::other)?;
        paths += member.path.len() as u64;
        check("bytes in the paths of an archive", paths, limits.paths_bytes).map_err(io::Error::other)?;
        if member.position.saturating_add(member.size) > length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off"));
        }
        if member.kind.is_file() {
            let name = String::from_utf8_lossy(&member.path);
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            entries.insert(name, (member.position, member.size));
        }
    }
    Ok(entries)
}
