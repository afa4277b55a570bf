//! Broken input is refused with a message that names image, file and offset, and changes nothing.

use std::path::Path;

use tempfile::TempDir;

use crate::support::catalog::{CatalogBuilder, package};
use crate::support::image::{Image, ImageBuilder, Packing, pack};
use crate::support::ingest::Ingest;
use crate::support::registry::Registry;

/// A catalog that was ingested, and a place for images that will not be.
struct Case {
    ingest: Ingest,
    directory: TempDir,
}

impl Case {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let good = directory.path().join("good");
        let files = CatalogBuilder::default().package("one", 3).package("two", 5).files();
        layer(Packing::Gzip, &files).write_layout(&good);
        let ingest = Ingest::new();
        ingest.run_layout(&good).await.unwrap();
        Case { ingest, directory }
    }

    /// Ingests an image that is refused, checks that nothing changed, and returns what was said.
    async fn refuse(&self, image: &Image) -> String {
        let bad = self.directory.path().join("bad");
        let _ = std::fs::remove_dir_all(&bad);
        image.write_layout(&bad);
        self.refuse_layout(&bad).await
    }

    async fn refuse_layout(&self, layout: &Path) -> String {
        self.refuse_source(&format!("oci:{}", layout.display())).await
    }

    async fn refuse_source(&self, source: &str) -> String {
        let before = self.ingest.stored().await;
        let said = self.ingest.run(source).await.expect_err("a broken image is refused").to_string();
        let after = self.ingest.stored().await;
        let versions = |stored: &[packageserver::store::Stored]| {
            stored.iter().map(|stored| (stored.key.clone(), stored.version)).collect::<Vec<_>>()
        };
        assert_eq!(versions(&before), versions(&after), "{said}");
        assert!(said.starts_with(&format!("`{source}`: ")), "the image is named: {said}");
        said
    }
}

fn layer(packing: Packing, files: &[(String, Vec<u8>)]) -> Image {
    let files: Vec<_> = files.iter().map(|(path, content)| (format!("configs/{path}"), content)).collect();
    let files: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
    ImageBuilder::default().layer(packing, &files).build()
}

/// A catalog whose last file is `content`, in `two/catalog.json` or another file of that folder.
fn with_file(name: &str, content: &[u8]) -> Image {
    layer(
        Packing::Gzip,
        &[("one/catalog.json".to_owned(), package("one", 3)), (format!("two/{name}"), content.to_vec())],
    )
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let registry = Registry::start().await;
    let case = Case::new().await;
    let reference = registry.reference("no/such-catalog", "v1");
    let said = case.refuse_source(&reference).await;
    assert!(said.contains(&format!("{reference} not found")), "{said}");
    let said = case.refuse_source("oci:/no/such/layout").await;
    assert!(said.contains("/no/such/layout"), "{said}");
}

#[tokio::test]
async fn a_layer_of_another_digest_is_refused() {
    let case = Case::new().await;
    let image = layer(Packing::Gzip, &CatalogBuilder::default().package("one", 9).files());
    let layout = case.directory.path().join("tampered");
    image.write_layout(&layout);
    // The last byte of the layer is part of a checksum of gzip: flip one inside the compressed data as well.
    let blob = layout
        .join("blobs/sha256")
        .join(packageserver::pipeline::fetch::Digest::sha256(&image.blobs()[1]).parts().1);
    let mut bytes = std::fs::read(&blob).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let said = case.refuse_layout(&layout).await;
    assert!(said.contains("layer has digest sha256:") && said.contains("instead of sha256:"), "{said}");
}

#[tokio::test]
async fn a_truncated_layer_is_refused() {
    let case = Case::new().await;
    let image = layer(Packing::Gzip, &CatalogBuilder::default().package("one", 9).files());
    let layout = case.directory.path().join("short");
    image.write_layout(&layout);
    let blob = layout
        .join("blobs/sha256")
        .join(packageserver::pipeline::fetch::Digest::sha256(&image.blobs()[1]).parts().1);
    let bytes = std::fs::read(&blob).unwrap();
    std::fs::write(&blob, &bytes[..bytes.len() - 100]).unwrap();
    let said = case.refuse_layout(&layout).await;
    assert!(said.contains(&format!("has {} bytes instead of {}", bytes.len() - 100, bytes.len())), "{said}");
}

