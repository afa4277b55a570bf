//! Layers that were made to do harm: each is refused with a sentence, or means what it means to everybody else.

use std::io::Write;

use packageserver::pipeline::limits::Limits;
use tar::EntryType;

use crate::support::archive::{Archive, header};
use crate::support::catalog::{CatalogBuilder, package};
use crate::support::hostile::{Victim, refused_in_little_memory};
use crate::support::image::{Image, ImageBuilder, Packing, pack};

const CATALOG: &str = "configs/one/catalog.json";

/// An archive with a good catalog, to which something is added.
fn good() -> Archive {
    Archive::default().file(CATALOG, &package("one", 4))
}

#[tokio::test]
async fn paths_that_climb_are_refused_wherever_they_lead() {
    let victim = Victim::new().await;
    for path in [
        "../etc/passwd",
        "configs/../../etc/passwd",
        "configs/one/../../../x",
        "/../x",
        "./configs/..",
        "configs/one/../catalog.json",
        "../.wh.configs",
        "configs/../.wh..wh..opq",
    ] {
        let said = victim.refuses(&good().file(path, b"{}").image()).await;
        assert!(said.contains(&format!("`{path}`: the path climbs out of the archive")), "{said}");
        // The same, said in the two other ways that archives have to say it.
        let pax = good().pax(&[("path", path)]).file("configs/harmless", b"{}").image();
        assert!(victim.refuses(&pax).await.contains("climbs out"), "{path}");
        let name = format!("{path}\0");
        let gnu = good().member(EntryType::GNULongName, "././@LongLink", name.len() as u64, name.as_bytes());
        let gnu = gnu.file("configs/harmless", b"{}").image();
        assert!(victim.refuses(&gnu).await.contains("climbs out"), "{path}");
    }
}

#[tokio::test]
async fn absolute_paths_mean_paths_of_the_image() {
    let victim = Victim::new().await;
    let image = Archive::default().file("/configs//one/./catalog.json", &package("one", 5)).image();
    let report = victim.try_image(&image).await.unwrap();
    assert_eq!((report.packages, report.bundles), (1, 5));
}

#[tokio::test]
async fn what_is_no_plain_file_cannot_be_part_of_a_catalog() {
    let victim = Victim::new().await;
    for (kind, target) in [
        (EntryType::Symlink, "/etc/passwd"),
        (EntryType::Symlink, "one/catalog.json"),
        (EntryType::Link, "../../etc/shadow"),
        (EntryType::Char, ""),
        (EntryType::Block, ""),
        (EntryType::Fifo, ""),
        (EntryType::GNUSparse, ""),
        (EntryType::new(b'V'), ""),
    ] {
        let said = victim.refuses(&good().link(kind, "configs/two", target).image()).await;
        assert!(said.contains("`configs/two`: only plain files and directories"), "{kind:?}: {said}");
        // Elsewhere they are nobody's business.
        let report = victim.try_image(&good().link(kind, "dev/thing", target).image()).await;
        let report = report.unwrap_or_else(|said| panic!("{kind:?}: {said}"));
        assert_eq!(report.bundles, 4);
        victim.try_image(&Archive::default().file(CATALOG, &package("one", 3)).image()).await.unwrap();
    }
    // The root itself as a link out.
    let linked = Archive::default().link(EntryType::Symlink, "configs", "/etc").image();
    assert!(victim.refuses(&linked).await.contains("the catalog root is not a directory"));
}

#[tokio::test]
async fn a_sparse_file_is_passed_by_with_its_map_and_never_expanded() {
    let victim = Victim::new().await;
    // A terabyte of nothing, whose map goes on for three blocks, and 512 bytes.
    let sparse = |path: &str| {
        let mut first = header(EntryType::GNUSparse, path.as_bytes(), "", 512);
        first.as_gnu_mut().unwrap().set_real_size(1 << 40);
        first.as_gnu_mut().unwrap().set_is_extended(true);
        let mut more = [0_u8; 512];
        more[504] = 1;
        Archive::default().header(&first).content(&more).content(&more).content(&[0; 512]).content(&[7; 512])
    };
    let mut image = sparse("var/log/lastlog");
    image.0.extend_from_slice(&good().0);
    assert_eq!(victim.try_image(&image.image()).await.unwrap().bundles, 4);
    let mut image = sparse("configs/two/catalog.json");
    image.0.extend_from_slice(&good().0);
    assert!(victim.refuses(&image.image()).await.contains("only plain files"));
    // The way PAX has for it.
    let pax = good()
        .pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "1099511627776")])
        .file("configs/two/catalog.json", b"1\n0\n512\n")
        .image();
    assert!(victim.refuses(&pax).await.contains("only plain files"));
}

