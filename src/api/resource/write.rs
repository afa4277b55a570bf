//! The handlers of what writes: from a request to [`crate::api::write`] and back.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode};

use super::Call;
use crate::api::accept::{Form, Kind, Representation, negotiate};
use crate::api::auth::NamespaceState;
use crate::api::body::{Decoded, decode, media_type, read};
use crate::api::encode::ListMeta;
use crate::api::params::ListOptions;
use crate::api::status::ApiError;
use crate::api::write::{
    self, Applied, Creator, DeleteOptions, Deleted, OptionsOf, Part, Patch, Place, Target, WriteOptions,
};
use crate::api::{respond, status};
use crate::store::Stored;

/// How long a write of one object may take (C226).
const MAX_DURATION: Duration = Duration::from_secs(34);

impl Call {
    fn place(&self) -> Place<'_> {
        let (store, namespace) = (&self.api.store, &self.attributes.namespace);
        Place { store, resource: self.resource, namespace }
    }

    fn target(&self, of: OptionsOf) -> Result<Target<'_>, ApiError> {
        Ok(Target {
            place: self.place(),
            structure: self.api.schemas.structure(self.resource),
            options: WriteOptions::parse(of, &self.query, &self.headers)?,
            warnings: Default::default(),
        })
    }

    /// Checks that the namespace is there, and for new objects that it stays (C284, C285).
    async fn admit(&self, is_new: bool, name: &str) -> Result<(), ApiError> {
        let namespace = &*self.attributes.namespace;
        match self.api.namespaces.state(namespace).await {
            Ok(NamespaceState::Active) => Ok(()),
            Ok(NamespaceState::Terminating) if is_new => {
                Err(ApiError::terminating(self.resource, name, namespace))
            }
            Ok(NamespaceState::Terminating) => Ok(()),
            Ok(NamespaceState::Missing) => Err(ApiError::no_namespace(namespace)),
            Err(error) => Err(ApiError::unavailable(error)),
        }
    }

    async fn decoded(&self, body: Body) -> Result<Decoded, ApiError> {
        let body = read(body).await?;
        decode(media_type(&self.headers), &body)
    }

    /// Answers with an object that was written, and with what there is to say beside.
    async fn written(
        &self,
        code: StatusCode,
        representation: Representation,
        stored: &Stored,
        target: Target<'_>,
    ) -> Result<Response<Body>, ApiError> {
        let mut response = self.object(code, representation, stored).await?;
        target.warnings.write(response.headers_mut());
        Ok(response)
    }

    pub(super) async fn create(self, body: Body) -> Result<Response<Body>, ApiError> {
        let representation = negotiate(&self.headers, Kind::Single)?;
        let body = self.decoded(body).await?;
        let target = self.target(OptionsOf::Create)?;
        let name = body.value["metadata"]["name"].as_str().unwrap_or_default();
        self.admit(true, name).await?;
        let stored = in_time(write::create(&target, body)).await?;
        self.written(StatusCode::CREATED, representation, &stored, target).await
    }

    pub(super) async fn update(self, part: Part, body: Body) -> Result<Response<Body>, ApiError> {
        let representation = negotiate(&self.headers, Kind::Single)?;
        let body = self.decoded(body).await?;
        let name = self.key()?.name().to_owned();
        let target = self.target(OptionsOf::Update)?;
        self.admit(false, &name).await?;
        let stored = in_time(write::update(&target, &name, part, body)).await?;
        self.written(StatusCode::OK, representation, &stored, target).await
    }

    pub(super) async fn patch(self, part: Part, body: Body) -> Result<Response<Body>, ApiError> {
        let representation = negotiate(&self.headers, Kind::Single)?;
        let body = read(body).await?;
        let patch = Patch::parse(media_type(&self.headers), &body)?;
        let name = self.key()?.name().to_owned();
        let Patch::Apply(config) = &patch else {
            let target = self.target(OptionsOf::Patch)?;
            self.admit(false, &name).await?;
            let stored = in_time(write::patch(&target, &name, part, &patch)).await?;
            return self.written(StatusCode::OK, representation, &stored, target).await;
        };
        let target = self.target(OptionsOf::Apply)?;
        let (authorizer, user, attributes) = (&self.api.authorizer, &self.user, &self.attributes);
        let creator = Creator { authorizer, user, attributes };
        match in_time(write::apply(&target, &creator, &name, part, config)).await? {
            Applied::Created(stored) => {
                self.written(StatusCode::CREATED, representation, &stored, target).await
            }
            Applied::Changed(stored) => self.written(StatusCode::OK, representation, &stored, target).await,
        }
    }

    async fn delete_options(&self, body: Body) -> Result<DeleteOptions, ApiError> {
        let body = read(body).await?;
        let body = match body.is_empty() {
            true => None,
            false => Some(decode(media_type(&self.headers), &body)?.value),
        };
        DeleteOptions::parse(self.resource, body, &self.query)
    }

    pub(super) async fn delete(self, body: Body) -> Result<Response<Body>, ApiError> {
        let representation = negotiate(&self.headers, Kind::Single)?;
        let options = self.delete_options(body).await?;
        let name = self.key()?.name().to_owned();
        match in_time(write::delete(&self.place(), &name, &options)).await? {
            Deleted::Gone { uid, .. } => {
                let body = status::deleted(self.resource, &name, &uid);
                let representation = Representation { form: Form::Object, ..representation };
                respond::object(body, representation, self.is_pretty())
            }
            Deleted::Pending(stored) => {
                let code = match options.waits_for_dependents() {
                    true => StatusCode::ACCEPTED,
                    false => StatusCode::OK,
                };
                self.object(code, representation, &stored).await
            }
        }
    }

    /// Deletes many objects, which may take as long as any request (C213).
    pub(super) async fn delete_collection(self, body: Body) -> Result<Response<Body>, ApiError> {
        let representation = negotiate(&self.headers, Kind::List)?;
        let list = ListOptions::for_list(self.resource, &self.query)?;
        let options = self.delete_options(body).await?;
        let range = self.narrowed(&list);
        let deleted = write::delete_collection(&self.place(), range, &list, &options).await?;
        let encoder = self.encoder(representation)?;
        let meta = ListMeta {
            resource_version: deleted.version.to_string(),
            continue_token: deleted.continue_token,
            remaining_item_count: None,
        };
        let body = encoder.list(&*self.api.store, &meta, &deleted.items).await?;
        respond::object(body, representation, self.is_pretty())
    }
}

/// Bounds the time of a write.
async fn in_time<T>(write: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(MAX_DURATION, write).await.unwrap_or_else(|_| Err(ApiError::timeout()))
}
