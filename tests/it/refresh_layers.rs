//! Layers that are met again: not fetched where nothing of them is missing, and never at the price of a wrong catalog.

use std::collections::BTreeMap;

use packageserver::pipeline::Report;
use packageserver::pipeline::fetch::Digest;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::support::catalog::{CatalogBuilder, Edit, package_metas, write_json};
use crate::support::image::{Image, ImageBuilder, Packing};
use crate::support::ingest::Ingest;
use crate::support::registry::Registry;
use crate::support::rounds;

/// Returns which blobs of an image were fetched since `before` requests, by the position of their layers.
fn fetched(registry: &Registry, image: &Image, before: usize) -> Vec<usize> {
    let requests = registry.requests();
    let of = |blob: &Vec<u8>| format!("GET /v2/catalog/blobs/{} 200", Digest::sha256(blob));
    // The first blob is the configuration.
    let layers = image.blobs().iter().skip(1).enumerate();
    layers.filter(|(_, blob)| requests[before..].contains(&of(blob))).map(|(layer, _)| layer).collect()
}

/// Pushes an image under the one tag there is, ingests it, and returns which layers were fetched for that.
async fn push(registry: &Registry, ingest: &Ingest, image: &Image) -> (Report, Vec<usize>) {
    registry.push("catalog", "v1", image).await;
    let before = registry.requests().len();
    let report = ingest.run(&registry.reference("catalog", "v1")).await.unwrap();
    (report, fetched(registry, image, before))
}

fn base() -> ImageBuilder {
    ImageBuilder::default().layer(Packing::Gzip, &[("bin/opm", b"a program".as_slice())])
}

#[tokio::test]
async fn a_layer_without_anything_of_the_catalog_is_fetched_once() {
    let (registry, ingest) = (Registry::start().await, Ingest::new());
    let catalog = CatalogBuilder::default().package("one", 3);
    let image = |catalog: &CatalogBuilder| base().files(Packing::Gzip, &catalog.files()).build();
    let (_, layers) = push(&registry, &ingest, &image(&catalog)).await;
    assert_eq!(layers, [0, 1]);
    let (report, layers) = push(&registry, &ingest, &image(&catalog.package("two", 2))).await;
    assert_eq!(layers, [1]);
    assert_eq!((report.packages, report.tally.added, report.tally.unchanged), (2, 3, 4));
}

#[tokio::test]
async fn of_a_catalog_in_several_layers_only_those_that_are_new_are_fetched() {
    let (registry, ingest) = (Registry::start().await, Ingest::new());
    let lower = CatalogBuilder::default().package("one", 3).package("two", 2).files();
    let image = |edit: Edit| {
        let upper = CatalogBuilder::default().package("three", 4).edit("three", edit).files();
        base().files(Packing::Gzip, &lower).files(Packing::Zstd, &upper).build()
    };
    let (report, layers) = push(&registry, &ingest, &image(Edit::Icon)).await;
    assert_eq!((layers.len(), report.bundles), (3, 9));
    let edited = image(Edit::LastImage);
    let (report, layers) = push(&registry, &ingest, &edited).await;
    assert_eq!(layers, [2]);
    // The bundle, and the package whose icon is the old one again.
    assert_eq!((report.tally.modified, report.tally.unchanged, report.bundles), (2, 10, 9));
    assert_eq!(report.bytes_read, edited.blobs()[3].len() as u64);
    // A layer that is gone takes its packages along, and nothing is fetched for that.
    let (report, layers) = push(&registry, &ingest, &base().files(Packing::Gzip, &lower).build()).await;
    assert_eq!((layers.len(), report.packages, report.tally.deleted), (0, 2, 5));
}

#[tokio::test]
async fn what_an_upper_layer_hid_is_fetched_when_it_comes_to_light() {
    let (registry, ingest) = (Registry::start().await, Ingest::new());
    let lower = CatalogBuilder::default().package("one", 3).package("two", 2).files();
    let hiding = base().files(Packing::Gzip, &lower);
    let hiding = hiding.layer(Packing::Gzip, &[("configs/.wh.two", b"".as_slice())]).build();
    let (report, _) = push(&registry, &ingest, &hiding).await;
    assert_eq!(report.packages, 1);
    let (report, layers) = push(&registry, &ingest, &base().files(Packing::Gzip, &lower).build()).await;
    assert_eq!((report.packages, report.tally.added), (2, 3));
    assert_eq!(layers, [1]);
    // Hidden again, nothing is needed but the layer that hides.
    let (report, layers) = push(&registry, &ingest, &hiding).await;
    assert_eq!((report.packages, report.tally.deleted), (1, 3));
    assert_eq!(layers, [2]);
}

#[tokio::test]
async fn a_package_in_several_files_is_read_whole_when_one_of_them_changes() {
    let (registry, ingest) = (Registry::start().await, Ingest::new());
    let metas = package_metas("split", 4);
    let part = |name: &str, metas: &[Value]| (format!("split/{name}.json"), write_json(metas));
    let lower = [part("channels", &metas[..2]), part("bundles", &metas[2..])];
    let image =
        |upper: &[(String, Vec<u8>)]| base().files(Packing::Gzip, &lower).files(Packing::Gzip, upper).build();
    let other = CatalogBuilder::default().package("other", 1).files();
    push(&registry, &ingest, &image(&other)).await;

    let mut bundles = metas[2..].to_vec();
    bundles[1]["image"] = "quay.io/example/split:edited".into();
    let (report, layers) = push(&registry, &ingest, &image(&[part("bundles", &bundles)])).await;
    assert_eq!(layers, [1, 2], "the file that did not change is in the lower layer");
    assert_eq!((report.tally.modified, report.tally.deleted, report.packages), (1, 2, 1));

    // One file more, and the known ones turn out to be needed when they have gone by.
    let deprecation = serde_json::json!({
        "schema": "olm.deprecations", "package": "split",
        "entries": [{"reference": {"schema": "olm.bundle", "name": "split.v1.0.0"}, "message": "old"}],
    });
    let (report, _) = push(&registry, &ingest, &image(&[part("deprecations", &[deprecation])])).await;
    assert_eq!((report.packages, report.tally.modified), (1, 2));
    assert!(report.invalid.is_empty(), "{report:?}");
}

