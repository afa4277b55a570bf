//! What holds for every input: found by making many, and by breaking those of a corpus.
//!
//! `make fuzz` makes many more of them. Where one fails, its seed is kept beside this file and comes first from then on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;

use bytes::Bytes;
use futures::FutureExt;
use packageserver::event::{FileFacts, MetaHash};
use packageserver::model::SourceReference;
use packageserver::pipeline::fetch::{Digest, LayerDescriptor, LayerStream};
use packageserver::pipeline::inflate::{FileContents, FileVisitor, InflateError, inflate_layers};
use packageserver::pipeline::limits::Limits;
use packageserver::pipeline::parse::{FileId, Meta, MetaSink, Place, parse_files};
use packageserver::pipeline::progress::Progress;
use packageserver::store::ResourceVersion;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use tar::EntryType;
use tokio::runtime::Runtime;

use crate::support::archive::Archive;
use crate::support::catalog::{CatalogBuilder, Edit};
use crate::support::image::{Packing, pack};
use crate::support::ingest::Ingest;
use crate::support::rounds;

fn config() -> ProptestConfig {
    ProptestConfig { cases: rounds(64, 20_000), ..ProptestConfig::default() }
}

fn slow_config() -> ProptestConfig {
    ProptestConfig { cases: rounds(8, 500), ..ProptestConfig::default() }
}

/// Returns the files of a part of the corpus.
fn corpus(part: &str) -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus").join(part);
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// A way to break bytes.
#[derive(Clone, Debug)]
enum Break {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize),
}

fn breaks() -> impl Strategy<Value = Vec<Break>> {
    let one = prop_oneof![
        4 => (any::<Index>(), 1..=255_u8).prop_map(|(at, mask)| Break::Flip(at, mask)),
        1 => any::<Index>().prop_map(Break::Cut),
        2 => (any::<Index>(), 1..600_usize).prop_map(|(at, count)| Break::Remove(at, count)),
        2 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Break::Insert(at, bytes)),
        1 => (any::<Index>(), 1..600_usize).prop_map(|(at, count)| Break::Repeat(at, count)),
    ];
    prop::collection::vec(one, 0..6)
}

fn broken(mut bytes: Vec<u8>, breaks: &[Break]) -> Vec<u8> {
    for one in breaks {
        if bytes.is_empty() {
            return bytes;
        }
        let place = |at: &Index| at.index(bytes.len());
        match one {
            Break::Flip(at, mask) => {
                let at = place(at);
                bytes[at] ^= mask;
            }
            Break::Cut(at) => bytes.truncate(place(at)),
            Break::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Break::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Break::Repeat(at, count) => {
                let at = place(at);
                let more = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, more);
            }
        }
    }
    bytes
}

/// Remembers what it is handed.
#[derive(Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl FileVisitor for Files {
    fn file(&mut self, path: &str, contents: &mut FileContents<'_>) -> io::Result<()> {
        let mut content = Vec::new();
        #[expect(clippy::disallowed_methods, reason = "a file of the test's own")]
        contents.read_to_end(&mut content)?;
        assert!(!path.split('/').any(|segment| matches!(segment, "" | "." | "..")), "{path}");
        self.0.insert(path.to_owned(), content);
        Ok(())
    }

    fn known_files(&mut self, _: &[(&str, FileFacts)]) -> bool {
        false
    }
}

/// Unpacks layers, top layer first, that come in chunks of a size.
fn unpack(layers: Vec<Vec<u8>>, chunk: usize) -> Result<BTreeMap<String, Vec<u8>>, InflateError> {
    let (sender, mut streams) = tokio::sync::mpsc::channel(layers.len().max(1));
    for layer in layers {
        let (chunks, receiver) = tokio::sync::mpsc::channel(layer.len() / chunk + 1);
        layer.chunks(chunk).for_each(|part| chunks.try_send(Ok(Bytes::copy_from_slice(part))).unwrap());
        let descriptor = LayerDescriptor { digest: Digest::sha256(&layer), size: layer.len() as u64 };
        sender.try_send(LayerStream { descriptor, chunks: receiver, on_demand: None }).ok().unwrap();
    }
    drop(sender);
    let mut files = Files::default();
    inflate_layers(&mut streams, "configs", &HashMap::new(), &Limits::default(), &mut files)?;
    Ok(files.0)
}