#[tokio::test]
async fn broken_compression_is_refused() {
    let case = Case::new().await;
    let archive = tar(&[("configs/one/catalog.json", &package("one", 3))]);
    for packing in [Packing::Gzip, Packing::Zstd] {
        let whole = pack(packing, &archive);
        // The digest is right, so it is the publisher's doing.
        let cut = whole[..whole.len() - 20].to_vec();
        let said = case.refuse(&ImageBuilder::default().raw_layer(packing, cut).build()).await;
        assert!(said.contains("layer sha256:"), "{packing:?}: {said}");
        let mut flipped = whole.clone();
        let at = whole.len() - 10;
        flipped[at] ^= 0xff;
        let said = case.refuse(&ImageBuilder::default().raw_layer(packing, flipped).build()).await;
        assert!(said.contains("layer sha256:"), "{packing:?}: {said}");
    }
}

#[tokio::test]
async fn a_broken_archive_is_refused() {
    let case = Case::new().await;
    let mut archive = tar(&[
        ("configs/one/catalog.json", &package("one", 3)),
        ("configs/two/catalog.json", &package("two", 3)),
    ]);
    let said = case.refuse(&raw(&archive[..archive.len() / 2])).await;
    assert!(said.contains("layer sha256:"), "{said}");
    // A header whose checksum is wrong.
    archive[100] ^= 0xff;
    let said = case.refuse(&raw(&archive)).await;
    assert!(said.contains("layer sha256:"), "{said}");
}

#[tokio::test]
async fn json_cut_in_the_middle_is_named_with_file_and_offset() {
    let case = Case::new().await;
    let mut content = package("two", 5);
    let whole = content.len();
    content.truncate(whole - 10);
    let report = refused_package(&case, &with_file("catalog.json", &content)).await;
    assert!(report.contains("`two/catalog.json` at byte "), "{report}");
}

#[tokio::test]
async fn yaml_with_a_tab_is_named_with_file_and_offset() {
    let case = Case::new().await;
    let content = b"---\nschema: olm.package\nname: two\n\tdefaultChannel: stable\n";
    let report = refused_package(&case, &with_file("catalog.yaml", content)).await;
    assert!(report.contains("`two/catalog.yaml` at byte "), "{report}");
}

/// Ingests a catalog with one broken package: the package stays as it is stored, and is reported.
async fn refused_package(case: &Case, image: &Image) -> String {
    let before = case.ingest.stored().await;
    let layout = case.directory.path().join("partly-broken");
    image.write_layout(&layout);
    let report = case.ingest.run_layout(&layout).await.unwrap();
    assert_eq!(report.tally.added + report.tally.modified + report.tally.deleted, 0, "{report:?}");
    assert_eq!((report.packages, report.bundles), (2, 8));
    let served = |stored: Vec<packageserver::store::Stored>| {
        let is_served =
            |key: &packageserver::store::Key| matches!(key.resource(), "packages" | "bundlemetadata");
        stored
            .into_iter()
            .filter(|stored| is_served(&stored.key))
            .map(|stored| (stored.key, stored.version))
            .collect::<Vec<_>>()
    };
    assert_eq!(served(before), served(case.ingest.stored().await));
    let problems = report.invalid.get("two").expect("the package is named");
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_catalog_without_a_single_good_package_is_refused_with_the_first_fault() {
    let case = Case::new().await;
    let mut content = package("two", 5);
    content.truncate(content.len() - 10);
    let said = case.refuse(&layer(Packing::Gzip, &[("two/catalog.json".to_owned(), content)])).await;
    assert!(said.contains("package `two`: `two/catalog.json` at byte "), "{said}");
}

#[tokio::test]
async fn an_empty_catalog_root_is_refused() {
    let case = Case::new().await;
    let elsewhere =
        ImageBuilder::default().layer(Packing::Gzip, &[("etc/passwd", b"root".as_slice())]).build();
    let said = case.refuse(&elsewhere).await;
    assert!(said.contains("`/configs`"), "the root is named: {said}");
    let ignored = layer(
        Packing::Gzip,
        &[(".indexignore".to_owned(), b"*\n".to_vec()), ("one/catalog.json".to_owned(), package("one", 3))],
    );
    let said = case.refuse(&ignored).await;
    assert!(said.contains("no files in the catalog but ignored ones"), "{said}");
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let image = ImageBuilder::default().layer(Packing::None, files).build();
    image.blobs()[1].clone()
}

fn raw(archive: &[u8]) -> Image {
    ImageBuilder::default().raw_layer(Packing::Gzip, pack(Packing::Gzip, archive)).build()
}
