//! What people type at kubectl to write, in one session, and what they see: the same whether the server stands alone or behind a
//! kube-apiserver.

use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::catalog::CatalogBuilder;
use super::eventually;
use super::kubectl::Kubectl;

/// A session at the keyboard, and what was to be seen.
struct Session<'a> {
    kubectl: Kubectl,
    catalog: &'a Path,
    seen: String,
}

impl Session<'_> {
    /// A comment on what follows.
    fn about(&mut self, text: &str) {
        self.seen.push_str(&format!("# {text}\n\n"));
    }

    /// Runs kubectl with something on its standard input, and waits until the server is done with what came of it.
    async fn with(&mut self, kubectl: &Kubectl, arguments: &str, input: &Value) {
        let output = kubectl.try_run(arguments, &input.to_string());
        self.seen.push_str(&format!("$ kubectl {arguments}\n{}{}", output.stdout, output.stderr));
        if !output.success {
            self.seen.push_str("(failed)\n");
        }
        self.seen.push('\n');
        self.settled().await;
    }

    async fn run(&mut self, arguments: &str) {
        self.with(&self.kubectl.clone(), arguments, &Value::Null).await;
    }

    async fn send(&mut self, arguments: &str, input: &Value) {
        self.with(&self.kubectl.clone(), arguments, input).await;
    }

    /// Shows the object, and who owns what of it: sorted by name, because times may be equal or not.
    async fn show(&mut self) {
        self.run("get catalogsource demo -n test -o yaml").await;
        let object = self.object().expect("it is there");
        let managers = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let mut shown: Vec<_> = managers
            .iter()
            .map(|entry| {
                let text = |field: &str| entry[field].as_str().unwrap_or_default();
                let (name, operation, subresource) =
                    (text("manager"), text("operation"), text("subresource"));
                // What the controller owns is most of the status, and not what this is about.
                let fields = match name {
                    "packageserver" => "...".to_owned(),
                    _ => entry["fieldsV1"].to_string(),
                };
                format!("{operation} {name} {subresource} {fields}\n")
            })
            .collect();
        shown.sort();
        self.seen.push_str(&format!("{}\n", shown.concat()));
    }

    /// Returns the object with everything in it, if it is there.
    fn object(&self) -> Option<Value> {
        let output = self.kubectl.try_run("get catalogsource demo -n test -o json --show-managed-fields", "");
        output.success.then(|| serde_json::from_str(&output.stdout).expect("kubectl prints JSON"))
    }

    /// Waits until the controller has nothing more to write, so that it is never in between.
    async fn settled(&self) {
        eventually("the catalog to be read", || async {
            let Some(object) = self.object() else { return Some(()) };
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_idle = conditions.iter().any(|condition| {
                condition["type"] == "Progressing"
                    && condition["status"] == "False"
                    && condition["observedGeneration"] == object["metadata"]["generation"]
            });
            (is_idle || object["metadata"]["deletionTimestamp"].is_string()).then_some(())
        })
        .await;
    }

    /// Returns what was to be seen, without what is never the same. What stands in its place was looked at first.
    fn text(&self) -> String {
        let text = self.seen.replace(self.catalog.to_str().expect("the path is UTF-8"), "CATALOG");
        // Some versions of kubectl say so.
        let text = text.replace(" from test namespace", "");
        let mut lines: Vec<String> = Vec::new();
        let mut is_status = false;
        for line in text.lines() {
            // What the controller writes is not what this is about.
            is_status = line == "status:" || (is_status && line.starts_with(' '));
            match line {
                _ if is_status => {}
                line if ["diff ", "--- ", "+++ "].iter().any(|start| line.starts_with(start)) => {}
                line => lines.push(without_chance(line)),
            }
        }
        lines.join("\n")
    }
}

