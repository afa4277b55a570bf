//! Heads, default channels and versions are those that the reference implementation finds in the same catalogs.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::catalog;
use crate::support::ingest::Ingest;

#[tokio::test]
async fn heads_defaults_and_versions_are_those_of_opm() {
    for name in ["community-v4.19", "community-v4.20", "certified-v4.20", "certified-v4.12"] {
        let Some(directory) = catalog::real(name) else { continue };
        let table = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/opm/{name}.tsv"));
        let expected = std::fs::read_to_string(table).expect("the table is there");
        let expected: BTreeSet<_> =
            expected.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();

        let ingest = Ingest::new();
        ingest.run(&format!("fbc:{}", directory.display())).await.expect("a real catalog is valid");
        let stored = ingest.stored().await;
        let packages = stored.iter().filter(|stored| stored.key.resource() == "packages");
        let found: BTreeSet<_> = packages
            .flat_map(|stored| {
                let json = stored.object.json().expect("it was just stored");
                channels(&serde_json::from_slice(&json).expect("objects are JSON"))
            })
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[tokio::test]
async fn validate_says_of_valid_catalogs_what_opm_says() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/opm/validate.tsv");
    let table = std::fs::read_to_string(table).expect("the table is there");
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let (name, code) = line.split_once('\t').expect("a line has two columns");
        let Some(directory) = catalog::real(name) else { continue };
        let source = format!("fbc:{}", directory.display());
        let output = Command::new(env!("CARGO_BIN_EXE_packageserver")).args(["validate", &source]).output();
        let output = output.expect("the program can be started");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code().map(|code| code.to_string()).as_deref(),
            Some(code),
            "{name}: {printed}"
        );
        assert!(printed.ends_with("are valid, 0 packages are not\n"), "{name}: {printed}");
    }
}

/// Returns the lines of a package, as the tables have them.
fn channels(package: &Value) -> Vec<String> {
    let spec = &package["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let channels = spec["channels"].as_array().expect("a package has channels");
    let line = |channel: &Value| {
        let is_head = |entry: &&Value| entry["name"] == channel["head"];
        let head = channel["entries"].as_array().and_then(|entries| entries.iter().find(is_head));
        let default = if spec["defaultChannel"] == channel["name"] { "default" } else { "-" };
        let columns = [
            text(&spec["packageName"]),
            text(&channel["name"]),
            default.to_owned(),
            text(&channel["head"]),
            head.map(|head| text(&head["version"])).unwrap_or_default(),
        ];
        columns.join("\t")
    };
    channels.iter().map(line).collect()
}
