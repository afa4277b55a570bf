//! Patches against models that are written as the specifications have them, and bodies that nobody would send (C156–C170).

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::objects::SOURCES;
use crate::support::router::TestApi;
use crate::support::{rounds, runtime};

/// The object that is patched.
fn source() -> Value {
    json!({
        "metadata": {
            "name": "s", "labels": {"a": "1", "b": "2"}, "annotations": {"a": "x", "example.com/b": "y"},
            "finalizers": ["example.com/a", "example.com/b", "example.com/c"],
        },
        "spec": {"image": "example.com/a:b", "displayName": "one", "priority": 3},
    })
}

/// What patches are about; the rest of an object is the server's.
fn patched(object: &Value) -> Value {
    let part = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
    let mut parts = json!({
        "labels": part("/metadata/labels"), "annotations": part("/metadata/annotations"),
        "finalizers": part("/metadata/finalizers"), "spec": part("/spec"),
    });
    // A field that is null is not there, and what is empty in metadata is not there either.
    for (name, part) in parts.as_object_mut().into_iter().flatten() {
        if let Some(fields) = part.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let empty = if name == "finalizers" { json!([]) } else { json!({}) };
        if *part == empty {
            *part = Value::Null;
        }
    }
    parts
}

/// Returns whether an object is one that may be stored, by what patches here make of it.
fn is_valid(object: &Value) -> bool {
    let parts = patched(object);
    let fits = |text: &str| {
        let is_end = |end: Option<char>| end.is_some_and(|end| end.is_ascii_alphanumeric());
        text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && is_end(text.chars().next())
            && is_end(text.chars().last())
    };
    let labels = match &parts["labels"] {
        Value::Null => true,
        Value::Object(labels) => labels.values().all(|label| label.as_str().is_some_and(fits)),
        _ => false,
    };
    let annotations = match &parts["annotations"] {
        Value::Null => true,
        Value::Object(annotations) => annotations.values().all(Value::is_string),
        _ => false,
    };
    let is_finalizer = |item: &Value| {
        item.as_str().is_some_and(|item| fits(item.strip_prefix("example.com/").unwrap_or(item)))
    };
    let finalizers = match &parts["finalizers"] {
        Value::Null => true,
        Value::Array(items) => items.iter().all(is_finalizer),
        _ => false,
    };
    let is_spec = |(name, value): (&String, &Value)| match name.as_str() {
        "priority" => value.is_i64(),
        _ => value.is_string(),
    };
    let spec = parts["spec"].as_object().is_some_and(|spec| {
        spec.iter().all(is_spec) && spec.get("image").is_some_and(|image| image.as_str() != Some(""))
    });
    labels && annotations && finalizers && spec
}

/// RFC 7386, section 2, to the letter.
fn merge_patch(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = match target {
        Value::Object(target) => target,
        _ => Map::new(),
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            let old = target.remove(name).unwrap_or_default();
            target.insert(name.clone(), merge_patch(old, value));
        }
    }
    Value::Object(target)
}

/// Values that may stand in the fields of the object, right and wrong ones.
fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => prop::sample::select(vec![json!("example.com/x:y"), json!("z"), json!("example.com/a")]),
        2 => Just(json!(7)),
        3 => Just(Value::Null),
        1 => prop::sample::select(vec![json!(true), json!(1.5), json!([]), json!({}), json!({"a": null})]),
    ]
}