/// Replaces times, uids and versions in a line.
fn without_chance(line: &str) -> String {
    if let Some((before, version)) = line.split_once("resourceVersion: ") {
        let number: u64 = version.trim_matches('"').parse().expect("versions are numbers");
        assert!(number > 1000, "{line}");
        return format!("{before}resourceVersion: VERSION");
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-:.".contains(c);
    let mut replaced = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(is_part) {
        let end = rest[start..].find(|c| !is_part(c)).map_or(rest.len(), |length| start + length);
        let (before, word) = (&rest[..start], &rest[start..end]);
        replaced.push_str(before);
        replaced.push_str(match word {
            word if uuid::Uuid::parse_str(word).is_ok() => "UID",
            word => match word.parse::<Timestamp>() {
                Ok(time) => {
                    let age = Timestamp::now().as_second() - time.as_second();
                    assert!((0..600).contains(&age), "{line}");
                    "TIME"
                }
                Err(_) => word,
            },
        });
        rest = &rest[end..];
    }
    replaced + rest
}

/// Writes, changes, applies and makes mistakes, with a catalog in a directory that the server may read. A server that stands
/// alone is also shown what a garbage collector would interfere with.
pub async fn session(kubectl: &Kubectl, catalog: &Path, is_alone: bool) -> String {
    CatalogBuilder::default().package("greeter", 1).write(catalog);
    let mut session = Session { kubectl: kubectl.clone(), catalog, seen: String::new() };
    let image = format!("fbc:{}", catalog.display());
    let demo = |labels: Value, spec: Value| {
        let mut demo = json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": "demo", "namespace": "test", "labels": labels},
            "spec": spec,
        });
        demo["spec"]["image"] = image.clone().into();
        demo
    };
    let tier = |tier: &str| json!({"tier": tier});

    session.about("Apply from the client's side");
    session.send("apply -f -", &demo(tier("one"), json!({"publisher": "me"}))).await;
    session.send("apply -f -", &demo(tier("one"), json!({"publisher": "me"}))).await;
    let differ = kubectl.clone().with_env("KUBECTL_EXTERNAL_DIFF", "diff -U0 -N");
    session.with(&differ, "diff -f -", &demo(tier("one"), json!({"publisher": "you"}))).await;
    session.send("apply -f -", &demo(tier("one"), json!({"publisher": "you"}))).await;
    session.with(&differ, "diff -f -", &demo(tier("one"), json!({"publisher": "you"}))).await;

    session.about("Change this and that");
    session.run("label catalogsource demo -n test tier=two --overwrite").await;
    session.run("annotate catalogsource demo -n test note=hello").await;
    session.run(r#"patch catalogsource demo -n test --type merge -p {"spec":{"displayName":"Demo"}}"#).await;
    let patch = r#"[{"op":"replace","path":"/spec/displayName","value":"Demonstration"}]"#;
    session.run(&format!("patch catalogsource demo -n test --type json -p {patch}")).await;
    let patch = r#"[{"op":"test","path":"/spec/displayName","value":"Demo"}]"#;
    session.run(&format!("patch catalogsource demo -n test --type json -p {patch}")).await;
    session.run(r#"patch catalogsource demo -n test -p {"spec":{"displayName":"Demo"}}"#).await;
    session.run(r#"patch catalogsource demo -n test --subresource status --type merge -p {"status":{"packages":7}}"#).await;
    let editor = kubectl.clone().with_env("KUBE_EDITOR", "sed -i s/Demonstration/Edited/");
    session.with(&editor, "edit catalogsource demo -n test", &Value::Null).await;
    let editor = kubectl.clone().with_env("KUBE_EDITOR", "true");
    session.with(&editor, "edit catalogsource demo -n test", &Value::Null).await;
    session.show().await;

    session.about("Upgrade to apply on the server's side");
    session.send("apply --server-side -f -", &demo(tier("one"), json!({"publisher": "me"}))).await;
    session
        .send("apply --server-side -f - --force-conflicts", &demo(tier("one"), json!({"publisher": "me"})))
        .await;
    session.send("apply --server-side -f -", &demo(tier("one"), json!({"publisher": "me"}))).await;
    session.show().await;
    session
        .send("apply --server-side --field-manager ci -f -", &demo(json!({}), json!({"publisher": "ci"})))
        .await;
    let forced = "apply --server-side --field-manager ci --force-conflicts -f -";
    session.send(forced, &demo(json!({}), json!({"publisher": "ci"}))).await;
    session.with(&differ, "diff --server-side -f -", &demo(tier("three"), json!({}))).await;
    session.send("apply --server-side -f -", &demo(tier("three"), json!({}))).await;
    session.show().await;

    session.about("Replace, and try without doing");
    session.send("replace -f -", &demo(tier("four"), json!({"publisher": "new"}))).await;
    session.show().await;
    session.send("create --dry-run=server -f -", &demo(json!({}), json!({}))).await;
    let mut other = demo(json!({}), json!({}));
    other["metadata"]["name"] = "other".into();
    session.send("create --dry-run=server -f -", &other).await;
    session.send("apply --server-side --dry-run=server -f -", &other).await;
    session.run("delete catalogsource demo -n test --dry-run=server").await;
    session.run("get catalogsources -n test -o name").await;

    session.about("Make mistakes");
    other["spec"]["colour"] = "blue".into();
    session.send("create -f -", &other).await;
    session.send("create --validate=warn --dry-run=server -f -", &other).await;
    session.send("apply --server-side -f -", &other).await;
    other["spec"] = json!({"image": "Not An Image", "pollingInterval": "1s"});
    session.send("create -f -", &other).await;

    if !is_alone {
        return session.text();
    }
    session.about("Delete");
    session.run("delete catalogsource demo -n test --cascade=foreground --wait=false").await;
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    session.run(&format!("patch catalogsource demo -n test --type merge -p {patch}")).await;
    session.send("create -f -", &demo(json!({}), json!({}))).await;
    session.run("delete catalogsource demo -n test --wait").await;
    session.send("create -f -", &demo(json!({}), json!({}))).await;
    session.send("replace --force -f -", &demo(tier("five"), json!({}))).await;
    session.run("delete catalogsources --all -n test --force --grace-period=0").await;
    session.run("delete catalogsource demo -n test").await;
    session.run("get catalogsources -n test").await;
    session.text()
}
