//! Secrets and ConfigMaps where there is no cluster: those among the manifests that are applied at the start. They are
//! kept in memory and nowhere else.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::Value;

use super::manifests::DEFAULT_NAMESPACE;
use crate::controller::References;

/// By namespace and name.
type Named<T> = BTreeMap<(String, String), T>;

/// The Secrets and ConfigMaps of manifests.
#[derive(Default)]
pub(super) struct ManifestReferences {
    secrets: Named<Secret>,
    config_maps: Named<ConfigMap>,
}

impl ManifestReferences {
    /// Takes its objects out of those that manifests hold.
    pub(super) fn take(objects: &mut Vec<(PathBuf, Value)>) -> anyhow::Result<Self> {
        let mut references = Self::default();
        let mut rest = Vec::new();
        for (file, object) in objects.drain(..) {
            let taken = references.take_one(&object).with_context(|| format!("`{}`", file.display()))?;
            if !taken {
                rest.push((file, object));
            }
        }
        *objects = rest;
        Ok(references)
    }

    /// Takes an object if it is one of these. Returns whether it was.
    fn take_one(&mut self, object: &Value) -> anyhow::Result<bool> {
        let kind = object["kind"].as_str().unwrap_or_default();
        if object["apiVersion"] != "v1" || !matches!(kind, "Secret" | "ConfigMap") {
            return Ok(false);
        }
        let text = |field: &str| object["metadata"][field].as_str().filter(|text| !text.is_empty());
        let name = text("name").with_context(|| format!("a {kind} without metadata.name"))?;
        let key = (text("namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned(), name.to_owned());
        // What the parser says could quote a secret.
        let none = || format!("{kind} `{name}` is none");
        if kind == "Secret" {
            self.secrets.insert(key, serde_json::from_value(object.clone()).ok().with_context(none)?);
        } else {
            self.config_maps.insert(key, serde_json::from_value(object.clone()).ok().with_context(none)?);
        }
        Ok(true)
    }
}

#[async_trait]
impl References for ManifestReferences {
    async fn secret(&self, namespace: &str, name: &str) -> anyhow::Result<Option<Secret>> {
        Ok(self.secrets.get(&(namespace.to_owned(), name.to_owned())).cloned())
    }

    async fn config_map(&self, namespace: &str, name: &str) -> anyhow::Result<Option<ConfigMap>> {
        Ok(self.config_maps.get(&(namespace.to_owned(), name.to_owned())).cloned())
    }

    fn place(&self) -> &str {
        "among the manifests that --filename names; without a cluster there is no other place for it"
    }
}
