//! Who asks, and whether they may (C6, C7, C14, C18).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::request::Parts;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Somebody who sends requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// What tells this user from another of the same name.
    pub uid: String,
    /// The groups the user is in.
    pub groups: Vec<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The administrator of a server that has no other users.
    pub fn administrator() -> Self {
        User { name: "admin".to_owned(), groups: vec![MASTERS.to_owned()], ..User::default() }
    }
}

/// What a request is about, for whoever decides on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// get, list, watch, create, update, patch, delete or deletecollection; for paths that are no resources the
    /// method in lower case.
    pub verb: String,
    /// The API group; empty for paths.
    pub group: String,
    /// The version of the group.
    pub version: String,
    /// The resource in the plural; empty for paths.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace; empty for all.
    pub namespace: String,
    /// The name; empty for collections.
    pub name: String,
    /// The path.
    pub path: String,
    /// What the labels of the objects are asked to be; of lists, watches and deletions of collections (C20).
    pub label_selector: Vec<Requirement>,
    /// The same for their fields.
    pub field_selector: Vec<Requirement>,
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label, or the path of the field.
    pub key: String,
    /// How its value is compared.
    pub operator: Operator,
    /// What it is compared with.
    pub values: Vec<String>,
}

/// How a term compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of those given.
    In,
    /// The value is none of those given, or there is none.
    NotIn,
    /// There is a value.
    Exists,
    /// There is none.
    DoesNotExist,
}

/// A decision on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Refuse, and say why, if there is something to say.
    Deny(String),
}

/// The group of those who may do everything.
pub const MASTERS: &str = "system:masters";

/// Credentials that prove nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadCredentials(pub String);

/// Finds out who sends a request.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Returns the user; none when the request carries no credentials. Headers that name a user are removed (C272).
    ///
    /// # Errors
    ///
    /// [`BadCredentials`] when there are some and none of them is good (C267).
    async fn authenticate(&self, request: &mut Parts) -> Result<Option<User>, BadCredentials>;
}

/// Decides whether a user may do something.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Returns the decision.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be decided now.
    async fn authorize(&self, user: &User, attributes: &Attributes) -> Result<Decision, String>;
}

/// What is known of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceState {
    /// Objects may be put into it.
    Active,
    /// It is being deleted.
    Terminating,
    /// There is none of the name.
    Missing,
}

/// Knows namespaces.
#[async_trait]
pub trait Namespaces: Send + Sync {
    /// Returns the state of a namespace.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be found out now.
    async fn state(&self, name: &str) -> Result<NamespaceState, String>;
}

/// Every namespace that is named, for servers that have no others.
pub struct AnyNamespace;

#[async_trait]
impl Namespaces for AnyNamespace {
    async fn state(&self, _: &str) -> Result<NamespaceState, String> {
        Ok(NamespaceState::Active)
    }
}

/// The certificates a client presented; an extension of the request. That the client has the key was shown when the
/// connection was made; who signed them was not looked at (C273).
#[derive(Clone, Debug)]
pub struct ClientCertificates(pub Arc<[CertificateDer<'static>]>);

/// Takes the subject of a client certificate for the user: CN the name, O the groups.
pub struct CertificateAuthenticator {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl CertificateAuthenticator {
    /// Accepts certificates that one of these authorities signed.
    ///
    /// # Errors
    ///
    /// When there are none.
    pub fn new(authorities: RootCertStore) -> Result<Self, VerifierBuilderError> {
        let verifier = WebPkiClientVerifier::builder(Arc::new(authorities)).build()?;
        Ok(CertificateAuthenticator { verifier })
    }
}

#[async_trait]
impl Authenticator for CertificateAuthenticator {
    async fn authenticate(&self, request: &mut Parts) -> Result<Option<User>, BadCredentials> {
        let Some(ClientCertificates(chain)) = request.extensions.get() else { return Ok(None) };
        let Some((own, intermediates)) = chain.split_first() else { return Ok(None) };
        self.verifier
            .verify_client_cert(own, intermediates, UnixTime::now())
            .map_err(|error| BadCredentials(error.to_string()))?;
        subject(own).map(Some)
    }
}

/// Returns the user that a certificate names: CN the name, O the groups.
///
/// # Errors
///
/// When it names none.
pub fn subject(certificate: &CertificateDer<'_>) -> Result<User, BadCredentials> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| BadCredentials(error.to_string()))?;
    let texts = |attributes: Vec<&str>| attributes.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let names = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
    let groups = parsed.subject().iter_organization().filter_map(|name| name.as_str().ok()).collect();
    match texts(names).into_iter().next() {
        Some(name) if !name.is_empty() => Ok(User { name, groups: texts(groups), ..User::default() }),
        _ => Err(BadCredentials("a certificate without a common name".to_owned())),
    }
}

/// Lets everybody in [`MASTERS`] do everything, and nobody else anything.
pub struct MastersAuthorizer;

#[async_trait]
impl Authorizer for MastersAuthorizer {
    async fn authorize(&self, user: &User, _: &Attributes) -> Result<Decision, String> {
        let is_master = user.groups.iter().any(|group| group == MASTERS);
        Ok(if is_master { Decision::Allow } else { Decision::Deny(String::new()) })
    }
}
