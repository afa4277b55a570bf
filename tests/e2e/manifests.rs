//! The manifests as a kube-apiserver takes them, with the strictest of its standards for pods.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::support::kubectl::Kubectl;

fn config(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(path)
}

/// Tries whether all of a directory is taken, and whether its pods meet the restricted standard.
fn is_taken(kubectl: &Kubectl, directory: &Path) {
    let namespace = directory.join("00_namespace.yaml");
    kubectl.run(&format!("apply -f {}", namespace.display()));
    let applied = kubectl.try_run(&format!("apply --dry-run=server -f {}", directory.display()), "");
    assert!(applied.success, "{applied:?}");
    // Whatever a kube-apiserver has to say against a manifest, deprecated fields and weak pods among it, is a warning.
    assert!(!applied.stderr.contains("Warning"), "{}", applied.stderr);

    let printed = kubectl.run(&format!("apply --dry-run=client -o json -f {}", directory.display()));
    let list: Value = serde_json::from_str(&printed).unwrap();
    let mut pods = 0;
    for object in list["items"].as_array().unwrap() {
        let template = ["/spec/template", "/spec/jobTemplate/spec/template"];
        let Some(template) = template.iter().find_map(|path| object.pointer(path)) else { continue };
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]});
        pod["metadata"] = json!({"name": "tried", "namespace": object["metadata"]["namespace"]});
        // Volumes of the pod's own stand in for those that are claimed for it.
        for claim in
            object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten()
        {
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            volumes.push(json!({"name": claim["metadata"]["name"], "emptyDir": {}}));
        }
        let tried = kubectl.try_run("create --dry-run=server -f -", &pod.to_string());
        assert!(
            tried.success && !tried.stderr.contains("Warning"),
            "{}: {tried:?}",
            object["metadata"]["name"]
        );
        pods += 1;
    }
    assert!(pods > 0);
    // The standard is looked after at all.
    let weak = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "weak", "namespace": "packageserver-system"},
        "spec": {"containers": [{"name": "a", "image": "b"}]},
    });
    let refused = kubectl.try_run("create --dry-run=server -f -", &weak.to_string());
    assert!(refused.stderr.contains("violates PodSecurity \"restricted:latest\""), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifests_are_taken_and_their_pods_are_restricted() {
    let cluster = Cluster::start().await;
    is_taken(&cluster.kubectl(), &config(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifests_of_the_small_installation_are_taken_and_their_pods_are_restricted() {
    let cluster = Cluster::start().await;
    is_taken(&cluster.kubectl(), &config("small"));
}
