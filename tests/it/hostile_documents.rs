//! Catalogs that were made to do harm: one package is refused, and the rest goes on; or the catalog is, in bounded memory.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tar::EntryType;

use crate::support::archive::Archive;
use crate::support::catalog::{self, package, package_metas, write_json};
use crate::support::hostile::{Victim, refused_in_little_memory};
use crate::support::image::{Image, ImageBuilder, Packing};
use crate::support::ingest::is_served;

/// A catalog with a good package and a file of another.
fn with(file: &str, content: &[u8]) -> Image {
    catalog::image(&[
        ("one/catalog.json".to_owned(), package("one", 4)),
        (format!("two/{file}"), content.to_vec()),
    ])
}

/// A package whose only bundle has a property of this value, as it stands.
fn with_property(value: &str) -> Image {
    let mut metas = package_metas("two", 1);
    metas[2]["properties"][2] = json!({"type": "acme.note", "value": "PLACE"});
    let text = String::from_utf8(write_json(&metas)).unwrap();
    with("catalog.json", text.replace("\"PLACE\"", value).as_bytes())
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[tokio::test]
async fn what_no_client_could_read_is_not_served() {
    let victim = Victim::new().await;
    for (value, expected) in [
        (nested(101), "arrays and objects within each other"),
        (nested(1_000_000), "arrays and objects within each other"),
        ("{\"a\":".repeat(200_000) + "1" + &"}".repeat(200_000), "arrays and objects within each other"),
        ("1e999".to_owned(), "a number that is too large"),
        (format!("[-{}]", "9".repeat(400)), "a number that is too large"),
        (r#""\ud800""#.to_owned(), "half of a surrogate pair"),
        (r#"{"\udfff": 1}"#.to_owned(), "half of a surrogate pair"),
    ] {
        let said = victim.refuses_package(&with_property(&value), "two").await;
        assert!(said.contains("`two/catalog.json` at byte ") && said.contains(expected), "{said}");
    }
    // The same in manifests, of which the ClusterServiceVersion is kept.
    for (description, expected) in [
        (nested(101), "arrays and objects within each other"),
        ("1e999".to_owned(), "a number that is too large"),
        (r#""\udead""#.to_owned(), "half of a surrogate pair"),
    ] {
        let csv = format!(r#"{{"kind":"ClusterServiceVersion","spec":{{"description":{description}}}}}"#);
        let mut metas = package_metas("two", 1);
        metas[2]["properties"][2] =
            json!({"type": "olm.bundle.object", "value": {"data": STANDARD.encode(csv)}});
        let said = victim.refuses_package(&with("catalog.json", &write_json(&metas)), "two").await;
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn what_every_client_can_read_is_served_as_it_stands() {
    let victim = Victim::new().await;
    for value in [
        nested(100),
        "[18446744073709551616, -9223372036854775809, 1e308, 0.1e-400, -0]".to_owned(),
        r#""\ud83d\ude00 \u0000 \u001b[31m \\ud800""#.to_owned(),
        r#"{"a": 1, "a": 2}"#.to_owned(),
        "\"\u{feff}\u{202e}../../etc/passwd\"".to_owned(),
    ] {
        let report = victim.try_image(&with_property(&value)).await.unwrap();
        assert_eq!((report.packages, report.invalid.len()), (2, 0), "{value}: {:?}", report.invalid);
        // Every object is JSON that a library reads, with the value in it.
        let expected: Value = serde_json::from_str(&value).unwrap();
        let content = victim.ingest.content().await;
        let served = content.iter().find(|(key, _)| key.contains("bundlemetadata") && key.contains("two"));
        let (_, bundle) = served.unwrap();
        assert_eq!(bundle["spec"]["properties"][2]["value"], expected, "{bundle}");
        // The next one is another catalog.
        victim.try_image(&with("catalog.json", &package("two", 2))).await.unwrap();
    }
}

#[tokio::test]
async fn text_that_is_none_is_named_with_its_place() {
    let victim = Victim::new().await;
    let meta = |bytes: &[u8]| {
        [b"{\"schema\":\"olm.package\",\"name\":\"two\",\"description\":\"", bytes, b"\"}"].concat()
    };
    for (content, expected) in [
        (meta(b"\xff\xfe"), "invalid unicode code point"),
        (meta(b"\xed\xa0\x80"), "invalid unicode code point"),
        (meta(b"\0"), "control character"),
        (meta(br"\ud800"), "hex escape"),
        (meta(br"\x"), "invalid escape"),
        (b"\0\0\0\0".to_vec(), "at byte "),
        (b"\xff\xfe{\0}\0".to_vec(), "not UTF-8"),
        (b"{\"schema\":\"olm.package\",\"schema\":\"olm.bundle\"}".to_vec(), "duplicate field"),
        (b"{\"schema\":\"olm.package\"".to_vec(), "the file ends within an object"),
        (b"}".to_vec(), "at byte "),
        (b"{]".to_vec(), "at byte "),
        (nested(100_000).into_bytes(), "at byte "),
        (nested(100_000).replace('[', "{\"a\":").replace(']', "}").into_bytes(), "at byte "),
        (
            format!("{{\"schema\":\"olm.channel\",\"package\":\"two\",\"entries\":{}}}", nested(9999))
                .into_bytes(),
            "entries of channel",
        ),
    ] {
        let said = victim.refuses_package(&with("catalog.json", &content), "two").await;
        assert!(
            said.contains(expected),
            "{}: {said}",
            String::from_utf8_lossy(&content[..content.len().min(80)])
        );
        assert!(said.len() < 1000, "{}", said.len());
    }
    for content in [
        &b"schema: olm.package\nname: \"\\ud800\"\n"[..],
        b"schema: olm.package\nname: two\nname: three\n",
        b"schema: olm.package\nname: \x00\n",
        b"schema: &a *a\n",
        b"schema: !!python/object:os.system rm\nname: two\n",
        b"schema: .nan\nname: .inf\n",
        b"<<: *nobody\n",
        b"%YAML 9.9\n---\nschema: x\n",
        b"- - - - -\n",
        b"? ? ? ?\n",
    ] {
        // Some of it is YAML to some; none of it is a package.
        let report = victim.try_image(&with("catalog.yaml", content)).await.unwrap();
        assert_eq!((report.packages, report.bundles), (1, 4), "{}", String::from_utf8_lossy(content));
    }
}

#[tokio::test]
async fn aliases_stand_for_no_more_than_a_few_times_their_document() {
    let victim = Victim::new().await;
    let laughs = {
        let mut bomb = "schema: olm.package\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let inner = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        bomb
    };
    let long = format!("schema: &x {}\na: [{}]\n", "x".repeat(1 << 20), vec!["*x"; 10_000].join(","));
    let merged = {
        let mut merges = "schema: olm.package\nm0: &m0 {a: 1, b: 2}\n".to_owned();
        for level in 1..40 {
            merges.push_str(&format!(
                "m{level}: &m{level} {{<<: [*m{0}, *m{0}], c{level}: *m{0}}}\n",
                level - 1
            ));
        }
        merges
    };
    for bomb in [&laughs, &long, &merged] {
        let said = victim.refuses_package(&with("catalog.yaml", bomb.as_bytes()), "two").await;
        assert!(said.contains("`two/catalog.yaml`"), "{said}");
        // Where a manifest holds it, it is the bundle's.
        let mut metas = package_metas("two", 1);
        metas[2]["properties"][2] =
            json!({"type": "olm.bundle.object", "value": {"data": STANDARD.encode(bomb)}});
        let said = victim.refuses_package(&with("catalog.json", &write_json(&metas)), "two").await;
        assert!(said.contains("manifest 0"), "{said}");
    }
}

#[tokio::test]
async fn names_that_are_paths_are_no_names() {
    let victim = Victim::new().await;
    for name in
        ["../../etc/passwd", "a/b", ".", "..", "UPPER", "a\0b", "x\n", &"x".repeat(64), &"x".repeat(5000)]
    {
        let metas = package_metas(name, 1);
        let image = with("catalog.json", &write_json(&metas));
        let report = victim.try_image(&image).await.unwrap();
        assert_eq!(report.packages, 1, "{name}");
        assert_eq!(report.invalid.len(), 1, "{name}: {:?}", report.invalid);
        victim
            .try_image(&catalog::image(&[("one/catalog.json".to_owned(), package("one", 2))]))
            .await
            .unwrap();
    }
    for (pointer, what) in
        [("/2/name", "bundle"), ("/1/name", "channel"), ("/2/properties/0/value/version", "version")]
    {
        let mut metas = json!(package_metas("two", 1));
        *metas.pointer_mut(pointer).unwrap() = "x".repeat(1 << 20).into();
        let metas: Vec<Value> = serde_json::from_value(metas).unwrap();
        let said = victim.refuses_package(&with("catalog.json", &write_json(&metas)), "two").await;
        assert!(said.len() < 4000, "{what}: {}", said.len());
    }
    for stored in victim.ingest.stored().await {
        let is_name = !stored.key.name().contains(['/', '\0']) && stored.key.name().len() <= 253;
        assert!(is_name || !is_served(stored.key.resource()), "{}", stored.key);
    }
}

/// A catalog of one file, which begins, repeats something so often, and ends, in a layer that is as small as can be.
fn packed(start: &str, chunk: &dyn Fn(usize) -> String, times: usize, end: &str) -> Image {
    let size = start.len() + (0..times).map(|number| chunk(number).len()).sum::<usize>() + end.len();
    let header =
        Archive::default().member(EntryType::Regular, "configs/two/catalog.json", size as u64, b"").0;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&header).unwrap();
    encoder.write_all(start.as_bytes()).unwrap();
    (0..times).for_each(|number| encoder.write_all(chunk(number).as_bytes()).unwrap());
    encoder.write_all(end.as_bytes()).unwrap();
    encoder.write_all(&vec![0; size.next_multiple_of(512) - size + 1024]).unwrap();
    ImageBuilder::default().raw_layer(Packing::Zstd, encoder.finish().unwrap()).build()
}

#[tokio::test]
async fn what_is_small_in_a_file_and_large_in_memory_fits_into_little_memory() {
    let arguments = ["--max-compression-ratio", "1000000"];
    let start = "{\"schema\":\"olm.package\",\"name\":\"two\",\"description\":\"";
    let long = "x".repeat(1 << 20);
    let said = refused_in_little_memory(&packed(start, &|_| long.clone(), 500, "\"}"), &arguments).await;
    assert!(said.contains("a meta of more than 33554432 bytes"), "{said}");

    let channel = "{\"schema\":\"olm.channel\",\"package\":\"two\",\"name\":\"c\",\"entries\":[";
    let bundle = "{\"schema\":\"olm.bundle\",\"package\":\"two\",\"name\":\"two.v1\",";
    for (start, item, end, expected) in [
        (channel.to_owned(), "{},", "{}]}", "commas"),
        (format!("{channel}{{\"skips\":["), "\"\",", "\"\"]}]}", "commas"),
        (format!("{bundle}\"properties\":["), "{},", "{}]}", "things in a list"),
        (format!("{bundle}\"relatedImages\":["), "{},", "{}]}", "things in a list"),
    ] {
        let items = item.repeat(1 << 10);
        let said =
            refused_in_little_memory(&packed(&start, &|_| items.clone(), 10 << 10, end), &arguments).await;
        assert!(said.contains(expected), "{said}");
    }

    // Many small things: of a package, and of as many packages.
    let metas: [&dyn Fn(usize) -> String; 4] = [
        &|n| format!("{{\"schema\":\"olm.bundle\",\"package\":\"two\",\"name\":\"{n}\"}}"),
        &|n| format!("{{\"schema\":\"olm.package\",\"name\":\"p{n}\"}}"),
        &|n| format!("{{\"schema\":\"olm.package\",\"name\":{n}}}"),
        &|n| format!("{{\"schema\":\"olm.channel\",\"package\":\"p{n}\",\"name\":1}}"),
    ];
    for meta in metas {
        let said = refused_in_little_memory(&packed("", meta, 1_500_000, ""), &arguments).await;
        assert!(said.contains("bytes of names, channels and descriptions"), "{}: {said}", meta(0));
    }
}

#[tokio::test]
async fn ignore_files_cost_what_they_are_worth() {
    let victim = Victim::new().await;
    let ignoring = |lines: &str| {
        catalog::image(&[
            (".indexignore".to_owned(), lines.as_bytes().to_vec()),
            ("one/catalog.json".to_owned(), package("one", 5)),
        ])
    };
    let said = victim.refuses(&ignoring(&"*.yaml\n".repeat(10_000))).await;
    assert!(said.contains("more than 10000 lines in .indexignore files"), "{said}");
    for lines in [
        &"*a*b*c*d*e*\n".repeat(9_999),
        "[",
        "a[",
        "**/[z-a]\n",
        "\\",
        "{a,b",
        &format!("{}\n", "*".repeat(100_000)),
    ] {
        // Either it is a pattern, or it is said that it is none.
        let _ = victim.try_image(&ignoring(lines)).await;
    }
}
