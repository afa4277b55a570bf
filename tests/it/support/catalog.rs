//! Catalogs: the real ones, and ones made for a test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::image::{Image, ImageBuilder, Packing, pack};

/// Names where the real catalogs are, when they are not beside the project.
const REAL_CATALOGS: &str = "PACKAGESERVER_CATALOGS";

/// Returns the directory of a real catalog.
///
/// Where there are none the caller does without, and says so. Where `PACKAGESERVER_CATALOGS` says that there are some, a
/// missing one is an error.
pub fn real(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(REAL_CATALOGS).map(PathBuf::from);
    let root =
        named.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/catalogs"));
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(named.is_none(), "{REAL_CATALOGS} is set, and there is no `{}`", path.display());
    eprintln!("no real catalog `{name}`: set {REAL_CATALOGS} to where they are; using a made one");
    None
}

/// Two versions of a catalog, the second one as it was published some time after the first.
pub struct Pair {
    pub old: PathBuf,
    pub new: PathBuf,
    _directory: Option<TempDir>,
}

/// Returns two versions of a catalog: real ones where there are some.
pub fn pair() -> Pair {
    if let (Some(old), Some(new)) = (real("community-v4.19"), real("community-v4.20")) {
        return Pair { old, new, _directory: None };
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    let mut catalog = CatalogBuilder::default();
    for number in 0..37 {
        catalog = catalog.package(&format!("operator-{number:02}"), 20);
    }
    catalog.write(&old);
    for number in (0..37).step_by(5) {
        catalog = catalog.package(&format!("operator-{number:02}"), 22);
    }
    catalog.without("operator-07").package("operator-new", 5).write(&new);
    Pair { old, new, _directory: Some(directory) }
}

/// A catalog that is large, as an image.
pub struct Large {
    pub image: Image,
    pub packages: usize,
    pub bundles: usize,
}

/// Returns a large catalog: the real one where there is one.
pub fn large() -> Large {
    match real("large.tar.zst") {
        Some(path) => large_of(&unpack_long(&path), 541, 8206),
        None => made_large(&made_large_catalog()),
    }
}

/// A large catalog, and what it is when one bundle of it has another image.
pub struct LargePair {
    pub old: Large,
    pub new: Large,
    /// The bundle.
    pub bundle: String,
    /// Its new image.
    pub image: String,
}

/// Returns a large catalog as [`large`] does, and a changed one: the layer is another, all files but one are the same.
pub fn large_pair() -> LargePair {
    let image = "quay.io/example/operator-077:edited".to_owned();
    let Some(path) = real("large.tar.zst") else {
        let catalog = made_large_catalog();
        let new = made_large(&catalog.clone().edit("operator-077", Edit::LastImage));
        let bundle = "operator-077.v1.0.19".to_owned();
        return LargePair { old: made_large(&catalog), new, bundle, image };
    };
    let archive = unpack_long(&path);
    let (changed, bundle) = with_another_image(&archive, &image);
    LargePair { old: large_of(&archive, 541, 8206), new: large_of(&changed, 541, 8206), bundle, image }
}

fn large_of(archive: &[u8], packages: usize, bundles: usize) -> Large {
    let image = ImageBuilder::default().raw_layer(Packing::Gzip, pack(Packing::Gzip, archive)).build();
    Large { image, packages, bundles }
}

fn made_large_catalog() -> CatalogBuilder {
    (0..300).fold(CatalogBuilder::default(), |catalog, number| {
        catalog.package(&format!("operator-{number:03}"), 20)
    })
}

fn made_large(catalog: &CatalogBuilder) -> Large {
    Large { image: catalog.image(), packages: 300, bundles: 6000 }
}

/// Gives another image to one bundle in an archive of JSON files, without touching anything else.
fn with_another_image(archive: &[u8], image: &str) -> (Vec<u8>, String) {
    use std::io::Read;
    let mut changed = tar::Builder::new(Vec::new());
    let mut bundle = None;
    for entry in tar::Archive::new(archive).entries().expect("it is an archive") {
        let mut entry = entry.expect("it is an archive");
        let (mut header, mut content) = (entry.header().clone(), String::new());
        #[expect(clippy::disallowed_methods, reason = "a file of the test's own")]
        entry.read_to_string(&mut content).expect("catalogs are text");
        if bundle.is_none() && content.matches("\"olm.bundle\"").count() > 4 {
            let metas = serde_json::Deserializer::from_str(&content).into_iter::<Value>();
            let metas: Vec<Value> = metas.map(|meta| meta.expect("catalogs are JSON")).collect();
            let last = metas.iter().rfind(|meta| meta["schema"] == "olm.bundle").expect("there are five");
            let (found, other) =
                (format!("\"image\": {}", last["image"]), format!("\"image\": {}", Value::from(image)));
            // One that no other bundle has.
            let has_it = |meta: &&Value| meta["image"] == last["image"];
            if content.contains(&found) && metas.iter().filter(has_it).count() == 1 {
                content = content.replace(&found, &other);
                header.set_size(content.len() as u64);
                header.set_cksum();
                bundle = last["name"].as_str().map(str::to_owned);
            }
        }
        changed.append(&header, content.as_bytes()).expect("memory can be written to");
    }
    (changed.into_inner().expect("memory can be written to"), bundle.expect("some package has five bundles"))
}

/// Unpacks an archive that was packed with a window of 128 MiB.
fn unpack_long(path: &Path) -> Vec<u8> {
    use std::io::Read;
    let file = std::fs::File::open(path).expect("the archive can be opened");
    let mut decoder = zstd::Decoder::new(file).expect("a decoder can be made");
    decoder.window_log_max(27).expect("the window is allowed");
    let mut archive = Vec::new();
    #[expect(clippy::disallowed_methods, reason = "a file of the test's own")]
    decoder.read_to_end(&mut archive).expect("the archive can be read");
    archive
}

/// Makes catalogs of packages with one channel each, `stable`, and bundles `<package>.v1.0.<n>`.
#[derive(Clone, Default)]
pub struct CatalogBuilder {
    packages: BTreeMap<String, usize>,
    edits: BTreeMap<String, Edit>,
    is_wordy: bool,
}

/// What wordy bundles say, as many real ones do: the same in each version, and a lot of it.
const WORDS: &str = "This operator operates what has to be operated, and says so at some length. ";

/// A change of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Every bundle has another image.
    Images,
    /// The last bundle has another image.
    LastImage,
    /// There is another icon.
    Icon,
    /// The first bundle is deprecated.
    Deprecation,
}

