//! Every limit on what an ingest reads, one below what there is, at it, and one above.

use std::io::Write;

use packageserver::pipeline::limits::Limits;

use crate::support::archive::Archive;
use crate::support::catalog::package;
use crate::support::hostile::Victim;
use crate::support::image::{Image, ImageBuilder, Packing, pack};

/// An image of three layers that has a little of everything. Its largest layer is the last. What is
/// stored is another catalog, so that none of it is known.
fn image() -> Image {
    let catalog = Archive::default()
        .file("configs/.indexignore", b"*.md\n")
        .file("configs/one/catalog.json", &package("one", 4))
        .file("configs/one/README.md", b"text")
        .zeros(2);
    let other = Archive::default().file("etc/motd", b"hello").zeros(2);
    ImageBuilder::default()
        .raw_layer(Packing::None, other.0.clone())
        .raw_layer(Packing::None, other.0)
        .raw_layer(Packing::None, catalog.0)
        .build()
}

/// An image of one layer that unpacks to this many bytes.
fn large(unpacked: usize) -> (Image, u64) {
    let mut archive = Archive::default().file("configs/one/catalog.json", &package("one", 3));
    archive.0.resize(unpacked, 0);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&archive.0).unwrap();
    let packed = encoder.finish().unwrap();
    let ratio = (unpacked as u64).div_ceil(packed.len() as u64);
    (ImageBuilder::default().raw_layer(Packing::Gzip, packed).build(), ratio)
}

type Set = fn(&mut Limits, u64);

async fn ingest(image: &Image, set: Set, limit: u64) -> Result<(), String> {
    let mut limits = Limits::default();
    set(&mut limits, limit);
    let victim = Victim::with_limits(limits).await;
    let report = victim.try_image(image).await?;
    match report.invalid.values().flatten().next() {
        Some(problem) => Err(problem.to_string()),
        None => Ok(()),
    }
}

/// Returns the least limit that something fits into.
async fn least(image: &Image, set: Set) -> u64 {
    let (mut too_small, mut enough) = (0, 1 << 20);
    while enough - too_small > 1 {
        let middle = u64::midpoint(too_small, enough);
        match ingest(image, set, middle).await {
            Ok(()) => enough = middle,
            Err(_) => too_small = middle,
        }
    }
    enough
}

#[tokio::test]
async fn each_limit_holds_to_the_one() {
    let image = image();
    let catalog_layer = image.blobs()[3].len() as u64;
    let all_layers: usize = image.blobs()[1..].iter().map(Vec::len).sum();
    let file = package("one", 4);
    let longest_meta = serde_json::Deserializer::from_slice(&file)
        .into_iter::<Box<serde_json::value::RawValue>>()
        .map(|meta| meta.unwrap().get().len())
        .max()
        .unwrap() as u64;
    let manifest = image.manifest().len().max(image.blobs()[0].len()) as u64;
    let paths = ["configs/.indexignore", "configs/one/catalog.json", "configs/one/README.md"];
    let all_paths: usize = paths.iter().map(|path| path.len()).sum();
    let cases: [(&str, Set, Option<u64>); 16] = [
        ("bytes in a", |limits, n| limits.manifest_bytes = n, Some(manifest)),
        ("layers in an image", |limits, n| limits.layers = n as usize, Some(3)),
        ("bytes in a layer", |limits, n| limits.layer_bytes = n, Some(catalog_layer)),
        ("unpacked bytes", |limits, n| limits.unpacked_bytes = n, Some(all_layers as u64)),
        ("entries in archives", |limits, n| limits.archive_entries = n, Some(5)),
        ("in a catalog", |limits, n| limits.files = n as usize, Some(3)),
        ("bytes in a path", |limits, n| limits.path_bytes = n as usize, Some(paths[1].len() as u64)),
        ("bytes in the paths", |limits, n| limits.paths_bytes = n, Some(all_paths as u64)),
        ("bytes in a file", |limits, n| limits.file_bytes = n, Some(file.len() as u64)),
        ("bytes", |limits, n| limits.meta_bytes = n as usize, Some(longest_meta)),
        ("bytes in .indexignore files", |limits, n| limits.ignore_bytes = n, Some(5)),
        ("bytes of names, channels", |limits, n| limits.outline_bytes = n, None),
        ("packages", |limits, n| limits.packages = n as usize, Some(1)),
        // Four bundles, a channel, four entries.
        ("bundles, channels and entries", |limits, n| limits.package_objects = n as usize, Some(9)),
        ("bytes in the spool", |limits, n| limits.spool_bytes = n, None),
        ("bytes in the spool", |limits, n| (limits.spool_bytes, limits.spool_memory_bytes) = (n, 0), None),
    ];
    for (what, set, count) in cases {
        let count = match count {
            Some(count) => count,
            None => least(&image, set).await,
        };
        for limit in [count, count + 1] {
            let ingested = ingest(&image, set, limit).await;
            assert_eq!(ingested, Ok(()), "{what}: {limit} is enough for {count}");
        }
        let said = ingest(&image, set, count - 1).await.expect_err(what);
        let expected = format!("more than {} ", count - 1);
        assert!(said.contains(&expected) && said.contains(what), "{said} instead of {expected}{what}");
    }
}

#[tokio::test]
async fn compression_is_bounded_by_its_ratio_beyond_the_first_mebibytes() {
    let set: Set = |limits, n| limits.compression_ratio = n;
    let (image, ratio) = large((16 << 20) + 1024);
    assert_eq!(ingest(&image, set, ratio).await, Ok(()));
    assert_eq!(ingest(&image, set, ratio + 1).await, Ok(()));
    let said = ingest(&image, set, ratio - 1).await.unwrap_err();
    assert!(said.contains(&format!("more than {} times as many unpacked bytes", ratio - 1)), "{said}");
    // 16 MiB are free.
    for (unpacked, fits) in [((16 << 20) - 1, true), (16 << 20, true), ((16 << 20) + 1, false)] {
        let (image, _) = large(unpacked);
        assert_eq!(ingest(&image, set, 1).await.is_ok(), fits, "{unpacked}");
    }
}

#[tokio::test]
async fn compressed_layers_count_as_they_are_transferred() {
    let layer =
        pack(Packing::Gzip, &Archive::default().file("configs/one/x.json", &package("one", 9)).zeros(2).0);
    let size = layer.len() as u64;
    let image = ImageBuilder::default().raw_layer(Packing::Gzip, layer).build();
    let set: Set = |limits, n| limits.layer_bytes = n;
    assert_eq!(ingest(&image, set, size).await, Ok(()));
    assert!(ingest(&image, set, size - 1).await.is_err());
}
