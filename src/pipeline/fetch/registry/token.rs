//! Answers to a registry's demand for authorisation: bearer tokens from its token service.
//!
//! See <https://distribution.github.io/distribution/spec/auth/token/>.

use http_auth::ChallengeParser;
use serde::Deserialize;

use super::RegistryImage;
use crate::pipeline::fetch::FetchError;

/// Bytes of a token service's answer.
const MAX_TOKEN_BYTES: u64 = 256 << 10;

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// Returns what to send as `Authorization`.
pub(super) async fn answer(image: &RegistryImage, challenge: &str) -> Result<String, FetchError> {
    let challenges = ChallengeParser::new(challenge).filter_map(Result::ok);
    let bearer = challenges
        .into_iter()
        .find(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer"));
    let Some(bearer) = bearer else {
        return Err(denied(
            image,
            "it asks for a user and a password".to_owned(),
        ));
    };
    let parameter = |name: &str| {
        let value = bearer
            .params
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        value.map(|(_, value)| value.to_unescaped())
    };
    let realm = parameter("realm").unwrap_or_default();
    let mut url = reqwest::Url::parse(&realm)
        .map_err(|_| image.answer(format!("with a token service that is no URL: `{realm}`")))?;
    if url.scheme() != super::scheme(image.registry()) && url.scheme() != "https" {
        return Err(image.answer(format!("with a token service without TLS: `{realm}`")));
    }
    let scope = format!("repository:{}:pull", image.reference.repository());
    url.query_pairs_mut().append_pair("scope", &scope);
    if let Some(service) = parameter("service") {
        url.query_pairs_mut().append_pair("service", &service);
    }
    let response = image
        .http
        .get(url)
        .send()
        .await
        .map_err(|error| image.transport(&error))?;
    if !response.status().is_success() {
        let status = response.status();
        let said = image.quote(response).await;
        return Err(denied(
            image,
            format!("its token service answered {status}{said}"),
        ));
    }
    let body = image.body(response, "token", MAX_TOKEN_BYTES).await?;
    let token: Token = serde_json::from_slice(&body)
        .map_err(|error| image.answer(format!("with a token that is none: {error}")))?;
    match token.token.or(token.access_token) {
        Some(token) if !token.is_empty() => Ok(format!("Bearer {token}")),
        _ => Err(image.answer("with an empty token".to_owned())),
    }
}

fn denied(image: &RegistryImage, reason: String) -> FetchError {
    FetchError::Denied {
        registry: image.registry().to_owned(),
        repository: image.reference.repository().to_owned(),
        credentials: "without credentials".to_owned(),
        reason,
    }
}
