//! DeleteOptions: how a client wants an object to be deleted (C207–C211).

use serde::Deserialize;
use serde_json::Value;

use super::super::options::dry_run;
use super::{Fields, meta};
use crate::api::params::Query;
use crate::api::status::ApiError;
use crate::resource::{FieldError, ResourceType};

/// How a client wants an object to be deleted. What is said of a grace period is not listened to: these objects have
/// none (C211).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::api) struct DeleteOptions {
    api_version: Option<String>,
    kind: Option<String>,
    preconditions: Option<Preconditions>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    #[serde(rename = "gracePeriodSeconds")]
    _grace_period_seconds: Option<i64>,
    dry_run: Option<Vec<String>>,
}

/// What an object has to be for the deletion to be meant for it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads the options from a body, or else from the query (C207).
    ///
    /// # Errors
    ///
    /// 400 for a body that is something else, 422 for options that contradict each other or are not known.
    pub(in crate::api) fn parse(
        resource: &ResourceType,
        body: Option<Value>,
        query: &Query,
    ) -> Result<Self, ApiError> {
        let options = match body {
            Some(body @ Value::Object(_)) => serde_json::from_value(body)
                .map_err(|error| ApiError::bad_request(format!("error decoding DeleteOptions: {error}")))?,
            Some(_) => return Err(ApiError::bad_request("error decoding DeleteOptions: not an object")),
            None => DeleteOptions {
                propagation_policy: query.get("propagationPolicy").map(str::to_owned),
                orphan_dependents: query.boolean("orphanDependents"),
                _grace_period_seconds: query.integer("gracePeriodSeconds")?,
                dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
                ..DeleteOptions::default()
            },
        };
        options.check_type(resource)?;
        let mut errors = Vec::new();
        let field = "propagationPolicy";
        if let (Some(policy), Some(_)) = (&options.propagation_policy, options.orphan_dependents) {
            let message = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(field, policy.as_str(), message));
        }
        if let Some(policy) = &options.propagation_policy {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            if !known[..3].contains(&&**policy) {
                errors.push(FieldError::not_supported(field, policy.as_str(), &known));
            }
        }
        errors.extend(dry_run(options.dry_run.iter().flatten().map(String::as_str)).1);
        if errors.is_empty() {
            Ok(options)
        } else {
            Err(ApiError::invalid_options("DeleteOptions", "meta.k8s.io", &errors))
        }
    }

    fn check_type(&self, resource: &ResourceType) -> Result<(), ApiError> {
        let version = self.api_version.as_deref().unwrap_or_default();
        let is_known = ["", "v1", "meta.k8s.io/v1"].contains(&version) || version == resource.api_version();
        if !is_known || !["", "DeleteOptions"].contains(&self.kind.as_deref().unwrap_or_default()) {
            let kind = self.kind.as_deref().unwrap_or_default();
            let message =
                format!("the body of a deletion has to be DeleteOptions of v1, not {version}, Kind={kind}");
            return Err(ApiError::bad_request(message));
        }
        Ok(())
    }

    /// Returns whether nothing is to be deleted (C201).
    pub(in super::super) fn is_dry_run(&self) -> bool {
        dry_run(self.dry_run.iter().flatten().map(String::as_str)).0
    }

    /// Returns whether a client asked for dependents to go too in the old way, and is told when that takes a while (C206).
    pub(in crate::api) fn waits_for_dependents(&self) -> bool {
        self.orphan_dependents == Some(false)
    }

    /// Adds that the object has to be this one.
    pub(in super::super) fn of(&self, uid: &str) -> Self {
        let mut options = self.clone();
        options.preconditions.get_or_insert_default().uid.get_or_insert_with(|| uid.to_owned());
        options
    }

    /// Returns the finalizers of an object that is deleted like this (C210). What says how dependents are treated is
    /// replaced by what the options say, if they do.
    pub(super) fn finalizers(&self, before: &[Value]) -> Vec<Value> {
        let policy = match (self.orphan_dependents, self.propagation_policy.as_deref()) {
            (Some(true), _) | (None, Some("Orphan")) => Some(meta::ORPHAN),
            (None, Some("Foreground")) => Some(meta::FOREGROUND),
            (Some(false), _) | (None, Some(_)) => None,
            (None, None) => return before.to_vec(),
        };
        let is_policy = |finalizer: &Value| *finalizer == meta::ORPHAN || *finalizer == meta::FOREGROUND;
        let mut finalizers: Vec<_> = before.iter().filter(|name| !is_policy(name)).cloned().collect();
        finalizers.extend(policy.map(Value::from));
        // The order is that of before where nothing is new.
        let is_same = finalizers.len() == before.len() && finalizers.iter().all(|name| before.contains(name));
        if is_same { before.to_vec() } else { finalizers }
    }

    /// Refuses to delete another object, or another version of it, than the client means (C208).
    pub(super) fn check_preconditions(
        &self,
        resource: &ResourceType,
        name: &str,
        object: &Fields,
    ) -> Result<(), ApiError> {
        let Some(preconditions) = &self.preconditions else { return Ok(()) };
        for (what, field, wanted) in [
            ("UID", "uid", &preconditions.uid),
            ("ResourceVersion", "resourceVersion", &preconditions.resource_version),
        ] {
            let found = meta::text(object, field);
            if let Some(wanted) = wanted
                && wanted != found
            {
                let why = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                );
                return Err(ApiError::conflict(resource, name, &why));
            }
        }
        Ok(())
    }
}
