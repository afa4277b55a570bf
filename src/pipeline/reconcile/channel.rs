//! The upgrade graph of a channel: its head, and whether it hangs together.
//!
//! The rules are those of the reference implementation, operator-registry's `alpha/model`: the head is the one entry
//! that no other replaces or skips; from it, the chain of replaces reaches every entry that is not skipped.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::pipeline::parse::EntryMeta;

/// Returns the name of the head.
///
/// # Errors
///
/// A sentence that says why the entries are not a channel.
pub(super) fn find_head(entries: &[EntryMeta]) -> Result<&str, String> {
    let replaced = entries.iter().map(|entry| entry.replaces.as_str());
    let skipped = entries.iter().flat_map(|entry| &entry.skips).map(String::as_str);
    let reached: HashSet<_> = replaced.chain(skipped).filter(|name| !name.is_empty()).collect();
    let heads: BTreeSet<_> =
        entries.iter().map(|entry| entry.name.as_str()).filter(|name| !reached.contains(name)).collect();
    let mut names = heads.iter();
    match (names.next(), heads.len()) {
        (Some(head), 1) => check_chain(entries, head).map(|()| *head),
        (None, _) => Err("has no head: every entry is replaced or skipped by another".to_owned()),
        _ => Err(format!("has several heads: {}", list(&heads))),
    }
}

fn check_chain(entries: &[EntryMeta], head: &str) -> Result<(), String> {
    let by_name: HashMap<_, _> = entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let skipped: HashSet<_> = entries.iter().flat_map(|entry| &entry.skips).map(String::as_str).collect();
    let mut chain = vec![head];
    let mut reached = HashSet::from([head]);
    let mut current = by_name.get(head);
    while let Some(entry) = current {
        let next = entry.replaces.as_str();
        if next.is_empty() || skipped.contains(next) {
            break;
        }
        chain.push(next);
        if !reached.insert(next) {
            let start = chain.iter().position(|name| *name == next).unwrap_or(0);
            return Err(format!("replaces go round in a circle: {}", chain[start..].join(" -> ")));
        }
        current = by_name.get(next);
    }
    let stranded: BTreeSet<_> = entries
        .iter()
        .map(|entry| entry.name.as_str())
        .filter(|name| !reached.contains(name) && !skipped.contains(name))
        .collect();
    match stranded.len() {
        0 => Ok(()),
        _ => Err(format!("does not reach from its head `{head}`: {}", list(&stranded))),
    }
}

fn list(names: &BTreeSet<&str>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `name[<replaces][~skip…]`.
    fn entry(text: &str) -> EntryMeta {
        let mut skips: Vec<_> = text.split('~').map(str::to_owned).collect();
        let first = skips.remove(0);
        let (name, replaces) = first.split_once('<').unwrap_or((&first, ""));
        EntryMeta { name: name.to_owned(), replaces: replaces.to_owned(), skips, skip_range: String::new() }
    }

    fn head(entries: &[&str]) -> Result<String, String> {
        let entries: Vec<_> = entries.iter().map(|text| entry(text)).collect();
        find_head(&entries).map(str::to_owned)
    }

    #[test]
    fn the_head_is_what_nothing_leads_away_from() {
        for (entries, expected) in [
            (&["a"][..], "a"),
            (&["a", "b<a", "c<b"], "c"),
            (&["c<b", "a", "b<a"], "c"),
            (&["a", "b", "c<b~a"], "c"),
            (&["b<gone"], "b"),
            (&["a", "b~a"], "b"),
            (&["a<z", "b<a~x~y", "x", "y<x"], "b"),
        ] {
            assert_eq!(head(entries), Ok(expected.to_owned()), "{entries:?}");
        }
    }

    #[test]
    fn what_is_no_channel_is_said() {
        for (entries, expected) in [
            (&["a", "b"][..], "has several heads: `a`, `b`"),
            (&["a<b", "b<a"], "has no head: every entry is replaced or skipped by another"),
            (&["a<b", "b<c", "c<b"], "replaces go round in a circle: b -> c -> b"),
            (&["c<b~a", "b", "a", "x<x"], "does not reach from its head `c`: `x`"),
        ] {
            assert_eq!(head(entries), Err(expected.to_owned()), "{entries:?}");
        }
    }
}
