//! A catalog as plain files, for people who write one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{FileContents, FileVisitor, InflateError};
use crate::pipeline::limits::{Limits, check};

/// Directories within directories; a catalog has one or two.
const MAX_DEPTH: usize = 32;

/// Hands the files under a directory to a visitor, in the order of their paths. Blocks.
///
/// Symbolic links are followed as far as they stay inside the directory, which is how mounted ConfigMaps look.
///
/// # Errors
///
/// [`InflateError`] when something cannot be read, leads out of the directory or is over the limits.
pub fn walk_directory(
    root: &Path,
    limits: &Limits,
    visitor: &mut dyn FileVisitor,
) -> Result<(), InflateError> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| InflateError::Directory {
        path: path.display().to_string(),
        reason: error.to_string(),
    };
    let canonical = root.canonicalize().map_err(|error| failed(root, &error))?;
    let (mut files, mut seen) = (Vec::new(), 0);
    collect(&canonical, &canonical, 0, limits, &mut files, &mut seen)?;
    if files.is_empty() {
        return Err(InflateError::Directory {
            path: root.display().to_string(),
            reason: "no files in the catalog".to_owned(),
        });
    }
    for path in files {
        let relative = path.strip_prefix(&canonical).unwrap_or(&path);
        let Some(name) = relative.to_str() else {
            return Err(failed(&path, &"the path is not UTF-8"));
        };
        let mut file = File::open(&path).map_err(|error| failed(&path, &error))?;
        let size = file.metadata().map_err(|error| failed(&path, &error))?.len();
        check("bytes in a file", size, limits.file_bytes)
            .map_err(|source| InflateError::TooLarge { place: path.display().to_string(), source })?;
        let mut contents = FileContents::new(&mut file, size);
        visitor.file(name, &mut contents).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

fn collect(
    root: &Path,
    directory: &Path,
    depth: usize,
    limits: &Limits,
    files: &mut Vec<PathBuf>,
    seen: &mut u64,
) -> Result<(), InflateError> {
    let failed =
        |path: &Path, reason: String| InflateError::Directory { path: path.display().to_string(), reason };
    if depth > MAX_DEPTH {
        return Err(failed(directory, format!("more than {MAX_DEPTH} directories within each other")));
    }
    let entries = fs::read_dir(directory).map_err(|error| failed(directory, error.to_string()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| failed(directory, error.to_string()))?.path());
        // Links that go in circles make a directory of many.
        *seen += 1;
        check("files and directories in a catalog", *seen, limits.files as u64)
            .map_err(|source| InflateError::TooLarge { place: root.display().to_string(), source })?;
    }
    paths.sort();
    for path in paths {
        let target = path.canonicalize().map_err(|error| failed(&path, error.to_string()))?;
        if !target.starts_with(root) {
            return Err(failed(&path, "a link that leads out of the catalog".to_owned()));
        }
        if target.is_dir() {
            collect(root, &path, depth + 1, limits, files, seen)?;
        } else if target.is_file() {
            files.push(path);
            check("files in a catalog", files.len() as u64, limits.files as u64)
                .map_err(|source| InflateError::TooLarge { place: root.display().to_string(), source })?;
        } else {
            return Err(failed(&path, "neither a file nor a directory".to_owned()));
        }
    }
    Ok(())
}
