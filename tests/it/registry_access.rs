//! Private registries: who is let in, with whose credentials, and what is said to those who are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{Method, StatusCode};
use packageserver::pipeline::fetch::{Access, AuthFiles, Keyring, RegistryOptions};
use serde_json::{Value, json};

use crate::support::catalog::CatalogBuilder;
use crate::support::fake_registry::{Answer, Asked, FakeRegistry, json as answer_json, status};
use crate::support::image::Image;
use crate::support::ingest::Ingest;
use crate::support::registry::{PASSWORD, Protection, Registry, USER};

const HTPASSWD: Protection = Protection { tls: false, users: true };

fn image() -> Image {
    CatalogBuilder::default().package("one", 3).image()
}

/// Returns what a pull secret with some entries brings along.
fn access(entries: &Value) -> Access {
    let text = json!({"auths": entries}).to_string();
    let keyring = Keyring::from_docker_config(text.as_bytes(), "Secret `test/pull`");
    Access::default().with_credentials(keyring.expect("a docker configuration"))
}

fn entry(user: &str, password: &str) -> Value {
    json!({"username": user, "password": password})
}

#[tokio::test]
async fn a_registry_with_users_lets_in_who_has_the_password() {
    let registry = Registry::start_with(HTPASSWD).await;
    registry.push("acme/catalog", "v1", &image()).await;
    let source = registry.reference("acme/catalog", "v1");
    let mut ingest = Ingest::new();

    let said = ingest.run(&source).await.unwrap_err().to_string();
    let place = format!("{} refuses access to acme/catalog", registry.address());
    assert_eq!(said, format!("`{source}`: {place} without credentials: it asks for a user and a password"));

    ingest.access = access(&json!({registry.address(): entry(USER, "wrong")}));
    let said = ingest.run(&source).await.unwrap_err().to_string();
    let whose = format!("with the credentials for `{}` of Secret `test/pull`", registry.address());
    assert!(said.contains(&format!("{place} {whose}: 401 Unauthorized")), "{said}");
    assert!(!said.contains("wrong"), "{said}");

    // Credentials for something else are not even tried.
    ingest.access = access(&json!({format!("{}/other", registry.address()): entry(USER, PASSWORD)}));
    let said = ingest.run(&source).await.unwrap_err().to_string();
    assert!(said.contains("without credentials"), "{said}");

    ingest.access = access(&json!({registry.address(): entry(USER, PASSWORD)}));
    assert_eq!(ingest.run(&source).await.unwrap().packages, 1);
}

#[tokio::test]
async fn several_credentials_are_tried_the_most_specific_first() {
    let registry = Registry::start_with(HTPASSWD).await;
    registry.push("acme/catalog", "v1", &image()).await;
    let source = registry.reference("acme/catalog", "v1");
    let host = registry.address().to_owned();
    let mut ingest = Ingest::new();
    ingest.access = access(&json!({
        format!("{host}/acme"): entry(USER, "outdated"),
        &host: entry(USER, PASSWORD),
    }));
    assert_eq!(ingest.run(&source).await.unwrap().packages, 1);

    ingest.access = access(&json!({
        format!("https://{host}/acme/catalog"): entry(USER, "outdated"),
        &host: entry("nobody", "knows"),
    }));
    let said = ingest.refresh(&source).await.unwrap_err().to_string();
    let first = format!("the credentials for `https://{host}/acme/catalog` of Secret `test/pull`");
    let second = format!("the credentials for `{host}` of Secret `test/pull`");
    assert!(said.contains(&format!("with {first}, with {second}: 401")), "{said}");
}

#[tokio::test]
async fn the_servers_own_credentials_come_after_those_of_the_pull_secret_and_may_change() {
    let registry = Registry::start_with(HTPASSWD).await;
    registry.push("acme/catalog", "v1", &image()).await;
    let source = registry.reference("acme/catalog", "v1");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.json");
    let write = |password: &str| {
        let config = json!({"auths": {registry.address(): entry(USER, password)}});
        std::fs::write(&path, config.to_string()).unwrap();
    };
    write("outdated");
    let options = RegistryOptions { auth_files: AuthFiles::Only(path.clone()), ..RegistryOptions::default() };
    let mut ingest = Ingest::with_registries(options);
    ingest.access = access(&json!({registry.address(): entry(USER, "wrong")}));
    let said = ingest.run(&source).await.unwrap_err().to_string();
    let of = |origin: &str| format!("with the credentials for `{}` of {origin}", registry.address());
    let expected = format!("{}, {}", of("Secret `test/pull`"), of(&format!("`{}`", path.display())));
    assert!(said.contains(&expected), "{said}");
    write(PASSWORD);
    assert_eq!(ingest.run(&source).await.unwrap().packages, 1);
}

/// A registry that lets in who has a token, and a service that hands tokens out. A token is good for `uses` requests.
fn guard(registry: &FakeRegistry, uses: usize, grant: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
    let realm = format!("http://{}/token", registry.address());
    let left = AtomicUsize::new(0);
    registry.behave(move |asked| {
        if asked.path == "/token" {
            left.store(uses, Ordering::SeqCst);
            return grant(asked);
        }
        let spend = |left: usize| left.checked_sub(1);
        let is_let_in = asked.header("authorization") == "Bearer a-token"
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend).is_ok();
        if is_let_in {
            return Answer::Proper;
        }
        let challenge =
            format!(r#"Bearer realm="{realm}",service="fake",scope="repository:acme/catalog:pull""#);
        status(StatusCode::UNAUTHORIZED, &[("www-authenticate", &challenge)])
    });
}

