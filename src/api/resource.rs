//! The one handler of all resources: verb by verb to what reads and what writes.

mod write;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use serde::Deserialize;

use super::accept::{Form, Format, Kind, Representation, negotiate};
use super::auth::{Attributes, User};
use super::document::matches;
use super::encode::Encoder;
use super::params::{ListOptions, Query};
use super::status::ApiError;
use super::write::Part as Written;
use super::{Api, read as reading, respond, watch};
use crate::resource::{Part, ResourceType};
use crate::store::{Key, Range, Stored};

/// A request for a resource.
struct Call {
    api: Arc<Api>,
    resource: &'static ResourceType,
    user: User,
    attributes: Attributes,
    query: Query,
    headers: HeaderMap,
}

/// Answers a request for a resource.
pub(super) async fn handle(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let (mut parts, body) = request.into_parts();
    let attributes = parts.extensions.remove::<Attributes>().unwrap_or_default();
    let user = parts.extensions.remove::<User>().unwrap_or_default();
    let Attributes { group, version, resource, .. } = &attributes;
    let Some(resource) = api.resource(group, version, resource) else {
        return api.not_here(group, version);
    };
    let query = query_of(&parts.uri);
    let call = Call { api, resource, user, attributes, query, headers: parts.headers };
    call.answer(body).await
}

fn query_of(uri: &Uri) -> Query {
    Query::parse(uri.query().unwrap_or_default())
}

impl Call {
    async fn answer(self, body: Body) -> Result<Response<Body>, ApiError> {
        let Attributes { verb, subresource, namespace, .. } = &self.attributes;
        let (verb, subresource) = (verb.clone(), subresource.clone());
        let writable = self.resource.is_writable();
        // Writing needs to know where (C17).
        let in_namespace = !namespace.is_empty() && !namespace.contains('/');
        let of_one = in_namespace && !self.attributes.name.is_empty();
        match (&*verb, &*subresource) {
            ("get", "") => self.get().await,
            ("get", "status") if writable => self.get().await,
            ("list", "") => self.list().await,
            ("watch", "") => self.watch().await,
            ("create", "") if writable && in_namespace && self.attributes.name.is_empty() => {
                self.create(body).await
            }
            ("update", "") if writable && of_one => self.update(Written::Main, body).await,
            ("update", "status") if writable => self.update(Written::Status, body).await,
            ("patch", "") if writable && of_one => self.patch(Written::Main, body).await,
            ("patch", "status") if writable => self.patch(Written::Status, body).await,
            ("delete", "") if writable && of_one => self.delete(body).await,
            ("deletecollection", "") if writable && in_namespace => self.delete_collection(body).await,
            (_, "") => Err(ApiError::method_not_allowed()),
            (_, "status") if writable => Err(ApiError::method_not_allowed()),
            (verb, name) => match self.resource.parts.iter().find(|part| part.name == name) {
                Some(part) if verb == "get" => self.part(part).await,
                Some(_) => Err(ApiError::method_not_allowed()),
                None => Err(ApiError::unknown_resource()),
            },
        }
    }

    /// Returns the key of the object the request names. What can be no name is not found.
    fn key(&self) -> Result<Key, ApiError> {
        let Attributes { namespace, name, .. } = &self.attributes;
        if namespace.is_empty() || name.is_empty() || namespace.contains('/') || name.contains('/') {
            return Err(ApiError::not_found(self.resource, name));
        }
        Ok(Key::new(self.resource.plural, namespace, name))
    }

    fn encoder(&self, representation: Representation) -> Result<Encoder, ApiError> {
        let include = self.query.include()?;
        Ok(Encoder { resource: self.resource, form: representation.form, include, cells: None })
    }

    /// Returns an encoder for objects as the store has them.
    fn stored_encoder(&self, representation: Representation) -> Result<Encoder, ApiError> {
        Ok(Encoder { cells: Some(Arc::clone(&self.api.cells)), ..self.encoder(representation)? })
    }

    fn is_pretty(&self) -> bool {
        respond::is_pretty(&self.query, &self.headers)
    }

