//! How a server shows itself, and whom it serves: by an authority of its own, or by its cluster's word.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::data_dir::Identity;
use crate::api::auth::{
    AnyNamespace, Authenticator, Authorizer, CertificateAuthenticator, MastersAuthorizer, Namespaces,
};
use crate::args::ClusterArgs;
use crate::cluster::authentication::DelegatedAuthenticator;
use crate::cluster::authorization::DelegatedAuthorizer;
use crate::cluster::namespaces::ClusterNamespaces;
use crate::cluster::serving::rotation::Lifetimes;
use crate::cluster::serving::{Place, Serving};
use crate::cluster::{connect, front_proxy};
use crate::model::{GROUP, VERSION};
use crate::tls::files;
use crate::tls::server::{ServingCertificate, authorities};

/// What the API asks about those who ask, and the certificate it shows them.
pub(super) struct Front {
    pub(super) certificate: Arc<ServingCertificate>,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) authorizer: Arc<dyn Authorizer>,
    pub(super) namespaces: Arc<dyn Namespaces>,
}

impl Front {
    /// Serves the owner of a data directory, and nobody else.
    pub(super) fn standalone(identity: &Identity) -> anyhow::Result<Self> {
        let authorities = authorities(&identity.authority)?;
        Ok(Front {
            certificate: ServingCertificate::of(&identity.server)?,
            authenticator: Arc::new(CertificateAuthenticator::new(authorities)?),
            authorizer: Arc::new(MastersAuthorizer),
            namespaces: Arc::new(AnyNamespace),
        })
    }

    /// Serves those whom a cluster knows, what it lets them; keeps the certificate good until `stop` is cancelled.
    pub(super) async fn of_cluster(args: &ClusterArgs, stop: &CancellationToken) -> anyhow::Result<Self> {
        let client = connect(args.kubeconfig.as_deref()).await?;
        let trust = front_proxy::follow(client.clone(), stop.clone()).await?;
        let certificate = match (&args.tls_cert_file, &args.tls_private_key_file) {
            (Some(certificate), Some(key)) => files::follow(certificate.clone(), key.clone(), stop.clone())?,
            _ => {
                let lifetimes = Lifetimes {
                    authority: args.serving_authority_lifetime,
                    certificate: args.serving_certificate_lifetime,
                    overlap: args.serving_rotation_overlap,
                };
                let serving = Serving::start(client.clone(), place(args), lifetimes).await?;
                let shown = serving.shown();
                tokio::spawn(serving.run(stop.clone()));
                shown
            }
        };
        Ok(Front {
            certificate,
            authenticator: Arc::new(DelegatedAuthenticator::new(client.clone(), trust)),
            authorizer: Arc::new(DelegatedAuthorizer::new(client.clone())),
            namespaces: Arc::new(ClusterNamespaces::new(client)),
        })
    }
}

/// Returns where an installation is.
pub(super) fn place(args: &ClusterArgs) -> Place {
    Place {
        namespace: args.namespace.clone(),
        secret: args.serving_secret.clone(),
        service: args.service.clone(),
        api_service: format!("{VERSION}.{GROUP}"),
    }
}