fn a_token() -> Answer {
    answer_json(&json!({"token": "a-token", "expires_in": 60}))
}

#[tokio::test]
async fn a_token_is_fetched_without_credentials_where_that_does() {
    let registry = FakeRegistry::start().await;
    registry.push("acme/catalog", "v1", &image());
    guard(&registry, usize::MAX, |asked| {
        assert_eq!(asked.method, Method::GET);
        assert_eq!(asked.header("authorization"), "");
        assert_eq!(asked.query, "scope=repository%3Aacme%2Fcatalog%3Apull&service=fake");
        a_token()
    });
    let ingest = Ingest::new();
    let source = registry.reference("acme/catalog", "v1");
    assert_eq!(ingest.run(&source).await.unwrap().packages, 1);

    // The token is good for the next poll as well.
    let before = registry.requests().len();
    assert!(ingest.refresh(&source).await.unwrap().is_none());
    assert_eq!(registry.requests()[before..], ["HEAD /v2/acme/catalog/manifests/v1"]);
}

#[tokio::test]
async fn a_token_is_fetched_with_the_password_and_anew_when_it_has_run_out() {
    let registry = FakeRegistry::start().await;
    registry.push("acme/catalog", "v1", &image());
    let granted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&granted);
    guard(&registry, 1, move |asked| {
        assert_eq!(asked.header("authorization"), "Basic bWU6Y29ycmVjdCBob3JzZQ==");
        count.fetch_add(1, Ordering::SeqCst);
        a_token()
    });
    let mut ingest = Ingest::new();
    ingest.access = access(&json!({registry.address(): entry(USER, PASSWORD)}));
    ingest.run(&registry.reference("acme/catalog", "v1")).await.unwrap();
    // Tag, manifest, configuration and layer, each with a token of its own.
    assert_eq!(granted.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn refresh_tokens_and_registry_tokens_are_used_as_they_are_meant() {
    let registry = FakeRegistry::start().await;
    registry.push("acme/catalog", "v1", &image());
    let source = registry.reference("acme/catalog", "v1");
    guard(&registry, usize::MAX, |asked| {
        assert_eq!(asked.method, Method::POST);
        assert_eq!(
            std::str::from_utf8(&asked.body).unwrap(),
            "scope=repository%3Aacme%2Fcatalog%3Apull&service=fake&grant_type=refresh_token\
             &client_id=packageserver&refresh_token=a+refresh%2Ftoken"
        );
        answer_json(&json!({"access_token": "a-token"}))
    });
    let mut ingest = Ingest::new();
    ingest.access = access(&json!({registry.address(): {"identitytoken": "a refresh/token"}}));
    assert_eq!(ingest.run(&source).await.unwrap().packages, 1);

    let registry = FakeRegistry::start().await;
    registry.push("acme/catalog", "v1", &image());
    registry.behave(|asked| match asked.header("authorization") {
        "Bearer mine" => Answer::Proper,
        _ => {
            status(StatusCode::UNAUTHORIZED, &[("www-authenticate", r#"Bearer realm="http://127.0.0.1:1/""#)])
        }
    });
    let mut ingest = Ingest::new();
    ingest.access = access(&json!({registry.address(): {"registrytoken": "mine"}}));
    assert_eq!(ingest.run(&registry.reference("acme/catalog", "v1")).await.unwrap().packages, 1);
}

#[tokio::test]
async fn a_token_service_that_refuses_is_quoted_and_no_secret_is() {
    let registry = FakeRegistry::start().await;
    registry.push("acme/catalog", "v1", &image());
    guard(&registry, usize::MAX, |_| {
        let body = json!({"details": "no such user\nhere", "secret": "hunter2"}).to_string();
        let response = axum::response::IntoResponse::into_response((StatusCode::FORBIDDEN, body));
        Answer::This(response)
    });
    let mut ingest = Ingest::new();
    ingest.access = access(&json!({registry.address(): entry(USER, "hunter2")}));
    let said = ingest.run(&registry.reference("acme/catalog", "v1")).await.unwrap_err().to_string();
    assert!(
        said.ends_with("of Secret `test/pull`: its token service answered 403 Forbidden: no such userhere"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn what_is_hidden_from_some_is_asked_for_by_the_next() {
    let registry = FakeRegistry::start().await;
    registry.push("acme/catalog", "v1", &image());
    // `bWU6b25l` is `me:one`, `bWU6dHdv` is `me:two`.
    registry.behave(|asked| match asked.header("authorization") {
        "Basic bWU6dHdv" => Answer::Proper,
        "Basic bWU6b25l" => status(StatusCode::NOT_FOUND, &[]),
        _ => status(StatusCode::UNAUTHORIZED, &[("www-authenticate", "Basic realm=\"x\"")]),
    });
    let host = registry.address().to_owned();
    let mut ingest = Ingest::new();
    ingest.access = access(&json!({format!("{host}/acme"): entry("me", "one"), &host: entry("me", "two")}));
    assert_eq!(ingest.run(&registry.reference("acme/catalog", "v1")).await.unwrap().packages, 1);
    let said = ingest.refresh(&registry.reference("acme/catalog", "v2")).await.unwrap_err().to_string();
    assert!(said.contains("acme/catalog:v2 not found in"), "{said}");
}
