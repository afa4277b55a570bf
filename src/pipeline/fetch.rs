//! Stage 2: digest → manifest → layer byte streams, hashed as they pass, verdict at the end.
//!
//! What comes in: an [`ImageSource`] and the digest that discover found. What goes out: the catalog's root and the
//! compressed bytes of each layer, top layer first, through bounded channels. What it refuses: content whose size
//! or digest is not the announced one, manifests and layers over the limits, media types that are no layers.

mod digest;
mod layout;
mod manifest;
mod registry;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{mpsc, oneshot};

pub use self::digest::{Digest, InvalidDigest, Verifier};
pub use self::layout::LayoutImage;
pub use self::manifest::{CatalogImage, LayerDescriptor, read_image};
pub use self::registry::{
    Access, AuthFiles, InvalidCredentials, InvalidMirrors, Keyring, Mirrors, RegistryClient, RegistryImage,
    RegistryOptions,
};
use super::limits::{LimitExceeded, Limits};
use super::progress::Progress;

/// Chunks of a layer that may wait between the network and the decompressor. A chunk is what the network gave in one read:
/// 8 KiB at first, up to 400 KiB where it gives faster than the decompressor takes. So these few are enough to keep both
/// sides busy, and a bound for what waits.
const CHUNKS_IN_FLIGHT: usize = 4;

/// The bytes of a blob as they come.
pub type BlobStream = BoxStream<'static, Result<Bytes, FetchError>>;

/// One image, wherever it is kept.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// Returns the digest that the reference stands for now.
    ///
    /// # Errors
    ///
    /// [`FetchError`] when there is no such image or it cannot be asked for.
    async fn resolve(&self) -> Result<Digest, FetchError>;

    /// Returns a manifest or an index, verified against its digest and at most `limit` bytes long.
    ///
    /// # Errors
    ///
    /// [`FetchError`] when it is not there, is too long or is not what the digest says.
    async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Bytes, FetchError>;

    /// Returns the bytes of a blob, which are not verified yet. `size` is how many there should be.
    ///
    /// # Errors
    ///
    /// [`FetchError`] when it is not there; later, in the stream, when it breaks off for good.
    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobStream, FetchError>;
}

/// An image that cannot be fetched as announced.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The registry, or the layout, does not have it.
    #[error("{what} not found in {place}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Where.
        place: String,
    },
    /// The registry wants other credentials.
    #[error("{registry} refuses access to {repository} {credentials}: {reason}")]
    Denied {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// Whose credentials were used; never a secret.
        credentials: String,
        /// What it answered.
        reason: String,
    },
    /// The registry gave an answer that is not one.
    #[error("{place} answered {answer}")]
    Answer {
        /// Who answered.
        place: String,
        /// What.
        answer: String,
    },
    /// The registry cannot answer now.
    #[error("{place} answered {answer}")]
    Busy {
        /// Who answered.
        place: String,
        /// What.
        answer: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// `registries.conf` forbids it.
    #[error("`{image}` is blocked: registries.conf blocks `{prefix}`")]
    Blocked {
        /// What was asked for.
        image: String,
        /// What is blocked.
        prefix: String,
    },
    /// What the server was configured with makes no sense.
    #[error("{0}")]
    Configuration(String),
    /// Neither the registry nor one of its mirrors can give it.
    #[error("{error} (mirrors: {mirrors})")]
    Everywhere {
        /// What the registry itself said.
        error: Box<FetchError>,
        /// What the mirrors said.
        mirrors: String,
    },
    /// The registry could not be reached, or the connection broke.
    #[error("cannot read from {place}: {reason}")]
    Transport {
        /// Who was asked.
        place: String,
        /// What happened.
        reason: String,
    },
    /// Content is not what its digest says.
    #[error("{what} has digest {actual} instead of {expected}")]
    WrongDigest {
        /// What was read.
        what: &'static str,
        /// What was announced.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// Content is longer or shorter than announced.
    #[error("{what} {digest} has {actual} bytes instead of {expected}")]
    WrongSize {
        /// What was read.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// What was announced.
        expected: u64,
        /// How many came; where there are more, the count stops behind the announced ones.
        actual: u64,
    },
    /// A manifest, index or configuration that makes no sense.
    #[error("manifest {digest}: {reason}")]
    InvalidManifest {
        /// Which.
        digest: Digest,
        /// What is wrong.
        reason: String,
    },
    /// Larger than allowed.
    #[error("{what}: {source}")]
    TooLarge {
        /// What was read.
        what: String,
        /// Which bound it breaks.
        #[source]
        source: LimitExceeded,
    },
}

impl FetchError {
    /// Returns how long the registry asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            FetchError::Busy { retry_after, .. } => *retry_after,
            FetchError::Everywhere { error, .. } => error.retry_after(),
            _ => None,
        }
    }
}

