//! Registries on flaky links, under load, and with ideas of their own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use packageserver::pipeline::fetch::RegistryOptions;

use crate::support::catalog::CatalogBuilder;
use crate::support::fake_registry::{Answer, FakeRegistry, status};
use crate::support::image::Image;
use crate::support::ingest::Ingest;

fn image() -> Image {
    CatalogBuilder::default().package("one", 50).image()
}

/// Returns a registry with an image, and the path of the image's layer.
async fn registry() -> (FakeRegistry, String, String) {
    let registry = FakeRegistry::start().await;
    registry.push("catalog", "v1", &image());
    let digest = packageserver::pipeline::fetch::Digest::sha256(&image().blobs()[1]);
    let (source, layer) = (registry.reference("catalog", "v1"), format!("/v2/catalog/blobs/{digest}"));
    (registry, source, layer)
}

#[tokio::test]
async fn what_fails_for_now_is_asked_for_again() {
    let (registry, source, _) = registry().await;
    let passing = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::INTERNAL_SERVER_ERROR,
    ];
    registry.behave(move |asked| match asked.before {
        0 => status(passing[usize::from(asked.is_blob()) + usize::from(asked.method == Method::HEAD)], &[]),
        _ => Answer::Proper,
    });
    assert_eq!(Ingest::new().run(&source).await.unwrap().packages, 1);
    // Tag, manifest, configuration and layer: each twice.
    assert_eq!(registry.requests().len(), 8);
}

#[tokio::test]
async fn a_registry_that_asks_to_be_left_alone_is() {
    let (registry, source, _) = registry().await;
    registry.behave(|asked| match asked.before {
        0 if asked.method == Method::HEAD => status(StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "2")]),
        _ => Answer::Proper,
    });
    let start = Instant::now();
    assert_eq!(Ingest::new().run(&source).await.unwrap().packages, 1);
    assert!(start.elapsed() >= Duration::from_secs(2));

    // Where that takes too long the whole attempt is put off.
    let (registry, source, _) = self::registry().await;
    registry.behave(|_| status(StatusCode::TOO_MANY_REQUESTS, &[("retry-after", "3600")]));
    let error = Ingest::new().run(&source).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert!(error.to_string().contains("answered 429 Too Many Requests"), "{error}");
    assert_eq!(registry.requests().len(), 1);
}

#[tokio::test]
async fn a_registry_that_stays_down_is_given_up() {
    let (registry, source, _) = registry().await;
    registry.behave(|_| status(StatusCode::SERVICE_UNAVAILABLE, &[]));
    let said = Ingest::new().run(&source).await.unwrap_err().to_string();
    assert!(said.contains("/catalog answered 503 Service Unavailable"), "{said}");
    assert_eq!(registry.requests().len(), 5);
}

#[tokio::test]
async fn a_download_that_breaks_off_is_resumed_where_it_did() {
    let (registry, source, layer) = registry().await;
    let path = layer.clone();
    registry.behave(move |asked| match asked.before {
        0 | 1 if asked.path == path => Answer::Cut(1000),
        _ => Answer::Proper,
    });
    let report = Ingest::new().run(&source).await.unwrap();
    assert_eq!((report.packages, report.bundles), (1, 50));
    let ranges: Vec<_> = registry.requests().into_iter().filter(|line| line.contains(&layer)).collect();
    let resumed = |from: usize| format!("GET {layer} bytes={from}-");
    assert_eq!(ranges, [format!("GET {layer}"), resumed(1000), resumed(2000)]);
    assert_eq!(report.bytes_read, image().blobs()[1].len() as u64);
}

#[tokio::test]
async fn a_resumed_download_is_still_checked() {
    // What comes by range is of another blob.
    let (registry, source, layer) = registry().await;
    let other = CatalogBuilder::default().package("two", 50).image().blobs()[1].clone();
    registry.behave(move |asked| match asked.before {
        0 if asked.path == layer => Answer::Cut(1000),
        _ if asked.path == layer => {
            use axum::response::IntoResponse;
            let range = format!("bytes 1000-{}/{}", other.len() - 1, other.len());
            let part = other[1000..].to_vec();
            Answer::This((StatusCode::PARTIAL_CONTENT, [("content-range", range)], part).into_response())
        }
        _ => Answer::Proper,
    });
    let said = Ingest::new().run(&source).await.unwrap_err().to_string();
    assert!(said.contains("layer") && (said.contains("instead of")), "{said}");
}

