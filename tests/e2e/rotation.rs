//! Certificates are replaced under load, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::installation::{API_SERVICE, Installation, Kind};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn c260_c264_certificates_and_authorities_rotate_without_a_failed_request() {
    // A certificate lives for half a minute and an authority for two, instead of a month and a year.
    let installation = Installation::start_with(
        Kind::Full,
        &[
            "--serving-certificate-lifetime=30s",
            "--serving-authority-lifetime=60s",
            "--serving-rotation-overlap=5s",
        ],
    )
    .await;
    let kubectl = installation.kubectl();
    let bundle = || kubectl.run(&format!("get apiservice {API_SERVICE} -o jsonpath={{.spec.caBundle}}"));
    let first = bundle();

    // A watch from before, and requests all the time, through the kube-apiserver.
    let record = installation.cluster.directory.path().join("watch.log");
    let watch_path = "get --raw /apis/core.rukpak.io/v1beta1/packages?watch=true&allowWatchBookmarks=true&timeoutSeconds=3600";
    let mut watch = installation.kubectl().start(watch_path, &record);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = tokio::task::spawn_blocking({
        let (stop, asked, kubectl) = (Arc::clone(&stop), Arc::clone(&asked), installation.kubectl());
        move || {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let output = kubectl.try_run("get --raw /apis/core.rukpak.io/v1beta1/packages", "");
                if !output.success {
                    failures.push(output.stderr);
                }
                asked.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
            failures
        }
    });

    // Two authorities side by side, then another one alone, twice.
    for round in 0..2 {
        let before = if round == 0 { first.clone() } else { bundle() };
        eventually("another authority", || {
            let now = bundle();
            let is_other =
                !now.is_empty() && now != before && !now.contains(&before[..before.len().min(200)]);
            async move { is_other.then_some(()) }
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let failures = load.await.unwrap();
    let asked = asked.load(Ordering::Relaxed);
    assert!(failures.is_empty(), "{} of {asked} requests failed: {:?}", failures.len(), failures.first());
    assert!(asked > 50, "{asked}");
    assert!(watch.is_running(), "the watch from before goes on");
}
