//! Registries that were made to do harm: each is given up with a sentence, in time, and sees nothing it should not.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use packageserver::pipeline::fetch::{Access, Keyring, RegistryOptions};
use packageserver::pipeline::limits::Limits;
use serde_json::json;

use crate::support::catalog::CatalogBuilder;
use crate::support::eventually;
use crate::support::fake_registry::{Answer, Asked, FakeRegistry, json as answer_json, status};
use crate::support::hostile::Victim;
use crate::support::http_proxy::HttpProxy;
use crate::support::image::Image;
use crate::support::ingest::Ingest;
use crate::support::server::Server;

fn image() -> Image {
    CatalogBuilder::default().package("one", 50).image()
}

/// A registry with a good image, and its reference.
async fn registry() -> (FakeRegistry, String) {
    let registry = FakeRegistry::start().await;
    registry.push("catalog", "v1", &image());
    let source = registry.reference("catalog", "v1");
    (registry, source)
}

/// A victim that is not as patient as usual.
async fn victim() -> Victim {
    let read_timeout = Duration::from_secs(2);
    let mut ingest = Ingest::with_registries(RegistryOptions { read_timeout, ..RegistryOptions::default() });
    ingest.limits = Limits { manifest_bytes: 64 << 10, ..Limits::default() };
    Victim::with(ingest).await
}

/// A body of so many chunks, or of as many as are taken.
fn chunks(count: usize, taken: &Arc<AtomicUsize>) -> Response {
    let taken = Arc::clone(taken);
    let chunk = Bytes::from(vec![b' '; 64 << 10]);
    let chunks = stream::iter(0..count).map(move |_| {
        taken.fetch_add(1, Ordering::SeqCst);
        Ok::<_, std::io::Error>(chunk.clone())
    });
    Body::from_stream(chunks).into_response()
}

#[tokio::test]
async fn bodies_without_end_are_given_up() {
    let victim = victim().await;
    type Is = fn(&Asked) -> bool;
    let cases: [(&str, Is, &str); 3] = [
        ("a manifest", |asked| asked.method == Method::GET && !asked.is_blob(), "more than 65536 bytes"),
        ("a blob", Asked::is_blob, "bytes instead of"),
        ("a manifest instead of a digest", |asked| !asked.is_blob(), "more than 4194304 bytes"),
    ];
    for (what, is_it, expected) in cases {
        let (registry, source) = registry().await;
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        registry.behave(move |asked| match is_it(asked) {
            true => Answer::This(chunks(usize::MAX, &count)),
            false => Answer::Proper,
        });
        let said = victim.refuses_source(&source).await;
        assert!(said.contains(expected), "{what}: {said}");
        assert!(taken.load(Ordering::SeqCst) < 1000, "{what}: {} chunks", taken.load(Ordering::SeqCst));
    }
    // Errors are read as far as they are shown.
    let (registry, source) = registry().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    registry.behave(move |_| {
        let mut response = chunks(usize::MAX, &count);
        *response.status_mut() = StatusCode::FORBIDDEN;
        Answer::This(response)
    });
    let said = victim.refuses_source(&source).await;
    assert!(said.contains("refuses access") && said.len() < 1000, "{said}");
}

