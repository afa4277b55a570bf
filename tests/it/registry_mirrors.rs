//! Mirrors: where an image is pulled from when `registries.conf` says so.

use axum::http::StatusCode;
use packageserver::pipeline::fetch::{Digest, Mirrors, RegistryOptions};

use crate::support::catalog::CatalogBuilder;
use crate::support::fake_registry::{Answer, FakeRegistry, status};
use crate::support::image::Image;
use crate::support::ingest::Ingest;
use crate::support::registry::Registry;

fn image() -> Image {
    CatalogBuilder::default().package("one", 3).image()
}

fn ingest(config: &str) -> Ingest {
    let mirrors = Mirrors::parse(config).unwrap();
    Ingest::with_registries(RegistryOptions { mirrors, ..RegistryOptions::default() })
}

#[tokio::test]
async fn an_image_is_pulled_from_the_first_mirror_that_has_it() {
    let (empty, full) = (Registry::start().await, Registry::start().await);
    full.push("copies/acme/catalog", "v1", &image()).await;
    let ingest = ingest(&format!(
        "[[registry]]\nprefix = 'quay.test/acme'\nlocation = 'quay.test/acme'\n\
         [[registry.mirror]]\nlocation = '{}/nothing'\n\
         [[registry.mirror]]\nlocation = '{}/copies/acme'\n",
        empty.address(),
        full.address()
    ));
    let report = ingest.run("quay.test/acme/catalog:v1").await.unwrap();
    assert_eq!(report.packages, 1);
    // It is still the image that was asked for.
    let digest = Digest::sha256(image().manifest());
    assert_eq!(report.resolved_image, Some(format!("quay.test/acme/catalog@{digest}")));
    // Only once: what the mirror lacks it is not asked for again.
    let asked: Vec<_> = empty.requests().into_iter().filter(|line| line.contains("/nothing/")).collect();
    let of = |method: &str| format!("{method} /v2/nothing/catalog/manifests/v1 404");
    assert_eq!(asked, [of("HEAD"), of("GET")]);
}

#[tokio::test]
async fn what_a_mirror_cannot_give_comes_from_the_registry_itself() {
    let (mirror, origin) = (FakeRegistry::start().await, FakeRegistry::start().await);
    origin.push("acme/catalog", "v1", &image());
    mirror.push("acme/catalog", "v1", &image());
    // A mirror that has lost the layers, and one that was tampered with.
    for answer in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
        mirror.behave(move |asked| match asked.is_blob() {
            true => status(answer, &[]),
            false => Answer::Proper,
        });
        let ingest = ingest(&format!(
            "[[registry]]\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}'\n",
            origin.address(),
            mirror.address()
        ));
        let before = origin.requests().len();
        assert_eq!(ingest.run(&origin.reference("acme/catalog", "v1")).await.unwrap().packages, 1);
        assert!(origin.requests()[before..].iter().all(|line| line.contains("/blobs/")), "{answer}");
        assert_eq!(origin.requests().len() - before, 2);
    }
}

#[tokio::test]
async fn when_nobody_has_it_everybody_is_quoted_and_the_registry_counts() {
    let (mirror, origin) = (FakeRegistry::start().await, FakeRegistry::start().await);
    mirror.behave(|_| status(StatusCode::UNAUTHORIZED, &[]));
    let ingest = ingest(&format!(
        "[[registry]]\nlocation = '{}'\n[[registry.mirror]]\nlocation = '{}/copies'\n",
        origin.address(),
        mirror.address()
    ));
    let source = origin.reference("acme/catalog", "v1");
    let said = ingest.run(&source).await.unwrap_err().to_string();
    let expected = format!(
        "`{source}`: {source} not found in {} (mirrors: {} refuses access to copies/acme/catalog without credentials: \
         401 Unauthorized)",
        origin.address(),
        mirror.address()
    );
    assert_eq!(said, expected);
}

#[tokio::test]
async fn mirrors_for_digests_are_not_asked_for_tags() {
    let (mirror, origin) = (Registry::start().await, Registry::start().await);
    let digest = mirror.push("catalog", "v1", &image()).await;
    origin.push("catalog", "v1", &image()).await;
    let config = format!(
        "[[registry]]\nlocation = '{}'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = '{}'\n",
        origin.address(),
        mirror.address()
    );
    let pulls = |registry: &Registry| {
        registry.requests().into_iter().filter(|line| line.starts_with("GET /v2/catalog/blobs")).count()
    };
    ingest(&config).run(&origin.reference("catalog", "v1")).await.unwrap();
    assert_eq!((pulls(&mirror), pulls(&origin)), (0, 2));
    let pinned = format!("{}/catalog@{digest}", origin.address());
    ingest(&config).run(&pinned).await.unwrap();
    assert_eq!((pulls(&mirror), pulls(&origin)), (2, 2));
}

#[tokio::test]
async fn what_is_blocked_is_not_even_asked_for() {
    let registry = FakeRegistry::start().await;
    registry.push("acme/catalog", "v1", &image());
    let source = registry.reference("acme/catalog", "v1");
    let ingest = ingest(&format!("[[registry]]\nprefix = '{}/acme'\nblocked = true\n", registry.address()));
    let said = ingest.run(&source).await.unwrap_err().to_string();
    let prefix = format!("{}/acme", registry.address());
    assert_eq!(said, format!("`{source}`: `{source}` is blocked: registries.conf blocks `{prefix}`"));
    assert_eq!(registry.requests(), [""; 0]);
}
