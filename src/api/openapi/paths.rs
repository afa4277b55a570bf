//! The paths of the types and what may be done under each.

use serde_json::{Map, Value, json};

use crate::api::schema::{REFERENCE, definition_name};
use crate::resource::ResourceType;

/// Returns the paths of all types.
pub(super) fn all(resources: &[&'static ResourceType]) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in resources {
        let root = format!("/apis/{}/{}", resource.group, resource.version);
        let plural = resource.plural;
        let collection = format!("{root}/namespaces/{{namespace}}/{plural}");
        let item = format!("{collection}/{{name}}");
        let of = |operations: Vec<Operation>| path(resource, operations);

        let mut on_collection = vec![Operation::LIST];
        let mut on_item = vec![Operation::GET];
        if resource.is_writable() {
            on_collection.extend([Operation::POST, Operation::DELETE_COLLECTION]);
            on_item.extend([Operation::PUT, Operation::PATCH, Operation::DELETE]);
            let mut status = of(vec![Operation::GET, Operation::PUT, Operation::PATCH]);
            for operation in status.as_object_mut().into_iter().flat_map(Map::values_mut) {
                let id = operation["operationId"].as_str().unwrap_or_default();
                operation["operationId"] = format!("{id}Status").into();
            }
            paths.insert(format!("{item}/status"), with_parameters(status, &["name", "namespace"]));
        }
        for part in resource.parts {
            let bytes = json!({"get": {
                "description": format!("Reads the {} of a {}.", part.name, resource.kind),
                "tags": [tag(resource)],
                "responses": {"200": {"description": "OK", "content": {"*/*": {"schema": {
                    "type": "string", "format": "binary",
                }}}}},
            }});
            paths.insert(format!("{item}/{}", part.name), with_parameters(bytes, &["name", "namespace"]));
        }
        paths.insert(collection, with_parameters(of(on_collection), &["namespace"]));
        paths.insert(item, with_parameters(of(on_item), &["name", "namespace"]));
        let mut everywhere = of(vec![Operation::LIST]);
        everywhere["get"]["operationId"] = format!("list{}ForAllNamespaces", resource.kind).into();
        paths.insert(format!("{root}/{plural}"), with_parameters(everywhere, &[]));
    }
    paths
}

/// What may be done under a path.
struct Operation {
    method: &'static str,
    /// The verb as Kubernetes names it.
    action: &'static str,
    description: &'static str,
    body: Option<RequestBody>,
    answer: Answer,
    query: &'static [&'static str],
}

enum RequestBody {
    Object,
    Patch,
    Options,
}

enum Answer {
    Object,
    List,
    Status,
}

impl Operation {
    const GET: Operation = Operation {
        method: "get",
        action: "get",
        description: "Reads an object.",
        body: None,
        answer: Answer::Object,
        query: &["pretty"],
    };
    const LIST: Operation = Operation {
        method: "get",
        action: "list",
        description: "Lists or watches objects.",
        body: None,
        answer: Answer::List,
        query: &[
            "allowWatchBookmarks",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "pretty",
            "resourceVersion",
            "resourceVersionMatch",
            "sendInitialEvents",
            "timeoutSeconds",
            "watch",
        ],
    };
    const POST: Operation = Operation {
        method: "post",
        action: "post",
        description: "Creates an object.",
        body: Some(RequestBody::Object),
        answer: Answer::Object,
        query: &["dryRun", "fieldManager", "fieldValidation", "pretty"],
    };
    const PUT: Operation = Operation {
        method: "put",
        action: "put",
        description: "Replaces an object.",
        body: Some(RequestBody::Object),
        answer: Answer::Object,
        query: &["dryRun", "fieldManager", "fieldValidation", "pretty"],
    };
    const PATCH: Operation = Operation {
        method: "patch",
        action: "patch",
        description: "Changes fields of an object.",
        body: Some(RequestBody::Patch),
        answer: Answer::Object,
        query: &["dryRun", "fieldManager", "fieldValidation", "force", "pretty"],
    };
    const DELETE: Operation = Operation {
        method: "delete",
        action: "delete",
        description: "Deletes an object.",
        body: Some(RequestBody::Options),
        answer: Answer::Status,
        query: &["dryRun", "gracePeriodSeconds", "orphanDependents", "pretty", "propagationPolicy"],
    };
    const DELETE_COLLECTION: Operation = Operation {
        method: "delete",
        action: "deletecollection",
        description: "Deletes all objects that are selected.",
        body: Some(RequestBody::Options),
        answer: Answer::List,
        query: &[
            "continue",
            "dryRun",
            "fieldSelector",
            "gracePeriodSeconds",
            "labelSelector",
            "limit",
            "orphanDependents",
            "pretty",
            "propagationPolicy",
            "resourceVersion",
            "resourceVersionMatch",
        ],
    };
}

