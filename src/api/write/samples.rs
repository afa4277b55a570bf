//! A structure with everything in it, values of it, and any JSON at all, for tests.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::api::schema::Structure;

/// Returns a structure with a field of each kind.
pub(super) fn structure() -> Structure {
    let text = json!({"type": "string"});
    let pair = json!({"a": text, "b": text});
    let item = json!({"type": "object", "required": ["name"], "properties": {
        "name": text, "value": text, "tags": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
    }});
    let schema = json!({"type": "object", "properties": {
        "text": text,
        "number": {"type": "number"},
        "labels": {"type": "object", "additionalProperties": text},
        "object": {"type": "object", "properties": {
            "a": text, "b": text, "inner": {"type": "object", "properties": pair},
        }},
        "whole": {"type": "object", "properties": pair, "x-kubernetes-map-type": "atomic"},
        "list": {"type": "array", "items": text},
        "set": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
        "items": {
            "type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        },
        "ports": {
            "type": "array", "items": {"type": "object", "properties": {
                "name": text, "port": {"type": "integer"}, "value": text,
            }},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"],
        },
        "any": {"x-kubernetes-preserve-unknown-fields": true},
    }});
    Structure::compile(&schema, &BTreeMap::new())
}

/// Makes values of [`structure`] from few names and values, so that they meet often.
pub(super) fn value() -> impl Strategy<Value = Value> {
    let text = || prop_oneof!["x", "y", "z"];
    let name = || prop_oneof!["a", "b", "c"];
    let texts = move || vec(text(), 0..3).prop_map(Value::from);
    let set = move || btree_set(text(), 0..3).prop_map(Value::from_iter);
    let pair = move || btree_map(prop_oneof!["a", "b"], text(), 1..3).prop_map(|pair| json!(pair));
    let labels = move || btree_map(name(), text(), 0..3).prop_map(|labels| json!(labels));
    let item = move || (option(text()), option(set()));
    let items = move || {
        btree_map(name(), item(), 0..3).prop_map(Vec::from_iter).prop_shuffle().prop_map(|items| {
            let item = |(name, (value, tags)): (String, (Option<String>, Option<Value>))| {
                present([("name", Some(json!(name))), ("value", value.map(Value::from)), ("tags", tags)])
            };
            items.into_iter().map(item).collect::<Value>()
        })
    };
    let ports = btree_map((name(), 1..3), text(), 0..3).prop_map(|ports| {
        let port = |((name, port), value)| json!({"name": name, "port": port, "value": value});
        ports.into_iter().map(port).collect::<Value>()
    });
    let object = (option(text()), option(text()), option(pair())).prop_map(|(a, b, inner)| {
        present([("a", a.map(Value::from)), ("b", b.map(Value::from)), ("inner", inner)])
    });
    let any = prop_oneof![text().prop_map(Value::from), labels(), texts()];
    let first = (option(text()), option(0..3), option(labels()), option(object), option(pair()));
    let second = (option(texts()), option(set()), option(items()), option(ports), option(any));
    (first, second).prop_map(|((text, number, labels, object, whole), (list, set, items, ports, any))| {
        present([
            ("text", text.map(Value::from)),
            ("number", number.map(Value::from)),
            ("labels", labels),
            ("object", object),
            ("whole", whole),
            ("list", list),
            ("set", set),
            ("items", items),
            ("ports", ports),
            ("any", any),
        ])
    })
}

fn option<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    proptest::option::of(strategy)
}

fn present<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Makes any JSON, with the names of [`structure`] among its own.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        ".{0,4}", "name", "value", "tags", "port", "text", "number", "labels", "object", "whole", "list",
        "set", "items", "ports", "any", "a", "f:a", "k:\\{\\}", "v:1", "\\.",
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(name.clone(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
