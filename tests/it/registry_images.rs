//! The forms that images come in: Docker's and OCI's, for many platforms, packed one way or another.

use packageserver::pipeline::fetch::Digest;
use serde_json::{Value, json};

use crate::support::catalog::CatalogBuilder;
use crate::support::fake_registry::FakeRegistry;
use crate::support::image::{Image, ImageBuilder, Packing};
use crate::support::ingest::Ingest;
use crate::support::registry::Registry;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

fn files() -> Vec<(String, Vec<u8>)> {
    CatalogBuilder::default().package("one", 3).package("two", 2).files()
}

#[tokio::test]
async fn docker_and_oci_images_are_read_from_a_real_registry() {
    let registry = Registry::start().await;
    for packing in [Packing::Gzip, Packing::Zstd, Packing::None] {
        for image in [
            ImageBuilder::default().files(packing, &files()).build(),
            ImageBuilder::default().files(packing, &files()).docker().build(),
        ] {
            let digest = registry.push("catalog", "v1", &image).await;
            let report = Ingest::new().run(&registry.reference("catalog", "v1")).await.unwrap();
            assert_eq!((report.packages, report.bundles), (2, 5), "{packing:?} {}", image.manifest_type());
            let pinned = format!("{}/catalog@{digest}", registry.address());
            assert_eq!(report.resolved_image.as_deref(), Some(&*pinned));
        }
    }
}

/// An entry of an index for an image.
fn entry(image: &Image, platform: &Value) -> Value {
    let (digest, size) = (Digest::sha256(image.manifest()), image.manifest().len());
    json!({
        "mediaType": image.manifest_type(), "digest": digest.as_str(), "size": size, "platform": platform,
    })
}

/// Ingests an index of some images, and returns the package of the image that was taken.
async fn taken_from(media_type: &str, entries: &[(&str, Value, Option<Value>)]) -> Result<String, String> {
    let registry = FakeRegistry::start().await;
    let mut listed = Vec::new();
    for (package, platform, annotations) in entries {
        let image = CatalogBuilder::default().package(package, 1).image();
        registry.push("catalog", package, &image);
        let mut entry = entry(&image, platform);
        if let Some(annotations) = annotations {
            entry["annotations"] = annotations.clone();
        }
        listed.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": listed}).to_string();
    registry.push_manifest("catalog", "v1", media_type, index.as_bytes());
    let ingest = Ingest::new();
    ingest.run(&registry.reference("catalog", "v1")).await.map_err(|error| error.to_string())?;
    let stored = ingest.stored().await;
    let package = stored.iter().find(|stored| stored.key.resource() == "packages").expect("a package");
    Ok(package.key.name().to_owned())
}

#[tokio::test]
async fn of_many_platforms_ours_is_taken_or_else_any_real_one() {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let ours = json!({"os": "linux", "architecture": architecture});
    let other = json!({"os": "linux", "architecture": "s390x", "variant": "x"});
    let unknown = json!({"os": "unknown", "architecture": "unknown"});
    let attestation = Some(json!({"vnd.docker.reference.type": "attestation-manifest"}));
    for media_type in [OCI_INDEX, DOCKER_LIST] {
        let take = async |entries: &[(&str, Value, Option<Value>)]| taken_from(media_type, entries).await;
        let ours = |name| (name, ours.clone(), None);
        let other = |name| (name, other.clone(), None);
        let unknown = |name| (name, unknown.clone(), None);
        let attested = |name| (name, json!({"os": "linux", "architecture": "s390x"}), attestation.clone());
        let without = |name| (name, Value::Null, None);
        assert_eq!(take(&[other("a"), ours("b")]).await.unwrap(), "b");
        assert_eq!(take(&[unknown("a"), attested("b"), other("c")]).await.unwrap(), "c");
        assert_eq!(take(&[unknown("a"), without("b")]).await.unwrap(), "b");
        let said = take(&[unknown("a"), attested("b")]).await.unwrap_err();
        assert!(said.contains("the index has no entry for any platform"), "{said}");
    }
}

#[tokio::test]
async fn what_is_no_image_is_said() {
    let registry = FakeRegistry::start().await;
    let image = CatalogBuilder::default().package("one", 1).image();
    registry.push("catalog", "image", &image);
    let inner = json!({"schemaVersion": 2, "manifests": [entry(&image, &Value::Null)]}).to_string();
    let inner = registry.push_manifest("catalog", "inner", OCI_INDEX, inner.as_bytes());
    let nested = json!({"digest": inner.as_str(), "size": 1, "mediaType": OCI_INDEX});
    for (manifest, expected) in [
        (json!({"schemaVersion": 2, "manifests": []}), "the index has no entry for any platform"),
        (json!({"schemaVersion": 2, "manifests": [nested]}), "an index within an index"),
        (json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
        (json!({"schemaVersion": 2}), "missing field"),
        (json!([]), "invalid"),
    ] {
        registry.push_manifest("catalog", "v1", OCI_INDEX, manifest.to_string().as_bytes());
        let said = Ingest::new().run(&registry.reference("catalog", "v1")).await.unwrap_err().to_string();
        assert!(said.contains(expected), "{manifest}: {said}");
    }
}