impl CatalogBuilder {
    /// Adds a package with so many bundles, or changes how many it has.
    pub fn package(mut self, name: &str, bundles: usize) -> Self {
        self.packages.insert(name.to_owned(), bundles);
        self
    }

    /// Removes a package.
    pub fn without(mut self, name: &str) -> Self {
        self.packages.remove(name);
        self
    }

    /// Returns the files: `<package>/catalog.json`.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let file = |(name, bundles): (&String, &usize)| {
            let mut metas = package_metas(name, *bundles);
            if self.is_wordy {
                for bundle in metas.iter_mut().filter(|meta| meta["schema"] == "olm.bundle") {
                    bundle["properties"][2]["value"]["description"] =
                        format!("{name}: {}", WORDS.repeat(60)).into();
                }
            }
            if let Some(edit) = self.edits.get(name) {
                edit.apply(name, &mut metas);
            }
            (format!("{name}/catalog.json"), write_json(&metas))
        };
        self.packages.iter().map(file).collect()
    }

    /// Changes a package.
    pub fn edit(mut self, name: &str, edit: Edit) -> Self {
        self.edits.insert(name.to_owned(), edit);
        self
    }

    /// Gives bundles long texts that are much alike, so that they are packed with dictionaries.
    pub fn wordy(mut self) -> Self {
        self.is_wordy = true;
        self
    }

    /// Returns the catalog as the only layer of an image.
    pub fn image(&self) -> Image {
        image(&self.files())
    }

    /// Writes the files into a directory.
    pub fn write(&self, directory: &Path) {
        for (path, content) in self.files() {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().expect("files lie in directories"))
                .expect("a directory can be made");
            fs::write(path, content).expect("a file can be written");
        }
    }
}

