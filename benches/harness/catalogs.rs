//! Catalogs to be measured: the real ones, one twice as large, and ones that differ in some packages.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::figures;
use super::support::image::{Image, ImageBuilder, Packing};

/// Names where the real catalogs are, when they are not beside the project.
const REAL_CATALOGS: &str = "PACKAGESERVER_CATALOGS";

/// Changes with what is made here, so that nothing older is taken for it.
const VERSION: &str = "1";

/// A catalog as an image of one layer.
pub struct Catalog {
    pub name: String,
    /// The layer, packed by gzip.
    pub layer: PathBuf,
}

impl Catalog {
    /// Returns it as an image.
    pub fn image(&self) -> Image {
        self.labelled("/configs")
    }

    /// Returns the same layer in another image.
    pub fn labelled(&self, root: &str) -> Image {
        let layer = fs::read(&self.layer).expect("a layer can be read");
        ImageBuilder::default().raw_layer(Packing::Gzip, layer).root(root).build()
    }
}

/// Packages of the catalog that is made where there is no real one, and bundles of each.
const MADE_PACKAGES: usize = 100;
const MADE_BUNDLES: usize = 20;

/// Files of the catalog `large`, or of the one that stands in for it, from which others are made.
pub struct Large {
    pub name: &'static str,
    files: Vec<(String, Vec<u8>)>,
}

/// Returns a real catalog that is a directory, if there is one.
pub fn directory(name: &str) -> Option<Catalog> {
    let files = files(name)?;
    Some(made(name, Compression::default(), || files))
}

/// Returns the files of a real catalog that is a directory, if there is one.
pub fn files(name: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let source = real(name)?;
    let mut paths = Vec::new();
    files_in(&source, &mut paths);
    paths.sort();
    let file = |path: &PathBuf| {
        let within = path.strip_prefix(&source).expect("files lie in their directory");
        let content = fs::read(path).expect("a catalog can be read");
        (format!("configs/{}", within.display()), content)
    };
    Some(paths.iter().map(file).collect())
}

impl Large {
    /// Reads it, or makes one of a tenth of its size where there are no real catalogs. Panics where they were promised.
    pub fn read_or_made() -> Self {
        if let Some(large) = Self::read() {
            return large;
        }
        assert!(
            std::env::var_os(REAL_CATALOGS).is_none(),
            "there is no `large.tar.zst` where {REAL_CATALOGS} says"
        );
        let package = |number| package(&format!("operator-{number:04}"), MADE_BUNDLES);
        Large { name: "made", files: (0..MADE_PACKAGES).map(package).collect() }
    }

    /// Reads it, if it is there.
    pub fn read() -> Option<Self> {
        let mut decoder =
            zstd::Decoder::new(File::open(real("large.tar.zst")?).ok()?).expect("it can be read");
        decoder.window_log_max(27).expect("the window is allowed");
        let mut archive = tar::Archive::new(decoder);
        let mut files = Vec::new();
        for entry in archive.entries().expect("it is an archive") {
            let mut entry = entry.expect("it is whole");
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = entry.path().expect("it has a path").display().to_string();
            let mut content = vec![0; usize::try_from(entry.size()).expect("it is small")];
            entry.read_exact(&mut content).expect("it is whole");
            files.push((path, content));
        }
        Some(Large { name: "large", files })
    }

    /// Returns it as it is.
    pub fn whole(&self) -> Catalog {
        made(self.name, Compression::default(), || self.files.clone())
    }

    /// Returns it packed otherwise.
    pub fn repacked(&self) -> Catalog {
        made(&format!("{}-repacked", self.name), Compression::fast(), || self.files.clone())
    }

    /// Returns it twice, packages and bundles of the second one under other names.
    pub fn twice(&self) -> Catalog {
        made(&format!("{}-twice", self.name), Compression::default(), || {
            let again = self.files.iter().map(|(path, content)| (renamed_path(path), renamed(path, content)));
            self.files.iter().cloned().chain(again).collect()
        })
    }

    /// Returns it with something else in so many of its packages.
    pub fn changed(&self, count: usize) -> Catalog {
        let count = count.min(self.files.len());
        made(&format!("{}-{count}-changed", self.name), Compression::default(), || {
            let step = self.files.len() / count;
            let change = |(number, (path, content)): (usize, &(String, Vec<u8>))| {
                let is_changed = number % step == 0 && number / step < count;
                (path.clone(), if is_changed { changed(content) } else { content.clone() })
            };
            self.files.iter().enumerate().map(change).collect()
        })
    }

    /// Returns its files.
    pub fn files(&self) -> &[(String, Vec<u8>)] {
        &self.files
    }

    /// Returns how many packages there are.
    pub fn packages(&self) -> usize {
        self.files.len()
    }
}

