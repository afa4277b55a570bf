//! Answers to a registry's demand for authorisation: user and password, or a bearer token from its token service.
//!
//! See <https://distribution.github.io/distribution/spec/auth/token/> and, for refresh tokens,
//! <https://distribution.github.io/distribution/spec/auth/oauth/>.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_auth::{ChallengeParser, ChallengeRef};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::endpoint::{Endpoint, Failure};
use super::keyring::Secret;
use super::redirect::may_lead_to;
use super::retry::is_temporary;

/// Bytes of a token service's answer.
const MAX_TOKEN_BYTES: u64 = 256 << 10;

/// What this program is called by token services.
const CLIENT_ID: &str = "packageserver";

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// Returns what to send as `Authorization`, or why this secret does not do.
pub(super) async fn answer(
    endpoint: &Endpoint,
    headers: &[HeaderValue],
    secret: Option<&Secret>,
) -> Result<Result<HeaderValue, String>, Failure> {
    let texts: Vec<_> = headers.iter().filter_map(|header| header.to_str().ok()).collect();
    let challenges: Vec<ChallengeRef> =
        texts.iter().flat_map(|text| ChallengeParser::new(text).filter_map(Result::ok)).collect();
    let find =
        |scheme: &str| challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
    if let Some(bearer) = find("bearer") {
        return match secret {
            Some(Secret::Registry { token }) => Ok(header(endpoint, &format!("Bearer {token}")).map(Ok)?),
            secret => ask_service(endpoint, bearer, secret).await,
        };
    }
    if find("basic").is_none() {
        return Ok(Err("it asks for an authorization of no known kind".to_owned()));
    }
    match secret {
        Some(Secret::Password { user, password }) => Ok(header(endpoint, &basic(user, password)).map(Ok)?),
        _ => Ok(Err("it asks for a user and a password".to_owned())),
    }
}

/// Asks the token service that a challenge names for a token to pull with.
async fn ask_service(
    endpoint: &Endpoint,
    challenge: &ChallengeRef<'_>,
    secret: Option<&Secret>,
) -> Result<Result<HeaderValue, String>, Failure> {
    let parameter = |name: &str| {
        let value = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        value.map(|(_, value)| value.to_unescaped())
    };
    let wrong = |answer: String| Failure::Final(endpoint.answer(answer));
    let realm = parameter("realm").unwrap_or_default();
    let mut url = Url::parse(&realm)
        .map_err(|_| wrong(format!("with a token service that is no URL: `{}`", shown(&realm))))?;
    let is_protected = url.scheme() == "https";
    if !is_protected && (endpoint.is_protected() || url.scheme() != "http") {
        return Err(wrong(format!("with a token service without TLS: `{}`", shown(&realm))));
    }
    if !may_lead_to(endpoint.host(), url.host_str().unwrap_or_default()) {
        let answer = format!("with a token service that is nobody else's business: `{}`", shown(&realm));
        return Err(wrong(answer));
    }
    let mut parameters = vec![("scope", format!("repository:{}:pull", endpoint.repository()))];
    parameters.extend(parameter("service").map(|service| ("service", service)));
    let request = match secret {
        Some(Secret::Identity { token }) => {
            parameters.extend([
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", CLIENT_ID.to_owned()),
                ("refresh_token", token.clone()),
            ]);
            let form = encode(&parameters);
            endpoint.http.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
        }
        secret => {
            url.query_pairs_mut().extend_pairs(&parameters);
            let request = endpoint.http.get(url);
            match secret {
                Some(Secret::Password { user, password }) => {
                    request.header(AUTHORIZATION, header(endpoint, &basic(user, password))?)
                }
                _ => request,
            }
        }
    };
    let response = request.send().await.map_err(|error| endpoint.transport(&error))?;
    let status = response.status();
    if is_temporary(status) {
        return Err(endpoint.busy(response).await);
    }
    if status != StatusCode::OK {
        return Ok(Err(format!("its token service answered {}", endpoint.said(response).await)));
    }
    let body = endpoint.body(response, "token", MAX_TOKEN_BYTES).await?;
    // The parser's own words might quote a token.
    let token: Token =
        serde_json::from_slice(&body).map_err(|_| wrong("with a token that is none".to_owned()))?;
    match token.token.or(token.access_token).filter(|token| !token.is_empty()) {
        Some(token) => Ok(header(endpoint, &format!("Bearer {token}")).map(Ok)?),
        None => Err(wrong("with an empty token".to_owned())),
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Makes a header that no log shows.
fn header(endpoint: &Endpoint, text: &str) -> Result<HeaderValue, Failure> {
    let mut header = HeaderValue::from_str(text)
        .map_err(|_| Failure::Final(endpoint.answer("with a token that cannot be sent".to_owned())))?;
    header.set_sensitive(true);
    Ok(header)
}

fn encode(parameters: &[(&str, String)]) -> String {
    let mut url = Url::parse("http://form").expect("it is a URL");
    url.query_pairs_mut().extend_pairs(parameters);
    url.query().unwrap_or_default().to_owned()
}

/// Returns a URL as it may be shown: without what may be secret in it.
fn shown(url: &str) -> &str {
    let end = url.find(['?', '#', '@']).unwrap_or(url.len());
    &url[..end]
}