fn fields(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(prop::sample::select(names.to_vec()), scalar(), 0..3)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn merging() -> impl Strategy<Value = Value> {
    let texts = || {
        prop_oneof![
            6 => fields(&["a", "b", "c"]),
            1 => scalar(),
        ]
    };
    let finalizers = prop_oneof![
        3 => prop::collection::btree_set(prop::sample::select(vec!["example.com/a", "example.com/d"]), 0..3)
            .prop_map(Value::from_iter),
        1 => Just(Value::Null),
    ];
    let metadata =
        (prop::option::of(texts()), prop::option::of(texts()), prop::option::weighted(0.3, finalizers))
            .prop_map(|(labels, annotations, finalizers)| {
                let all = [("labels", labels), ("annotations", annotations), ("finalizers", finalizers)];
                all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Value>()
            });
    let spec = fields(&["image", "displayName", "publisher", "priority"]);
    (prop::option::of(metadata), prop::option::of(spec)).prop_map(|(metadata, spec)| {
        let all = [("metadata", metadata), ("spec", spec)];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    })
}

/// Sends a patch, and compares what comes of it with what a model says: an object, or nothing for a patch that fails.
async fn compare(
    kind: &str,
    patch: &Value,
    model: impl Fn(Value) -> Option<Value>,
) -> Result<(), TestCaseError> {
    let api = TestApi::new();
    let before = api.post(SOURCES, &source()).await.expect(201);
    let path = format!("{SOURCES}/s");
    let answer = api.patch(&path, kind, patch).await;
    let expected = model(before.clone()).filter(is_valid);
    let stored = api.get(&path).await.expect(200);
    match expected {
        Some(expected) => {
            prop_assert_eq!(answer.status.as_u16(), 200, "{}: {}", patch, answer.text());
            prop_assert_eq!(patched(&answer.json()), patched(&expected), "{}", patch);
            prop_assert_eq!(&stored, &answer.json());
            let versions = [&before, &stored].map(|object| object["metadata"]["resourceVersion"].clone());
            prop_assert_eq!(versions[0] == versions[1], patched(&before) == patched(&stored), "{}", patch);
        }
        None => {
            prop_assert!((400..500).contains(&answer.status.as_u16()), "{}: {}", patch, answer.text());
            prop_assert_eq!(stored, before);
        }
    }
    Ok(())
}

#[test]
fn c161_merge_patches_do_what_the_specification_says() {
    let runtime = runtime();
    proptest!(ProptestConfig::with_cases(rounds(192, 20_000)), |(patch in merging())| {
        runtime.block_on(compare("merge-patch+json", &patch, |target| Some(merge_patch(target, &patch))))?;
    });
}

/// RFC 6901: the steps of a pointer.
fn steps(pointer: &str) -> Option<Vec<String>> {
    match pointer {
        "" => Some(Vec::new()),
        _ => Some(
            pointer
                .strip_prefix('/')?
                .split('/')
                .map(|step| step.replace("~1", "/").replace("~0", "~"))
                .collect(),
        ),
    }
}

/// Returns the index that a step is in a list: digits without a leading zero.
fn index(step: &str) -> Option<usize> {
    let is_index = step == "0" || (!step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit()));
    if is_index { step.parse().ok() } else { None }
}

fn find(object: &Value, steps: &[String]) -> Option<Value> {
    let mut place = object;
    for step in steps {
        place = match place {
            Value::Object(fields) => fields.get(step)?,
            Value::Array(items) => items.get(index(step)?)?,
            _ => return None,
        };
    }
    Some(place.clone())
}

fn find_mut<'a>(object: &'a mut Value, steps: &[String]) -> Option<&'a mut Value> {
    let mut place = object;
    for step in steps {
        place = match place {
            Value::Object(fields) => fields.get_mut(step)?,
            Value::Array(items) => items.get_mut(index(step)?)?,
            _ => return None,
        };
    }
    Some(place)
}