/// What a layer does to a path.
#[derive(Clone, Debug)]
enum Change {
    File(u8),
    Directory,
    Whiteout,
    Opaque,
}

fn changes() -> impl Strategy<Value = Vec<(Vec<u8>, Change)>> {
    let path = prop::collection::vec(0..3_u8, 1..4);
    let change = prop_oneof![
        4 => any::<u8>().prop_map(Change::File),
        1 => Just(Change::Directory),
        2 => Just(Change::Whiteout),
        1 => Just(Change::Opaque),
    ];
    prop::collection::vec((path, change), 0..6)
}

fn name(path: &[u8]) -> String {
    path.iter().fold("configs".to_owned(), |name, segment| format!("{name}/{segment}"))
}

/// Writes a layer the way tools do, every directory before what is in it; leaves out what contradicts what came before.
fn layer(changes: &[(Vec<u8>, Change)]) -> (Vec<u8>, Vec<(Vec<u8>, Change)>) {
    let mut archive = Archive::default();
    let (mut kept, mut files, mut directories) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (path, change) in changes {
        let parents = (0..path.len()).map(|length| path[..length].to_vec());
        let above: Vec<_> = match change {
            Change::Opaque | Change::Directory => {
                (0..=path.len()).map(|length| path[..length].to_vec()).collect()
            }
            _ => parents.collect(),
        };
        let is_file = matches!(change, Change::File(_));
        if above.iter().any(|parent| files.contains(parent)) || (is_file && directories.contains(path)) {
            continue;
        }
        for directory in above {
            if directories.insert(directory.clone()) {
                archive = archive.link(EntryType::Directory, &name(&directory), "");
                kept.push((directory, Change::Directory));
            }
        }
        let parent = name(&path[..path.len() - 1]);
        archive = match change {
            Change::File(content) => {
                files.insert(path.clone());
                archive.file(&name(path), &[*content])
            }
            Change::Directory => archive,
            Change::Whiteout => archive.file(&format!("{parent}/.wh.{}", path[path.len() - 1]), b""),
            Change::Opaque => archive.file(&format!("{}/.wh..wh..opq", name(path)), b""),
        };
        kept.push((path.clone(), change.clone()));
    }
    (archive.zeros(2).0, kept)
}

