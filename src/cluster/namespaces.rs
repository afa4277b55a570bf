//! Whether objects may be put into a namespace (C284–C288).

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};

use crate::api::auth::{NamespaceState, Namespaces};

/// How long the kube-apiserver may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks the cluster about a namespace, each time anew: writes are rare, and a namespace whose deletion has begun since the
/// last time must not get new objects.
pub struct ClusterNamespaces {
    namespaces: Api<Namespace>,
}

impl ClusterNamespaces {
    /// Asks a cluster.
    pub fn new(client: Client) -> Self {
        ClusterNamespaces { namespaces: Api::all(client) }
    }
}

#[async_trait]
impl Namespaces for ClusterNamespaces {
    async fn state(&self, name: &str) -> Result<NamespaceState, String> {
        let answer = tokio::time::timeout(ANSWER, self.namespaces.get_opt(name)).await;
        let namespace = match answer {
            Ok(answer) => answer.map_err(|error| format!("cannot read namespace `{name}`: {error}"))?,
            Err(_) => {
                return Err(format!("cannot read namespace `{name}`: the kube-apiserver does not answer"));
            }
        };
        Ok(match namespace {
            None => NamespaceState::Missing,
            Some(namespace) if namespace.metadata.deletion_timestamp.is_some() => NamespaceState::Terminating,
            Some(_) => NamespaceState::Active,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fake;
    use super::*;

    #[tokio::test]
    async fn c284_c285_c288_the_cluster_is_asked_each_time() {
        let (client, asked) = fake::cluster(|line, _| {
            let namespace = |metadata: serde_json::Value| {
                (200, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
            };
            match line.rsplit_once('/').map(|(_, name)| name) {
                Some("there") => namespace(json!({"name": "there"})),
                Some("going") => {
                    namespace(json!({"name": "going", "deletionTimestamp": "2024-01-01T00:00:00Z"}))
                }
                Some("broken") => fake::failure(500, "InternalError"),
                _ => fake::failure(404, "NotFound"),
            }
        });
        let namespaces = ClusterNamespaces::new(client);
        for _ in 0..2 {
            for (name, state) in [
                ("there", NamespaceState::Active),
                ("going", NamespaceState::Terminating),
                ("nowhere", NamespaceState::Missing),
            ] {
                assert_eq!(namespaces.state(name).await, Ok(state), "{name}");
            }
        }
        assert_eq!(asked.lock().unwrap().len(), 6);
        assert!(namespaces.state("broken").await.unwrap_err().contains("`broken`"));
    }
}