#[tokio::test]
async fn lies_about_length_digest_and_type_are_found_out() {
    let victim = victim().await;
    type Lie = fn(&mut serde_json::Value);
    let lies: [(Lie, &str); 9] = [
        (|manifest| manifest["layers"][0]["size"] = 7.into(), "bytes instead of 7"),
        (|manifest| manifest["layers"][0]["size"] = (1 << 30).into(), "catalog"),
        (|manifest| manifest["layers"][0]["size"] = (-1).into(), "a size of -1 bytes"),
        (|manifest| manifest["layers"][0]["size"] = i64::MAX.into(), "more than 4294967296 bytes in a layer"),
        (|manifest| manifest["layers"][0]["digest"] = "sha256:../../x".into(), "is not a digest"),
        (|manifest| manifest["layers"][0]["digest"] = manifest["config"]["digest"].clone(), "catalog"),
        (|manifest| manifest["config"]["size"] = 3.into(), "bytes instead of 3"),
        (|manifest| manifest["config"] = manifest["layers"][0].clone(), "manifest sha256:"),
        (|manifest| manifest["layers"] = json!([]), "the image has no layers"),
    ];
    for (lie, expected) in lies {
        let (registry, _) = registry().await;
        let mut manifest: serde_json::Value = serde_json::from_slice(image().manifest()).unwrap();
        lie(&mut manifest);
        let text = manifest.to_string();
        registry.push_manifest("catalog", "v2", image().manifest_type(), text.as_bytes());
        let said = victim.refuses_source(&registry.reference("catalog", "v2")).await;
        assert!(said.contains(expected), "{text}: {said}");
    }
    // What a content type says is nobody's proof of anything.
    for media_type in ["text/html", "application/octet-stream", "x"] {
        let (registry, _) = registry().await;
        registry.push_manifest("catalog", "v2", media_type, image().manifest());
        assert!(Ingest::new().run(&registry.reference("catalog", "v2")).await.is_ok(), "{media_type}");
    }
    // An index that leads to itself, or to another index.
    let (registry, _) = registry().await;
    let inner = json!({"schemaVersion": 2, "manifests": []}).to_string();
    let digest = registry.push_manifest("catalog", "inner", "application/json", inner.as_bytes());
    let outer = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest.as_str(), "size": inner.len()}]});
    registry.push_manifest("catalog", "outer", "application/json", outer.to_string().as_bytes());
    let said = victim.refuses_source(&registry.reference("catalog", "outer")).await;
    assert!(said.contains("an index within an index"), "{said}");
}

#[tokio::test]
async fn documents_of_a_registry_are_as_hostile_as_those_of_a_catalog() {
    let victim = victim().await;
    let deep = "[".repeat(30_000);
    for text in [
        "",
        "null",
        "[]",
        "\u{0}",
        "{\"schemaVersion\":1e999}",
        "{\"schemaVersion\":2,\"schemaVersion\":2}",
        &deep,
        &format!("{{\"manifests\":{deep}"),
        "{\"schemaVersion\":2,\"config\":{},\"layers\":{}}",
    ] {
        let (registry, _) = registry().await;
        registry.push_manifest("catalog", "v2", "application/json", text.as_bytes());
        let said = victim.refuses_source(&registry.reference("catalog", "v2")).await;
        assert!(said.contains("manifest sha256:"), "{said}");
    }
}

#[tokio::test]
async fn redirects_lead_nowhere_that_only_this_program_can_go() {
    let victim = victim().await;
    for (target, expected) in [
        ("http://169.254.169.254/latest/meta-data/", "nobody else's business"),
        ("http://[fe80::1]/", "nobody else's business"),
        ("http://0.0.0.0/", "nobody else's business"),
        ("http://[::ffff:169.254.169.254]/", "nobody else's business"),
        ("http://2852039166/", "nobody else's business"),
        ("file:///etc/passwd", "redirect"),
        ("ftp://127.0.0.1/", "redirect"),
        ("gopher://127.0.0.1:70/_x", "redirect"),
        ("unix:///var/run/docker.sock", "redirect"),
    ] {
        for code in [StatusCode::FOUND, StatusCode::PERMANENT_REDIRECT] {
            let (registry, source) = registry().await;
            registry.behave(move |asked| match asked.is_blob() {
                true => status(code, &[("location", target)]),
                false => Answer::Proper,
            });
            let said = victim.refuses_source(&source).await;
            assert!(said.contains(expected) || said.contains("answered 30"), "{target}: {said}");
            assert!(!said.contains("meta-data"), "{said}");
        }
    }
    // Not even a token is asked for there.
    let (registry, source) = registry().await;
    registry.behave(|_| {
        let challenge = r#"Bearer realm="http://169.254.169.254/token""#;
        status(StatusCode::UNAUTHORIZED, &[("www-authenticate", challenge)])
    });
    let said = victim.refuses_source(&source).await;
    assert!(said.contains("a token service that is nobody else's business"), "{said}");
}

