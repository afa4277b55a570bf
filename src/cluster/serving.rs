//! The serving certificate: made, kept in a Secret, rotated before it expires, and told to the APIService.
//!
//! Every replica runs this, and none is special: the Secret is changed with its resourceVersion as a condition, so of two
//! that want to rotate one does. An authority is replaced in steps (see [`rotation`]), so that at each moment what the
//! kube-apiserver trusts includes what every replica shows.

pub mod rotation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use self::rotation::{Kept, Lifetimes};
use crate::tls::server::ServingCertificate;

/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);

/// How often a start is tried before it fails: another replica may be faster each time.
const ATTEMPTS: usize = 5;

/// The longest pause between two looks at the Secret.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The keys of the Secret; those of the certificate are Kubernetes' own.
const AUTHORITIES: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const KEPT: &str = "rotation.json";

/// Where the certificate is kept, and whom it is for.
#[derive(Clone, Debug)]
pub struct Place {
    /// The namespace of this server.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The Service through which the kube-apiserver reaches this server.
    pub service: String,
    /// The APIService that has to trust the certificate, such as `v1beta1.core.rukpak.io`.
    pub api_service: String,
}

/// Keeps a serving certificate good.
pub struct Serving {
    secrets: Api<Secret>,
    api_services: Api<APIService>,
    place: Place,
    lifetimes: Lifetimes,
    shown: Arc<ServingCertificate>,
}

impl Serving {
    /// Takes up the certificate in the Secret, or makes one, and tells the APIService whom to trust.
    ///
    /// # Errors
    ///
    /// When the Secret can be neither read nor written.
    pub async fn start(client: Client, place: Place, lifetimes: Lifetimes) -> anyhow::Result<Self> {
        let secrets = Api::namespaced(client.clone(), &place.namespace);
        let shown = Arc::new(ServingCertificate::default());
        let serving = Serving { secrets, api_services: Api::all(client), place, lifetimes, shown };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match serving.step().await {
                Ok(()) => return Ok(serving),
                Err(error) => last = Some(error),
            }
        }
        let secret = format!("{}/{}", serving.place.namespace, serving.place.secret);
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no attempt was made")))
            .with_context(|| format!("cannot keep a serving certificate in Secret {secret}"))
    }

    /// Returns the certificate that connections are shown: always the newest.
    pub fn shown(&self) -> Arc<ServingCertificate> {
        Arc::clone(&self.shown)
    }

    /// Keeps the certificate good until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let pause = (self.lifetimes.certificate / 20).min(LONGEST_PAUSE);
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            if let Err(error) = self.step().await {
                tracing::warn!("cannot look after the serving certificate: {error:#}");
            }
        }
    }

    /// Reads the Secret, rotates what is due, shows the certificate, and tells the APIService.
    async fn step(&self) -> anyhow::Result<()> {
        let now = OffsetDateTime::now_utc();
        let found = call(self.secrets.get_opt(&self.place.secret)).await?;
        let kept = found.as_ref().and_then(|secret| {
            let text = &secret.data.as_ref()?.get(KEPT)?.0;
            serde_json::from_slice::<Kept>(text).ok()
        });
        let names = self.names();
        let kept = match rotation::next(kept.as_ref(), &names, self.lifetimes, now)? {
            Some(next) => {
                // What is stored first is shown only then; when somebody else was faster, this fails and is done again.
                self.store(found, &next).await?;
                tracing::info!(expires = %next.expires, "the serving certificate was rotated");
                next
            }
            None => kept.context("nothing is kept and nothing is due")?,
        };
        // The kube-apiserver hears of an authority before anything that it signed is shown.
        self.tell(&kept).await?;
        self.shown.set(&kept.serving)?;
        let left = kept.expires - now;
        tracing::debug!(days_left = left.whole_days(), "serving certificate");
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        let Place { namespace, service, .. } = &self.place;
        vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
            format!("{service}.{namespace}"),
            service.clone(),
        ]
    }

    async fn store(&self, found: Option<Secret>, next: &Kept) -> anyhow::Result<()> {
        let bytes = |text: String| ByteString(text.into_bytes());
        let data: BTreeMap<_, _> = [
            (AUTHORITIES, bytes(next.trusted())),
            (CERTIFICATE, bytes(next.serving.certificate.clone())),
            (KEY, bytes(next.serving.key.clone())),
            (KEPT, bytes(serde_json::to_string(next)?)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        let params = PostParams::default();
        match found {
            Some(mut secret) => {
                secret.data = Some(data);
                call(self.secrets.replace(&self.place.secret, &params, &secret)).await?;
            }
            None => {
                let mut secret = Secret { data: Some(data), ..Secret::default() };
                secret.metadata.name = Some(self.place.secret.clone());
                secret.type_ = Some("kubernetes.io/tls".to_owned());
                call(self.secrets.create(&params, &secret)).await?;
            }
        }
        Ok(())
    }

    /// Makes the APIService trust the authorities, where there is one.
    async fn tell(&self, kept: &Kept) -> anyhow::Result<()> {
        let name = &self.place.api_service;
        let Some(api_service) = call(self.api_services.get_opt(name)).await? else {
            tracing::warn!(name, "there is no APIService that leads here yet");
            return Ok(());
        };
        let trusted = ByteString(kept.trusted().into_bytes());
        let spec = api_service.spec.unwrap_or_default();
        if spec.ca_bundle.as_ref() == Some(&trusted) && spec.insecure_skip_tls_verify != Some(true) {
            return Ok(());
        }
        let patch = json!({"spec": {"caBundle": trusted, "insecureSkipTLSVerify": null}});
        call(self.api_services.patch(name, &PatchParams::default(), &Patch::Merge(&patch))).await?;
        tracing::info!(name, "the APIService trusts the new authority");
        Ok(())
    }
}

async fn call<T>(answer: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(CALL, answer).await;
    Ok(answer.context("the kube-apiserver does not answer")??)
}
