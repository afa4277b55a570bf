//! What a CatalogSource needs to be read: its pull secret and its certificates, from wherever Secrets and ConfigMaps are.

use std::collections::BTreeMap;
use std::str;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::model::{CaBundle, CatalogSource};
use crate::pipeline::fetch::{Access, InvalidCredentials, Keyring};

/// The forms of pull secrets: type, and the key that holds the content.
const DOCKER_CONFIG_JSON: (&str, &str) = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson");
const DOCKERCFG: (&str, &str) = ("kubernetes.io/dockercfg", ".dockercfg");

/// The key of a ConfigMap with certificates, where none is named.
const DEFAULT_CA_KEY: &str = "ca.crt";

/// Where the Secrets and ConfigMaps are that CatalogSources name.
#[async_trait]
pub trait References: Send + Sync + 'static {
    /// Returns a Secret; none where there is none of the name.
    ///
    /// # Errors
    ///
    /// Whatever kept it from being read.
    async fn secret(&self, namespace: &str, name: &str) -> anyhow::Result<Option<Secret>>;

    /// Returns a ConfigMap; none where there is none of the name.
    ///
    /// # Errors
    ///
    /// Whatever kept it from being read.
    async fn config_map(&self, namespace: &str, name: &str) -> anyhow::Result<Option<ConfigMap>>;

    /// Returns where they are looked for, as it follows "is not".
    fn place(&self) -> &str;
}

