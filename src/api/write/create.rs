//! New objects (C125–C140).

use serde_json::Value;

use super::managed::Managers;
use super::{Fields, Part, Target, encode, meta};
use crate::api::body::Decoded;
use crate::api::status::ApiError;
use crate::resource::{FieldError, now};
use crate::store::{Operation, StoreError, Stored};

/// How often a generated name is tried (C133).
const MAX_NAMES: usize = 8;

/// Stores a new object.
pub(in crate::api) async fn create(target: &Target<'_>, body: Decoded) -> Result<Stored, ApiError> {
    let resource = target.place.resource;
    let (mut object, errors) = target.admit(body)?;
    if !meta::text(&object, "resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    object.remove("status");
    meta::begin(&mut object);
    let prefix = meta::text(&object, "generateName").to_owned();
    if !meta::text(&object, "name").is_empty() || prefix.is_empty() {
        let name = meta::text(&object, "name").to_owned();
        let created = insert(target, object, errors).await?;
        return match created {
            Ok(stored) => Ok(stored),
            Err(Occupied { is_deleting: true }) => Err(ApiError::being_deleted(resource, &name)),
            Err(Occupied { is_deleting: false }) => Err(ApiError::already_exists(resource, &name)),
        };
    }
    let mut name = String::new();
    for _ in 0..MAX_NAMES {
        name = meta::generate_name(&prefix);
        meta::set(&mut object, "name", Value::from(&*name));
        if let Ok(stored) = insert(target, object.clone(), errors.clone()).await? {
            return Ok(stored);
        }
    }
    Err(ApiError::no_unique_name(resource, &name))
}

/// The name is taken.
pub(super) struct Occupied {
    /// Whether it will be free again.
    pub(super) is_deleting: bool,
}

/// Checks an object that has a name and what the server gives, and stores it where there is none.
async fn insert(
    target: &Target<'_>,
    mut object: Fields,
    errors: Vec<FieldError>,
) -> Result<Result<Stored, Occupied>, ApiError> {
    let (api_version, now) = (target.place.resource.api_version(), now());
    let author = target.author(&api_version, Part::Main, &now);
    let managers = Managers::before_update(&Fields::new(), &object, &api_version);
    let managers = managers.created(&author, &meta::scope(&object, Part::Main));
    meta::set(&mut object, "managedFields", managers.write(&api_version));
    insert_owned(target, object, errors).await
}

/// As [`insert`], for an object whose managers are known.
pub(super) async fn insert_owned(
    target: &Target<'_>,
    mut object: Fields,
    errors: Vec<FieldError>,
) -> Result<Result<Stored, Occupied>, ApiError> {
    let name = meta::text(&object, "name").to_owned();
    target.check(&name, Part::Main, None, &object, errors)?;
    let key = target.place.key(&name);
    match target.commit(Operation::create(key.clone(), encode(&object)), &mut object).await {
        Ok(stored) => Ok(Ok(stored)),
        Err(StoreError::Conflict { .. }) => {
            let occupant = target.place.store.get(&key).await?;
            let is_deleting = match &occupant {
                Some(stored) => meta::is_deleting(&super::decode(stored)?),
                None => false,
            };
            Ok(Err(Occupied { is_deleting }))
        }
        Err(error) => Err(error.into()),
    }
}
