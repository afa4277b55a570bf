//! Which files are part of a catalog: those that no later one replaces and no `.indexignore` excludes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::ReconcileError;
use super::draft::ReadFile;
use crate::pipeline::limits::check;
use crate::pipeline::parse::{FileId, INDEX_IGNORE};

/// Patterns of all `.indexignore` files, and how many of those there may be.
const MAX_PATTERNS: u64 = 10_000;
const MAX_IGNORE_FILES: u64 = 1_000;

/// Returns the files that are part of the catalog: not replaced by a later one, and not ignored.
pub(super) fn live_files(
    files: &[ReadFile],
    by_path: &HashMap<String, FileId>,
    ignore_files: &BTreeMap<String, Vec<u8>>,
) -> Result<BTreeSet<FileId>, ReconcileError> {
    let too_many = |what, count, limit| check(what, count, limit).map_err(ReconcileError::TooLarge);
    too_many(".indexignore files", ignore_files.len() as u64, MAX_IGNORE_FILES)?;
    let lines = ignore_files.values().map(|content| memchr::memchr_iter(b'\n', content).count() as u64 + 1);
    too_many("lines in .indexignore files", lines.sum(), MAX_PATTERNS)?;
    let matchers: Vec<(&str, Gitignore)> = ignore_files
        .iter()
        .map(|(path, content)| {
            let directory = path.strip_suffix(INDEX_IGNORE).unwrap_or_default();
            let wrong = |reason: String| ReconcileError::IgnoreFile { path: path.clone(), reason };
            let mut builder = GitignoreBuilder::new("");
            for line in String::from_utf8_lossy(content).lines() {
                builder.add_line(None, line).map_err(|error| wrong(error.to_string()))?;
            }
            Ok((directory, builder.build().map_err(|error| wrong(error.to_string()))?))
        })
        .collect::<Result<_, ReconcileError>>()?;
    let is_ignored = |path: &str| {
        let mut verdict = false;
        for (directory, matcher) in &matchers {
            let Some(within) = path.strip_prefix(directory) else {
                continue;
            };
            match matcher.matched_path_or_any_parents(within, false) {
                ignore::Match::None => {}
                ignore::Match::Ignore(_) => verdict = true,
                ignore::Match::Whitelist(_) => verdict = false,
            }
        }
        verdict
    };
    let is_live = |(index, file): (usize, &ReadFile)| {
        let (id, path) = (FileId(index as u32), &file.path);
        (by_path.get(path) == Some(&id) && !is_ignored(path)).then_some(id)
    };
    Ok(files.iter().enumerate().filter_map(is_live).collect())
}
