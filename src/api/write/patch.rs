//! Patches: what is sent is not the object but what to change in it (C156–C170).

mod json;

use serde_json::Value;

use self::json::JsonPatch;
use super::update::{Wish, change, other_uid};
use super::{Fields, Part, Target, faults, into_object, meta, wrong_metadata};
use crate::api::body::{Decoded, from_json, from_yaml};
use crate::api::status::ApiError;
use crate::resource::{FieldError, FieldErrorReason};
use crate::store::Stored;

/// A change that a client sends.
#[derive(Debug)]
pub(in crate::api) enum Patch {
    /// `application/merge-patch+json` (RFC 7386).
    Merge(Decoded),
    /// `application/json-patch+json` (RFC 6902).
    Json(JsonPatch),
    /// `application/apply-patch+yaml`: what of the object the client wants to own.
    Apply(Decoded),
}

impl Patch {
    /// The media types that are read.
    pub(in crate::api) const MEDIA_TYPES: [&str; 3] =
        ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

    /// Reads a patch of a media type.
    ///
    /// # Errors
    ///
    /// 415 for another media type, 400 for what does not parse, 413 for more operations than are carried out.
    pub(in crate::api) fn parse(media_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        match media_type {
            "application/merge-patch+json" => {
                let patch = from_json(body)?;
                if !patch.value.is_object() {
                    return Err(ApiError::bad_request("error decoding patch: not an object"));
                }
                Ok(Patch::Merge(patch))
            }
            "application/json-patch+json" => JsonPatch::parse(from_json(body)?).map(Patch::Json),
            "application/apply-patch+yaml" => {
                let config = from_yaml(body)?;
                if !config.value.is_object() {
                    return Err(ApiError::bad_request("error decoding YAML: not an object"));
                }
                Ok(Patch::Apply(config))
            }
            _ => Err(ApiError::unsupported_media_type(&Self::MEDIA_TYPES)),
        }
    }
}

/// Changes an object by a patch that is not an apply.
pub(in crate::api) async fn patch(
    target: &Target<'_>,
    name: &str,
    part: Part,
    patch: &Patch,
) -> Result<Stored, ApiError> {
    change(target, name, part, |old| {
        let (patched, odd) = match patch {
            Patch::Merge(patch) => {
                let mut patched = Value::Object(old.clone());
                json_patch::merge(&mut patched, &patch.value);
                (patched, faults(&[], &patch.duplicates))
            }
            Patch::Json(patch) => (patch.apply(old)?, patch.faults.clone()),
            Patch::Apply(_) => return Err(ApiError::internal("an apply is no change")),
        };
        let (object, mut errors) = admit(target, patched, odd)?;
        meta::check_name(&object, name)?;
        errors.extend(other_uid(old, &object));
        Ok(Wish::new((object, errors)))
    })
    .await
}

/// Takes what a patch makes of an object, which is as good or bad as the patch (C162, C195).
fn admit(
    target: &Target<'_>,
    patched: Value,
    odd: Vec<String>,
) -> Result<(Fields, Vec<FieldError>), ApiError> {
    let mut object = into_object(patched)?;
    meta::check_type(target.place.resource, &mut object)?;
    let checked = target.structure.check(&mut object);
    if let Some(fault) = wrong_metadata(&checked.errors) {
        return Err(of_patch(target, &fault));
    }
    meta::check_namespace(&mut object, target.place.namespace)?;
    let found = [odd, faults(&checked.unknown, &[])].concat();
    if let Some(text) = target.judge(found) {
        return Err(of_patch(target, &format!("Invalid value: {text}")));
    }
    target.dedup_owners(&mut object);
    meta::remove_empty(&mut object);
    Ok((object, checked.errors))
}

fn of_patch(target: &Target<'_>, message: &str) -> ApiError {
    let error = FieldError {
        reason: FieldErrorReason::Invalid,
        field: "patch".to_owned(),
        message: message.to_owned(),
    };
    ApiError::invalid(target.place.resource, "", &[error])
}