    /// Refuses a parameter that is gone for good (C23).
    fn check_export(&self) -> Result<(), ApiError> {
        if self.query.boolean("export").unwrap_or_default() {
            return Err(ApiError::bad_request(
                "the export parameter, deprecated since v1.14, is no longer supported",
            ));
        }
        Ok(())
    }

    async fn get(self) -> Result<Response<Body>, ApiError> {
        let representation = negotiate(&self.headers, Kind::Single)?;
        self.check_export()?;
        let at_least = self.query.resource_version()?;
        let stored = reading::get(&*self.api.store, self.resource, &self.key()?, at_least).await?;
        self.object(StatusCode::OK, representation, &stored).await
    }

    /// Answers with one object.
    async fn object(
        &self,
        code: StatusCode,
        representation: Representation,
        stored: &Stored,
    ) -> Result<Response<Body>, ApiError> {
        let mut body = Vec::new();
        self.encoder(representation)?.single(&*self.api.store, stored, &mut body).await?;
        let mut response = respond::object(body, representation, self.is_pretty())?;
        *response.status_mut() = code;
        Ok(response)
    }

    async fn list(self) -> Result<Response<Body>, ApiError> {
        let representation = negotiate(&self.headers, Kind::List)?;
        self.check_export()?;
        let options = ListOptions::for_list(self.resource, &self.query)?;
        let query = reading::ListQuery {
            encoder: self.stored_encoder(representation)?,
            representation,
            range: self.narrowed(&options),
            options,
            pretty: self.is_pretty(),
        };
        reading::list(&self.api.store, query).await
    }

    async fn watch(self) -> Result<Response<Body>, ApiError> {
        let representation = negotiate(&self.headers, Kind::Watch)?;
        let options = ListOptions::for_watch(self.resource, &self.query)?;
        let labels = self.api.watch_labels(self.resource, &self.attributes);
        let query = watch::WatchQuery {
            store: Arc::clone(&self.api.store),
            frames: Arc::clone(&self.api.frames),
            encoder: self.stored_encoder(representation)?,
            range: self.narrowed(&options),
            options,
            drain: self.api.draining.clone(),
            metrics: self.api.metrics.watch(&labels),
        };
        watch::watch(query).await
    }

    fn narrowed(&self, options: &ListOptions) -> Range {
        let path = match &*self.attributes.namespace {
            "" => Range::resource(self.resource.plural),
            namespace => Range::namespace(self.resource.plural, namespace),
        };
        watch::narrow(path, self.resource.plural, &self.attributes.namespace, &options.selector)
    }

    /// Answers with bytes that belong to an object and are stored beside it.
    async fn part(self, part: &Part) -> Result<Response<Body>, ApiError> {
        #[derive(Deserialize)]
        struct Head {
            mediatype: String,
            digest: String,
        }
        let key = self.key()?;
        let stored_key = Key::new(part.stored_as, key.namespace(), key.name());
        // The part is found only where its object is: the two are written together.
        let mut found = self.api.store.read(&[key, stored_key]).await?.into_iter();
        let not_found = || ApiError::not_found(self.resource, &self.attributes.name);
        let (Some(Some(_)), Some(Some(stored))) = (found.next(), found.next()) else {
            return Err(not_found());
        };
        let head: Head = serde_json::from_slice(stored.object.head()).map_err(ApiError::internal)?;
        let etag = format!("\"{}\"", head.digest);
        let mut response = if matches(&self.headers, &etag) {
            respond::not_modified()
        } else {
            Response::new(Body::from(stored.object.tail().unpack().map_err(ApiError::internal)?))
        };
        // The bytes are a stranger's: browsers are told to show them as what they are, and to run nothing.
        let media_type = HeaderValue::try_from(&head.mediatype)
            .ok()
            .filter(|_| head.mediatype.starts_with("image/"))
            .unwrap_or(HeaderValue::from_static("application/octet-stream"));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, media_type);
        headers.insert(header::ETAG, HeaderValue::try_from(etag).map_err(ApiError::internal)?);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        Ok(response)
    }
}

impl Representation {
    /// JSON with everything in it.
    pub(super) const JSON: Representation = Representation { form: Form::Object, format: Format::Json };
}
