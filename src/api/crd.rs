//! CustomResourceDefinitions of the types, for tools that read those. Nothing here serves from them.

use serde_json::{Map, Value, json};

use super::schema::{REFERENCE, Schemas, definition_name};
use crate::resource::ResourceType;

/// Returns the definition of each type.
pub fn custom_resource_definitions(resources: &[&'static ResourceType]) -> Vec<Value> {
    let schemas = Schemas::new(resources);
    resources.iter().map(|resource| definition(resource, &schemas)).collect()
}

fn definition(resource: &ResourceType, schemas: &Schemas) -> Value {
    let mut names = json!({
        "kind": resource.kind,
        "listKind": resource.list_kind(),
        "plural": resource.plural,
        "singular": resource.singular,
    });
    if !resource.short_names.is_empty() {
        names["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        names["categories"] = json!(resource.categories);
    }
    let name = definition_name(resource, resource.kind);
    let mut schema = inline(&schemas.definitions[&name], schemas);
    // Metadata is Kubernetes' own, and may not be described here.
    schema["properties"]["metadata"] = json!({"type": "object"});
    if let Some(schema) = schema.as_object_mut() {
        schema.retain(|field, _| field != "x-kubernetes-group-version-kind");
    }
    let mut version = json!({
        "name": resource.version,
        // Known to tools, served by nobody: what serves them says so by itself, and a garbage collector that knew these
        // would try to delete what is read-only.
        "served": false,
        "storage": true,
        "schema": {"openAPIV3Schema": schema},
    });
    if resource.is_writable() {
        version["subresources"] = json!({"status": {}});
    }
    if !resource.selectable.is_empty() {
        let fields = resource.selectable.iter().map(|field| json!({"jsonPath": format!(".{}", field.path)}));
        version["selectableFields"] = fields.collect();
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", resource.plural, resource.group)},
        "spec": {
            "group": resource.group,
            "names": names,
            "scope": "Namespaced",
            "versions": [version],
        },
    })
}

/// Returns a schema with everything it refers to written out, as CustomResourceDefinitions want it.
fn inline(schema: &Value, schemas: &Schemas) -> Value {
    match schema {
        Value::Object(fields) => {
            let reference = fields.get("$ref").or_else(|| fields.get("allOf")?.get(0)?.get("$ref"));
            let Some(name) = reference.and_then(Value::as_str).and_then(|text| text.strip_prefix(REFERENCE))
            else {
                return fields.iter().map(|(name, value)| (name.clone(), inline(value, schemas))).collect();
            };
            let mut inlined = inline(schemas.definitions.get(name).unwrap_or(&Value::Null), schemas);
            let beside: Map<_, _> = fields
                .iter()
                .filter(|(name, _)| !matches!(&***name, "$ref" | "allOf"))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            if let Some(inlined) = inlined.as_object_mut() {
                inlined.extend(beside);
            }
            inlined
        }
        Value::Array(items) => items.iter().map(|item| inline(item, schemas)).collect(),
        other => other.clone(),
    }
}