/// Runs `render` on a registry that is somewhere else, as far as the program can tell.
async fn render_elsewhere(registry: &FakeRegistry) -> String {
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("registries.conf");
    std::fs::write(&conf, "[[registry]]\nlocation = 'registry.test:5000'\ninsecure = true\n").unwrap();
    let proxy = HttpProxy::start(registry.address()).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_packageserver"));
    for name in ["HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env("HTTP_PROXY", proxy.url()).args([
        "render",
        "registry.test:5000/catalog:v1",
        "--registries-conf",
    ]);
    command.arg(&conf);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_registry_elsewhere_leads_to_nothing_on_this_machine() {
    let secret = FakeRegistry::start().await;
    secret.push("catalog", "v1", &image());
    let port = secret.address().rsplit_once(':').unwrap().1.to_owned();
    for host in ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "x.localhost"] {
        let (registry, _) = registry().await;
        let target = format!("http://{host}:{port}");
        registry.behave(move |asked| match asked.is_blob() {
            true => status(StatusCode::FOUND, &[("location", &format!("{target}{}", asked.path))]),
            false => Answer::Proper,
        });
        let said = render_elsewhere(&registry).await;
        assert!(said.contains("nobody else's business"), "{host}: {said}");
    }
    assert_eq!(secret.requests(), [""; 0]);
}

