//! The API behind TLS, in the test's own process.

use std::net::SocketAddr;
use std::sync::Arc;

use packageserver::api::auth::{AnyNamespace, CertificateAuthenticator, MASTERS, MastersAuthorizer};
use packageserver::api::serve::serve;
use packageserver::api::{Api, ApiConfig, ApiOptions};
use packageserver::model::RESOURCES;
use packageserver::store::Store;
use packageserver::telemetry::metrics::Metrics;
use packageserver::tls::authority::{Authority, Signed, Validity};
use packageserver::tls::server::{self, ServingCertificate};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// A server of one test.
pub struct TlsServer {
    pub address: SocketAddr,
    pub draining: CancellationToken,
    pub metrics: Arc<Metrics>,
    serving: JoinHandle<std::io::Result<()>>,
    authority: Authority,
}

impl TlsServer {
    /// Serves a store on a free port.
    pub async fn start(store: Arc<dyn Store>) -> Self {
        Self::start_with(store, 25_000).await
    }

    /// As [`Self::start`], with room for so many connections.
    pub async fn start_with(store: Arc<dyn Store>, max_connections: usize) -> Self {
        packageserver::tls::install_crypto();
        let (authority, _) =
            Authority::generate("test", Validity::days(1)).expect("an authority can be made");
        let identity = authority.server(&["localhost".to_owned()], &[], Validity::days(1)).expect("it signs");
        let authorities = server::authorities(authority.certificate()).expect("it is one");
        let (stopping, draining) = (CancellationToken::new(), CancellationToken::new());
        let options = ApiOptions::default();
        let metrics = Arc::clone(&options.metrics);
        let api = Api::new(ApiConfig {
            store,
            resources: RESOURCES,
            authenticator: Arc::new(CertificateAuthenticator::new(authorities).expect("there is one")),
            authorizer: Arc::new(MastersAuthorizer),
            namespaces: Arc::new(AnyNamespace),
            stopping,
            draining: draining.clone(),
            options,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let certificate = ServingCertificate::of(&identity).expect("key and certificate fit");
        let config = server::config(certificate).expect("they do");
        let serving = tokio::spawn(serve(
            listener,
            config,
            api.router(),
            max_connections,
            Arc::clone(&metrics),
            draining.clone(),
        ));
        TlsServer { address, draining, metrics, serving, authority }
    }

    /// Returns a client's configuration, with an administrator's certificate.
    pub fn client_config(&self, protocols: &[&str]) -> ClientConfig {
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.certificate().as_bytes()) {
            authorities.add(certificate.expect("it is PEM")).expect("it is an authority");
        }
        let Signed { certificate, key } =
            self.authority.client("admin", &[MASTERS], Validity::days(1)).expect("it signs");
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(|one| one.expect("it is PEM"));
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("it is PEM");
        let mut config = ClientConfig::builder()
            .with_root_certificates(authorities)
            .with_client_auth_cert(chain.collect(), key)
            .expect("key and certificate fit");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }

    /// Opens a connection that speaks one of these protocols.
    pub async fn connect(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        self.connect_with(self.client_config(protocols)).await.expect("the handshake succeeds")
    }

    pub async fn connect_with(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("it is a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Returns a client like those of operators.
    pub fn kube(&self) -> kube::Client {
        let url = format!("https://localhost:{}", self.address.port());
        let mut config = kube::Config::new(url.parse().expect("it is a URL"));
        let authorities = CertificateDer::pem_slice_iter(self.authority.certificate().as_bytes());
        config.root_cert = Some(authorities.map(|one| one.expect("it is PEM").to_vec()).collect());
        let Signed { certificate, key } =
            self.authority.client("admin", &[MASTERS], Validity::days(1)).expect("it signs");
        let encode = |text: String| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        config.auth_info.client_certificate_data = Some(encode(certificate));
        config.auth_info.client_key_data = Some(encode(key).into());
        kube::Client::try_from(config).expect("a client can be made")
    }

    /// Tells the server to end, and waits until it has.
    pub async fn stop(self) {
        self.draining.cancel();
        let ended = tokio::time::timeout(super::PATIENCE, self.serving).await;
        ended.expect("it ends").expect("it does not panic").expect("it ends well");
    }
}
