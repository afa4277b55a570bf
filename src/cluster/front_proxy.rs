//! The ConfigMap by which a kube-apiserver tells whom to trust: `kube-system/extension-apiserver-authentication` (C269).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::tls::server::authorities;

/// Where it is.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// How long a start waits for it.
const FIRST_READ: Duration = Duration::from_secs(30);

/// Whom to trust, as it stands now.
#[derive(Clone, Default)]
pub struct Trust {
    /// Whose client certificates name users.
    pub clients: Option<Arc<dyn ClientCertVerifier>>,
    /// Who may say in headers who the user is.
    pub proxy: Option<Proxy>,
}

/// The front proxy: a kube-apiserver that passes requests on.
#[derive(Clone)]
pub struct Proxy {
    /// Who signs its certificate.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// The common names it may have; empty for any.
    pub allowed_names: Vec<String>,
    /// The headers with the name of the user, the first that is there counts; all in lower case.
    pub user_headers: Vec<String>,
    /// The headers with the uid.
    pub uid_headers: Vec<String>,
    /// The headers with groups, one group each.
    pub group_headers: Vec<String>,
    /// What headers with anything else begin with.
    pub extra_prefixes: Vec<String>,
}

impl Trust {
    /// Reads what a ConfigMap says.
    ///
    /// # Errors
    ///
    /// When certificates or lists in it make no sense.
    pub fn parse(data: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let verifier = |key: &str| -> anyhow::Result<Option<Arc<dyn ClientCertVerifier>>> {
            let Some(pem) = data.get(key).filter(|pem| !pem.trim().is_empty()) else { return Ok(None) };
            let roots = authorities(pem).with_context(|| format!("`{key}`"))?;
            Ok(Some(WebPkiClientVerifier::builder(Arc::new(roots)).build()?))
        };
        let list = |key: &str| -> anyhow::Result<Vec<String>> {
            match data.get(key).map(|text| text.trim()).filter(|text| !text.is_empty()) {
                Some(text) => {
                    serde_json::from_str(text).with_context(|| format!("`{key}` is no list of names"))
                }
                None => Ok(Vec::new()),
            }
        };
        let headers = |key: &str| -> anyhow::Result<Vec<String>> {
            Ok(list(key)?.into_iter().map(|name| name.to_ascii_lowercase()).collect())
        };
        let proxy = match verifier("requestheader-client-ca-file")? {
            Some(verifier) => Some(Proxy {
                verifier,
                allowed_names: list("requestheader-allowed-names")?,
                user_headers: headers("requestheader-username-headers")?,
                uid_headers: headers("requestheader-uid-headers")?,
                group_headers: headers("requestheader-group-headers")?,
                extra_prefixes: headers("requestheader-extra-headers-prefix")?,
            }),
            None => None,
        };
        Ok(Trust { clients: verifier("client-ca-file")?, proxy })
    }
}

/// Reads the ConfigMap, and follows it until `stop` is cancelled.
///
/// A ConfigMap that makes no sense, or is gone, leaves what was known before.
///
/// # Errors
///
/// When it cannot be read in time at the start: without it nobody could be told from anybody else.
pub async fn follow(client: Client, stop: CancellationToken) -> anyhow::Result<watch::Receiver<Arc<Trust>>> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let place = format!("ConfigMap {NAMESPACE}/{NAME}");
    let read = tokio::time::timeout(FIRST_READ, config_maps.get(NAME)).await;
    let first = match read {
        Ok(read) => read.with_context(|| {
            format!("cannot read {place}; is the Role extension-apiserver-authentication-reader bound?")
        })?,
        Err(_) => bail!("cannot read {place}: the kube-apiserver does not answer"),
    };
    let trust = Trust::parse(&first.data.unwrap_or_default()).with_context(|| place.clone())?;
    let (sender, receiver) = watch::channel(Arc::new(trust));
    tokio::spawn(async move {
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let changes = watcher(config_maps, config).default_backoff().applied_objects();
        let follow = changes.try_for_each(|config_map: ConfigMap| {
            match Trust::parse(&config_map.data.unwrap_or_default()) {
                Ok(trust) => drop(sender.send_replace(Arc::new(trust))),
                Err(error) => tracing::error!("{place}: {error:#}; trusting whom it named before"),
            }
            futures::future::ok(())
        });
        stop.run_until_cancelled(async {
            if let Err(error) = follow.await {
                tracing::error!(%error, "cannot follow {place}");
            }
        })
        .await;
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::authority::{Authority, Validity};

    fn day() -> Validity {
        Validity::from_now(Duration::from_secs(24 * 60 * 60))
    }

    fn data(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn c269_the_config_map_is_read() {
        crate::tls::install_crypto();
        let (_, ca) = Authority::generate("front-proxy-ca", day()).unwrap();
        let trust = Trust::parse(&data(&[
            ("client-ca-file", &ca.certificate),
            ("requestheader-client-ca-file", &ca.certificate),
            ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ]))
        .unwrap();
        assert!(trust.clients.is_some());
        let proxy = trust.proxy.unwrap();
        assert_eq!(proxy.allowed_names, ["front-proxy-client"]);
        assert_eq!(proxy.user_headers, ["x-remote-user"]);
        assert_eq!(proxy.extra_prefixes, ["x-remote-extra-"]);
        assert!(proxy.uid_headers.is_empty());
        assert!(Trust::parse(&data(&[])).unwrap().proxy.is_none());
        for wrong in [("client-ca-file", "no PEM"), ("requestheader-client-ca-file", "-----BEGIN")] {
            assert!(Trust::parse(&data(&[wrong])).is_err());
        }
        let lists =
            [("requestheader-client-ca-file", &*ca.certificate), ("requestheader-allowed-names", "x")];
        assert!(Trust::parse(&data(&lists)).is_err());
    }
}