#[tokio::test]
async fn a_claim_of_a_terabyte_is_believed_as_far_as_there_are_bytes() {
    let victim = Victim::new().await;
    let claim = |size| Archive::default().member(EntryType::Regular, CATALOG, size, &package("one", 4));
    let said = victim.refuses(&claim(1 << 40).image()).await;
    assert!(said.contains("more than 1073741824 bytes in a file"), "{said}");
    let said = victim.refuses(&claim(1 << 29).image()).await;
    assert!(said.contains("cut off"), "{said}");
    // Outside of the catalog it is not looked at, and still has to be there.
    let outside = Archive::default().member(EntryType::Regular, "x", 1 << 40, b"").image();
    assert!(victim.refuses(&outside).await.contains("cut off"));
    for size in [i64::MAX as u64, u64::MAX] {
        let said = victim.refuses(&claim(size).image()).await;
        assert!(said.contains("larger than any archive"), "{said}");
    }
    let pax = Archive::default().pax(&[("size", "18446744073709551615")]).file(CATALOG, b"{}").image();
    assert!(victim.refuses(&pax).await.contains("larger than any archive"));
}

#[tokio::test]
async fn sizes_of_what_has_no_content_hide_nothing() {
    let victim = Victim::new().await;
    // Who believes the size of a link passes by the file behind it.
    let mut link = header(EntryType::Symlink, b"x", "y", 0);
    link.set_size(1 << 20);
    let image = Archive::default().header(&link).file(CATALOG, &package("one", 5)).image();
    assert_eq!(victim.try_image(&image).await.unwrap().bundles, 5);
    // A size in an extended header holds, as it does for everybody.
    let content = package("one", 6);
    let size = content.len().to_string();
    let mut small = header(EntryType::Regular, CATALOG.as_bytes(), "", 0);
    small.set_size(0);
    let image = Archive::default().pax(&[("size", &size)]).header(&small).content(&content).image();
    assert_eq!(victim.try_image(&image).await.unwrap().bundles, 6);
}

