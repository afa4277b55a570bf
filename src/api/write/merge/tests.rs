use proptest::prelude::*;
use serde_json::json;

use super::super::fields::{FieldSet, display};
use super::super::samples::{any_json, structure, value};
use super::*;

fn shown(set: &FieldSet) -> Vec<String> {
    set.paths().iter().map(|path| display(path)).collect()
}

#[test]
fn c190_what_is_merged_follows_the_structure() {
    for (what, live, config, merged) in [
        (
            "fields of an object",
            json!({"object": {"a": "1"}}),
            json!({"object": {"b": "2"}}),
            json!({"object": {"a": "1", "b": "2"}}),
        ),
        (
            "entries of a map",
            json!({"labels": {"a": "1"}}),
            json!({"labels": {"a": "2", "b": "2"}}),
            json!({"labels": {"a": "2", "b": "2"}}),
        ),
        (
            "an object that is one",
            json!({"whole": {"a": "1"}}),
            json!({"whole": {"b": "2"}}),
            json!({"whole": {"b": "2"}}),
        ),
        ("a plain list", json!({"list": ["a", "b"]}), json!({"list": ["c"]}), json!({"list": ["c"]})),
        ("an empty plain list", json!({"list": ["a"]}), json!({"list": []}), json!({"list": []})),
        ("a set", json!({"set": ["a", "b"]}), json!({"set": ["c", "b"]}), json!({"set": ["a", "c", "b"]})),
        (
            "a list with keys",
            json!({"items": [{"name": "a", "value": "1"}, {"name": "b", "value": "1"}]}),
            json!({"items": [{"name": "b", "tags": ["x"]}, {"name": "c"}]}),
            json!({"items": [{"name": "a", "value": "1"}, {"name": "b", "value": "1", "tags": ["x"]}, {"name": "c"}]}),
        ),
        (
            "a list with two keys",
            json!({"ports": [{"name": "a", "port": 1, "value": "1"}, {"name": "a", "port": 2}]}),
            json!({"ports": [{"name": "a", "port": 2, "value": "2"}]}),
            json!({"ports": [{"name": "a", "port": 1, "value": "1"}, {"name": "a", "port": 2, "value": "2"}]}),
        ),
        (
            "what has no schema",
            json!({"any": {"a": {"b": 1}}}),
            json!({"any": {"a": {"c": [2]}}}),
            json!({"any": {"a": {"b": 1, "c": [2]}}}),
        ),
        (
            "one kind of value over another",
            json!({"any": {"a": 1}}),
            json!({"any": "x"}),
            json!({"any": "x"}),
        ),
        ("an empty object over nothing", json!({}), json!({"labels": {}}), json!({"labels": {}})),
        ("an empty list over a set", json!({"set": ["a"]}), json!({"set": []}), json!({"set": ["a"]})),
    ] {
        assert_eq!(merge(&structure(), &live, &config), merged, "{what}");
    }
}

#[test]
fn c190_items_stand_in_the_order_that_was_applied_and_others_where_they_stood() {
    let set = |text: &str| json!({"set": text.chars().map(|item| item.to_string()).collect::<Vec<_>>()});
    for (live, config, merged) in [
        ("abcd", "", "abcd"),
        ("", "ab", "ab"),
        ("abcd", "ba", "bcda"),
        ("abcd", "dc", "abdc"),
        ("abcd", "axc", "abxcd"),
        ("abc", "xyz", "abcxyz"),
        ("abcde", "eca", "bdeca"),
        ("acbd", "ab", "acbd"),
    ] {
        assert_eq!(merge(&structure(), &set(live), &set(config)), set(merged), "{live} {config}");
    }
    // Items that cannot be told from each other give way to the one that was applied.
    assert_eq!(merge(&structure(), &set("aba"), &set("a")), set("ab"));
}

#[test]
fn c190_what_is_owned_is_what_was_said() {
    let config = json!({
        "text": "x", "labels": {"a": "1"}, "object": {"a": "1", "inner": {}}, "whole": {"a": "1"}, "list": ["a"],
        "set": ["a", "a", "b"], "items": [{"name": "a", "tags": ["t"]}], "any": {"a": {"b": 1}},
    });
    let expected = [
        ".list",
        ".text",
        ".whole",
        ".any.a",
        ".any.a.b",
        ".items[name=\"a\"]",
        ".items[name=\"a\"].name",
        ".items[name=\"a\"].tags[=\"t\"]",
        ".labels.a",
        ".object.a",
        ".object.inner",
        ".set[=\"a\"]",
        ".set[=\"b\"]",
    ];
    assert_eq!(shown(&owned(&structure(), &config)), expected);
}