/// What a layer can do to a catalog of three packages, one of them in two files.
#[derive(Clone, Debug)]
enum Deed {
    /// Puts a file there, in one of several versions.
    Put(&'static str, u8),
    Whiteout(&'static str),
    Opaque(&'static str),
}

const FILES: [&str; 4] = ["a/catalog.json", "b/catalog.json", "c/channels.json", "c/bundles.json"];

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => (0..FILES.len(), 0..3_u8).prop_map(|(file, version)| Deed::Put(FILES[file], version)),
        1 => (0..FILES.len()).prop_map(|file| Deed::Whiteout(FILES[file])),
        1 => Just(Deed::Whiteout("c")),
        1 => prop_oneof![Just("a"), Just("c"), Just("")].prop_map(Deed::Opaque),
    ]
}

fn layer(deeds: &[Deed]) -> Vec<(String, Vec<u8>)> {
    let entry = |deed: &Deed| match deed {
        Deed::Put(path, version) => (format!("configs/{path}"), file(path, *version)),
        Deed::Whiteout(path) => {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            (format!("configs/{directory}/.wh.{name}"), Vec::new())
        }
        Deed::Opaque(path) => (format!("configs/{path}/.wh..wh..opq"), Vec::new()),
    };
    deeds.iter().map(entry).collect()
}

/// Version 0 and 1 of a file differ in content, 2 is broken.
fn file(path: &str, version: u8) -> Vec<u8> {
    let name = &path[..1];
    let mut metas = package_metas(name, 2);
    if version > 0 {
        metas[3]["image"] = "quay.io/example/edited".into();
        metas[0]["description"] = "edited".into();
    }
    let metas = match path {
        "c/channels.json" => &metas[..2],
        "c/bundles.json" => &metas[2..],
        _ => &metas[..],
    };
    let mut text = write_json(metas);
    if version == 2 {
        text.truncate(text.len() - 5);
    }
    text
}

/// Returns what is served of some packages.
fn of_packages(content: &BTreeMap<String, Value>, names: &[String]) -> BTreeMap<String, Value> {
    let package = |key: &str, object: &Value| match object["spec"]["package"].as_str() {
        Some(package) => package.to_owned(),
        None => key.rsplit('/').next().unwrap_or_default().to_owned(),
    };
    let is_of = |(key, object): &(&String, &Value)| names.contains(&package(key, object));
    content.iter().filter(is_of).map(|(key, object)| (key.clone(), object.clone())).collect()
}

/// Ingests one image after the other, and compares each time with what an ingest without any past gives.
async fn ingest_all(images: &[Image]) {
    let directory = tempfile::tempdir().unwrap();
    let ingest = Ingest::new();
    for (number, image) in images.iter().enumerate() {
        let layout = directory.path().join(number.to_string());
        image.write_layout(&layout);
        let source = format!("oci:{}", layout.display());
        let before = ingest.content().await;
        let fresh = Ingest::new();
        let (found, expected) = (ingest.refresh(&source).await, fresh.run(&source).await);
        let (found, expected) = match (found, expected) {
            // The same image as before.
            (Ok(None), _) => continue,
            (Ok(Some(found)), Ok(expected)) => (found, expected),
            (found, expected) => {
                assert_eq!(found.is_err(), expected.is_err(), "image {number}: {found:?}, {expected:?}");
                assert_eq!(ingest.content().await, before, "image {number}");
                continue;
            }
        };
        let invalid = |report: &Report| report.invalid.keys().cloned().collect::<Vec<_>>();
        assert_eq!(invalid(&found), invalid(&expected), "image {number}");
        let mut content = fresh.content().await;
        content.extend(of_packages(&before, &invalid(&expected)));
        assert_eq!(ingest.content().await, content, "image {number}");
        let count = |resource: &str| content.keys().filter(|key| key.starts_with(resource)).count() as u64;
        assert_eq!((found.packages, found.bundles), (count("packages/"), count("bundlemetadata/")));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(60, 500), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_layers_come_again_the_catalog_is_that_of_an_ingest_without_a_past(
        pool in prop::collection::vec(prop::collection::vec(deed(), 0..5), 2..5),
        images in prop::collection::vec(prop::collection::vec(any::<Index>(), 1..4), 2..6),
    ) {
        let pool: Vec<_> = pool.iter().map(|deeds| layer(deeds)).collect();
        let image = |layers: &Vec<Index>| {
            let build = |image: ImageBuilder, layer: &Index| {
                let files = layer.get(&pool).iter();
                let files: Vec<_> = files.map(|(path, content)| (path.as_str(), content.as_slice())).collect();
                image.layer(Packing::Gzip, &files)
            };
            layers.iter().fold(ImageBuilder::default(), build).build()
        };
        let images: Vec<_> = images.iter().map(image).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ingest_all(&images));
    }
}