fn path(resource: &ResourceType, operations: Vec<Operation>) -> Value {
    let methods = operations.into_iter().map(|operation| {
        let method = operation.method.to_owned();
        (method, describe(resource, &operation))
    });
    Value::Object(methods.collect())
}

fn describe(resource: &ResourceType, operation: &Operation) -> Value {
    let meta = |kind: &str| reference(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"));
    let own = |kind: &str| reference(&definition_name(resource, kind));
    let schema = match operation.answer {
        Answer::Object => own(resource.kind),
        Answer::List => own(&resource.list_kind()),
        Answer::Status => meta("Status"),
    };
    let mut media_types = vec!["application/json", "application/yaml"];
    if operation.action == "list" {
        media_types.push("application/json;stream=watch");
    }
    let ok = json!({"description": "OK", "content": content(&media_types, &schema)});
    let mut responses = json!({"200": ok});
    if operation.action == "post" {
        responses["201"] = json!({"description": "Created", "content": content(&media_types, &schema)});
    }
    let mut described = json!({
        "description": operation.description,
        "operationId": format!("{}Namespaced{}", operation.action, resource.kind),
        "tags": [tag(resource)],
        "parameters": operation.query.iter().map(|name| query_parameter(name)).collect::<Vec<_>>(),
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {
            "group": resource.group, "version": resource.version, "kind": resource.kind,
        },
    });
    let formats = ["application/json", "application/yaml"];
    let body = operation.body.as_ref().map(|body| match body {
        RequestBody::Object => json!({"required": true, "content": content(&formats, &own(resource.kind))}),
        RequestBody::Options => json!({"content": content(&formats, &meta("DeleteOptions"))}),
        RequestBody::Patch => {
            let types = crate::api::write::Patch::MEDIA_TYPES;
            json!({"required": true, "content": content(&types, &meta("Patch"))})
        }
    });
    if let Some(body) = body {
        described["requestBody"] = body;
    }
    described
}

fn content(media_types: &[&str], schema: &Value) -> Value {
    media_types.iter().map(|media_type| ((*media_type).to_owned(), json!({"schema": schema}))).collect()
}

fn reference(definition: &str) -> Value {
    json!({"$ref": format!("{REFERENCE}{definition}")})
}

fn tag(resource: &ResourceType) -> String {
    let group: String = resource.group.split('.').map(capitalized).collect();
    format!("{group}_{}", resource.version)
}

fn capitalized(word: &str) -> String {
    let mut characters = word.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

fn with_parameters(mut path: Value, names: &[&str]) -> Value {
    let in_path = names.iter().map(|name| {
        let description = match *name {
            "name" => "name of the object",
            _ => "namespace of the object",
        };
        json!({
            "name": name, "in": "path", "required": true, "description": description,
            "schema": {"type": "string", "uniqueItems": true},
        })
    });
    path["parameters"] = in_path.collect();
    path
}

fn query_parameter(name: &str) -> Value {
    let (kind, description) = match name {
        "allowWatchBookmarks" => ("boolean", "Asks for BOOKMARK events, which tell how far a watch is."),
        "continue" => ("string", "The token that the page before gave, for the next page of the same list."),
        "dryRun" => ("string", "`All` does everything but keep the result."),
        "fieldManager" => {
            ("string", "Who makes the change, for the ownership of fields; at most 128 characters.")
        }
        "fieldSelector" => ("string", "Which objects, by the fields that can be selected by."),
        "fieldValidation" => {
            ("string", "What becomes of unknown and repeated fields: Strict (an error), Warn or Ignore.")
        }
        "force" => ("boolean", "Takes fields that others own. Only for apply."),
        "gracePeriodSeconds" => ("integer", "Ignored: these objects are deleted at once."),
        "labelSelector" => ("string", "Which objects, by their labels."),
        "limit" => ("integer", "The most objects of a page; the answer has a token for the next one."),
        "orphanDependents" => ("boolean", "Deprecated: use propagationPolicy."),
        "pretty" => ("string", "`true` indents the answer."),
        "propagationPolicy" => {
            ("string", "What becomes of objects that are owned: Orphan, Background or Foreground.")
        }
        "resourceVersion" => ("string", "Which state is read, or which events are already known."),
        "resourceVersionMatch" => ("string", "How resourceVersion is meant: Exact or NotOlderThan."),
        "sendInitialEvents" => ("boolean", "Begins a watch with the current objects."),
        "timeoutSeconds" => ("integer", "How long a watch lasts."),
        "watch" => ("boolean", "Asks for the changes instead of a list."),
        other => ("string", other),
    };
    json!({
        "name": name, "in": "query", "description": description,
        "schema": {"type": kind, "uniqueItems": true},
    })
}