/// The compressed bytes of one layer on their way to the decompressor.
pub struct LayerStream {
    /// Which layer.
    pub descriptor: LayerDescriptor,
    /// Its bytes. An error means that fetch gave up, and knows why; the end means that all bytes came.
    pub chunks: mpsc::Receiver<Result<Bytes, Aborted>>,
    /// Where the layer may be known: it is fetched when this is sent to, and not when this is dropped.
    pub on_demand: Option<oneshot::Sender<()>>,
}

/// Fetch gave up on a layer; its own result says why.
#[derive(Debug, thiserror::Error)]
#[error("the layer broke off")]
pub struct Aborted;

/// Streams the layers of an image, one after the other, and judges each at its end.
///
/// The receiver may stop listening in the middle of a layer; the rest of it is then still read and judged, because
/// what was read before counts only if the whole is what it claims to be. When the receiver of layers is gone, no
/// further layer is fetched. Layers that `is_known` are fetched on demand only.
///
/// # Errors
///
/// [`FetchError`] of the first layer that cannot be fetched or is not what its descriptor says.
pub async fn stream_layers(
    source: &dyn ImageSource,
    image: &CatalogImage,
    limits: &Limits,
    progress: &Progress,
    is_known: impl Fn(&Digest) -> bool,
    layers: mpsc::Sender<LayerStream>,
) -> Result<(), FetchError> {
    for descriptor in &image.layers {
        super::limits::check("bytes in a layer", descriptor.size, limits.layer_bytes).map_err(|source| {
            FetchError::TooLarge { what: format!("layer {}", descriptor.digest), source }
        })?;
        let (sender, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let (on_demand, demand) = is_known(&descriptor.digest).then(oneshot::channel).unzip();
        if layers.send(LayerStream { descriptor: descriptor.clone(), chunks, on_demand }).await.is_err() {
            return Ok(());
        }
        if let Some(demand) = demand
            && demand.await.is_err()
        {
            progress.skip_bytes(descriptor.size);
            continue;
        }
        let streamed = stream_layer(source, descriptor, progress, &sender).await;
        if streamed.is_err() {
            let _ = sender.send(Err(Aborted)).await;
        }
        streamed?;
    }
    Ok(())
}

async fn stream_layer(
    source: &dyn ImageSource,
    descriptor: &LayerDescriptor,
    progress: &Progress,
    chunks: &mpsc::Sender<Result<Bytes, Aborted>>,
) -> Result<(), FetchError> {
    let mut blob = source.blob(&descriptor.digest, descriptor.size).await?;
    let mut judge = Judge::new("layer", &descriptor.digest, descriptor.size);
    let mut is_heard = true;
    while let Some(chunk) = blob.try_next().await? {
        judge.take(&chunk)?;
        progress.add_bytes(chunk.len() as u64);
        is_heard = is_heard && chunks.send(Ok(chunk)).await.is_ok();
    }
    judge.verdict()
}

/// Reads a whole blob that is small, and judges it.
async fn read_blob(
    source: &dyn ImageSource,
    what: &'static str,
    digest: &Digest,
    size: u64,
    limit: u64,
) -> Result<Vec<u8>, FetchError> {
    super::limits::check("bytes in a configuration", size, limit)
        .map_err(|source| FetchError::TooLarge { what: format!("{what} {digest}"), source })?;
    let mut blob = source.blob(digest, size).await?;
    let mut judge = Judge::new(what, digest, size);
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.next().await.transpose()? {
        judge.take(&chunk)?;
        bytes.extend_from_slice(&chunk);
    }
    judge.verdict()?;
    Ok(bytes)
}

/// Watches content pass, and says at the end whether it was the announced one.
struct Judge<'a> {
    what: &'static str,
    digest: &'a Digest,
    size: u64,
    seen: u64,
    verifier: Verifier,
}

impl<'a> Judge<'a> {
    fn new(what: &'static str, digest: &'a Digest, size: u64) -> Self {
        Judge { what, digest, size, seen: 0, verifier: digest.verifier() }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.seen += bytes.len() as u64;
        if self.seen > self.size {
            return Err(self.wrong_size());
        }
        self.verifier.update(bytes);
        Ok(())
    }

    fn verdict(self) -> Result<(), FetchError> {
        if self.seen != self.size {
            return Err(self.wrong_size());
        }
        let actual = self.verifier.finish();
        if actual != *self.digest {
            return Err(FetchError::WrongDigest { what: self.what, expected: self.digest.clone(), actual });
        }
        Ok(())
    }

    fn wrong_size(&self) -> FetchError {
        FetchError::WrongSize {
            what: self.what,
            digest: self.digest.clone(),
            expected: self.size,
            actual: self.seen,
        }
    }
}

/// Checks a manifest that was read whole.
fn verify(what: &'static str, digest: &Digest, bytes: &[u8]) -> Result<(), FetchError> {
    let mut verifier = digest.verifier();
    verifier.update(bytes);
    let actual = verifier.finish();
    if actual != *digest {
        return Err(FetchError::WrongDigest { what, expected: digest.clone(), actual });
    }
    Ok(())
}
