//! Whom to trust on the way to an image: certificates, redirects, proxies.

use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use packageserver::pipeline::fetch::{Access, Keyring, Mirrors, RegistryOptions};
use packageserver::tls::authority::{Authority, Validity};
use serde_json::json;

use crate::support::catalog::CatalogBuilder;
use crate::support::fake_registry::{Answer, FakeRegistry, status};
use crate::support::http_proxy::HttpProxy;
use crate::support::image::Image;
use crate::support::ingest::Ingest;
use crate::support::registry::{PASSWORD, Protection, Registry, USER};

const TLS: Protection = Protection { tls: true, users: false };
const TLS_AND_USERS: Protection = Protection { tls: true, users: true };

fn image() -> Image {
    CatalogBuilder::default().package("one", 3).image()
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_not_trusted() {
    let registry = Registry::start_with(TLS).await;
    registry.push("catalog", "v1", &image()).await;
    let source = registry.reference("catalog", "v1");
    let ingest = Ingest::new();
    let said = ingest.run(&source).await.unwrap_err().to_string();
    assert!(said.contains("cannot connect") && said.contains("invalid peer certificate"), "{said}");
    assert_eq!(registry.requests().iter().filter(|request| request.contains("catalog/manifests")).count(), 1);
    // Nor is one that was signed by another authority than the one that is known.
    let (other, _) = Authority::generate("other", Validity::days(1)).unwrap();
    let access = Access::default().with_authorities(other.certificate()).unwrap();
    let said = Ingest { access, ..Ingest::new() }.run(&source).await.unwrap_err().to_string();
    assert!(said.contains("invalid peer certificate"), "{said}");
}

#[tokio::test]
async fn a_ca_bundle_is_trusted_beside_the_servers_authorities() {
    let registry = Registry::start_with(TLS_AND_USERS).await;
    registry.push("catalog", "v1", &image()).await;
    let source = registry.reference("catalog", "v1");
    let credentials =
        json!({"auths": {registry.address(): {"username": USER, "password": PASSWORD}}}).to_string();
    let keyring = || Keyring::from_docker_config(credentials.as_bytes(), "Secret `test/pull`").unwrap();
    let access =
        Access::default().with_credentials(keyring()).with_authorities(registry.authority()).unwrap();
    assert_eq!(Ingest { access, ..Ingest::new() }.run(&source).await.unwrap().packages, 1);

    // The directory is read anew each time.
    let directory = tempfile::tempdir().unwrap();
    let options =
        RegistryOptions { authorities: Some(directory.path().to_owned()), ..RegistryOptions::default() };
    let mut ingest = Ingest::with_registries(options);
    ingest.access = Access::default().with_credentials(keyring());
    assert!(ingest.run(&source).await.unwrap_err().to_string().contains("invalid peer certificate"));
    std::fs::write(directory.path().join("registry.crt"), registry.authority()).unwrap();
    assert_eq!(ingest.run(&source).await.unwrap().packages, 1);
    std::fs::write(directory.path().join("broken.pem"), "nonsense").unwrap();
    let said = ingest.refresh(&source).await.unwrap_err().to_string();
    assert!(said.contains("broken.pem"), "{said}");
}

#[tokio::test]
async fn an_insecure_registry_needs_no_certificate_and_no_tls() {
    for protection in [TLS, Protection::default()] {
        let registry = Registry::start_with(protection).await;
        registry.push("catalog", "v1", &image()).await;
        let config = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true", registry.address());
        let mirrors = Mirrors::parse(&config).unwrap();
        let ingest = Ingest::with_registries(RegistryOptions { mirrors, ..RegistryOptions::default() });
        assert_eq!(ingest.run(&registry.reference("catalog", "v1")).await.unwrap().packages, 1);
    }
}

#[tokio::test]
async fn redirects_are_followed_and_take_no_credentials_along() {
    let (registry, storage) = (FakeRegistry::start().await, FakeRegistry::start().await);
    registry.push("catalog", "v1", &image());
    storage.push("elsewhere", "v1", &image());
    let target = storage.address().to_owned();
    registry.behave(move |asked| match asked.header("authorization") {
        "" => status(StatusCode::UNAUTHORIZED, &[("www-authenticate", "Basic realm=\"x\"")]),
        _ if asked.is_blob() => {
            let location = format!("http://{target}{}", asked.path.replace("/catalog/", "/elsewhere/"));
            status(StatusCode::TEMPORARY_REDIRECT, &[("location", &location)])
        }
        _ => Answer::Proper,
    });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    storage.behave(move |asked| {
        log.lock().unwrap().push(asked.header("authorization").to_owned());
        Answer::Proper
    });
    let credentials = json!({"auths": {registry.address(): {"username": USER, "password": PASSWORD}}});
    let keyring = Keyring::from_docker_config(credentials.to_string().as_bytes(), "a test").unwrap();
    let access = Access::default().with_credentials(keyring);
    let ingest = Ingest { access, ..Ingest::new() };
    assert_eq!(ingest.run(&registry.reference("catalog", "v1")).await.unwrap().packages, 1);
    // The configuration and the layer.
    assert_eq!(*seen.lock().unwrap(), ["", ""]);
}

#[tokio::test]
async fn redirects_that_go_in_circles_or_out_of_tls_are_refused() {
    let registry = FakeRegistry::start().await;
    registry.push("catalog", "v1", &image());
    registry.behave(|asked| match asked.is_blob() {
        true => status(StatusCode::TEMPORARY_REDIRECT, &[("location", &asked.path)]),
        false => Answer::Proper,
    });
    let said = Ingest::new().run(&registry.reference("catalog", "v1")).await.unwrap_err().to_string();
    assert!(said.contains("refused redirect") && said.contains("more than 8 redirects"), "{said}");

    let (registry, storage) = (FakeRegistry::start_tls().await, FakeRegistry::start().await);
    registry.push("catalog", "v1", &image());
    storage.push("catalog", "v1", &image());
    let target = storage.address().to_owned();
    registry.behave(move |asked| match asked.is_blob() {
        true => status(StatusCode::FOUND, &[("location", &format!("http://{target}{}", asked.path))]),
        false => Answer::Proper,
    });
    let access = Access::default().with_authorities(registry.authority()).unwrap();
    let ingest = Ingest { access, ..Ingest::new() };
    let said = ingest.run(&registry.reference("catalog", "v1")).await.unwrap_err().to_string();
    assert!(said.contains("a redirect from https to plain http"), "{said}");
    assert_eq!(storage.requests(), [""; 0]);
}

#[tokio::test]
async fn a_token_service_without_tls_gets_nothing_from_a_registry_with() {
    let registry = FakeRegistry::start_tls().await;
    registry.push("catalog", "v1", &image());
    registry.behave(|_| {
        let challenge = r#"Bearer realm="http://127.0.0.1:1/token?secret=1",service="x""#;
        status(StatusCode::UNAUTHORIZED, &[("www-authenticate", challenge)])
    });
    let access = Access::default().with_authorities(registry.authority()).unwrap();
    let ingest = Ingest { access, ..Ingest::new() };
    let said = ingest.run(&registry.reference("catalog", "v1")).await.unwrap_err().to_string();
    assert!(said.ends_with("with a token service without TLS: `http://127.0.0.1:1/token`"), "{said}");
}

/// Runs `render` with some environment and arguments.
async fn render(source: String, environment: &[(&str, String)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_packageserver"));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.args(["render", &source, "--output", "table"]).args(arguments);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    // The proxies and registries of a test run on its own threads.
    tokio::task::spawn_blocking(move || command.output().expect("the program can be run")).await.unwrap()
}

#[tokio::test]
async fn proxies_are_used_as_the_environment_says() {
    let registry = Registry::start_with(TLS).await;
    registry.push("catalog", "v1", &image()).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.crt"), registry.authority()).unwrap();
    let trust = ["--registry-ca-dir", directory.path().to_str().unwrap()];
    let proxy = HttpProxy::start(registry.address()).await;

    // No name service knows the host: the proxy has to be asked.
    let https = ("HTTPS_PROXY", proxy.url());
    let output = render("registry.test/catalog:v1".to_owned(), std::slice::from_ref(&https), &trust).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("one"));
    assert!(proxy.requests().iter().all(|line| line == "CONNECT registry.test:443 HTTP/1.1"));
    assert!(!proxy.requests().is_empty());

    // This machine is reached without one, and so is what NO_PROXY names.
    let before = proxy.requests().len();
    let output = render(registry.reference("catalog", "v1"), std::slice::from_ref(&https), &trust).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let none = ("NO_PROXY", "registry.test".to_owned());
    let output = render("registry.test/catalog:v1".to_owned(), &[https, none], &trust).await;
    assert!(!output.status.success());
    assert_eq!(proxy.requests().len(), before);
}

#[tokio::test]
async fn a_plain_registry_is_reached_through_the_proxy_for_plain_http() {
    let registry = Registry::start().await;
    registry.push("catalog", "v1", &image()).await;
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("registries.conf");
    std::fs::write(&conf, "[[registry]]\nlocation = 'registry.test:5000'\ninsecure = true\n").unwrap();
    let proxy = HttpProxy::start(registry.address()).await;
    let environment = [("HTTP_PROXY", proxy.url())];
    let arguments = ["--registries-conf", conf.to_str().unwrap()];
    let output = render("registry.test:5000/catalog:v1".to_owned(), &environment, &arguments).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let first = "HEAD http://registry.test:5000/v2/catalog/manifests/v1 HTTP/1.1";
    assert_eq!(proxy.requests().first().map(String::as_str), Some(first));
}
