//! The real kubectl writes: what people type, in one session, compared with what it printed when somebody last looked.

use serde_json::json;

use crate::support::server::Server;
use crate::support::writing::session;

const OBJECT: &str = "/apis/core.rukpak.io/v1beta1/namespaces/test/catalogsources/demo";

#[tokio::test(flavor = "multi_thread")]
async fn c192_c298_to_c301_c303_people_write_with_kubectl() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let allowed = directory.path().to_str().expect("the path is UTF-8");
    let server = Server::start(&["--allow-local-sources", allowed]).await;
    let seen = session(&server.kubectl(), &directory.path().join("catalog"), true).await;
    insta::assert_snapshot!(seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_given_at_the_start_are_applied_anew_with_each_start() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let manifest = directory.path().join("source.yaml");
    let write = |labels: &str| {
        let text = format!(
            "apiVersion: core.rukpak.io/v1beta1\nkind: CatalogSource\nmetadata:\n  name: demo\n  namespace: test\n  uid: old\n  \
             resourceVersion: '5'\n  labels: {labels}\nspec:\n  image: fbc:/nowhere\n"
        );
        std::fs::write(&manifest, text).expect("a manifest can be written");
    };
    write("{a: '1', b: '1'}");
    let mut server = Server::start(&["--filename", manifest.to_str().expect("the path is UTF-8")]).await;
    server.kubectl().run("label catalogsource demo -n test mine=1 b=2 --overwrite");
    write("{b: '3'}");
    server.restart().await;
    let object = server.get(OBJECT).await;
    assert_eq!(object["metadata"]["labels"], json!({"b": "3", "mine": "1"}));
    let managers = object["metadata"]["managedFields"].as_array().expect("managers are noted");
    let owned = json!({"f:metadata": {"f:labels": {"f:b": {}}}, "f:spec": {"f:image": {}}});
    assert_eq!((&managers[0]["manager"], &managers[0]["fieldsV1"]), (&json!("packageserver"), &owned));
}
