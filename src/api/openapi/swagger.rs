//! The older form of the same document, OpenAPI 2.0, for those who still ask for it (C256).

use serde_json::{Map, Value, json};

use crate::api::schema::REFERENCE;

/// What references to definitions begin with here.
const DEFINITIONS: &str = "#/definitions/";

/// Makes an OpenAPI 2.0 document of a 3.0 one.
pub(super) fn from_openapi(document: &Value) -> Value {
    let paths = fields(&document["paths"]).map(|(path, item)| (path.clone(), path_item(item)));
    let definitions =
        fields(&document["components"]["schemas"]).map(|(name, schema)| (name.clone(), convert(schema)));
    json!({
        "swagger": "2.0",
        "info": document["info"],
        "paths": paths.collect::<Map<_, _>>(),
        "definitions": definitions.collect::<Map<_, _>>(),
    })
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn path_item(item: &Value) -> Value {
    let entries = fields(item).map(|(name, value)| {
        let converted = if name == "parameters" { parameters(value).into() } else { operation(value) };
        (name.clone(), converted)
    });
    Value::Object(entries.collect())
}

fn operation(operation: &Value) -> Value {
    let mut converted = Map::new();
    let mut parameters = parameters(&operation["parameters"]);
    for (name, value) in fields(operation) {
        match name.as_str() {
            "parameters" => {}
            "requestBody" => {
                let (media_types, schema) = content(value);
                converted.insert("consumes".to_owned(), media_types);
                let required = value["required"].as_bool().unwrap_or_default();
                let mut body = json!({"in": "body", "name": "body", "schema": schema});
                if required {
                    body["required"] = true.into();
                }
                parameters.push(body);
            }
            "responses" => {
                let mut responses = Map::new();
                for (code, response) in fields(value) {
                    let (media_types, schema) = content(response);
                    converted.insert("produces".to_owned(), media_types);
                    let answer = json!({"description": response["description"], "schema": schema});
                    responses.insert(code.clone(), answer);
                }
                converted.insert(name.clone(), responses.into());
            }
            _ => {
                converted.insert(name.clone(), value.clone());
            }
        }
    }
    if !parameters.is_empty() {
        converted.insert("parameters".to_owned(), parameters.into());
    }
    converted.into()
}

/// A parameter's type stands in the parameter itself.
fn parameters(parameters: &Value) -> Vec<Value> {
    let flat = |parameter: &Value| {
        let mut flat = Map::new();
        for (name, value) in fields(parameter).filter(|(name, _)| *name != "schema") {
            flat.insert(name.clone(), value.clone());
        }
        flat.extend(fields(&parameter["schema"]).map(|(name, value)| (name.clone(), value.clone())));
        Value::Object(flat)
    };
    parameters.as_array().into_iter().flatten().map(flat).collect()
}

/// Returns the media types of a body, and its schema, which is the same for all of them.
fn content(body: &Value) -> (Value, Value) {
    let media_types = fields(&body["content"]).map(|(media_type, _)| media_type.as_str());
    let schema =
        fields(&body["content"]).next().map_or(Value::Null, |(_, content)| convert(&content["schema"]));
    (media_types.collect(), schema)
}

/// Converts a schema: references lead elsewhere, and what is beside one stands beside it.
fn convert(schema: &Value) -> Value {
    match schema {
        Value::Object(schema) => {
            let mut converted = Map::new();
            for (name, value) in schema {
                match (name.as_str(), value) {
                    ("$ref", Value::String(reference)) => {
                        let name = reference.strip_prefix(REFERENCE).unwrap_or(reference);
                        converted.insert("$ref".to_owned(), format!("{DEFINITIONS}{name}").into());
                    }
                    ("allOf", Value::Array(parts)) if parts.len() == 1 => {
                        converted.extend(
                            fields(&convert(&parts[0])).map(|(name, value)| (name.clone(), value.clone())),
                        );
                    }
                    _ => {
                        converted.insert(name.clone(), convert(value));
                    }
                }
            }
            converted.into()
        }
        Value::Array(items) => items.iter().map(convert).collect(),
        value => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::openapi::document;
    use crate::api::schema::Schemas;

    #[test]
    fn c256_the_older_form_says_the_same() {
        let schemas = Schemas::new(crate::model::RESOURCES);
        let document = document(crate::model::RESOURCES, &schemas);
        let swagger = from_openapi(&document);
        let names = |value: &Value| fields(value).map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&swagger["paths"]), names(&document["paths"]));
        assert_eq!(names(&swagger["definitions"]), names(&document["components"]["schemas"]));

        let source = &swagger["definitions"]["io.rukpak.core.v1beta1.CatalogSource"];
        let spec = &source["properties"]["spec"];
        assert_eq!(spec["$ref"], "#/definitions/io.rukpak.core.v1beta1.CatalogSourceSpec");
        assert_eq!(source["x-kubernetes-group-version-kind"][0]["kind"], "CatalogSource");
        let item = "/apis/core.rukpak.io/v1beta1/namespaces/{namespace}/catalogsources/{name}";
        let patch = &swagger["paths"][item]["patch"];
        let mut media_types = crate::api::write::Patch::MEDIA_TYPES.to_vec();
        media_types.sort_unstable();
        assert_eq!(patch["consumes"], json!(media_types));
        let body = patch["parameters"].as_array().unwrap().iter().find(|one| one["in"] == "body").unwrap();
        assert_eq!(body["schema"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Patch");
        let text = swagger.to_string();
        for unwanted in ["components", "requestBody", "allOf", "anyOf", "oneOf", "\"content\""] {
            assert!(!text.contains(unwanted), "{unwanted}");
        }
    }
}
