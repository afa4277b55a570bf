use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::write::samples::any_json;

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![
        "[a-c.]{0,2}".prop_map(|name| Element::field(&name)),
        (0..3).prop_map(|number: i32| Element::value(number.into())),
        "[ab]".prop_map(|name| Element::key(json!({"name": name, "port": 1}))),
        (0..3).prop_map(|index| Element::parse(&format!("i:{index}")).unwrap().unwrap()),
    ]
}

/// A set of paths, which is what a [`FieldSet`] stands for.
type Model = BTreeSet<Vec<Element>>;

fn model() -> impl Strategy<Value = Model> {
    proptest::collection::btree_set(proptest::collection::vec(element(), 1..4), 0..12)
}

fn set(model: &Model) -> FieldSet {
    let mut set = FieldSet::default();
    model.iter().for_each(|path| set.insert(path));
    set
}

fn paths(set: &FieldSet) -> Model {
    set.paths().into_iter().collect()
}

proptest! {
    #[test]
    fn sets_of_fields_are_sets_of_paths(a in model(), b in model()) {
        let (one, other) = (set(&a), set(&b));
        prop_assert_eq!(paths(&one), a.clone());
        prop_assert_eq!(paths(&one.clone().union(&other)), &a | &b);
        prop_assert_eq!(paths(&one.intersection(&other)), &a & &b);
        prop_assert_eq!(paths(&one.difference(&other)), &a - &b);
        prop_assert_eq!(one.is_empty(), a.is_empty());
        prop_assert!(a.iter().all(|path| one.contains(path)));
        prop_assert!((&b - &a).iter().all(|path| !one.contains(path)));
        // What is equal as a set is equal as a tree, however it came about.
        prop_assert_eq!(one.difference(&other).union(&one.intersection(&other)), one);
    }

    #[test]
    fn c183_fields_v1_is_read_as_it_was_written(model in model()) {
        let set = set(&model);
        let text = set.encode().to_string();
        prop_assert_eq!(FieldSet::decode(&serde_json::from_str(&text).unwrap()), Ok(set));
    }

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        if let Ok(set) = FieldSet::decode(&value) {
            prop_assert_eq!(FieldSet::decode(&set.encode()), Ok(set));
        }
    }
}

#[test]
fn c183_fields_v1_is_what_kubernetes_writes() {
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/name": {}}},
        "f:status": {"f:conditions": {
            r#"k:{"type":"Ready"}"#: {".": {}, "f:message": {}},
            r#"k:{"port":80,"protocol":"TCP"}"#: {},
        }},
        "f:set": {"v:1": {}, "v:\"a\"": {}, "v:null": {}, "v:true": {}},
        "f:list": {"i:3": {}},
    });
    let set = FieldSet::decode(&fields).unwrap();
    assert_eq!(set.encode(), fields);
    let shown: Vec<_> = set.paths().iter().map(|path| display(path)).collect();
    let expected = [
        ".list[3]",
        ".metadata.labels",
        ".metadata.labels.app.kubernetes.io/name",
        ".set[=\"a\"]",
        ".set[=1]",
        ".set[=null]",
        ".set[=true]",
        ".status.conditions[port=80,protocol=\"TCP\"]",
        ".status.conditions[type=\"Ready\"]",
        ".status.conditions[type=\"Ready\"].message",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn elements_have_one_spelling() {
    let spelled =
        |text: &str| Element::parse(text).map(|element| element.map(|element| element.as_str().to_owned()));
    assert_eq!(spelled("v:1.0"), Ok(Some("v:1".to_owned())));
    assert_eq!(spelled(r#"k:{"b": 1, "a": 2.0}"#), Ok(Some(r#"k:{"a":2,"b":1}"#.to_owned())));
    assert_eq!(spelled("v:1.5"), Ok(Some("v:1.5".to_owned())));
    // What a later version may know is passed over; what is wrong is not.
    assert_eq!(spelled("q:x"), Ok(None));
    for text in ["", "f", "fx", "é", "k:1", "k:{", "v:", "i:x"] {
        assert!(spelled(text).is_err(), "{text}");
    }
    assert!(FieldSet::decode(&json!({"f:a": 1})).is_err());
    assert!(FieldSet::decode(&json!([])).is_err());
}
