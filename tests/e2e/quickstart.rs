//! The quickstart, through the aggregator, as an ordinary user.

use crate::installation::{Installation, Kind, catalog_source};
use crate::support::catalog;
use crate::support::image::Image;
use crate::support::kubectl::Kubectl;
use crate::support::registry::Registry;

async fn quickstart(kind: Kind) {
    let pair = catalog::pair();
    let packages = catalog::metas(&pair.new).len();
    let registry = Registry::start().await;
    registry.push("catalog", "v1", &Image::of_catalog(&pair.new)).await;
    let installation = Installation::start(kind).await;
    let admin = installation.kubectl();

    admin.run("create namespace test");
    admin.run("create rolebinding viewers --clusterrole=view --user=alice -n test");
    admin.run("create rolebinding editors --clusterrole=edit --user=erin -n test");
    let user = |name: &str| Kubectl::new(installation.cluster.user(name, &[]));
    let (alice, erin, mallory) = (user("alice"), user("erin"), user("mallory"));

    let source = catalog_source("test", "catalogsource-sample", &registry.reference("catalog", "v1"));
    let refused = alice.try_run("create -f -", &source);
    assert!(refused.stderr.contains("cannot create resource \"catalogsources\" in API group \"core.rukpak.io\" in the namespace \"test\""), "{refused:?}");
    erin.run_with("apply -f -", &source);
    alice.run("wait catalogsource/catalogsource-sample -n test --for=condition=Ready --timeout=120s");
    let names = |resource: &str| alice.run(&format!("get {resource} -n test -o name")).lines().count();
    assert_eq!(names("catalogsource"), 1);
    assert_eq!(names("catalogcache"), 1);
    assert_eq!(names("packages"), packages);

    let refused = mallory.try_run("get packages -n test", "");
    let expected = "packages.core.rukpak.io is forbidden: User \"mallory\" cannot list resource \"packages\" in API group \
                    \"core.rukpak.io\" in the namespace \"test\"";
    assert!(!refused.success && refused.stderr.contains(expected), "{refused:?}");
    // What reads everywhere is refused to who may read one namespace.
    assert!(!alice.try_run("get packages -A", "").success);

    installation.described().await;
    let explained = alice.run("explain package.spec.channels.entries");
    assert!(explained.contains("Versions that may be upgraded to this one directly"), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c259_c260_c261_the_quickstart_works_for_an_ordinary_user() {
    quickstart(Kind::Full).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_works_on_the_small_installation() {
    quickstart(Kind::Small).await;
}
