//! How the server speaks TLS: which certificate it shows, and what it makes of a client's.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use time::OffsetDateTime;

use super::authority::Signed;
use super::expiry::expiry;

/// The certificate a server shows. It can be replaced while connections come and go.
#[derive(Debug, Default)]
pub struct ServingCertificate(RwLock<Option<Shown>>);

#[derive(Debug)]
struct Shown {
    /// As PEM.
    certificate: String,
    key: Arc<CertifiedKey>,
    expires: Option<OffsetDateTime>,
}

impl ServingCertificate {
    /// Returns one that is shown from the start.
    ///
    /// # Errors
    ///
    /// As [`Self::set`].
    pub fn of(own: &Signed) -> anyhow::Result<Arc<Self>> {
        let certificate = Self::default();
        certificate.set(own)?;
        Ok(Arc::new(certificate))
    }

    /// Shows a certificate from now on; those who are connected notice nothing.
    ///
    /// # Errors
    ///
    /// When certificate and key do not fit, or are not PEM. What was shown before is then shown on.
    pub fn set(&self, own: &Signed) -> anyhow::Result<()> {
        if self.shows(own) {
            return Ok(());
        }
        let chain =
            CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        anyhow::ensure!(!chain.is_empty(), "no certificates");
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes())?;
        let key = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?;
        let mut shown = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let expires = expiry(own.certificate.as_bytes());
        if let Some(expires) = expires {
            let days_left = (expires - OffsetDateTime::now_utc()).whole_days();
            tracing::info!(days_left, "a serving certificate is shown from now on");
        }
        *shown = Some(Shown { certificate: own.certificate.clone(), key: Arc::new(key), expires });
        Ok(())
    }

    /// Returns whether a certificate is the one that is shown.
    pub fn shows(&self, own: &Signed) -> bool {
        self.read().as_ref().is_some_and(|shown| shown.certificate == own.certificate)
    }

    /// Returns when the certificate that is shown expires; nothing where none is.
    pub fn expires(&self) -> Option<OffsetDateTime> {
        self.read().as_ref()?.expires
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Shown>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.read().as_ref().map(|shown| Arc::clone(&shown.key))
    }
}

/// Returns the configuration of a server that shows a certificate and asks clients for theirs.
///
/// # Errors
///
/// When the provider of cryptography lacks a version of TLS.
pub fn config(own: Arc<ServingCertificate>) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = rustls::crypto::ring::default_provider();
    let verifier = PossessionOnly { algorithms: provider.signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Returns the authorities in a PEM text.
///
/// # Errors
///
/// When it holds no certificates, or one that is none.
pub fn authorities(pem: &str) -> anyhow::Result<RootCertStore> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        authorities.add(certificate?)?;
    }
    anyhow::ensure!(!authorities.is_empty(), "no certificates");
    Ok(authorities)
}

/// Takes any certificate whose key the client shows to have. Whose it is, and what it is good for, is decided with the
/// request, so that a bad certificate is an answer (401) and not a broken connection (C273).
#[derive(Debug)]
struct PossessionOnly {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for PossessionOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