/// A Secret or ConfigMap that a CatalogSource names and that does not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessError {
    #[error("{kind} `{namespace}/{name}` is not {place}")]
    Missing { kind: &'static str, namespace: String, name: String, place: String },
    #[error("{kind} `{namespace}/{name}` cannot be read: {reason}")]
    Unreadable { kind: &'static str, namespace: String, name: String, reason: String },
    #[error("{kind} `{namespace}/{name}`: {reason}")]
    Invalid { kind: &'static str, namespace: String, name: String, reason: String },
    #[error(transparent)]
    Credentials(#[from] InvalidCredentials),
}

/// An object on its way to being useful, for messages.
struct Named<'a> {
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
}

/// Returns what a CatalogSource brings along for its registry.
pub(super) async fn access(
    references: &dyn References,
    namespace: &str,
    source: &CatalogSource,
) -> Result<Access, AccessError> {
    let mut access = Access::default();
    if let Some(name) = &source.spec.pull_secret {
        let named = Named { kind: "Secret", namespace, name };
        let secret = named.found(references.secret(namespace, name).await, references)?;
        access = access.with_credentials(keyring(&named, secret)?);
    }
    if let Some(CaBundle { name, key }) = &source.spec.ca_bundle {
        let named = Named { kind: "ConfigMap", namespace, name };
        let map = named.found(references.config_map(namespace, name).await, references)?;
        let key = key.as_deref().unwrap_or(DEFAULT_CA_KEY);
        let data = map.data.unwrap_or_default();
        let pem = data.get(key).ok_or_else(|| named.invalid(format!("it has no key `{key}`")))?;
        access =
            access.with_authorities(pem).map_err(|reason| named.invalid(format!("key `{key}`: {reason}")))?;
    }
    Ok(access)
}

fn keyring(named: &Named<'_>, secret: Secret) -> Result<Keyring, AccessError> {
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    let encoded = secret.data.unwrap_or_default();
    let mut data: BTreeMap<String, Vec<u8>> =
        encoded.into_iter().map(|(key, value)| (key, value.0)).collect();
    // Only manifests have it; an API server moves it to `data`.
    let plain = secret.string_data.unwrap_or_default();
    data.extend(plain.into_iter().map(|(key, value)| (key, value.into_bytes())));
    let content = |key: &str| data.get(key).ok_or_else(|| named.invalid(format!("it has no key `{key}`")));
    let origin = named.to_string();
    if kind == DOCKER_CONFIG_JSON.0 {
        Ok(Keyring::from_docker_config(content(DOCKER_CONFIG_JSON.1)?, &origin)?)
    } else if kind == DOCKERCFG.0 {
        Ok(Keyring::from_dockercfg(content(DOCKERCFG.1)?, &origin)?)
    } else {
        let (json, cfg) = (DOCKER_CONFIG_JSON.0, DOCKERCFG.0);
        Err(named.invalid(format!("it is of type `{kind}`; a pull secret is of type `{json}` or `{cfg}`")))
    }
}

impl Named<'_> {
    fn found<T>(&self, read: anyhow::Result<Option<T>>, from: &dyn References) -> Result<T, AccessError> {
        let Named { kind, namespace, name } = *self;
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        match read {
            Ok(Some(object)) => Ok(object),
            Ok(None) => Err(AccessError::Missing { kind, namespace, name, place: from.place().to_owned() }),
            Err(error) => {
                Err(AccessError::Unreadable { kind, namespace, name, reason: format!("{error:#}") })
            }
        }
    }

    fn invalid(&self, reason: String) -> AccessError {
        let Named { kind, namespace, name } = *self;
        AccessError::Invalid { kind, namespace: namespace.to_owned(), name: name.to_owned(), reason }
    }
}

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Named { kind, namespace, name } = self;
        write!(f, "{kind} `{namespace}/{name}`")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tls::authority::{Authority, Validity};

    /// One Secret and one ConfigMap, both called `it`.
    struct Given(Option<Value>, Option<Value>);

    #[async_trait]
    impl References for Given {
        async fn secret(&self, _: &str, name: &str) -> anyhow::Result<Option<Secret>> {
            anyhow::ensure!(name != "forbidden", "not allowed");
            Ok(self.0.clone().filter(|_| name == "it").map(serde_json::from_value).transpose()?)
        }

        async fn config_map(&self, _: &str, name: &str) -> anyhow::Result<Option<ConfigMap>> {
            Ok(self.1.clone().filter(|_| name == "it").map(serde_json::from_value).transpose()?)
        }

        fn place(&self) -> &str {
            "in this test"
        }
    }

    async fn said(spec: Value, given: Given) -> String {
        let source = serde_json::from_value(json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": "x", "namespace": "n"}, "spec": spec,
        }));
        match access(&given, "n", &source.unwrap()).await {
            Ok(access) => format!("{access:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn pull_secrets_are_read_in_both_forms() {
        let entry = json!({"quay.io": {"username": "me", "password": "hunter2"}});
        let secret = |kind: &str, key: &str, content: Value| {
            Given(Some(json!({"type": kind, "stringData": {key: content.to_string()}})), None)
        };
        let spec = json!({"image": "quay.io/x", "pullSecret": "it"});
        for given in [
            secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", json!({"auths": entry})),
            secret("kubernetes.io/dockercfg", ".dockercfg", entry.clone()),
        ] {
            let said = said(spec.clone(), given).await;
            assert!(said.contains("the credentials for `quay.io` of Secret `n/it`"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        for (given, expected) in [
            (Given(None, None), "Secret `n/it` is not in this test"),
            (secret("Opaque", "x", json!({})), "Secret `n/it`: it is of type `Opaque`; a pull secret is"),
            (
                secret("kubernetes.io/dockercfg", ".dockerconfigjson", json!({})),
                "Secret `n/it`: it has no key `.dockercfg`",
            ),
            (
                secret("kubernetes.io/dockercfg", ".dockercfg", json!("hunter2")),
                "Secret `n/it`: no docker configuration",
            ),
        ] {
            let said = said(spec.clone(), given).await;
            assert!(said.starts_with(expected), "{said}");
        }
        let said = said(json!({"image": "x", "pullSecret": "forbidden"}), Given(None, None)).await;
        assert_eq!(said, "Secret `n/forbidden` cannot be read: not allowed");
    }

    #[tokio::test]
    async fn certificates_are_read_and_checked() {
        let (authority, _) = Authority::generate("test", Validity::days(1)).unwrap();
        let map = |key: &str, value: &str| Given(None, Some(json!({"data": {key: value}})));
        let spec = |key: Value| json!({"image": "x", "caBundle": {"name": "it", "key": key}});
        for (key, name) in [(json!(null), "ca.crt"), (json!("bundle.pem"), "bundle.pem")] {
            let said = said(spec(key), map(name, authority.certificate())).await;
            assert!(said.contains("BEGIN CERTIFICATE"), "{said}");
        }
        for (given, expected) in [
            (Given(None, None), "ConfigMap `n/it` is not in this test"),
            (map("other", "x"), "ConfigMap `n/it`: it has no key `ca.crt`"),
            (map("ca.crt", "x"), "ConfigMap `n/it`: key `ca.crt`: no certificates"),
        ] {
            assert_eq!(said(spec(json!(null)), given).await, expected);
        }
    }
}
