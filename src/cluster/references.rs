//! The Secrets and ConfigMaps of a cluster, asked for one at a time when a CatalogSource names them, and never kept.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::bail;
use async_trait::async_trait;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::controller::References;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The Secrets and ConfigMaps of a cluster.
pub struct ClusterReferences {
    client: Client,
}

impl ClusterReferences {
    /// Asks a cluster, with what the client may do there.
    pub fn new(client: Client) -> Self {
        ClusterReferences { client }
    }

    async fn find<T>(&self, namespace: &str, name: &str) -> anyhow::Result<Option<T>>
    where
        T: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<T> = Api::namespaced(self.client.clone(), namespace);
        match tokio::time::timeout(ANSWER, api.get_opt(name)).await {
            Ok(found) => Ok(found?),
            Err(_) => bail!("the kube-apiserver does not answer"),
        }
    }
}

#[async_trait]
impl References for ClusterReferences {
    async fn secret(&self, namespace: &str, name: &str) -> anyhow::Result<Option<Secret>> {
        self.find(namespace, name).await
    }

    async fn config_map(&self, namespace: &str, name: &str) -> anyhow::Result<Option<ConfigMap>> {
        self.find(namespace, name).await
    }

    fn place(&self) -> &str {
        "in the cluster"
    }
}