/// Applies a layer to a tree of files, by the words of the image specification.
fn apply(below: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: &[(Vec<u8>, Change)]) {
    let mut own = BTreeMap::new();
    for (path, change) in changes {
        let is_it = |other: &Vec<u8>| other == path;
        let is_under = |other: &Vec<u8>| other.len() > path.len() && other.starts_with(path);
        match change {
            Change::File(content) => {
                below.retain(|other, _| !is_it(other) && !is_under(other));
                own.insert(path.clone(), vec![*content]);
            }
            Change::Directory => below.retain(|other, _| !is_it(other)),
            Change::Whiteout => below.retain(|other, _| !is_it(other) && !is_under(other)),
            Change::Opaque => below.retain(|other, _| !is_under(other)),
        }
    }
    below.append(&mut own);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn layers_unpack_to_what_the_specification_says(
        stack in prop::collection::vec(changes(), 1..5),
        chunk in 1..5000_usize,
        packing in prop_oneof![Just(Packing::Gzip), Just(Packing::Zstd), Just(Packing::None)],
    ) {
        let mut expected = BTreeMap::new();
        let mut layers = Vec::new();
        for changes in &stack {
            let (archive, kept) = layer(changes);
            apply(&mut expected, &kept);
            layers.push(pack(packing, &archive));
        }
        layers.reverse();
        let expected: BTreeMap<String, Vec<u8>> =
            expected.into_iter().map(|(path, content)| (name(&path)["configs/".len()..].to_owned(), content)).collect();
        match unpack(layers, chunk) {
            Ok(files) => prop_assert_eq!(files, expected),
            Err(InflateError::Empty { .. }) => prop_assert!(expected.is_empty(), "{:?}", expected),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn broken_archives_are_refused_or_mean_the_same_however_they_come(
        which in any::<Index>(),
        breaks in breaks(),
        chunk in 1..2000_usize,
        packs in any::<bool>(),
    ) {
        let seeds = corpus("archives");
        let bytes = seeds[which.index(seeds.len())].1.clone();
        let bytes = match packs {
            true => pack(Packing::Gzip, &broken(bytes, &breaks)),
            false => broken(bytes, &breaks),
        };
        // How much was unpacked before something was found to be wrong depends on the chunks.
        let whole = unpack(vec![bytes.clone()], bytes.len().max(1)).map_err(drop);
        let parts = unpack(vec![bytes.clone()], chunk).map_err(drop);
        prop_assert_eq!(whole, parts);
    }
}

/// A reader that hands out a few bytes at a time.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(self.1).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

/// Remembers what was read of one file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    metas: BTreeMap<u64, MetaHash>,
    malformed: BTreeMap<u64, String>,
}

#[derive(Default)]
struct Sink(Mutex<Parsed>);

impl MetaSink for Sink {
    fn file(&self, _: FileId, _: &str) {}

    fn file_ends(&self, _: FileId, _: FileFacts) {}

    fn may_know_file(&self, _: &str, _: u64) -> bool {
        false
    }

    fn knows_file(&self, _: FileId, _: &str, _: FileFacts) -> bool {
        false
    }

    fn knows_files(&self, _: &[(&str, FileFacts)]) -> bool {
        false
    }

    fn keep_file(&self, _: FileId, _: &str, _: FileFacts) {}

    fn ignore_file(&self, _: &str, _: &[u8]) {}

    fn knows(&self, place: Place, hash: MetaHash) -> bool {
        self.0.lock().unwrap().metas.insert(place.offset, hash);
        false
    }

    fn meta(&self, _: Place, _: MetaHash, _: Meta) {}

    fn malformed(&self, place: Place, reason: String, _: Option<String>) {
        self.0.lock().unwrap().malformed.insert(place.offset, reason);
    }
}

fn parse(content: &[u8], chunk: usize) -> Parsed {
    let sink = Sink::default();
    let read: io::Result<()> = parse_files(&Limits::default(), &Progress::default(), &sink, |visitor| {
        let mut reader = Dribble(content, chunk);
        visitor.file("a/catalog", &mut FileContents::new(&mut reader, content.len() as u64))
    });
    read.unwrap();
    sink.0.into_inner().unwrap()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z{}\\[\\]\"\\\\ \u{e9}\u{1f600}\n-]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"{}]{0,4}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An object as catalogs have it, with anything in it.
fn object() -> impl Strategy<Value = Value> {
    let schema =
        prop_oneof![Just("olm.package"), Just("olm.channel"), Just("olm.bundle"), Just("acme.other")];
    (
        schema,
        prop::collection::btree_map("name|package|entries|properties|icon|image|[a-z]{3}", value(), 0..6),
    )
        .prop_map(|(schema, fields)| {
            let mut object: serde_json::Map<_, _> = fields.into_iter().collect();
            object.insert("schema".to_owned(), schema.into());
            Value::Object(object)
        })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn json_is_cut_where_serde_json_cuts_it(
        objects in prop::collection::vec((object(), any::<bool>(), "[ \n\t\r]{0,3}"), 0..6),
        chunk in 1..400_usize,
    ) {
        let text: String = objects.iter().map(|(object, is_pretty, blank)| match is_pretty {
            true => serde_json::to_string_pretty(object).unwrap() + blank,
            false => object.to_string() + blank,
        }).collect();
        let mut expected = BTreeMap::new();
        let mut stream = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let mut start = 0;
        while stream.next().is_some() {
            let end = stream.byte_offset();
            let blank = text[start..end].len() - text[start..end].trim_start().len();
            expected.insert((start + blank) as u64, MetaHash::of(&text.as_bytes()[start + blank..end]));
            start = end;
        }
        prop_assert_eq!(parse(text.as_bytes(), chunk).metas, expected);
    }

    #[test]
    fn a_catalog_means_the_same_in_json_and_in_yaml(objects in prop::collection::vec(object(), 1..5), chunk in 1..400_usize) {
        let json: String = objects.iter().map(Value::to_string).collect();
        let yaml: String =
            objects.iter().map(|object| format!("---\n{}\n", serde_saphyr::to_string(object).unwrap())).collect();
        // What the library reads is what it was given, and so are the reasons that metas are refused for.
        let library: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
        prop_assume!(library == objects);
        let reasons = |parsed: Parsed| parsed.malformed.into_values().collect::<BTreeSet<_>>();
        let (json, yaml) = (parse(json.as_bytes(), chunk), parse(yaml.as_bytes(), chunk));
        prop_assert_eq!(json.metas.len(), yaml.metas.len());
        prop_assert_eq!(reasons(json), reasons(yaml));
    }

    #[test]
    fn whatever_a_file_holds_is_read_the_same_however_it_comes(
        which in any::<Index>(),
        breaks in breaks(),
        noise in prop::collection::vec(any::<u8>(), 0..40),
        chunk in 1..300_usize,
    ) {
        let seeds = corpus("documents");
        let mut bytes = broken(seeds[which.index(seeds.len())].1.clone(), &breaks);
        bytes.extend(noise);
        prop_assert_eq!(parse(&bytes, usize::MAX), parse(&bytes, chunk));
    }

    #[test]
    fn references_are_read_or_refused(text in "\\PC{0,60}|(oci|oci-archive|fbc)?:?[a-z./@:0-9A-Z_-]{0,60}") {
        if let Ok(reference) = text.parse::<SourceReference>() {
            // The library reads some names of images that it does not read again as it writes them.
            let written = reference.to_string();
            let again = written.parse::<SourceReference>();
            prop_assert!(again == Ok(reference.clone()) || !reference.is_local(), "{written}");
        }
    }
}

#[derive(Clone, Debug)]
struct Version(Vec<(u8, usize, u8)>);

impl Version {
    fn catalog(&self) -> CatalogBuilder {
        // A catalog without packages is refused.
        let mut catalog = CatalogBuilder::default().package("always", 1);
        for (package, bundles, edit) in &self.0 {
            let name = format!("p{package}");
            catalog = catalog.package(&name, *bundles);
            catalog = match edit {
                0 => catalog.edit(&name, Edit::Images),
                1 => catalog.edit(&name, Edit::LastImage),
                2 => catalog.edit(&name, Edit::Icon),
                3 => catalog.edit(&name, Edit::Deprecation),
                _ => catalog,
            };
        }
        catalog
    }
}

fn version() -> impl Strategy<Value = Version> {
    prop::collection::vec((0..5_u8, 1..8_usize, 0..8_u8), 0..6).prop_map(Version)
}

proptest! {
    #![proptest_config(slow_config())]

    #[test]
    fn events_fold_to_the_state_and_the_state_is_that_of_the_last_catalog(versions in prop::collection::vec(version(), 1..6)) {
        let runtime = Runtime::new().unwrap();
        let ran = runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let ingest = Ingest::new();
            let mut folded = BTreeMap::new();
            let mut seen = ResourceVersion::default();
            for (number, version) in versions.iter().enumerate() {
                let layout = directory.path().join(number.to_string());
                version.catalog().image().write_layout(&layout);
                ingest.refresh(&format!("oci:{}", layout.display())).await.unwrap();
                for change in ingest.changes(seen).await {
                    prop_assert!(change.version > seen);
                    seen = change.version;
                    match &change.after {
                        Some(object) => folded.insert(change.key.clone(), (change.version, object.head().to_vec())),
                        None => folded.remove(&change.key),
                    };
                }
                let stored = ingest.stored().await.into_iter();
                let stored: BTreeMap<_, _> =
                    stored.map(|stored| (stored.key, (stored.version, stored.object.head().to_vec()))).collect();
                prop_assert_eq!(&stored, &folded);

                let fresh = Ingest::new();
                fresh.run_layout(&layout).await.unwrap();
                prop_assert_eq!(ingest.content().await, fresh.content().await);
            }
            Ok(())
        }.boxed());
        ran?;
    }
}

/// What is in the corpus, so that nobody empties it by mistake, and every file of it as it stands.
#[test]
fn everything_in_the_corpus_is_survived() {
    for (path, content) in corpus("archives") {
        let read = unpack(vec![content], 1000).map(drop).map_err(|error| error.to_string());
        assert!(path.contains("good") == read.is_ok(), "{path}: {read:?}");
    }
    for (path, content) in corpus("documents") {
        let parsed = parse(&content, 1000);
        assert!(
            path.contains("good") == parsed.malformed.is_empty() || path.contains("bundle"),
            "{path}: {parsed:?}"
        );
    }
}