fn add(object: &mut Value, steps: &[String], value: Value) -> Option<()> {
    let Some((last, parents)) = steps.split_last() else {
        *object = value;
        return Some(());
    };
    match find_mut(object, parents)? {
        Value::Object(fields) => drop(fields.insert(last.clone(), value)),
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(last).filter(|at| *at <= items.len())?;
            items.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(object: &mut Value, steps: &[String]) -> Option<Value> {
    let (last, parents) = steps.split_last()?;
    match find_mut(object, parents)? {
        Value::Object(fields) => fields.remove(last),
        Value::Array(items) => index(last).filter(|at| *at < items.len()).map(|at| items.remove(at)),
        _ => None,
    }
}

/// RFC 6902, section 4; but what is not there may be replaced, in an object that is, as in Kubernetes.
fn json_patch(mut object: Value, operations: &[Value]) -> Option<Value> {
    for operation in operations {
        let path = steps(operation["path"].as_str()?)?;
        let from = || steps(operation["from"].as_str()?);
        match operation["op"].as_str()? {
            "add" => add(&mut object, &path, operation["value"].clone())?,
            "remove" => drop(remove(&mut object, &path)?),
            "replace" => {
                let parent = &path[..path.len() - 1];
                let is_field = find(&object, parent).is_some_and(|parent| parent.is_object());
                if remove(&mut object, &path).is_none() && !is_field {
                    return None;
                }
                add(&mut object, &path, operation["value"].clone())?;
            }
            "move" => {
                let from = from()?;
                // What is moved into itself would be nowhere.
                if path.len() > from.len() && path.starts_with(&from) {
                    return None;
                }
                let value = remove(&mut object, &from)?;
                add(&mut object, &path, value)?;
            }
            "copy" => {
                let value = find(&object, &from()?)?;
                add(&mut object, &path, value)?;
            }
            _ => {
                if find(&object, &path)? != operation["value"] {
                    return None;
                }
            }
        }
    }
    Some(object)
}

fn operation() -> impl Strategy<Value = Value> {
    let pointer = || {
        prop::sample::select(vec![
            "/metadata/labels",
            "/metadata/labels/a",
            "/metadata/labels/b",
            "/metadata/labels/c",
            "/metadata/annotations",
            "/metadata/annotations/a",
            "/metadata/annotations/example.com~1b",
            "/metadata/finalizers",
            "/metadata/finalizers/0",
            "/metadata/finalizers/1",
            "/metadata/finalizers/3",
            "/metadata/finalizers/-",
            "/metadata/finalizers/01",
            "/metadata/finalizers/x",
            "/spec/image",
            "/spec/displayName",
            "/spec/publisher",
            "/spec/priority",
            "/spec/none/any",
        ])
    };
    let value = || {
        prop_oneof![
            6 => scalar(),
            1 => prop::sample::select(vec![json!({"a": "1"}), json!({"x": "y"}), json!(["example.com/z"]), json!("1"), json!(3)]),
        ]
    };
    prop_oneof![
        3 => (pointer(), value()).prop_map(|(path, value)| json!({"op": "add", "path": path, "value": value})),
        2 => pointer().prop_map(|path| json!({"op": "remove", "path": path})),
        2 => (pointer(), value()).prop_map(|(path, value)| json!({"op": "replace", "path": path, "value": value})),
        1 => (pointer(), pointer()).prop_map(|(from, path)| json!({"op": "move", "from": from, "path": path})),
        1 => (pointer(), pointer()).prop_map(|(from, path)| json!({"op": "copy", "from": from, "path": path})),
        1 => (pointer(), value()).prop_map(|(path, value)| json!({"op": "test", "path": path, "value": value})),
    ]
}

#[test]
fn c159_json_patches_do_what_the_specification_says() {
    let runtime = runtime();
    let patch = prop::collection::vec(operation(), 0..4);
    proptest!(ProptestConfig::with_cases(rounds(256, 20_000)), |(patch in patch)| {
        let model = |target| json_patch(target, &patch);
        runtime.block_on(compare("json-patch+json", &Value::from(patch.clone()), model))?;
    });
}

/// JSON with names that mean something, in places where they do not.
fn odd() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "apiVersion",
        "kind",
        "name",
        "labels",
        "annotations",
        "finalizers",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "uid",
        "image",
        "priority",
        "conditions",
        "type",
        "fieldsV1",
        "f:spec",
        "k:{",
        "manager",
        "operation",
        "op",
        "path",
        "value",
        "from",
        "preconditions",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        prop::sample::select(vec![
            "CatalogSource",
            "core.rukpak.io/v1beta1",
            "s",
            "add",
            "/spec",
            "/",
            "Apply",
            "0"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

#[test]
fn c001_whatever_is_sent_is_answered() {
    let runtime = runtime();
    let body = prop_oneof![
        3 => odd().prop_map(|value| value.to_string().into_bytes()),
        // Something that was right, with something odd in one place.
        3 => (odd(), prop::sample::select(vec!["/metadata", "/spec", "/metadata/labels", "/spec/image", "/metadata/finalizers"]))
            .prop_map(|(odd, place)| {
                let mut object = source();
                object["apiVersion"] = json!("core.rukpak.io/v1beta1");
                object["kind"] = json!("CatalogSource");
                if let Some(place) = object.pointer_mut(place) {
                    *place = odd;
                }
                object.to_string().into_bytes()
            }),
        // Cut off, or garbled.
        1 => (odd(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(value, at, byte)| {
            let mut text = value.to_string().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            text
        }),
        1 => prop::collection::vec(any::<u8>(), 0..64),
    ];
    let kind = prop::sample::select(vec![
        ("PATCH", "application/merge-patch+json"),
        ("PATCH", "application/json-patch+json"),
        ("PATCH", "application/apply-patch+yaml"),
        ("PUT", "application/json"),
        ("PUT", "application/yaml"),
        ("POST", "application/json"),
        ("DELETE", "application/json"),
    ]);
    let query = prop::sample::select(vec!["", "?force=true", "?dryRun=All", "?fieldValidation=Strict"]);
    let part = prop::sample::select(vec!["", "/status"]);
    let strategy = (body, kind, query, part);
    proptest!(ProptestConfig::with_cases(rounds(384, 20_000)), |((body, (method, media_type), query, part) in strategy)| {
        runtime.block_on(async {
            let api = TestApi::new();
            api.post(SOURCES, &source()).await.expect(201);
            let path = match method {
                "POST" => format!("{SOURCES}{query}"),
                _ => format!("{SOURCES}/s{part}{query}"),
            };
            let path = match path.split_once('?') {
                Some((path, query)) => format!("{path}?fieldManager=me&{query}"),
                None => format!("{path}?fieldManager=me"),
            };
            let method = method.parse().expect("it is a method");
            let answer = api.call(method, &path).body(media_type, body).await;
            let status = answer.status.as_u16();
            prop_assert!(status < 500, "{}: {}", path, answer.text());
            if status >= 400 {
                let body = answer.json();
                prop_assert_eq!((&body["kind"], &body["code"]), (&json!("Status"), &json!(status)));
            }
            // Whatever came of it can be read.
            let read = api.get(&format!("{SOURCES}/s")).await.status.as_u16();
            prop_assert!(read == 200 || (read == 404 && path.contains("/s?") && status < 300), "{}", read);
            Ok(())
        })?;
    });
}