#[test]
fn changes_are_found_where_they_are() {
    let changes = |old: Value, new: Value| {
        let changes = compare(&structure(), &old, &new);
        [shown(&changes.added), shown(&changes.modified), shown(&changes.removed)]
            .map(|shown| shown.join(" "))
    };
    for (old, new, expected) in [
        (
            json!({"object": {"a": "1"}}),
            json!({"object": {"a": "2", "b": "1"}}),
            [".object.b", ".object.a", ""],
        ),
        (json!({}), json!({"object": {"a": "1"}}), [".object .object.a", "", ""]),
        (json!({"labels": {"a": "1"}}), json!({"labels": {}}), ["", "", ".labels.a"]),
        (json!({"whole": {"a": "1"}}), json!({"whole": {"b": "1"}}), ["", ".whole", ""]),
        (json!({"set": ["a", "b"]}), json!({"set": ["b", "c"]}), [".set[=\"c\"]", "", ".set[=\"a\"]"]),
        (json!({"set": ["a", "b"]}), json!({"set": ["b", "a"]}), ["", "", ""]),
        (
            json!({"items": [{"name": "a", "value": "1"}]}),
            json!({"items": [{"name": "a", "value": "2"}, {"name": "b"}]}),
            [".items[name=\"b\"] .items[name=\"b\"].name", ".items[name=\"a\"].value", ""],
        ),
        (json!({"any": {"a": 1}}), json!({"any": [1]}), ["", ".any", ".any.a"]),
        (json!({"set": ["a"]}), json!({"set": ["a", "a"]}), [".set[=\"a\"]", "", ".set[=\"a\"]"]),
        (json!({"set": ["a", "a"]}), json!({"set": ["a"]}), [".set[=\"a\"]", "", ".set[=\"a\"]"]),
    ] {
        assert_eq!(changes(old.clone(), new.clone()), expected, "{old} {new}");
    }
}

#[test]
fn c190_what_cannot_be_told_apart_cannot_be_applied() {
    for (config, faults) in [
        (json!({"set": ["a", "b", "a"]}), vec![".set: duplicate entries for key [=\"a\"]"]),
        (
            json!({"items": [{"name": "a"}, {"name": "a"}]}),
            vec![".items: duplicate entries for key [name=\"a\"]"],
        ),
        (json!({"ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]}), vec![]),
        (
            json!({"ports": [{"name": "a"}]}),
            vec![".ports: item 0 is told from others by name and port, which it does not have"],
        ),
        (
            json!({"items": [{"name": "a", "tags": ["t", "t"]}]}),
            vec![".items[name=\"a\"].tags: duplicate entries for key [=\"t\"]"],
        ),
        (json!({"list": ["a", "a"], "any": ["a", "a"]}), vec![]),
    ] {
        assert_eq!(ambiguities(&structure(), &config), faults, "{config}");
    }
}

proptest! {
    #[test]
    fn a_configuration_holds_once_it_is_merged(live in value(), config in value()) {
        let structure = structure();
        let merged = merge(&structure, &live, &config);
        prop_assert_eq!(merge(&structure, &merged, &config), merged.clone());
        // Nothing is lost, and nothing comes from anywhere else.
        let changes = compare(&structure, &live, &merged);
        let said = owned(&structure, &config);
        let changed = owned(&structure, &merged).intersection(&changes.added.union(&changes.modified));
        prop_assert!(changed.difference(&said).is_empty(), "{:?}", shown(&changed.difference(&said)));
    }

    #[test]
    fn the_difference_between_values_is_what_was_added_and_removed(old in value(), new in value()) {
        let structure = structure();
        let there = compare(&structure, &old, &new);
        let back = compare(&structure, &new, &old);
        prop_assert_eq!((&there.added, &there.modified, &there.removed), (&back.removed, &back.modified, &back.added));
        prop_assert_eq!(compare(&structure, &new, &new), Default::default());
    }

    #[test]
    fn what_is_removed_is_gone_and_the_rest_stays(value in value(), other in value()) {
        let structure = structure();
        let unwanted = owned(&structure, &other);
        let left = remove(&structure, &value, &unwanted).unwrap_or_else(|| json!({}));
        let places = owned(&structure, &left);
        prop_assert!(places.intersection(&unwanted).is_empty());
        let gone = compare(&structure, &value, &left);
        prop_assert!(gone.added.is_empty() && gone.modified.is_empty());
    }

    #[test]
    fn any_json_can_be_merged_and_compared(one in any_json(), other in any_json()) {
        let structure = structure();
        let merged = merge(&structure, &one, &other);
        prop_assert_eq!(merge(&structure, &merged, &other), merged.clone());
        ambiguities(&structure, &one);
        let changes = compare(&structure, &one, &merged);
        remove(&structure, &merged, &changes.added);
        remove(&structure, &merged, &owned(&structure, &one));
    }
}