/// Returns the file of a made package, whose bundles are as large as real ones.
pub fn package(package: &str, bundles: usize) -> (String, Vec<u8>) {
    let bundle = |number: usize| format!("{package}.v1.0.{number}");
    let entry =
        |number: usize| json!({"name": bundle(number), "replaces": number.checked_sub(1).map(bundle)});
    let mut metas = vec![
        json!({"schema": "olm.package", "name": package, "defaultChannel": "stable"}),
        json!({
            "schema": "olm.channel", "package": package, "name": "stable",
            "entries": (0..bundles).map(entry).collect::<Vec<_>>(),
        }),
    ];
    metas.extend((0..bundles).map(|number| {
        // Text that does not shrink much, as certificates and digests in real bundles do not.
        let word = |word: usize| blake3::hash(format!("{package}{number}{word}").as_bytes()).to_hex()[..16].to_owned();
        let noise: String = (0..800).map(word).collect();
        json!({
            "schema": "olm.bundle", "package": package, "name": bundle(number),
            "image": format!("example.com/{package}:{number}"),
            "properties": [
                {"type": "olm.package", "value": {"packageName": package, "version": format!("1.0.{number}")}},
                {"type": "olm.csv.metadata", "value": {"displayName": package, "description": noise}},
            ],
        })
    }));
    (format!("configs/{package}/catalog.json"), metas.iter().flat_map(pretty).collect())
}

/// Writes a meta as catalogs have it.
fn pretty(meta: &Value) -> Vec<u8> {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(meta, &mut serializer).expect("memory can be written to");
    text.push(b'\n');
    text
}

/// Gives the last bundle of a file another image.
fn changed(content: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(content).expect("catalogs are text");
    let bundle = text.rfind("\"schema\": \"olm.bundle\"").expect("a package has bundles");
    let start = text[..bundle].rfind("\n{").map_or(0, |newline| newline + 1);
    let end = text[bundle..].find("\n}").map_or(text.len(), |newline| bundle + newline);
    let image = text[start..end].find("\n    \"image\": \"").expect("a bundle has an image");
    let at = start + image + "\n    \"image\": \"".len();
    format!("{}mirror.example.com/{}", &text[..at], &text[at..]).into_bytes()
}

/// Returns a package under another name, with its bundles.
fn renamed(path: &str, content: &[u8]) -> Vec<u8> {
    let package = path.split('/').nth(1).expect("a package has a folder");
    let mut metas = Vec::new();
    for meta in serde_json::Deserializer::from_slice(content).into_iter::<Value>() {
        let mut meta = meta.expect("catalogs are JSON");
        let name = |value: &mut Value| {
            if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
                *value = format!("{text}-again").into();
            }
        };
        match meta["schema"].as_str() {
            Some("olm.package") => name(&mut meta["name"]),
            Some("olm.channel") => {
                name(&mut meta["package"]);
                for entry in meta["entries"].as_array_mut().into_iter().flatten() {
                    name(&mut entry["name"]);
                    if entry.get("replaces").is_some() {
                        name(&mut entry["replaces"]);
                    }
                    entry
                        .get_mut("skips")
                        .and_then(|skips| skips.as_array_mut())
                        .into_iter()
                        .flatten()
                        .for_each(name);
                }
            }
            Some("olm.bundle") => {
                name(&mut meta["package"]);
                name(&mut meta["name"]);
                for property in meta["properties"].as_array_mut().into_iter().flatten() {
                    if property["type"] == "olm.package" {
                        name(&mut property["value"]["packageName"]);
                    }
                }
            }
            Some("olm.deprecations") => {
                name(&mut meta["package"]);
                for entry in meta["entries"].as_array_mut().into_iter().flatten() {
                    let reference = &mut entry["reference"];
                    if reference["schema"] == "olm.bundle" {
                        name(&mut reference["name"]);
                    }
                }
            }
            other => panic!("`{package}` holds a meta of schema {other:?}"),
        }
        metas.push(pretty(&meta));
    }
    metas.concat()
}

fn renamed_path(path: &str) -> String {
    let (folder, file) = path.rsplit_once('/').expect("a package has a folder");
    format!("{folder}-again/{file}")
}

fn real(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/catalogs");
    let path = std::env::var_os(REAL_CATALOGS).map_or_else(beside, PathBuf::from).join(name);
    path.exists().then_some(path)
}

/// Returns a layer of files. It is kept for the next time: packing takes longer than all that is measured.
fn made(name: &str, level: Compression, files: impl FnOnce() -> Vec<(String, Vec<u8>)>) -> Catalog {
    let layers = figures::directory().join("layers");
    fs::create_dir_all(&layers).expect("a directory can be made");
    let layer = layers.join(format!("{name}-{VERSION}.tar.gz"));
    if !layer.exists() {
        let unfinished = layer.with_extension("unfinished");
        let file = File::create(&unfinished).expect("a file can be made");
        let mut archive = tar::Builder::new(GzEncoder::new(file, level));
        for (path, content) in files() {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, &*content).expect("a file can be written");
        }
        let packed = archive.into_inner().and_then(GzEncoder::finish);
        packed.and_then(|mut file| file.flush()).expect("a file can be written");
        fs::rename(unfinished, &layer).expect("a file can be renamed");
    }
    Catalog { name: name.to_owned(), layer }
}

fn files_in(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory can be read") {
        let path = entry.expect("a directory can be read").path();
        if path.is_dir() {
            files_in(&path, files);
        } else {
            files.push(path);
        }
    }
}
