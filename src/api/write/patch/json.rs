//! JSON patches (RFC 6902): a list of operations, carried out one after the other or not at all (C159, C160).

use json_patch::{AddOperation, PatchOperation};
use serde_json::{Map, Value};

use crate::api::body::{Decoded, MAX_BODY, MAX_DEPTH};
use crate::api::status::ApiError;

/// Operations of a patch.
const MAX_OPERATIONS: usize = 10_000;

/// Bytes that all copies of a patch add up to: a short patch can copy what it copied, again and again.
const MAX_COPIED: usize = MAX_BODY;

/// The fields an operation can have.
const KNOWN: [&str; 4] = ["from", "op", "path", "value"];

/// A patch as it was sent.
#[derive(Debug)]
pub(in crate::api) struct JsonPatch {
    operations: Vec<Value>,
    /// Fields of operations that are unknown or given twice.
    pub(super) faults: Vec<String>,
}

impl JsonPatch {
    /// Takes a body for a patch. Whether its operations make sense is found out when they are carried out.
    ///
    /// # Errors
    ///
    /// 400 for what is no list of operations, 413 for too many of them.
    pub(super) fn parse(body: Decoded) -> Result<Self, ApiError> {
        let Value::Array(operations) = body.value else {
            return Err(ApiError::bad_request("error decoding patch: not a list of operations"));
        };
        if !operations.iter().all(Value::is_object) {
            return Err(ApiError::bad_request("error decoding patch: an operation is not an object"));
        }
        if operations.len() > MAX_OPERATIONS {
            return Err(ApiError::too_large(format!(
                "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                operations.len()
            )));
        }
        let fields = operations.iter().enumerate();
        let fields = fields.flat_map(|(index, operation)| {
            operation.as_object().into_iter().flatten().map(move |(name, _)| (index, name))
        });
        let unknown = fields
            .filter(|(_, name)| !KNOWN.contains(&&***name))
            .map(|(index, name)| format!("json patch unknown field \"[{index}].{name}\""));
        let duplicates = body.duplicates.iter().map(|path| format!("json patch duplicate field {path:?}"));
        let faults = unknown.chain(duplicates).collect();
        Ok(JsonPatch { operations, faults })
    }

    /// Carries out the operations.
    ///
    /// # Errors
    ///
    /// 422 for one that cannot be carried out, a test that fails included; 413 for copies that grow without measure.
    pub(super) fn apply(&self, object: &Map<String, Value>) -> Result<Value, ApiError> {
        let mut patched = Value::Object(object.clone());
        let mut copied = 0;
        for (index, operation) in self.operations.iter().enumerate() {
            let operation: PatchOperation = serde_json::from_value(operation.clone())
                .map_err(|error| ApiError::rejected(&format!("operation {index} cannot be read: {error}")))?;
            let operation = as_add(operation, &patched);
            check_growth(&patched, &operation, &mut copied)?;
            json_patch::patch(&mut patched, std::slice::from_ref(&operation)).map_err(|error| {
                let (path, kind) = (error.path.to_string(), error.kind);
                ApiError::rejected(&format!("operation {index} failed at path {path:?}: {kind}"))
            })?;
        }
        Ok(patched)
    }
}

/// Returns an operation as it is carried out: a field that is not there is replaced by adding it, which is less than RFC 6902
/// asks for, and what clients of Kubernetes are used to.
fn as_add(operation: PatchOperation, object: &Value) -> PatchOperation {
    let PatchOperation::Replace(replace) = operation else { return operation };
    let is_new_field = object.pointer(replace.path.as_str()).is_none()
        && replace
            .path
            .parent()
            .is_some_and(|parent| object.pointer(parent.as_str()).is_some_and(Value::is_object));
    match is_new_field {
        true => PatchOperation::Add(AddOperation { path: replace.path, value: replace.value }),
        false => PatchOperation::Replace(replace),
    }
}

