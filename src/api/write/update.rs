//! Changes to what is there (C141–C155).

use super::managed::Managers;
use super::{Fields, Part, Target, decode, encode, meta};
use crate::api::body::Decoded;
use crate::api::status::ApiError;
use crate::resource::{FieldError, now};
use crate::store::{Operation, ResourceVersion, StoreError, Stored};

/// What an object is to become.
pub(super) struct Wish {
    /// The object.
    pub(super) object: Fields,
    /// What is wrong with it.
    pub(super) errors: Vec<FieldError>,
    /// Its managers, where they are not those of an update.
    pub(super) managers: Option<Managers>,
}

/// Replaces an object by what the client sends, if nobody changed it since the client read it.
pub(in crate::api) async fn update(
    target: &Target<'_>,
    name: &str,
    part: Part,
    body: Decoded,
) -> Result<Stored, ApiError> {
    let resource = target.place.resource;
    let (object, errors) = target.admit(body)?;
    meta::check_name(&object, name)?;
    let sent = meta::text(&object, "resourceVersion");
    let fault = match sent.parse::<ResourceVersion>() {
        _ if sent.is_empty() => Some("must be specified for an update"),
        Ok(version) if version == ResourceVersion::default() => Some("must be specified for an update"),
        Ok(_) => None,
        Err(_) => Some("must be a number"),
    };
    if let Some(message) = fault {
        let current = target.place.store.get(&target.place.key(name)).await?;
        current.ok_or_else(|| ApiError::not_found(resource, name))?;
        let error = FieldError::invalid("metadata.resourceVersion", sent, message);
        return Err(ApiError::invalid(resource, name, &[error]));
    }
    change(target, name, part, |old| {
        let (sent, stored) = (meta::text(&object, "uid"), meta::text(old, "uid"));
        if !sent.is_empty() && sent != stored {
            let why =
                format!("Precondition failed: UID in precondition: {sent}, UID in object meta: {stored}");
            return Err(ApiError::conflict(resource, name, &why));
        }
        Ok(Wish { object: object.clone(), errors: errors.clone(), managers: None })
    })
    .await
}

/// Changes an object to what `wish` makes of it. A version in that has to be the current one; where the client named
/// none, it is the one `wish` was given, and a change that somebody else was faster than is worked out again, as often as
/// it takes: how long a request may take is bounded by who asks. A client that did name one then learns that it is stale.
pub(super) async fn change(
    target: &Target<'_>,
    name: &str,
    part: Part,
    mut wish: impl FnMut(&Fields) -> Result<Wish, ApiError>,
) -> Result<Stored, ApiError> {
    let resource = target.place.resource;
    let key = target.place.key(name);
    loop {
        let stored = target.place.store.get(&key).await?;
        let stored = stored.ok_or_else(|| ApiError::not_found(resource, name))?;
        let old = decode(&stored)?;
        let wanted = wish(&old)?;
        if let Some(outcome) = attempt(target, name, part, stored, &old, wanted).await? {
            return Ok(outcome);
        }
    }
}

/// Makes a change once; returns none when somebody else was faster.
pub(super) async fn attempt(
    target: &Target<'_>,
    name: &str,
    part: Part,
    stored: Stored,
    old: &Fields,
    wish: Wish,
) -> Result<Option<Stored>, ApiError> {
    let resource = target.place.resource;
    let Wish { object: mut new, errors, managers } = wish;
    let sent = meta::text(&new, "resourceVersion");
    if !sent.is_empty() && sent != meta::text(old, "resourceVersion") {
        return Err(ApiError::stale(resource, name));
    }
    let (api_version, now) = (resource.api_version(), now());
    let before = match part {
        Part::Main => Managers::before_update(old, &new, &api_version),
        Part::Status => Managers::of(old, &api_version),
    };
    meta::keep(old, &mut new, part);
    let managers = managers.unwrap_or_else(|| {
        let author = target.author(&api_version, part, &now);
        before.updated(&author, &meta::scope(old, part), &meta::scope(&new, part))
    });
    meta::set(&mut new, "managedFields", managers.write(&api_version));
    target.check(name, part, Some(old), &new, errors)?;
    if meta::is_same(&new, old) {
        return Ok(Some(stored));
    }
    let operation = match meta::is_gone(&new) {
        true => Operation::delete(stored.key, stored.version),
        false => Operation::replace(stored.key, stored.version, encode(&new)),
    };
    match target.commit(operation, &mut new).await {
        Ok(stored) => Ok(Some(stored)),
        Err(StoreError::Conflict { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Wish {
    /// What an update wants.
    pub(super) fn new((object, errors): (Fields, Vec<FieldError>)) -> Self {
        Wish { object, errors, managers: None }
    }
}

/// Returns what is wrong with a change that would make it another object (C165).
pub(super) fn other_uid(old: &Fields, new: &Fields) -> Option<FieldError> {
    let uid = meta::text(new, "uid");
    let is_other = !uid.is_empty() && uid != meta::text(old, "uid");
    is_other.then(|| FieldError::invalid("metadata.uid", uid, "field is immutable"))
}
