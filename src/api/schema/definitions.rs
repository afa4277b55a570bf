//! JSON schemas of Rust types in the form that Kubernetes publishes: OpenAPI 3.0, its extensions, and no `null`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Status};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::resource::ResourceType;

/// What references to definitions begin with.
pub(in crate::api) const REFERENCE: &str = "#/components/schemas/";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Returns the name of the definition of a kind, as Kubernetes names them: the group reversed, version and kind.
pub(in crate::api) fn definition_name(resource: &ResourceType, kind: &str) -> String {
    let group: Vec<_> = resource.group.split('.').rev().collect();
    // `core.rukpak.io` becomes `io.rukpak.core`.
    format!("{}.{}.{kind}", group.join("."), resource.version)
}

/// Returns every definition that the types need.
pub(super) fn generate(resources: &[&'static ResourceType]) -> BTreeMap<String, Value> {
    let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
    for resource in resources {
        (resource.schema)(&mut generator);
    }
    generator.subschema_for::<ObjectMeta>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<Status>();
    let mut definitions: BTreeMap<_, _> = generator.take_definitions(false).into_iter().collect();
    definitions.values_mut().for_each(tidy);
    definitions.insert(format!("{META}.Patch"), patch());
    definitions.insert(format!("{META}.WatchEvent"), watch_event());
    annotate_meta(&mut definitions);
    for resource in resources {
        let name = definition_name(resource, resource.kind);
        if let Some(definition) = definitions.get_mut(&name) {
            kind_fields_are_optional(definition);
            definition["x-kubernetes-group-version-kind"] =
                json!([group_version_kind(resource, resource.kind)]);
        }
        definitions.insert(definition_name(resource, &resource.list_kind()), list(resource, &name));
    }
    for kind in ["DeleteOptions", "Status", "WatchEvent"] {
        if let Some(definition) = definitions.get_mut(&format!("{META}.{kind}")) {
            let mut kinds = vec![json!({"group": "", "version": "v1", "kind": kind})];
            kinds.extend(
                resources.first().filter(|_| kind != "Status").map(|first| group_version_kind(first, kind)),
            );
            definition["x-kubernetes-group-version-kind"] = kinds.into();
        }
    }
    definitions
}

pub(in crate::api) fn group_version_kind(resource: &ResourceType, kind: &str) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": kind})
}