/// Refuses an operation after which the object would be deeper than any that can be sent, or the copies larger.
fn check_growth(object: &Value, operation: &PatchOperation, copied: &mut usize) -> Result<(), ApiError> {
    let (path, value, is_copied) = match operation {
        PatchOperation::Add(add) => (&add.path, Some(&add.value), false),
        PatchOperation::Replace(replace) => (&replace.path, Some(&replace.value), false),
        PatchOperation::Copy(copy) => (&copy.path, object.pointer(copy.from.as_str()), true),
        PatchOperation::Move(moved) => (&moved.path, object.pointer(moved.from.as_str()), true),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    let Some(value) = value else { return Ok(()) };
    if is_copied {
        *copied += value.to_string().len();
        if *copied > MAX_COPIED {
            let message = format!("what the JSON patch copies and moves is more than {MAX_COPIED} bytes");
            return Err(ApiError::too_large(message));
        }
    }
    if path.count() + depth(value) > MAX_DEPTH {
        return Err(ApiError::rejected(&format!("the object would have more than {MAX_DEPTH} levels")));
    }
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::body::from_json;

    fn apply(patch: &Value, object: &Value) -> Result<Value, ApiError> {
        JsonPatch::parse(from_json(patch.to_string().as_bytes())?)?.apply(object.as_object().unwrap())
    }

    #[test]
    fn c159_what_is_no_list_of_operations_is_refused_at_once_and_a_bad_operation_when_it_is_carried_out() {
        for patch in [json!({}), json!([1]), json!("x"), json!(null)] {
            assert_eq!(apply(&patch, &json!({})).unwrap_err().code(), 400, "{patch}");
        }
        for operation in [
            json!({"op": "remove", "path": "/missing"}),
            json!({"op": "test", "path": "/a", "value": 2}),
            json!({"op": "add", "path": "/b/c", "value": 1}),
            json!({"op": "replace", "path": "/b/c", "value": 1}),
            json!({"op": "replace", "path": "/list/1", "value": 1}),
            json!({"op": "add", "path": "no slash", "value": 1}),
            json!({"op": "sing", "path": "/a"}),
            json!({"op": "add", "path": "/a"}),
            json!({}),
        ] {
            let error = apply(&json!([operation]), &json!({"a": 1, "list": [0]})).unwrap_err();
            assert_eq!(error.code(), 422, "{operation}");
            let status: Value = serde_json::from_slice(&error.to_json()).unwrap();
            assert_eq!((&status["reason"], &status["details"]), (&json!("Invalid"), &json!({})));
        }
        let patch =
            json!([{"op": "test", "path": "/a", "value": 1}, {"op": "move", "from": "/a", "path": "/b"}]);
        assert_eq!(apply(&patch, &json!({"a": 1})), Ok(json!({"b": 1})));
        // A field need not be there to be replaced.
        let patch = json!([{"op": "replace", "path": "/b", "value": 2}]);
        assert_eq!(apply(&patch, &json!({"a": 1})), Ok(json!({"a": 1, "b": 2})));
    }

    #[test]
    fn c160_operations_are_counted() {
        for (count, code) in [(MAX_OPERATIONS, 200), (MAX_OPERATIONS + 1, 413)] {
            let patch = Value::from(vec![json!({"op": "test", "path": "/a", "value": 1}); count]);
            let outcome = apply(&patch, &json!({"a": 1}));
            assert_eq!(outcome.map_or_else(|error| error.code().as_u16(), |_| 200), code, "{count}");
        }
    }

    #[test]
    fn c160_copies_do_not_grow_without_measure() {
        let doubling: Value =
            (0..60).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/a/{n}")})).collect();
        assert_eq!(apply(&doubling, &json!({"a": {"x": "y"}})).unwrap_err().code(), 413);
        let copies = |length: usize| {
            let patch = json!([{"op": "copy", "from": "/a", "path": "/b"}]);
            // Two quotes are part of the text.
            apply(&patch, &json!({"a": "x".repeat(length - 2)})).is_ok()
        };
        assert!(copies(MAX_COPIED) && !copies(MAX_COPIED + 1));
    }

    #[test]
    fn objects_do_not_get_deeper_than_they_can_be_sent() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let patch = |levels: usize| json!([{"op": "add", "path": "/a", "value": nested(levels)}]);
        assert!(apply(&patch(MAX_DEPTH - 2), &json!({})).is_ok());
        let deeper = json!([{"op": "copy", "from": "/a", "path": "/b/0/0"}]);
        let object = json!({"a": nested(MAX_DEPTH - 2), "b": [[1]]});
        assert_eq!(apply(&deeper, &object).unwrap_err().code(), 422);
    }

    #[test]
    fn c195_odd_fields_of_operations_are_noted() {
        let body = br#"[{"op":"remove","op":"add","path":"/a","value":1,"why":"x"}]"#;
        let patch = JsonPatch::parse(from_json(body).unwrap()).unwrap();
        let expected = ["json patch unknown field \"[0].why\"", "json patch duplicate field \"[0].op\""];
        assert_eq!(patch.faults, expected);
    }
}
