//! From a digest to the layers: index, manifest, configuration.

use oci_client::manifest::{ImageIndexEntry, OciDescriptor, OciImageIndex, OciImageManifest};
use serde::Deserialize;
use std::collections::HashMap;

use super::{Digest, FetchError, ImageSource, read_blob};
use crate::pipeline::limits::{Limits, check};

/// The label that says where in an image the catalog is.
const ROOT_LABEL: &str = "operators.operatorframework.io.index.configs.v1";

/// Where the catalog is without the label.
const DEFAULT_ROOT: &str = "/configs";

/// An image as far as a catalog needs it.
#[derive(Clone, Debug)]
pub struct CatalogImage {
    /// The directory of the catalog, as a path without leading or trailing slash.
    pub root: String,
    /// The layers, top layer first.
    pub layers: Vec<LayerDescriptor>,
}

/// A layer as the manifest announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDescriptor {
    /// The digest of its compressed bytes.
    pub digest: Digest,
    /// How many those are.
    pub size: u64,
}

/// The parts of an image configuration that matter here.
#[derive(Deserialize)]
struct ImageConfig {
    #[serde(default)]
    config: Option<ContainerConfig>,
}

#[derive(Deserialize)]
struct ContainerConfig {
    #[serde(rename = "Labels", default)]
    labels: Option<HashMap<String, String>>,
}

/// Tells an index from a manifest without relying on media types, which registries get wrong.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

/// What an entry of an index is annotated with that only says something about another entry.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Reads the manifest that a digest names, through an index if need be, and the configuration.
///
/// Nothing of the image is run, so where an index has no entry for this machine's platform any other will do;
/// entries for no platform, such as attestations, will not.
///
/// # Errors
///
/// [`FetchError`] when something is missing, damaged, too large or not an image.
pub async fn read_image(
    source: &dyn ImageSource,
    digest: &Digest,
    limits: &Limits,
) -> Result<CatalogImage, FetchError> {
    let mut digest = digest.clone();
    let mut bytes = source.manifest(&digest, limits.manifest_bytes).await?;
    if is_index(&digest, &bytes)? {
        let index: OciImageIndex = decode(&digest, &bytes)?;
        let chosen = choose(&index.manifests)
            .ok_or_else(|| invalid(&digest, "the index has no entry for any platform"))?;
        digest = parse_digest(&digest, &chosen.digest)?;
        bytes = source.manifest(&digest, limits.manifest_bytes).await?;
        if is_index(&digest, &bytes)? {
            return Err(invalid(&digest, "an index within an index"));
        }
    }
    let manifest: OciImageManifest = decode(&digest, &bytes)?;
    check("layers in an image", manifest.layers.len() as u64, limits.layers as u64)
        .map_err(|source| FetchError::TooLarge { what: format!("manifest {digest}"), source })?;
    if manifest.layers.is_empty() {
        return Err(invalid(&digest, "the image has no layers"));
    }
    let mut layers: Vec<_> =
        manifest.layers.iter().map(|layer| describe(&digest, layer)).collect::<Result<_, _>>()?;
    layers.reverse();
    let root = read_root(source, &digest, &manifest.config, limits).await?;
    Ok(CatalogImage { root, layers })
}

async fn read_root(
    source: &dyn ImageSource,
    digest: &Digest,
    descriptor: &OciDescriptor,
    limits: &Limits,
) -> Result<String, FetchError> {
    let config = describe(digest, descriptor)?;
    let bytes =
        read_blob(source, "configuration", &config.digest, config.size, limits.manifest_bytes).await?;
    let config: ImageConfig = decode(&config.digest, &bytes)?;
    let labels = config.config.and_then(|config| config.labels).unwrap_or_default();
    let root = labels.get(ROOT_LABEL).map_or(DEFAULT_ROOT, String::as_str);
    let segments: Vec<_> = root.split('/').filter(|segment| !matches!(*segment, "" | ".")).collect();
    if segments.is_empty() || segments.contains(&"..") {
        return Err(invalid(digest, &format!("label {ROOT_LABEL} names no directory: `{root}`")));
    }
    Ok(segments.join("/"))
}

fn choose(entries: &[ImageIndexEntry]) -> Option<&ImageIndexEntry> {
    let platform = |entry: &ImageIndexEntry| {
        entry.platform.as_ref().map(|platform| (platform.os.to_string(), platform.architecture.to_string()))
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    let here = (std::env::consts::OS.to_owned(), architecture.to_owned());
    let is_real = |entry: &&ImageIndexEntry| {
        let is_about_another =
            entry.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(REFERENCE_TYPE));
        !is_about_another
            && platform(entry).is_none_or(|(os, architecture)| os != "unknown" && architecture != "unknown")
    };
    let mut real = entries.iter().filter(is_real);
    real.clone().find(|entry| platform(entry).as_ref() == Some(&here)).or_else(|| real.next())
}

fn describe(manifest: &Digest, descriptor: &OciDescriptor) -> Result<LayerDescriptor, FetchError> {
    let size = u64::try_from(descriptor.size)
        .map_err(|_| invalid(manifest, &format!("a size of {} bytes", descriptor.size)))?;
    Ok(LayerDescriptor { digest: parse_digest(manifest, &descriptor.digest)?, size })
}

fn parse_digest(manifest: &Digest, text: &str) -> Result<Digest, FetchError> {
    text.parse().map_err(|error: super::InvalidDigest| invalid(manifest, &error.to_string()))
}

fn is_index(digest: &Digest, bytes: &[u8]) -> Result<bool, FetchError> {
    let shape: Shape = decode(digest, bytes)?;
    if shape.schema_version == Some(1) {
        return Err(invalid(
            digest,
            "a manifest of schema 1, which registries have stopped to serve; push the image anew",
        ));
    }
    Ok(shape.manifests.is_some())
}

fn decode<'a, T: Deserialize<'a>>(digest: &Digest, bytes: &'a [u8]) -> Result<T, FetchError> {
    serde_json::from_slice(bytes).map_err(|error| invalid(digest, &error.to_string()))
}

fn invalid(digest: &Digest, reason: &str) -> FetchError {
    FetchError::InvalidManifest { digest: digest.clone(), reason: reason.to_owned() }
}
