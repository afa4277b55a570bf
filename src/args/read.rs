//! How catalogs are read: the arguments of every command that reads some.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::pipeline::limits::Limits;

const REGISTRIES: &str = "Registries";
const LIMITS: &str = "Limits on what one ingest reads";

/// How catalogs are read.
#[derive(Args, Debug)]
pub struct ReadArgs {
    /// How registries are spoken to.
    #[command(flatten)]
    pub registries: RegistryArgs,

    /// How much is taken from them.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// How registries are spoken to. Proxies are taken from HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
#[derive(Args, Debug)]
pub struct RegistryArgs {
    /// Credentials for registries, in the form of docker's config.json. Without it, those are used that other container
    /// tools have stored: in $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json,
    /// ~/.docker/config.json.
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", help_heading = REGISTRIES)]
    pub registry_auth_file: Option<PathBuf>,

    /// A directory with certificates of authorities (*.crt, *.pem) that registries' own are checked against, beside
    /// the machine's.
    #[arg(long, value_name = "DIR", help_heading = REGISTRIES)]
    pub registry_ca_dir: Option<PathBuf>,

    /// Mirrors, insecure and blocked registries, in the form of containers-registries.conf(5), version 2.
    #[arg(long, value_name = "FILE", env = "CONTAINERS_REGISTRIES_CONF", help_heading = REGISTRIES)]
    pub registries_conf: Option<PathBuf>,

    /// How long a registry may send nothing.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::parse_duration, help_heading = REGISTRIES)]
    pub registry_timeout: Duration,
}

/// How much is taken from outside. Published catalogs are far below all of it.
#[derive(Args, Debug)]
#[command(next_help_heading = LIMITS)]
pub struct LimitArgs {
    /// Of a manifest, an index or an image configuration.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().manifest_bytes), hide_short_help = true)]
    pub max_manifest_size: ByteSize,

    /// Of an image.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().layers, hide_short_help = true)]
    pub max_layers: usize,

    /// Of a layer as it is transferred.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().layer_bytes), hide_short_help = true)]
    pub max_layer_size: ByteSize,

    /// Of all layers of an image, unpacked.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().unpacked_bytes), hide_short_help = true)]
    pub max_unpacked_size: ByteSize,

    /// How many times as many bytes a layer may unpack to, beyond its first 16 MiB.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().compression_ratio, hide_short_help = true)]
    pub max_compression_ratio: u64,

    /// In the archives of all layers of an image.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().archive_entries, hide_short_help = true)]
    pub max_archive_entries: u64,

    /// Of a path in an archive.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().path_bytes as u64), hide_short_help = true)]
    pub max_path_size: ByteSize,

    /// Of all paths that concern a catalog.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().paths_bytes), hide_short_help = true)]
    pub max_paths_size: ByteSize,

    /// Of a catalog.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().files, hide_short_help = true)]
    pub max_files: usize,

    /// Of a file of a catalog.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().file_bytes), hide_short_help = true)]
    pub max_file_size: ByteSize,

    /// Of a meta: one JSON object or YAML document.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().meta_bytes as u64), hide_short_help = true)]
    pub max_meta_size: ByteSize,

    /// Of all .indexignore files of a catalog.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().ignore_bytes), hide_short_help = true)]
    pub max_indexignore_size: ByteSize,

    /// Of what is kept in memory of a catalog while it is read: names, channels, descriptions.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().outline_bytes), hide_short_help = true)]
    pub max_outline_size: ByteSize,

    /// Of a catalog.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().packages, hide_short_help = true)]
    pub max_packages: usize,

    /// Bundles, channels and their entries of a package.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().package_objects, hide_short_help = true)]
    pub max_package_objects: usize,

    /// Of what waits in memory until all layers are verified; more goes to a temporary file without a name.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().spool_memory_bytes as u64), hide_short_help = true)]
    pub max_spool_memory: ByteSize,

    /// Of what waits until all layers are verified, in memory and in the temporary file.
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize(Limits::default().spool_bytes), hide_short_help = true)]
    pub max_spool_size: ByteSize,
}

impl LimitArgs {
    /// Returns the limits.
    pub fn limits(&self) -> Limits {
        let LimitArgs {
            max_manifest_size,
            max_layers,
            max_layer_size,
            max_unpacked_size,
            max_compression_ratio,
            max_archive_entries,
            max_path_size,
            max_paths_size,
            max_files,
            max_file_size,
            max_meta_size,
            max_indexignore_size,
            max_outline_size,
            max_packages,
            max_package_objects,
            max_spool_memory,
            max_spool_size,
        } = self;
        Limits {
            manifest_bytes: max_manifest_size.0,
            layers: *max_layers,
            layer_bytes: max_layer_size.0,
            unpacked_bytes: max_unpacked_size.0,
            compression_ratio: *max_compression_ratio,
            archive_entries: *max_archive_entries,
            files: *max_files,
            path_bytes: max_path_size.in_memory(),
            paths_bytes: max_paths_size.0,
            file_bytes: max_file_size.0,
            meta_bytes: max_meta_size.in_memory(),
            ignore_bytes: max_indexignore_size.0,
            outline_bytes: max_outline_size.0,
            packages: *max_packages,
            package_objects: *max_package_objects,
            spool_memory_bytes: max_spool_memory.in_memory(),
            spool_bytes: max_spool_size.0,
        }
    }
}

/// A number of bytes, written as Kubernetes writes quantities: `512`, `64Ki`, `32Mi`, `4Gi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// A text that is no number of bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a size such as 4096, 64Ki, 32Mi or 4Gi")]
pub struct InvalidByteSize;

const UNITS: [(&str, u32); 4] = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];

impl ByteSize {
    /// Returns the number as one of bytes in memory; more than there can be is as much as there can be.
    fn in_memory(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
        let (number, shift) = unit.unwrap_or((text, 0));
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidByteSize);
        }
        let number: u64 = number.parse().map_err(|_| InvalidByteSize)?;
        number.checked_mul(1 << shift).map(ByteSize).ok_or(InvalidByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, shift): &&(&str, u32)| self.0 >> shift > 0 && self.0.is_multiple_of(1 << shift);
        match UNITS.iter().find(whole) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print_alike() {
        for (text, bytes) in [
            ("0", 0),
            ("4097", 4097),
            ("64Ki", 64 << 10),
            ("32Mi", 32 << 20),
            ("4Gi", 4 << 30),
            ("3Ti", 3 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        for text in ["", "Ki", "-1", "+1", "1.5Gi", "4GB", "99999999999Ti"] {
            assert_eq!(text.parse::<ByteSize>(), Err(InvalidByteSize), "{text}");
        }
    }
}