#[tokio::test]
async fn a_registry_that_is_never_satisfied_is_asked_a_few_times_only() {
    let victim = victim().await;
    let (registry, source) = registry().await;
    let realm = format!("http://{}/token", registry.address());
    registry.behave(move |asked| match asked.path.as_str() {
        "/token" => answer_json(&json!({"token": format!("token-{}", asked.before)})),
        _ => {
            let challenge = format!(r#"Bearer realm="{realm}",service="x""#);
            status(StatusCode::UNAUTHORIZED, &[("www-authenticate", &challenge)])
        }
    });
    let said = victim.refuses_source(&source).await;
    assert!(said.contains("refuses access to catalog without credentials: 401"), "{said}");
    assert_eq!(registry.requests().len(), 3);
    // With many credentials, each is tried once.
    let host = registry.address().to_owned();
    let auths: serde_json::Map<_, _> = (0..3)
        .map(|n| {
            (
                format!("{host}{}", "/catalog".repeat(n % 2) + &"/".repeat(n / 2)),
                json!({"username": n.to_string(), "password": "p"}),
            )
        })
        .collect();
    let config = json!({ "auths": auths }).to_string();
    let keyring = Keyring::from_docker_config(config.as_bytes(), "Secret `test/pull`").unwrap();
    let access = Access::default().with_credentials(keyring);
    let before = registry.requests().len();
    let said = Ingest { access, ..Ingest::new() }.run(&source).await.unwrap_err().to_string();
    assert!(said.contains("refuses access"), "{said}");
    assert!(registry.requests().len() - before <= 1 + 2 * 3);
}

#[tokio::test]
async fn token_services_that_answer_garbage_are_quoted_by_nobody() {
    let victim = victim().await;
    type Garbage = fn() -> Response;
    let taken = Arc::new(AtomicUsize::new(0));
    let answers: [(Garbage, &str); 8] = [
        (|| "".into_response(), "with a token that is none"),
        (|| "<html>hunter2</html>".into_response(), "with a token that is none"),
        (|| "{}".into_response(), "with an empty token"),
        (|| r#"{"token":""}"#.into_response(), "with an empty token"),
        (|| r#"{"token":["hunter2"]}"#.into_response(), "with a token that is none"),
        (|| r#"{"token":"hunter2\r\nx-evil: 1"}"#.into_response(), "with a token that cannot be sent"),
        (|| (StatusCode::IM_A_TEAPOT, "hunter2").into_response(), "its token service answered 418"),
        (|| "[".repeat(200_000).into_response(), "with a token that is none"),
    ];
    for (answer, expected) in answers {
        let (registry, source) = registry().await;
        let realm = format!("http://{}/token", registry.address());
        registry.behave(move |asked| match asked.path.as_str() {
            "/token" => Answer::This(answer()),
            _ => status(
                StatusCode::UNAUTHORIZED,
                &[("www-authenticate", &format!(r#"Bearer realm="{realm}""#))],
            ),
        });
        let said = victim.refuses_source(&source).await;
        assert!(said.contains(expected) && !said.contains("hunter2"), "{said}");
    }
    // One that never ends.
    let (registry, source) = registry().await;
    let realm = format!("http://{}/token", registry.address());
    let count = Arc::clone(&taken);
    registry.behave(move |asked| match asked.path.as_str() {
        "/token" => Answer::This(chunks(usize::MAX, &count)),
        _ => status(StatusCode::UNAUTHORIZED, &[("www-authenticate", &format!(r#"Bearer realm="{realm}""#))]),
    });
    let said = victim.refuses_source(&source).await;
    assert!(said.contains("more than 262144 bytes"), "{said}");
    assert!(taken.load(Ordering::SeqCst) < 1000);
    // Challenges that are none.
    for challenge in
        ["", "Bearer", "Bearer realm=\"", "Negotiate", "Bearer realm=\"not a url\"", &",".repeat(4000)]
    {
        let (registry, source) = self::registry().await;
        let header = challenge.to_owned();
        registry.behave(move |_| status(StatusCode::UNAUTHORIZED, &[("www-authenticate", &header)]));
        let said = victim.refuses_source(&source).await;
        assert!(said.contains("refuses access") || said.contains("token service"), "{challenge}: {said}");
    }
}

#[tokio::test]
async fn one_byte_a_second_lasts_as_long_as_an_ingest_may_and_hinders_nobody() {
    let (slow, source) = registry().await;
    let asked_for = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked_for);
    slow.behave(move |asked| match asked.is_blob() {
        true => {
            *count.lock().unwrap() += 1;
            let drops = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
            });
            Answer::This(Body::from_stream(drops).into_response())
        }
        false => Answer::Proper,
    });
    let good = FakeRegistry::start().await;
    good.push("catalog", "v1", &image());
    let server = Server::start(&["--ingest-timeout=5s", "--concurrent-ingests=2"]).await;
    let apply = |name: &str, image: &str| {
        json!({"apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": name, "namespace": "test"}, "spec": {"image": image}})
        .to_string()
    };
    server.kubectl().run_with("apply -f -", &apply("slow", &source));
    eventually("the slow blob to be asked for", || async { (*asked_for.lock().unwrap() > 0).then_some(()) })
        .await;
    server.kubectl().run_with("apply -f -", &apply("good", &good.reference("catalog", "v1")));
    let condition = async |name: &str, wanted: &str| {
        eventually(&format!("{name} to be {wanted}"), || async {
            let path = format!("/apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources/{name}");
            let source = server.get(&path).await;
            let conditions = source["status"]["conditions"].as_array()?.clone();
            conditions
                .into_iter()
                .find(|condition| condition["type"] == wanted && condition["status"] == "True")
        })
        .await
    };
    condition("good", "Ready").await;
    let said = condition("slow", "Degraded").await["message"].as_str().unwrap().to_owned();
    assert!(said.contains("not done after 5 seconds"), "{said}");
    let packages = server.get("/apis/core.rukpak.io/v1beta1/namespaces/test/packages").await;
    assert_eq!(packages["items"].as_array().unwrap().len(), 1);
}
