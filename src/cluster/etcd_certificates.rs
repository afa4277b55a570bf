//! Certificates for an etcd of one's own: made once, kept in Secrets, renewed before they expire.
//!
//! Three Secrets, named after the Service of etcd: `SERVICE-ca` (the authority), `SERVICE` (what every member shows the
//! others and its clients) and `SERVICE-client` (what this program shows). Running it again changes nothing that is good.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use time::OffsetDateTime;

use crate::tls::authority::{Authority, Signed, Validity};
use crate::tls::expiry::{expiry, is_of_the_future};

/// How long a call may take.
const CALL: Duration = Duration::from_secs(10);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the authority is good. It signs for members that all have to be restarted when it is replaced, so it lives long.
const AUTHORITY: Duration = Duration::from_secs(20 * 365 * DAY.as_secs());

/// How long a certificate is good. It is renewed when a third of that is left.
const CERTIFICATE: Duration = Duration::from_secs(365 * DAY.as_secs());

/// The keys of a Secret of type `kubernetes.io/tls`, and the authority beside them.
const TLS_CERTIFICATE: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const TLS_AUTHORITY: &str = "ca.crt";

/// Makes or renews what is missing or old.
///
/// # Errors
///
/// When a Secret can be neither read nor written, or the authority's is damaged: it is not replaced by itself, because
/// members with the old one and members with a new one would not know each other.
pub async fn ensure(client: Client, namespace: &str, service: &str) -> anyhow::Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let now = OffsetDateTime::now_utc();
    let kept = read(&secrets, &format!("{service}-ca")).await?;
    let authority = match &kept {
        Some(secret) => Authority::load(&signed(secret).with_context(|| {
            format!("Secret {namespace}/{service}-ca holds no authority; restore it, or delete it with the other two")
        })?)?,
        None => {
            let (authority, signed) =
                Authority::generate("packageserver etcd", Validity { from: now, lifetime: AUTHORITY })?;
            write(&secrets, &format!("{service}-ca"), None, &signed, &signed.certificate).await?;
            authority
        }
    };
    let validity = Validity { from: now, lifetime: CERTIFICATE };
    let names: Vec<_> = [
        format!("{service}.{namespace}.svc"),
        format!("*.{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("*.{service}.{namespace}.svc.cluster.local"),
        "localhost".to_owned(),
    ]
    .into();
    let addresses = [IpAddr::from(Ipv4Addr::LOCALHOST)];
    let client_name = format!("{service}-client");
    for name in [service, &client_name] {
        let kept = read(&secrets, name).await?;
        if kept.as_ref().is_some_and(|secret| is_good(secret, authority.certificate(), now)) {
            tracing::info!(secret = name, "good");
            continue;
        }
        let signed = match name == service {
            true => authority.member(&names, &addresses, validity)?,
            false => authority.client("packageserver", &[], validity)?,
        };
        write(&secrets, name, kept, &signed, authority.certificate()).await?;
        tracing::info!(secret = name, "signed");
    }
    Ok(())
}

/// Returns whether a certificate is of this authority, good by now, and has more than a third of its time left.
fn is_good(secret: &Secret, authority: &str, now: OffsetDateTime) -> bool {
    let text = |key: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key))?;
        String::from_utf8(value.0.clone()).ok()
    };
    let expires = text(TLS_CERTIFICATE).and_then(|pem| expiry(pem.as_bytes()));
    text(TLS_AUTHORITY).as_deref() == Some(authority)
        && text(TLS_KEY).is_some_and(|key| !key.is_empty())
        && expires.is_some_and(|expires| expires - now > CERTIFICATE / 3)
        && text(TLS_CERTIFICATE).is_some_and(|pem| !is_of_the_future(pem.as_bytes(), now))
}

fn signed(secret: &Secret) -> anyhow::Result<Signed> {
    let text = |key: &str| {
        let value =
            secret.data.as_ref().and_then(|data| data.get(key)).with_context(|| format!("no `{key}`"))?;
        String::from_utf8(value.0.clone()).with_context(|| format!("`{key}` is no text"))
    };
    Ok(Signed { certificate: text(TLS_CERTIFICATE)?, key: text(TLS_KEY)? })
}

async fn read(secrets: &Api<Secret>, name: &str) -> anyhow::Result<Option<Secret>> {
    match tokio::time::timeout(CALL, secrets.get_opt(name)).await {
        Ok(found) => found.with_context(|| format!("cannot read Secret {name}")),
        Err(_) => bail!("cannot read Secret {name}: the kube-apiserver does not answer"),
    }
}

async fn write(
    secrets: &Api<Secret>,
    name: &str,
    kept: Option<Secret>,
    signed: &Signed,
    authority: &str,
) -> anyhow::Result<()> {
    let data: BTreeMap<_, _> =
        [(TLS_CERTIFICATE, &*signed.certificate), (TLS_KEY, &*signed.key), (TLS_AUTHORITY, authority)]
            .map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec())))
            .into();
    let is_new = kept.is_none();
    let mut secret = kept.unwrap_or_default();
    secret.metadata.name = Some(name.to_owned());
    secret.type_ = Some("kubernetes.io/tls".to_owned());
    secret.data = Some(data);
    let params = PostParams::default();
    let write = async {
        match is_new {
            true => secrets.create(&params, &secret).await,
            false => secrets.replace(name, &params, &secret).await,
        }
    };
    match tokio::time::timeout(CALL, write).await {
        Ok(written) => written.map(drop).with_context(|| format!("cannot write Secret {name}")),
        Err(_) => bail!("cannot write Secret {name}: the kube-apiserver does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_foreign_or_damaged_is_signed_anew() {
        let now = OffsetDateTime::now_utc();
        let (authority, _) = Authority::generate("a", Validity { from: now, lifetime: AUTHORITY }).unwrap();
        let signed = authority.client("c", &[], Validity { from: now, lifetime: CERTIFICATE }).unwrap();
        let secret = |authority: &str, certificate: &str| Secret {
            data: Some(
                [(TLS_AUTHORITY, authority), (TLS_CERTIFICATE, certificate), (TLS_KEY, &*signed.key)]
                    .map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec())))
                    .into(),
            ),
            ..Secret::default()
        };
        let good = secret(authority.certificate(), &signed.certificate);
        assert!(is_good(&good, authority.certificate(), now));
        assert!(is_good(&good, authority.certificate(), now + 200 * DAY));
        assert!(!is_good(&good, authority.certificate(), now + 300 * DAY));
        // It was signed by a clock that was ahead.
        assert!(!is_good(&good, authority.certificate(), now - DAY));
        assert!(!is_good(&good, "another", now));
        assert!(!is_good(&secret(authority.certificate(), "damaged"), authority.certificate(), now));
        assert!(!is_good(&Secret::default(), authority.certificate(), now));
    }
}
