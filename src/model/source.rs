//! What `spec.image` can name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use oci_client::Reference;

/// Where a catalog is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceReference {
    /// An image in a registry.
    Registry(Reference),
    /// `oci:PATH[:TAG]`: an image in an OCI layout, which is a directory.
    Layout {
        /// The directory.
        path: PathBuf,
        /// Which image, where the layout holds several.
        tag: Option<String>,
    },
    /// `oci-archive:PATH[:TAG]`: an image in a tar of an OCI layout.
    Archive {
        /// The file.
        path: PathBuf,
        /// Which image, where the layout holds several.
        tag: Option<String>,
    },
    /// `fbc:PATH`: a catalog as plain files.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// A text that names no source.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSource {
    /// A local source without a path.
    #[error("`{0}` needs a path")]
    NoPath(String),
    /// Not an image reference.
    #[error(
        "neither an image reference such as `quay.io/operatorhubio/catalog:latest` nor `oci:PATH`, \
         `oci-archive:PATH` or `fbc:PATH`: {0}"
    )]
    Reference(String),
}

impl SourceReference {
    /// Returns whether it is read from this machine's file system.
    pub fn is_local(&self) -> bool {
        !matches!(self, SourceReference::Registry(_))
    }

    /// Returns whether it always names the same content, so that there is no point in polling it.
    pub fn is_pinned(&self) -> bool {
        matches!(self, SourceReference::Registry(reference) if reference.digest().is_some())
    }
}

impl FromStr for SourceReference {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = |path: &str| match path {
            "" => Err(InvalidSource::NoPath(text.to_owned())),
            path => Ok(PathBuf::from(path)),
        };
        let tagged = |rest: &str| match rest.split_once(':') {
            Some((before, tag)) if !tag.is_empty() => Ok((path(before)?, Some(tag.to_owned()))),
            _ => Ok((path(rest.trim_end_matches(':'))?, None)),
        };
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, tag) = tagged(rest)?;
            return Ok(SourceReference::Archive { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = tagged(rest)?;
            return Ok(SourceReference::Layout { path, tag });
        }
        if let Some(rest) = text.strip_prefix("fbc:") {
            return Ok(SourceReference::Directory { path: path(rest)? });
        }
        let reference = text.parse().map_err(|error| InvalidSource::Reference(format!("{error}")))?;
        Ok(SourceReference::Registry(reference))
    }
}

impl fmt::Display for SourceReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut local = |transport: &str, path: &PathBuf, tag: &Option<String>| {
            write!(f, "{transport}:{}", path.display())?;
            tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
        };
        match self {
            SourceReference::Layout { path, tag } => local("oci", path, tag),
            SourceReference::Archive { path, tag } => local("oci-archive", path, tag),
            SourceReference::Directory { path } => local("fbc", path, &None),
            SourceReference::Registry(reference) => reference.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_read_and_print_alike() {
        for text in [
            "quay.io/operatorhubio/catalog:latest",
            "localhost:5000/catalog:v1",
            "oci:/var/catalog",
            "oci:catalog:v1",
            "oci-archive:/tmp/catalog.tar",
            "fbc:config/samples/local/catalog",
        ] {
            let source: SourceReference = text.parse().unwrap();
            assert_eq!(source.to_string(), text);
            assert_eq!(source.is_local(), text.starts_with("oci") || text.starts_with("fbc"));
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for text in ["", "fbc:", "oci:", "oci-archive:", "https://quay.io/x", "quay.io/UPPER", "a b", "x:y:z"]
        {
            assert!(text.parse::<SourceReference>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_digest_pins() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(format!("quay.io/x/y@{digest}").parse::<SourceReference>().unwrap().is_pinned());
        assert!(!"quay.io/x/y:latest".parse::<SourceReference>().unwrap().is_pinned());
    }
}