#[tokio::test]
async fn headers_that_make_no_sense_are_refused() {
    let victim = Victim::new().await;
    let named = |path: &str| {
        let name = format!("{path}\0");
        Archive::default().member(EntryType::GNULongName, "L", name.len() as u64, name.as_bytes())
    };
    let twice = |first: Archive, second: Archive| {
        let mut archive = first;
        archive.0.extend_from_slice(&second.0);
        archive.file(CATALOG, &package("one", 4)).image()
    };
    let pax = |path: &str| Archive::default().pax(&[("path", path)]);
    for image in [
        twice(named("a"), named("b")),
        twice(pax("a"), pax("b")),
        twice(pax("a"), named("b")),
        Archive::default().pax(&[("path", "a"), ("path", "b")]).file("c", b"").image(),
    ] {
        assert!(victim.refuses(&image).await.contains("two names or sizes for one member"));
    }
    for text in ["x path=a\n", "99 path=a\n", "9 path=a", "1 \n", "-7 path=a\n", "7 path\n"] {
        let image = good().member(EntryType::XHeader, "pax", text.len() as u64, text.as_bytes());
        let said = victim.refuses(&image.file("b", b"").image()).await;
        assert!(said.contains("an extended header makes no sense"), "{text}: {said}");
    }
    let nan = good().pax(&[("size", "much")]).file("b", b"").image();
    assert!(victim.refuses(&nan).await.contains("a size that is no number"));
    assert!(victim.refuses(&good().pax(&[("path", "b")]).image()).await.contains("ends behind the name"));
    let mut flipped = good();
    flipped.0[3] ^= 1;
    assert!(victim.refuses(&flipped.image()).await.contains("the checksum of a header is wrong"));
    let noise =
        Archive((0..5000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    victim.refuses(&noise.image()).await;
}

#[tokio::test]
async fn an_extended_header_keeps_line_feeds_in_its_values() {
    let victim = Victim::new().await;
    let comment = "x\n25 path=configs/../evil\n";
    let image = Archive::default().pax(&[("comment", comment)]).file(CATALOG, &package("one", 5)).image();
    assert_eq!(victim.try_image(&image).await.unwrap().bundles, 5);
}

#[tokio::test]
async fn names_that_are_not_utf_8_or_end_early_are_what_their_bytes_say() {
    let victim = Victim::new().await;
    let raw = |path: &[u8]| good().header(&header(EntryType::Regular, path, "", 0));
    let said = victim.refuses(&raw(b"configs/\xff\xfe").image()).await;
    assert!(said.contains("the path is not UTF-8"), "{said}");
    assert_eq!(victim.try_image(&raw(b"etc/\xff\xfe").image()).await.unwrap().bundles, 4);
    // A NUL ends a name in a header; nothing behind it counts.
    let image = Archive::default()
        .header(&header(EntryType::Regular, b"etc/x\0/../../configs", "", 0))
        .file(CATALOG, &package("one", 6))
        .image();
    assert_eq!(victim.try_image(&image).await.unwrap().bundles, 6);
}

#[tokio::test]
async fn members_behind_the_end_do_not_exist() {
    let victim = Victim::new().await;
    let hidden = good().zeros(2).file("configs/two/catalog.json", &package("two", 2)).zeros(2);
    let report = victim.try_image(&hidden.image_as_is()).await.unwrap();
    assert_eq!((report.packages, report.bundles), (1, 4));
    // One block of zeros is the end to some and nothing to others.
    let ambiguous = good().zeros(1).file("configs/two/catalog.json", &package("two", 2)).zeros(2);
    let said = victim.refuses(&ambiguous.image_as_is()).await;
    assert!(said.contains("a block of zeros in the middle of the archive"), "{said}");
    // What follows the compressed archive is part of it, and has to be sound.
    let mut packed = pack(Packing::Gzip, &good().zeros(2).0);
    packed.extend_from_slice(b"trailing");
    let image = ImageBuilder::default().raw_layer(Packing::Gzip, packed).build();
    assert!(victim.refuses(&image).await.contains("is broken"));
}

#[tokio::test]
async fn whiteouts_reach_no_further_than_they_may() {
    let victim = Victim::new().await;
    let layered = |upper: Archive| {
        let lower = CatalogBuilder::default().package("one", 5).package("two", 2).files();
        ImageBuilder::default()
            .files(Packing::Gzip, &lower)
            .raw_layer(Packing::None, upper.zeros(2).0)
            .build()
    };
    let packages =
        async |upper: Archive| victim.try_image(&layered(upper)).await.map(|report| report.packages);
    let extra = || Archive::default().file("configs/three/catalog.json", &package("three", 1));
    // A whiteout that says nothing, climbs, or is of what is not there.
    for path in ["configs/.wh.", "configs/.wh..", "configs/.wh..."] {
        assert!(packages(extra().file(path, b"")).await.unwrap_err().contains("a whiteout without a name"));
    }
    assert_eq!(packages(extra().file("configs/.wh.nothing", b"")).await, Ok(3));
    assert_eq!(packages(extra().file("etc/.wh.configs", b"").file("a", b"1")).await, Ok(3));
    // A directory, or a link, of that name is a whiteout too, as it is for the runtimes that apply layers.
    assert_eq!(packages(extra().link(EntryType::Directory, "configs/.wh.two", "")).await, Ok(2));
    assert_eq!(
        packages(extra().link(EntryType::Symlink, "configs/.wh.two", "one").file("b", b"")).await,
        Ok(2)
    );
    // What hides everything below hides nothing of its own layer, whatever the order.
    let opaque =
        extra().file("configs/.wh..wh..opq", b"").file("configs/four/catalog.json", &package("four", 1));
    assert_eq!(packages(opaque).await, Ok(2));
    // Whiteouts of whiteouts, and names that only look like one.
    assert_eq!(packages(extra().file("configs/.wh..wh.plnk", b"").file("c", b"")).await, Ok(3));
    // A file in place of the directory hides what was in it, and is no catalog.
    assert!(packages(Archive::default().file("configs/one", b"")).await.is_ok());
    let everything = packages(Archive::default().file(".wh.configs", b"")).await.unwrap_err();
    assert!(everything.contains("no files under the catalog root"), "{everything}");
}

#[tokio::test]
async fn a_directory_does_not_bring_back_what_a_file_below_it_had_replaced() {
    let victim = Victim::new().await;
    let layers = [
        Archive::default().file("configs/two/old.json", &package("two", 2)).file(CATALOG, &package("one", 4)),
        Archive::default().file("configs/two", b""),
        Archive::default()
            .link(EntryType::Directory, "configs/two", "")
            .file("configs/two/new.json", &package("three", 1)),
    ];
    let image = layers
        .into_iter()
        .fold(ImageBuilder::default(), |image, layer| image.raw_layer(Packing::None, layer.zeros(2).0));
    let report = victim.try_image(&image.build()).await.unwrap();
    assert_eq!((report.packages, report.bundles), (2, 5));
}

/// Packs something that repeats without ever holding it.
fn bomb(packing: Packing, start: &[u8], chunk: &[u8], times: usize) -> Image {
    let packed = match packing {
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(start).unwrap();
            (0..times).for_each(|_| encoder.write_all(chunk).unwrap());
            encoder.finish().unwrap()
        }
        _ => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
            encoder.write_all(start).unwrap();
            (0..times).for_each(|_| encoder.write_all(chunk).unwrap());
            encoder.finish().unwrap()
        }
    };
    ImageBuilder::default().raw_layer(packing, packed).build()
}

