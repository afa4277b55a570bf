//! Who asks, where a kube-apiserver knows: the front proxy's headers, client certificates, bearer tokens (C266–C276).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::expiring::Expiring;
use super::front_proxy::{Proxy, Trust};
use crate::api::auth::{Authenticator, BadCredentials, ClientCertificates, User, subject};

/// How long the verdict on a token holds (C275).
const VERDICT: Duration = Duration::from_secs(10);

/// Verdicts that are remembered.
const VERDICTS: usize = 4096;

/// How long a review of a token may take (C275).
const REVIEW: Duration = Duration::from_secs(10);

/// Reviews that are tried, and the pause between them, which grows (C275).
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Bytes of a token. Longer ones are not asked about.
const MAX_TOKEN: usize = 64 << 10;

/// The groups everybody is in who is somebody, or nobody.
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Finds out who asks by the ways a kube-apiserver knows.
pub struct DelegatedAuthenticator {
    trust: watch::Receiver<Arc<Trust>>,
    reviews: Api<TokenReview>,
    /// By the hash of the token: tokens themselves are not kept.
    verdicts: Expiring<[u8; 32], Option<User>>,
}

impl DelegatedAuthenticator {
    /// Trusts whom `trust` names, and asks the cluster about tokens.
    pub fn new(client: Client, trust: watch::Receiver<Arc<Trust>>) -> Self {
        DelegatedAuthenticator {
            trust,
            reviews: Api::all(client),
            verdicts: Expiring::new(VERDICTS, VERDICT),
        }
    }

    async fn review(&self, token: &str) -> Result<User, BadCredentials> {
        let refused = || BadCredentials("the token is not accepted".to_owned());
        if token.len() > MAX_TOKEN {
            return Err(BadCredentials("the token is too long".to_owned()));
        }
        let key = Sha256::digest(token).into();
        if let Some(verdict) = self.verdicts.get(&key) {
            return verdict.ok_or_else(refused);
        }
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = self.ask(&review).await.map_err(|error| {
            tracing::warn!(%error, "cannot have a token reviewed");
            BadCredentials("the token cannot be reviewed now".to_owned())
        })?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated.unwrap_or_default()).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default().into_iter().collect(),
        });
        let user = user.filter(|user| !user.name.is_empty());
        self.verdicts.put(key, user.clone());
        user.ok_or_else(refused)
    }

    async fn ask(&self, review: &TokenReview) -> Result<TokenReview, String> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let params = PostParams::default();
            let error = match tokio::time::timeout(REVIEW, self.reviews.create(&params, review)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the kube-apiserver does not answer".to_owned(),
            };
            if attempt >= ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5);
        }
        unreachable!("the loop returns")
    }
}

