//! A certificate authority of one's own, for installations that have no other.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// How much earlier than asked for certificates are valid.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// An authority that signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// From when on; an hour earlier, for clocks that are behind.
    pub from: OffsetDateTime,
    /// For how long.
    pub lifetime: Duration,
}

impl Validity {
    /// From now on, for some days.
    pub fn days(days: u32) -> Self {
        Self::from_now(Duration::from_secs(u64::from(days) * 24 * 60 * 60))
    }

    /// From now on.
    pub fn from_now(lifetime: Duration) -> Self {
        Validity { from: OffsetDateTime::now_utc(), lifetime }
    }
}

/// A certificate and its key, as PEM.
#[derive(Clone, Serialize, Deserialize)]
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// The key. It is a secret.
    pub key: String,
}

impl Authority {
    /// Makes a new authority; returns it and what to keep of it.
    ///
    /// # Errors
    ///
    /// When the system has no randomness.
    pub fn generate(name: &str, validity: Validity) -> Result<(Self, Signed), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = params(name, validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        let signed = Signed { certificate: certificate.clone(), key: key.serialize_pem() };
        Ok((Authority { issuer: Issuer::new(params, key), certificate }, signed))
    }

    /// Takes up an authority that was kept.
    ///
    /// # Errors
    ///
    /// When certificate or key are not what [`Authority::generate`] gave.
    pub fn load(kept: &Signed) -> Result<Self, rcgen::Error> {
        let key = KeyPair::from_pem(&kept.key)?;
        let issuer = Issuer::from_ca_cert_pem(&kept.certificate, key)?;
        Ok(Authority { issuer, certificate: kept.certificate.clone() })
    }

    /// Returns the authority's own certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate for a server that is reached under some names and addresses.
    ///
    /// # Errors
    ///
    /// When a name is none.
    pub fn server(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        validity: Validity,
    ) -> Result<Signed, rcgen::Error> {
        self.reachable(names, addresses, validity, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// Signs a certificate for a member of a cluster, who is a server to others and a client of them.
    ///
    /// # Errors
    ///
    /// When a name is none.
    pub fn member(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        validity: Validity,
    ) -> Result<Signed, rcgen::Error> {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.reachable(names, addresses, validity, usages)
    }

    fn reachable(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        validity: Validity,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<Signed, rcgen::Error> {
        let mut params = params(names.first().map_or("server", String::as_str), validity)?;
        let mut alternatives = Vec::new();
        for name in names {
            alternatives.push(SanType::DnsName(name.as_str().try_into()?));
        }
        alternatives.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.subject_alt_names = alternatives;
        params.extended_key_usages = usages;
        self.sign(params)
    }

    /// Signs a certificate for a client: the name of a user and the groups the user is in.
    ///
    /// # Errors
    ///
    /// When the system has no randomness.
    pub fn client(&self, name: &str, groups: &[&str], validity: Validity) -> Result<Signed, rcgen::Error> {
        let mut params = params(name, validity)?;
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Signed, rcgen::Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Signed { certificate, key: key.serialize_pem() })
    }
}

fn params(name: &str, validity: Validity) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = validity.from - BACKDATED;
    params.not_after = validity.from + validity.lifetime;
    Ok(params)
}
