//! The manifests in `config/` are what the program needs and what the types say.

use std::path::{Path, PathBuf};

use packageserver::api::crd::custom_resource_definitions;
use packageserver::model::RESOURCES;
use serde_json::Value;

/// Set to write the generated files instead of comparing with them.
const UPDATE: &str = "UPDATE_MANIFESTS";

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn the_definitions_for_tools_are_those_of_the_types() {
    let directory = config().join("crd/bases");
    for definition in custom_resource_definitions(RESOURCES) {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let (plural, group) = name.split_once('.').unwrap();
        let path = directory.join(format!("{group}_{plural}.yaml"));
        let yaml = serde_saphyr::to_string(&definition).unwrap();
        let text = format!(
            "# Generated from the Rust types; {UPDATE}=1 cargo test manifests writes it anew.\n{yaml}"
        );
        if std::env::var_os(UPDATE).is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(&path, text).unwrap();
            continue;
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "`{}` is not what the types say; {UPDATE}=1 writes it anew", path.display());
    }
}

/// Reads every object of a directory of manifests.
fn objects(directory: &Path) -> Vec<Value> {
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        serde_saphyr::from_multiple::<Value>(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.iter().flat_map(read).collect()
}

/// Returns the pod template of an object that has one.
fn template(object: &Value) -> Option<&Value> {
    ["/spec/template", "/spec/jobTemplate/spec/template"].iter().find_map(|path| object.pointer(path))
}

#[test]
fn every_container_is_restricted_and_the_program_knows_its_arguments() {
    use clap::Parser;
    for directory in [config(), config().join("small")] {
        for object in objects(&directory) {
            let Some(template) = template(&object) else { continue };
            let name = &object["metadata"]["name"];
            assert_eq!(template["spec"]["securityContext"]["runAsNonRoot"], true, "{name}");
            assert_eq!(
                template["spec"]["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
                "{name}"
            );
            for container in template["spec"]["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(context["capabilities"]["drop"][0], "ALL", "{name}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
                let Some(arguments) = container["args"].as_array() else { continue };
                let arguments = arguments.iter().map(|argument| argument.as_str().unwrap());
                let parsed = packageserver::args::Cli::try_parse_from(
                    std::iter::once("packageserver").chain(arguments),
                );
                assert!(parsed.is_ok(), "{name}: {}", parsed.unwrap_err());
            }
        }
    }
}

#[test]
fn whatever_runs_for_long_is_probed_where_it_listens() {
    use clap::Parser;
    use packageserver::args::{Cli, Command};
    let mut probed = Vec::new();
    for directory in [config(), config().join("small")] {
        for object in objects(&directory) {
            if !["Deployment", "StatefulSet"].contains(&object["kind"].as_str().unwrap()) {
                continue;
            }
            let name = object["metadata"]["name"].as_str().unwrap();
            for container in template(&object).unwrap()["spec"]["containers"].as_array().unwrap() {
                let ports = container["ports"].as_array().unwrap();
                let port = |name: &Value| {
                    let port = ports.iter().find(|port| port["name"] == *name);
                    port.and_then(|port| port["containerPort"].as_u64())
                        .unwrap_or_else(|| panic!("no port {name}"))
                };
                let probe = |kind: &str| &container[kind]["httpGet"];
                let [ready, alive] = ["readinessProbe", "livenessProbe"].map(probe);
                assert_eq!((&ready["path"], &alive["path"]), (&"/readyz".into(), &"/livez".into()), "{name}");
                assert_eq!(port(&ready["port"]), port(&alive["port"]), "{name}");
                let arguments = container["args"].as_array().into_iter().flatten();
                let arguments = arguments.map(|argument| argument.as_str().unwrap());
                let Ok(cli) = Cli::try_parse_from(std::iter::once("packageserver").chain(arguments)) else {
                    continue;
                };
                let listens = match cli.command {
                    Command::Apiserver(args) => args.secure_port,
                    Command::Controller(args) => args.metrics_bind_address.0.unwrap().port(),
                    Command::Up(args) => args.listen.port(),
                    other => panic!("{name}: {other:?} does not run for long"),
                };
                assert_eq!(port(&ready["port"]), u64::from(listens), "{name}");
                probed.push(name.to_owned());
            }
        }
    }
    assert_eq!(probed, ["packageserver-apiserver", "packageserver-controller-manager", "packageserver"]);
}

#[test]
fn no_manifest_holds_a_key_or_a_certificate() {
    for directory in [config(), config().join("small"), config().join("samples")] {
        for object in objects(&directory) {
            let text = object.to_string();
            assert!(!text.contains("-----BEGIN"), "{}", object["metadata"]["name"]);
            assert_ne!(object["kind"], "Secret");
        }
    }
}