#[async_trait]
impl Authenticator for DelegatedAuthenticator {
    async fn authenticate(&self, request: &mut Parts) -> Result<Option<User>, BadCredentials> {
        let trust = self.trust.borrow().clone();
        let identified = self.identify(&trust, request).await;
        // What says who somebody is, is for this place only (C272).
        if let Some(proxy) = &trust.proxy {
            proxy.strip(&mut request.headers);
        }
        let mut user = identified?.unwrap_or_else(anonymous);
        if user.name != ANONYMOUS && !user.groups.iter().any(|group| group == AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(Some(user))
    }
}

/// The user that nobody is.
const ANONYMOUS: &str = "system:anonymous";

fn anonymous() -> User {
    User { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..User::default() }
}

impl DelegatedAuthenticator {
    /// Returns the first user that a credential proves. Where there are credentials and none of them does, the last
    /// reason is returned.
    async fn identify(&self, trust: &Trust, request: &Parts) -> Result<Option<User>, BadCredentials> {
        let mut refused = None;
        if let Some(ClientCertificates(chain)) = request.extensions.get()
            && let Some((own, intermediates)) = chain.split_first()
        {
            if let Some(user) =
                trust.proxy.as_ref().and_then(|proxy| proxy.user(own, intermediates, &request.headers))
            {
                return Ok(Some(user));
            }
            match &trust.clients {
                Some(clients) => match verify(&**clients, own, intermediates) {
                    Ok(()) => return subject(own).map(Some),
                    Err(error) => refused = Some(error),
                },
                None => refused = Some(BadCredentials("client certificates are not accepted".to_owned())),
            }
        }
        match bearer(&request.headers) {
            Some(token) => self.review(token).await.map(Some),
            None => refused.map_or(Ok(None), Err),
        }
    }
}

fn verify(
    verifier: &dyn ClientCertVerifier,
    own: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), BadCredentials> {
    let verdict = verifier.verify_client_cert(own, intermediates, UnixTime::now());
    verdict.map(drop).map_err(|error| BadCredentials(error.to_string()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

impl Proxy {
    /// Returns the user that the headers name, when it is the proxy that sends them (C268, C270, C271).
    fn user(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        headers: &HeaderMap,
    ) -> Option<User> {
        verify(&*self.verifier, own, intermediates).ok()?;
        let sender = subject(own).ok()?;
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&sender.name) {
            return None;
        }
        self.named(headers)
    }

    fn named(&self, headers: &HeaderMap) -> Option<User> {
        let first = |names: &[String]| {
            let values = names.iter().flat_map(|name| headers.get_all(name.as_str()));
            values.filter_map(|value| value.to_str().ok()).find(|value| !value.is_empty()).map(str::to_owned)
        };
        let groups = self.group_headers.iter().flat_map(|name| headers.get_all(name.as_str()));
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let key =
                self.extra_prefixes.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(key).or_default().push(value.to_owned());
            }
        }
        Some(User {
            name: first(&self.user_headers)?,
            uid: first(&self.uid_headers).unwrap_or_default(),
            groups: groups.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect(),
            extra,
        })
    }

    /// Removes the headers that name a user, whoever sent them.
    fn strip(&self, headers: &mut HeaderMap) {
        let lists = [&self.user_headers, &self.uid_headers, &self.group_headers];
        for name in lists.into_iter().flatten() {
            headers.remove(name.as_str());
        }
        let is_extra =
            |name: &str| self.extra_prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
        let extras: Vec<_> = headers.keys().filter(|name| is_extra(name.as_str())).cloned().collect();
        for name in extras {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::server::WebPkiClientVerifier;
    use serde_json::json;

    use super::super::fake;
    use super::*;
    use crate::tls::authority::{Authority, Signed, Validity};
    use crate::tls::server::authorities;

    fn day() -> Validity {
        Validity::from_now(Duration::from_secs(24 * 60 * 60))
    }

    fn proxy(authority: &Signed, allowed_names: &[&str]) -> Proxy {
        crate::tls::install_crypto();
        let roots = Arc::new(authorities(&authority.certificate).unwrap());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Proxy {
            verifier: WebPkiClientVerifier::builder(roots).build().unwrap(),
            allowed_names: names(allowed_names),
            user_headers: names(&["x-remote-user", "x-other-user"]),
            uid_headers: names(&["x-remote-uid"]),
            group_headers: names(&["x-remote-group"]),
            extra_prefixes: names(&["x-remote-extra-"]),
        }
    }

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in entries {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn der(signed: &Signed) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()
    }

    const ALICE: &[(&str, &str)] =
        &[("x-remote-user", "alice"), ("x-remote-group", "dev,ops"), ("x-remote-group", "qa")];

    #[test]
    fn c268_headers_count_only_from_the_proxy() {
        let (authority, ca) = Authority::generate("front-proxy-ca", day()).unwrap();
        let (other, _) = Authority::generate("other", day()).unwrap();
        let alice = headers(ALICE);
        let name = |proxy: &Proxy, certificate: &Signed| {
            proxy.user(&der(certificate), &[], &alice).map(|user| user.name)
        };
        let client = authority.client("front-proxy-client", &[], day()).unwrap();
        let alice_found = Some("alice".to_owned());
        assert_eq!(name(&proxy(&ca, &["front-proxy-client"]), &client), alice_found);
        assert_eq!(name(&proxy(&ca, &[]), &client), alice_found);
        assert_eq!(name(&proxy(&ca, &["somebody"]), &client), None);
        let foreign = other.client("front-proxy-client", &[], day()).unwrap();
        assert_eq!(name(&proxy(&ca, &["front-proxy-client"]), &foreign), None);
        let server = authority.server(&["front-proxy-client".to_owned()], &[], day()).unwrap();
        assert_eq!(name(&proxy(&ca, &["front-proxy-client"]), &server), None, "not a client's certificate");
        let past =
            Validity { from: day().from - Duration::from_secs(10_000), lifetime: Duration::from_secs(5_000) };
        let expired = authority.client("front-proxy-client", &[], past).unwrap();
        assert_eq!(name(&proxy(&ca, &["front-proxy-client"]), &expired), None);
    }

    #[test]
    fn c270_c271_every_header_has_its_rule() {
        let (_, ca) = Authority::generate("front-proxy-ca", day()).unwrap();
        let proxy = proxy(&ca, &[]);
        let user = proxy.named(&headers(ALICE)).unwrap();
        assert_eq!(user.groups, ["dev,ops", "qa"], "one group a header, no splitting");
        assert_eq!(proxy.named(&headers(&[("x-remote-user", "")])), None);
        assert_eq!(proxy.named(&headers(&[])), None);
        let second = proxy.named(&headers(&[("x-remote-user", ""), ("x-other-user", "bob")])).unwrap();
        assert_eq!(second.name, "bob");
        let extra = headers(&[
            ("x-remote-user", "u"),
            ("x-remote-uid", "7"),
            ("x-remote-extra-scopes", "a"),
            ("x-remote-extra-scopes", "b"),
            ("x-remote-extra-example.com%2fkey", "c"),
        ]);
        let user = proxy.named(&extra).unwrap();
        assert_eq!(user.uid, "7");
        assert_eq!(user.extra["scopes"], ["a", "b"]);
        assert_eq!(user.extra["example.com/key"], ["c"]);
    }

    #[test]
    fn c272_headers_that_name_a_user_go_no_further() {
        let (_, ca) = Authority::generate("front-proxy-ca", day()).unwrap();
        let mut all = headers(&[
            ("x-remote-user", "u"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "g"),
            ("x-remote-extra-a", "b"),
            ("accept", "x"),
        ]);
        proxy(&ca, &[]).strip(&mut all);
        assert_eq!(all.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["accept"]);
    }

    /// A cluster that reviews tokens, and a request with one of them.
    async fn identified(
        authenticator: &DelegatedAuthenticator,
        token: &str,
    ) -> Result<String, BadCredentials> {
        let request = axum::http::Request::get("/").header(AUTHORIZATION, format!("Bearer {token}"));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        authenticator.authenticate(&mut parts).await.map(|user| user.unwrap().name)
    }

    #[tokio::test(start_paused = true)]
    async fn c275_verdicts_on_tokens_hold_for_ten_seconds() {
        let (client, asked) = fake::cluster(|_, review| match review["spec"]["token"].as_str() {
            Some("good") => (
                201,
                json!({
                    "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
                    "status": {"authenticated": true, "user": {"username": "robot", "groups": ["robots"]}},
                }),
            ),
            _ => (
                201,
                json!({
                    "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
                    "status": {"authenticated": false},
                }),
            ),
        });
        let authenticator = DelegatedAuthenticator::new(client, watch::channel(Arc::default()).1);
        let times = || asked.lock().unwrap().len();
        for _ in 0..3 {
            assert_eq!(identified(&authenticator, "good").await.unwrap(), "robot");
            identified(&authenticator, "bad").await.unwrap_err();
        }
        assert_eq!(times(), 2, "one review a token, good or bad");
        tokio::time::advance(VERDICT).await;
        identified(&authenticator, "good").await.unwrap();
        identified(&authenticator, "bad").await.unwrap_err();
        assert_eq!(times(), 4);
        let asked = asked.lock().unwrap();
        assert_eq!(asked[0].0, "POST /apis/authentication.k8s.io/v1/tokenreviews");
    }

    #[tokio::test(start_paused = true)]
    async fn c275_c276_without_reviews_a_token_is_refused_and_not_for_long() {
        let (client, asked) = fake::cluster(|_, _| fake::failure(503, "ServiceUnavailable"));
        let authenticator = DelegatedAuthenticator::new(client, watch::channel(Arc::default()).1);
        let start = tokio::time::Instant::now();
        let error = identified(&authenticator, "good").await.unwrap_err();
        assert_eq!(error.0, "the token cannot be reviewed now");
        // Five times, half a second apart at first and half as long again each time.
        assert_eq!(asked.lock().unwrap().len(), 5);
        let waited = start.elapsed().as_secs_f64();
        assert!((4.0..4.2).contains(&waited), "{waited}");
        identified(&authenticator, "good").await.unwrap_err();
        assert_eq!(asked.lock().unwrap().len(), 10, "an outage is not remembered");
    }

    #[test]
    fn only_bearer_tokens_are_tokens() {
        let token = |value: &str| bearer(&headers(&[("authorization", value)])).map(str::to_owned);
        assert_eq!(token("Bearer abc"), Some("abc".to_owned()));
        assert_eq!(token("bearer  abc "), Some("abc".to_owned()));
        for value in ["Basic abc", "Bearer", "Bearer ", "abc"] {
            assert_eq!(token(value), None, "{value}");
        }
    }
}