#[tokio::test]
async fn bombs_are_refused_long_before_they_are_unpacked() {
    let victim = Victim::new().await;
    let zeros = vec![0; 1 << 20];
    let kinds =
        [EntryType::Regular, EntryType::GNULongName, EntryType::GNULongLink, EntryType::XGlobalHeader];
    for packing in [Packing::Gzip, Packing::Zstd] {
        for kind in kinds {
            for path in [CATALOG, "elsewhere"] {
                let start = Archive::default().member(kind, path, 100 << 20, b"").0;
                let image = bomb(packing, &start, &zeros, 100);
                let said = victim.refuses(&image).await;
                let is_named = said.contains("more than 500 times as many unpacked bytes as packed ones")
                    || said.contains("more than 4096 bytes in a path");
                assert!(is_named, "{packing:?} {kind:?}: {said}");
            }
        }
        // Zeros behind the end of the archive.
        let said = victim.refuses(&bomb(packing, &good().zeros(2).0, &zeros, 100)).await;
        assert!(said.contains("unpacked bytes"), "{said}");
    }
    // A bomb that only claims to be 100 layers deep is one file of the catalog, which makes no sense.
    let inner = pack(Packing::Gzip, &zeros);
    let nested = (0..5).fold(inner, |inner, _| pack(Packing::Gzip, &inner));
    let said = victim.refuses_package(&good().file("configs/two/x.gz", &nested).image(), "two").await;
    assert!(said.contains("`two/x.gz`"), "{said}");
}

#[tokio::test]
async fn what_archives_say_about_their_members_fits_into_little_memory() {
    let zeros = vec![b'x'; 1 << 20];
    // All of them are allowed to unpack to much, so that nothing else stops them.
    let arguments = ["--max-compression-ratio", "1000000"];
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let start = Archive::default().member(kind, "x", 2 << 30, b"").0;
        let said = refused_in_little_memory(&bomb(Packing::Zstd, &start, &zeros, 2 << 10), &arguments).await;
        let is_named = said.contains("bytes in a path") || said.contains("bytes in an extended header");
        assert!(is_named, "{kind:?}: {said}");
    }
    // The map of a sparse file that never ends.
    let mut first = header(EntryType::GNUSparse, b"x", "", 512);
    first.as_gnu_mut().unwrap().set_is_extended(true);
    let map = vec![1; 1 << 20];
    let said = refused_in_little_memory(
        &bomb(Packing::Zstd, &Archive::default().header(&first).0, &map, 1500),
        &arguments,
    )
    .await;
    assert!(said.contains("cut off"), "{said}");
    // Long paths by the ten thousand.
    let mut paths = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let middle = "d".repeat(4000);
    for number in 0..20_000 {
        let path = format!("configs/{middle}/{number}");
        paths.write_all(&Archive::default().pax(&[("path", &path)]).file("x", b"").0).unwrap();
    }
    let image = ImageBuilder::default().raw_layer(Packing::Zstd, paths.finish().unwrap()).build();
    let said = refused_in_little_memory(&image, &arguments).await;
    assert!(said.contains("bytes in the paths of a catalog"), "{said}");
}

#[tokio::test]
async fn a_zstd_frame_gets_no_more_memory_than_tools_ask_for() {
    let victim = Victim::new().await;
    let archive = good().zeros(2).0;
    for (window, fits) in [(24, true), (25, true), (26, false)] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&archive).unwrap();
        let image = ImageBuilder::default().raw_layer(Packing::Zstd, encoder.finish().unwrap()).build();
        let ingested = victim.try_image(&image).await;
        assert_eq!(ingested.is_ok(), fits, "{window}: {ingested:?}");
    }
}

#[tokio::test]
async fn layers_without_end_end() {
    let victim = Victim::with_limits(Limits { layers: 5, ..Limits::default() }).await;
    let layer = pack(Packing::Gzip, &good().zeros(2).0);
    let image =
        (0..6).fold(ImageBuilder::default(), |image, _| image.raw_layer(Packing::Gzip, layer.clone()));
    assert!(victim.refuses(&image.build()).await.contains("more than 5 layers in an image"));
}
