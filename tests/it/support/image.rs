//! Images made in code, also ones that nobody should make.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use packageserver::pipeline::fetch::Digest;
use serde_json::{Value, json};

/// An image: its manifest and the blobs the manifest names.
pub struct Image {
    manifest: Vec<u8>,
    manifest_type: &'static str,
    blobs: Vec<Vec<u8>>,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Gzip,
    Zstd,
    None,
}

/// Puts an image together from layers, bottom layer first.
#[derive(Default)]
pub struct ImageBuilder {
    layers: Vec<(Packing, Vec<u8>)>,
    root: Option<String>,
    is_docker: bool,
}

impl ImageBuilder {
    /// Adds a layer of files: path and content.
    pub fn layer(self, packing: Packing, files: &[(&str, &[u8])]) -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            append(&mut archive, path, content);
        }
        let archive = archive.into_inner().expect("memory can be written to");
        self.raw_layer(packing, pack(packing, &archive))
    }

    /// Adds a layer of files of a catalog: path under its root, and content.
    pub fn files(self, packing: Packing, files: &[(String, Vec<u8>)]) -> Self {
        let files: Vec<_> =
            files.iter().map(|(path, content)| (format!("configs/{path}"), content.as_slice())).collect();
        let files: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
        self.layer(packing, &files)
    }

    /// Adds a layer with a directory of the machine under a path of the image.
    pub fn directory(self, packing: Packing, directory: &Path, under: &str) -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        let mut files = files_in(directory);
        files.sort();
        for path in files {
            let within = path.strip_prefix(directory).expect("files lie in their directory");
            let content = std::fs::read(&path).expect("a catalog can be read");
            append(&mut archive, &format!("{under}/{}", within.display()), &content);
        }
        let archive = archive.into_inner().expect("memory can be written to");
        self.raw_layer(packing, pack(packing, &archive))
    }

    /// Adds a layer as it is given, whatever that is.
    pub fn raw_layer(mut self, packing: Packing, bytes: Vec<u8>) -> Self {
        self.layers.push((packing, bytes));
        self
    }

    /// Sets the label that says where the catalog is.
    pub fn root(mut self, root: &str) -> Self {
        self.root = Some(root.to_owned());
        self
    }

    /// Gives the image the media types that docker gives its own.
    pub fn docker(mut self) -> Self {
        self.is_docker = true;
        self
    }

    /// Returns the image.
    pub fn build(self) -> Image {
        let labels = match &self.root {
            Some(root) => json!({"operators.operatorframework.io.index.configs.v1": root}),
            None => json!({}),
        };
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": labels}});
        let config = config.to_string().into_bytes();
        let types = if self.is_docker { &DOCKER } else { &OCI };
        let layer = |(packing, bytes): &(Packing, Vec<u8>)| {
            let compression = match packing {
                Packing::Gzip => types.gzip,
                Packing::Zstd => "+zstd",
                Packing::None => "",
            };
            descriptor(&format!("{}{compression}", types.layer), bytes)
        };
        let layers: Vec<Value> = self.layers.iter().map(layer).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": types.manifest,
            "config": descriptor(types.config, &config),
            "layers": layers,
        });
        let mut blobs = vec![config];
        blobs.extend(self.layers.into_iter().map(|(_, bytes)| bytes));
        Image { manifest: manifest.to_string().into_bytes(), manifest_type: types.manifest, blobs }
    }
}

/// The media types of an image.
struct Types {
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
    gzip: &'static str,
}

const OCI: Types = Types {
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar",
    gzip: "+gzip",
};

const DOCKER: Types = Types {
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar",
    gzip: ".gzip",
};

impl Image {
    /// An image with a catalog directory as its only layer, the way catalogs are published.
    pub fn of_catalog(directory: &Path) -> Self {
        ImageBuilder::default().directory(Packing::Gzip, directory, "configs").root("/configs").build()
    }

    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    pub fn manifest_type(&self) -> &'static str {
        self.manifest_type
    }

    pub fn blobs(&self) -> &[Vec<u8>] {
        &self.blobs
    }

    /// Writes the image as an OCI layout.
    pub fn write_layout(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("a directory can be made");
        for blob in self.blobs.iter().chain([&self.manifest]) {
            let digest = Digest::sha256(blob);
            std::fs::write(blobs.join(digest.parts().1), blob).expect("a blob can be written");
        }
        let index =
            json!({"schemaVersion": 2, "manifests": [descriptor(self.manifest_type, &self.manifest)]});
        std::fs::write(directory.join("index.json"), index.to_string()).expect("the index can be written");
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("the layout can be written");
    }
}

/// Compresses a layer.
pub fn pack(packing: Packing, archive: &[u8]) -> Vec<u8> {
    match packing {
        Packing::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(archive).expect("memory can be written to");
            encoder.finish().expect("memory can be written to")
        }
        Packing::Zstd => zstd::bulk::compress(archive, 1).expect("memory can be written to"),
        Packing::None => archive.to_vec(),
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(bytes).as_str(), "size": bytes.len()})
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, path, content).expect("memory can be written to");
}

fn files_in(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory can be read") {
        let path = entry.expect("a directory can be read").path();
        if path.is_dir() {
            files.extend(files_in(&path));
        } else {
            files.push(path);
        }
    }
    files
}