/// Brings what schemars generates into the form that Kubernetes' tools read.
fn tidy(schema: &mut Value) {
    if let Value::Array(items) = schema {
        items.iter_mut().for_each(tidy);
        return;
    }
    let Value::Object(fields) = schema else { return };
    // An optional value is one that may be left out; `null` means the same.
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = &types[..] {
            let only = only.clone();
            fields.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = fields.get("anyOf")
        && let [only, null] = &choices[..]
        && null["type"] == "null"
    {
        let only = only.clone();
        fields.remove("anyOf");
        if let Value::Object(only) = only {
            for (name, value) in only {
                fields.entry(name).or_insert(value);
            }
        }
    }
    if fields.get("default").is_some_and(Value::is_null) {
        fields.remove("default");
    }
    for unwanted in ["minimum", "title"] {
        fields.remove(unwanted);
    }
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = unwrap_lines(text);
    }
    // A reference with anything beside it is an `allOf` of one.
    if fields.len() > 1
        && let Some(reference) = fields.remove("$ref")
    {
        fields.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
    fields.values_mut().for_each(tidy);
}

/// Undoes the line breaks of doc comments; an empty line still parts paragraphs.
fn unwrap_lines(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// Adds what the Rust types of Kubernetes' own metadata do not know: how lists are merged (C190).
fn annotate_meta(definitions: &mut BTreeMap<String, Value>) {
    for (definition, field, extensions) in [
        ("ObjectMeta", "ownerReferences", json!({"list-type": "map", "list-map-keys": ["uid"]})),
        ("ObjectMeta", "finalizers", json!({"list-type": "set"})),
        ("ObjectMeta", "managedFields", json!({"list-type": "atomic"})),
    ] {
        let schema = definitions.get_mut(&format!("{META}.{definition}"));
        if let Some(field) = schema.and_then(|schema| schema["properties"].get_mut(field)) {
            extend(field, extensions);
        }
    }
    if let Some(owner) = definitions.get_mut(&format!("{META}.OwnerReference")) {
        extend(owner, json!({"map-type": "atomic"}));
    }
    if let Some(fields) = definitions.get_mut(&format!("{META}.FieldsV1")) {
        extend(fields, json!({"preserve-unknown-fields": true, "map-type": "atomic"}));
    }
}

fn extend(schema: &mut Value, extensions: Value) {
    if let Value::Object(extensions) = extensions {
        for (name, value) in extensions {
            schema[format!("x-kubernetes-{name}")] = value;
        }
    }
}

/// Kind and version are defaulted from the endpoint, and metadata may be empty.
fn kind_fields_are_optional(definition: &mut Value) {
    if let Some(required) = definition["required"].as_array_mut() {
        required.retain(|field| !["apiVersion", "kind", "metadata"].iter().any(|name| field == name));
        if required.is_empty()
            && let Some(definition) = definition.as_object_mut()
        {
            definition.remove("required");
        }
    }
}

fn list(resource: &ResourceType, item: &str) -> Value {
    json!({
        "description": format!("{} is a list of {}.", resource.list_kind(), resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": "The version of this representation of the list.", "type": "string"},
            "kind": {"description": "The type of the list.", "type": "string"},
            "metadata": {
                "description": "Standard list metadata.",
                "allOf": [{"$ref": format!("{REFERENCE}{META}.ListMeta")}],
            },
            "items": {
                "description": "The objects, sorted by namespace and name.",
                "type": "array",
                "items": {"allOf": [{"$ref": format!("{REFERENCE}{item}")}]},
            },
        },
        "x-kubernetes-group-version-kind": [group_version_kind(resource, &resource.list_kind())],
    })
}

fn patch() -> Value {
    json!({
        "description": "A change to an object: a merge patch, a JSON patch, or the fields that somebody wants to own.",
        "type": "object",
    })
}

fn watch_event() -> Value {
    let mut properties = Map::new();
    properties.insert(
        "type".to_owned(),
        json!({"description": "ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.", "type": "string"}),
    );
    properties.insert(
        "object".to_owned(),
        json!({
            "description": "The object, or for ERROR a Status.",
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
        }),
    );
    json!({
        "description": "An event of a watch.",
        "type": "object",
        "required": ["type", "object"],
        "properties": properties,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn c252_every_reference_leads_to_a_definition() {
        let definitions = generate(crate::model::RESOURCES);
        let mut found = Vec::new();
        definitions.values().for_each(|definition| references(definition, &mut found));
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let name = reference.strip_prefix(REFERENCE).unwrap();
            assert!(definitions.contains_key(name), "{name}");
        }
        let source = &definitions["io.rukpak.core.v1beta1.CatalogSource"];
        let expected = json!([{"group": "core.rukpak.io", "version": "v1beta1", "kind": "CatalogSource"}]);
        assert_eq!(source["x-kubernetes-group-version-kind"], expected);
        assert!(definitions.contains_key("io.rukpak.core.v1beta1.PackageList"));
    }

    #[test]
    fn definitions_are_openapi_3_0() {
        fn check(path: &str, value: &Value) {
            match value {
                Value::Object(fields) => {
                    if !path.ends_with("properties") {
                        assert!(fields.get("type").is_none_or(Value::is_string), "{path}");
                        assert!(!fields.contains_key("$ref") || fields.len() == 1, "{path}");
                        assert!(!fields.contains_key("anyOf"), "{path}");
                    }
                    fields.iter().for_each(|(name, value)| check(&format!("{path}/{name}"), value));
                }
                Value::Array(items) => items.iter().for_each(|value| check(path, value)),
                Value::String(text) => {
                    assert!(path.contains("io.k8s") || !text.contains("\n "), "{path}: {text}")
                }
                _ => {}
            }
        }
        for (name, definition) in generate(crate::model::RESOURCES) {
            check(&name, &definition);
        }
    }
}