#[tokio::test]
async fn without_ranges_a_download_begins_anew() {
    let (registry, source, layer) = registry().await;
    let whole = image().blobs()[1].clone();
    registry.behave(move |asked| match asked.before {
        0 if asked.path == layer => Answer::Cut(1000),
        _ if asked.path == layer => Answer::This(axum::response::IntoResponse::into_response(whole.clone())),
        _ => Answer::Proper,
    });
    assert_eq!(Ingest::new().run(&source).await.unwrap().bundles, 50);
}

#[tokio::test]
async fn a_part_that_begins_elsewhere_is_no_answer() {
    let (registry, source, layer) = registry().await;
    let whole = image().blobs()[1].clone();
    registry.behave(move |asked| match asked.before {
        0 if asked.path == layer => Answer::Cut(1000),
        _ if asked.path == layer => {
            use axum::response::IntoResponse;
            let range = format!("bytes 0-{}/{}", whole.len() - 1, whole.len());
            Answer::This(
                (StatusCode::PARTIAL_CONTENT, [("content-range", range)], whole.clone()).into_response(),
            )
        }
        _ => Answer::Proper,
    });
    let said = Ingest::new().run(&source).await.unwrap_err().to_string();
    assert!(said.contains("206 Partial Content with another part of the blob"), "{said}");
}

#[tokio::test]
async fn a_download_that_never_gets_on_is_given_up() {
    let (registry, source, layer) = registry().await;
    let path = layer.clone();
    registry.behave(move |asked| match asked.path == path {
        true => Answer::Cut(0),
        false => Answer::Proper,
    });
    let said = Ingest::new().run(&source).await.unwrap_err().to_string();
    assert!(said.contains("cannot read from"), "{said}");
    assert_eq!(registry.requests().iter().filter(|line| line.contains(&layer)).count(), 5);
}

#[tokio::test]
async fn a_registry_that_never_answers_is_given_up() {
    let (registry, source, _) = registry().await;
    registry.behave(|_| Answer::Silence);
    let read_timeout = Duration::from_millis(100);
    let ingest = Ingest::with_registries(RegistryOptions { read_timeout, ..RegistryOptions::default() });
    let said = ingest.run(&source).await.unwrap_err().to_string();
    assert!(said.contains("timed out"), "{said}");
}

#[tokio::test]
async fn where_head_is_answered_wrongly_get_decides() {
    for (answer, requests) in
        [(StatusCode::METHOD_NOT_ALLOWED, 2), (StatusCode::NOT_FOUND, 2), (StatusCode::OK, 2)]
    {
        let (registry, source, _) = registry().await;
        registry.behave(move |asked| match asked.method == Method::HEAD {
            true => status(answer, &[]),
            false => Answer::Proper,
        });
        let ingest = Ingest::new();
        assert_eq!(ingest.run(&source).await.unwrap().packages, 1, "{answer}");
        let before = registry.requests().len();
        assert!(ingest.refresh(&source).await.unwrap().is_none(), "{answer}");
        assert_eq!(registry.requests().len() - before, requests, "{answer}");
    }
}

#[tokio::test]
async fn digests_that_lie_are_found_out() {
    let (registry, source, _) = registry().await;
    let other = format!("sha256:{}", "0".repeat(64));
    let lie = other.clone();
    registry.behave(move |asked| match asked.method == Method::HEAD {
        true => status(StatusCode::OK, &[("docker-content-digest", &lie)]),
        false => Answer::Proper,
    });
    let said = Ingest::new().run(&source).await.unwrap_err().to_string();
    assert!(said.contains("catalog:v1 not found"), "{said}");
    // The same with something behind the digest.
    registry.put(&format!("catalog/manifests/{other}"), "application/json", image().manifest().to_vec());
    let said = Ingest::new().run(&source).await.unwrap_err().to_string();
    assert!(said.contains(&format!("instead of {other}")), "{said}");
    // And one that is no digest at all.
    registry.behave(|asked| match asked.method == Method::HEAD {
        true => status(StatusCode::OK, &[("docker-content-digest", "sha256:../../etc/passwd")]),
        false => Answer::Proper,
    });
    let said = Ingest::new().run(&source).await.unwrap_err().to_string();
    assert!(said.contains("is not a digest of the form"), "{said}");
}

#[tokio::test]
async fn a_manifest_that_breaks_off_is_read_again() {
    let (registry, source, _) = registry().await;
    let cuts = AtomicUsize::new(0);
    registry.behave(move |asked| {
        let is_manifest = asked.method == Method::GET && asked.path.contains("/manifests/");
        match is_manifest && cuts.fetch_add(1, Ordering::SeqCst) < 2 {
            true => Answer::Cut(10),
            false => Answer::Proper,
        }
    });
    assert_eq!(Ingest::new().run(&source).await.unwrap().packages, 1);
}
