//! What people type at kubectl to read, and what they see: the same whether the server stands alone or behind a
//! kube-apiserver.

use std::path::Path;

use serde_json::json;

use super::catalog::CatalogBuilder;
use super::golden::golden;
use super::kubectl::Kubectl;

/// Every form of `get`.
pub const GET: &[&str] = &[
    "get packages -n test",
    "get packages -n test -o wide",
    "get pkg -A",
    "get packages -n test --no-headers",
    "get packages -n test --show-labels",
    "get packages -n test -o name",
    "get package lamp -n test",
    "get package lamp greeter -n test -o wide",
    "get package lamp -n test -o yaml",
    "get bundlemetadata lamp.v1.0.2 -n test -o json",
    "get packages -n test -o jsonpath={.items[*].metadata.name}",
    "get packages -n test -o custom-columns=N:.metadata.name,C:.spec.channels[*].head",
    "get packages -n test -o go-template={{range.items}}{{.spec.packageName}};{{end}}",
    "get packages -n test --sort-by=.metadata.name",
    "get bundlemetadata -n test --sort-by=.spec.version",
    "get bundlemetadata -n test -o wide",
    "get bundlemetadata -n test --chunk-size=1 -o name",
    "get packages -A --chunk-size=1",
    "get packages -A -l core.rukpak.io/catalog=tools",
    "get packages -A -l core.rukpak.io/package!=lamp",
    "get bundlemetadata -n test -l core.rukpak.io/package,core.rukpak.io/package!=lamp -o name",
    "get packages -A --field-selector metadata.name=lamp",
    "get packages -A --field-selector spec.catalogSource=more",
    "get packages -A --field-selector spec.x=y",
    "get packages -n nowhere",
    "get package none -n test",
    "get packages -n test --ignore-not-found none",
    "get catalogsources -A -o wide",
    "get catalogcaches -A",
    "get catalogcache tools -n test -o jsonpath={.spec.operators[*].name}",
    "api-resources --api-group=core.rukpak.io --sort-by=name",
    "api-resources --api-group=core.rukpak.io -o wide --no-headers",
];

/// Everything else that explains.
pub const EXPLAIN: &[&str] = &[
    "describe package lamp -n test",
    "describe catalogsource tools -n test",
    "explain package",
    "explain package.spec.channels.entries",
    "explain pkg.spec.channels.entries.skipRange",
    "explain catalogsource.spec",
    "explain catalogsource.status.conditions",
    "explain catalogsource --recursive",
    "explain catalogcache --recursive",
    "explain package --recursive",
    "explain bundlemetadata --recursive",
    "explain package.spec.none",
];

/// Writes two catalogs into a directory: `tools` and `more`.
pub fn write_catalogs(directory: &Path) {
    let tools = CatalogBuilder::default().package("greeter", 2).package("lamp", 3);
    tools.write(&directory.join("tools"));
    CatalogBuilder::default().package("anchor", 1).write(&directory.join("more"));
}

/// Has a server that may read that directory serve `tools` in namespace `test` and `more` in `other`.
pub fn serve_catalogs(kubectl: &Kubectl) {
    for (namespace, name) in [("test", "tools"), ("other", "more")] {
        let source = json!({
            "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"image": format!("fbc:{name}"), "displayName": "Tools", "publisher": "Example"},
        });
        kubectl.run_with("apply -f -", &source.to_string());
        // C302: the condition counts for the generation that was applied.
        kubectl.run(&format!("wait catalogsource/{name} -n {namespace} --for=condition=Ready --timeout=60s"));
        kubectl.run(&format!(
            "wait catalogsource/{name} -n {namespace} --for=condition=Progressing=False --timeout=60s"
        ));
    }
}

/// Runs commands, and returns each with what it printed.
pub fn script(kubectl: &Kubectl, commands: &[&str]) -> String {
    let said = |command: &&str| {
        let output = kubectl.try_run(command, "");
        let refused = if output.success { "" } else { "(refused)\n" };
        format!("$ kubectl {command}\n{}{}{refused}\n", golden(&output.stdout), golden(&output.stderr))
    };
    commands.iter().map(said).collect()
}