/// Returns files of a catalog as the only layer of an image.
pub fn image(files: &[(String, Vec<u8>)]) -> Image {
    ImageBuilder::default().files(Packing::Gzip, files).build()
}

impl Edit {
    fn apply(self, name: &str, metas: &mut Vec<Value>) {
        let first = metas.iter().position(|meta| meta["schema"] == "olm.bundle").unwrap_or(metas.len());
        match self {
            Edit::Images => {
                for bundle in &mut metas[first..] {
                    bundle["image"] = format!("quay.io/example/{name}:edited").into();
                }
            }
            Edit::LastImage => {
                let bundle = metas.last_mut().expect("a package has metas");
                bundle["image"] = format!("quay.io/example/{name}:edited").into();
            }
            Edit::Icon => metas[0]["icon"]["base64data"] = "PHN2Zz48L3N2Zz4=".into(),
            Edit::Deprecation => metas.push(json!({
                "schema": "olm.deprecations", "package": name,
                "entries": [{
                    "reference": {"schema": "olm.bundle", "name": metas[first]["name"]},
                    "message": "old",
                }],
            })),
        }
    }
}

/// Writes metas as one JSON file.
pub fn write_json(metas: &[Value]) -> Vec<u8> {
    metas
        .iter()
        .map(|meta| serde_json::to_string_pretty(meta).expect("JSON can be written") + "\n")
        .collect::<String>()
        .into()
}

/// Returns the metas of a package as one file.
pub fn package(name: &str, bundles: usize) -> Vec<u8> {
    write_json(&package_metas(name, bundles))
}

/// Returns the metas of a package.
pub fn package_metas(name: &str, bundles: usize) -> Vec<Value> {
    let bundle = |number: usize| format!("{name}.v1.0.{number}");
    let entry = |number: usize| match number {
        0 => json!({"name": bundle(0)}),
        number => json!({"name": bundle(number), "replaces": bundle(number - 1)}),
    };
    let mut metas = vec![
        json!({
            "schema": "olm.package", "name": name, "defaultChannel": "stable",
            "icon": {"base64data": "PHN2Zy8+", "mediatype": "image/svg+xml"},
        }),
        json!({
            "schema": "olm.channel", "package": name, "name": "stable",
            "entries": (0..bundles).map(entry).collect::<Vec<_>>(),
        }),
    ];
    metas.extend((0..bundles).map(|number| {
        json!({
            "schema": "olm.bundle", "package": name, "name": bundle(number),
            "image": format!("quay.io/example/{name}@sha256:{number:064}"),
            "properties": [
                {"type": "olm.package", "value": {"packageName": name, "version": format!("1.0.{number}")}},
                {"type": "olm.gvk", "value": {"group": "example.com", "version": "v1", "kind": "Thing"}},
                {"type": "olm.csv.metadata", "value": {
                    "displayName": format!("The {name} operator"),
                    "description": format!("Operates {name}."),
                    "provider": {"name": "Example", "url": "https://example.com"},
                }},
            ],
            "relatedImages": [{"name": "operator", "image": format!("quay.io/example/{name}:v1.0.{number}")}],
        })
    }));
    metas
}

/// What a catalog directory holds, read without any of the code under test: package → its metas, canonically written.
pub fn metas(directory: &Path) -> BTreeMap<String, Vec<Value>> {
    let mut packages: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a catalog can be read") {
        let folder = entry.expect("a catalog can be read").path();
        for file in fs::read_dir(&folder).expect("a package has a folder") {
            let path = file.expect("a folder can be read").path();
            let text = fs::read_to_string(&path).expect("catalogs are text");
            let is_yaml = path.extension().is_some_and(|extension| extension == "yaml");
            let metas: Vec<Value> = match is_yaml {
                true => serde_saphyr::from_multiple(&text).expect("catalogs are YAML"),
                false => serde_json::Deserializer::from_str(&text)
                    .into_iter()
                    .map(|meta| meta.expect("catalogs are JSON"))
                    .collect(),
            };
            for meta in metas {
                let of = if meta["schema"] == "olm.package" { &meta["name"] } else { &meta["package"] };
                packages.entry(of.as_str().unwrap_or_default().to_owned()).or_default().push(meta.clone());
            }
        }
    }
    packages
}
