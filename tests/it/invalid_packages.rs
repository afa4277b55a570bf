//! A bad package stays one bad package: it is named with file, offset and reason, keeps its last good version, and the
//! others go on.

use std::process::Command;

use packageserver::pipeline::Report;
use packageserver::pipeline::reconcile::Problem;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::catalog::{CatalogBuilder, image, package, package_metas, write_json};
use crate::support::ingest::Ingest;

/// A change that makes a package bad, and what is said of it: where, as the position of a meta, and what.
struct Case {
    name: &'static str,
    spoil: fn(&mut Vec<Value>),
    expected: &'static [(Option<usize>, &'static str)],
}

const PACKAGE: usize = 0;
const CHANNEL: usize = 1;
/// The bundles are `two.v1.0.0` to `two.v1.0.2`, each replacing the one before.
const FIRST: usize = 2;
const SECOND: usize = 3;
const LAST: usize = 4;

const CASES: &[Case] = &[
    Case {
        name: "no default channel",
        spoil: |metas| {
            metas[PACKAGE].as_object_mut().unwrap().remove("defaultChannel");
        },
        expected: &[(Some(PACKAGE), "the package has no default channel")],
    },
    Case {
        name: "a default channel that is none",
        spoil: |metas| metas[PACKAGE]["defaultChannel"] = "nightly".into(),
        expected: &[(Some(PACKAGE), "the default channel `nightly` is not a channel of the package")],
    },
    Case {
        name: "no package",
        spoil: |metas| drop(metas.remove(PACKAGE)),
        expected: &[(None, "there is no `olm.package` for package `two`")],
    },
    Case {
        name: "two packages",
        spoil: |metas| metas.push(metas[PACKAGE].clone()),
        expected: &[(Some(LAST + 1), "package `two` is declared again")],
    },
    Case {
        name: "no channel",
        spoil: |metas| drop(metas.remove(CHANNEL)),
        expected: &[
            (Some(PACKAGE), "the package has no channels"),
            (Some(FIRST - 1), "bundle `two.v1.0.0`: is in no channel"),
            (Some(SECOND - 1), "bundle `two.v1.0.1`: is in no channel"),
            (Some(LAST - 1), "bundle `two.v1.0.2`: is in no channel"),
        ],
    },
    Case {
        name: "the same channel twice",
        spoil: |metas| metas.push(metas[CHANNEL].clone()),
        expected: &[(Some(LAST + 1), "channel `stable` is declared again")],
    },
    Case {
        name: "a channel without entries",
        spoil: |metas| {
            metas.push(json!({"schema": "olm.channel", "package": "two", "name": "empty", "entries": []}));
        },
        expected: &[(Some(LAST + 1), "channel `empty` has no entries")],
    },
    Case {
        name: "a channel without a name",
        spoil: |metas| metas[CHANNEL]["name"] = "".into(),
        expected: &[
            (Some(CHANNEL), "channel `` has no name"),
            (Some(PACKAGE), "the default channel `stable` is not a channel of the package"),
        ],
    },
    Case {
        name: "several heads",
        spoil: |metas| drop(metas[CHANNEL]["entries"][2].as_object_mut().unwrap().remove("replaces")),
        expected: &[(Some(CHANNEL), "channel `stable` has several heads: `two.v1.0.1`, `two.v1.0.2`")],
    },
    Case {
        name: "no head",
        spoil: |metas| metas[CHANNEL]["entries"][0]["replaces"] = "two.v1.0.2".into(),
        expected: &[(
            Some(CHANNEL),
            "channel `stable` has no head: every entry is replaced or skipped by another",
        )],
    },
    Case {
        name: "a cycle below the head",
        spoil: |metas| metas[CHANNEL]["entries"][0]["replaces"] = "two.v1.0.1".into(),
        expected: &[(
            Some(CHANNEL),
            "channel `stable` replaces go round in a circle: two.v1.0.1 -> two.v1.0.0 -> two.v1.0.1",
        )],
    },
    Case {
        name: "an entry that is no bundle",
        spoil: |metas| {
            let entries = metas[CHANNEL]["entries"].as_array_mut().unwrap();
            entries.push(json!({"name": "two.v9", "replaces": "two.v1.0.2"}));
        },
        expected: &[(Some(CHANNEL), "channel `stable` has entry `two.v9`, and there is no such bundle")],
    },
    Case {
        name: "an entry twice",
        spoil: |metas| {
            let entries = metas[CHANNEL]["entries"].as_array_mut().unwrap();
            entries.push(entries[2].clone());
        },
        expected: &[(Some(CHANNEL), "channel `stable` has entry `two.v1.0.2` twice")],
    },
    Case {
        name: "a bundle in no channel",
        spoil: |metas| drop(metas[CHANNEL]["entries"].as_array_mut().unwrap().pop()),
        expected: &[(Some(LAST), "bundle `two.v1.0.2`: is in no channel")],
    },
    Case {
        name: "a bundle twice",
        spoil: |metas| metas.push(metas[LAST].clone()),
        expected: &[(Some(LAST + 1), "bundle `two.v1.0.2`: is declared again")],
    },
    Case {
        name: "a version twice",
        spoil: |metas| metas[LAST]["properties"][0]["value"]["version"] = "1.0.1".into(),
        expected: &[(Some(LAST), "bundle `two.v1.0.2`: has version 1.0.1, as has `two.v1.0.1`")],
    },
    Case {
        name: "a version that is none",
        spoil: |metas| metas[LAST]["properties"][0]["value"]["version"] = "1.0".into(),
        expected: &[(
            Some(LAST),
            "bundle `two.v1.0.2`: version `1.0`: unexpected end of input while parsing minor version number",
        )],
    },
    Case {
        name: "a bundle that does not say its version",
        spoil: |metas| drop(metas[LAST]["properties"].as_array_mut().unwrap().remove(0)),
        expected: &[(
            Some(LAST),
            "bundle `two.v1.0.2`: must have exactly one `olm.package` property, found 0",
        )],
    },
    Case {
        name: "a bundle of another package",
        spoil: |metas| metas[LAST]["properties"][0]["value"]["packageName"] = "one".into(),
        expected: &[(Some(LAST), "bundle `two.v1.0.2`: its `olm.package` property names package `one`")],
    },
    Case {
        name: "a bundle without an image",
        spoil: |metas| drop(metas[LAST].as_object_mut().unwrap().remove("image")),
        expected: &[(Some(LAST), "bundle `two.v1.0.2`: has no image")],
    },
    Case {
        name: "a bundle whose name Kubernetes cannot have",
        spoil: |metas| {
            metas[LAST]["name"] = "two_v2".into();
            metas[CHANNEL]["entries"][2]["name"] = "two_v2".into();
        },
        expected: &[(Some(LAST), "the name of bundle `two_v2` is not a DNS subdomain (RFC 1123)")],
    },
    Case {
        name: "a deprecation of what is not there",
        spoil: |metas| {
            let reference = json!({"schema": "olm.bundle", "name": "two.v9"});
            metas.push(json!({
                "schema": "olm.deprecations", "package": "two",
                "entries": [{"reference": reference, "message": "old"}],
            }));
        },
        expected: &[(Some(LAST + 1), "a deprecation of `olm.bundle` `two.v9`, which is not there")],
    },
    Case {
        name: "deprecations twice",
        spoil: |metas| {
            let deprecations = json!({
                "schema": "olm.deprecations", "package": "two",
                "entries": [{"reference": {"schema": "olm.package"}, "message": "old"}],
            });
            metas.extend([deprecations.clone(), deprecations]);
        },
        expected: &[
            (Some(LAST + 2), "deprecations of the package are declared again"),
            (Some(LAST + 2), "a deprecation of `olm.package` `` again"),
        ],
    },
    Case {
        name: "a meta without a schema",
        spoil: |metas| drop(metas[LAST].as_object_mut().unwrap().remove("schema")),
        expected: &[(Some(LAST), "a meta without a schema")],
    },
    Case {
        name: "a channel of no package",
        spoil: |metas| drop(metas[CHANNEL].as_object_mut().unwrap().remove("package")),
        expected: &[(Some(CHANNEL), "an `olm.channel` without a package")],
    },
    Case {
        name: "an icon that is none",
        spoil: |metas| metas[PACKAGE]["icon"]["base64data"] = "%%%".into(),
        expected: &[(Some(PACKAGE), "icon of package `two`: Invalid symbol 37, offset 0.")],
    },
    Case {
        name: "a bundle larger than the store can take",
        spoil: |metas| {
            // Text that does not shrink.
            let hash = |number: u32| blake3::hash(&number.to_le_bytes()).to_hex().to_string();
            let text: String = (0..60_000).map(hash).collect();
            metas[LAST]["properties"].as_array_mut().unwrap().push(json!({"type": "x", "value": text}));
        },
        expected: &[(Some(LAST), "`bundlemetadata/test/two.v1.0.2` takes ")],
    },
];

/// A store with two good packages, and how it goes when the second one turns bad.
struct Fixture {
    ingest: Ingest,
    directory: TempDir,
    images: usize,
}

impl Fixture {
    async fn new() -> Self {
        let mut fixture =
            Fixture { ingest: Ingest::new(), directory: tempfile::tempdir().unwrap(), images: 0 };
        let files = CatalogBuilder::default().package("one", 2).package("two", 3).files();
        let report = fixture.ingest(&files).await;
        assert_eq!((report.packages, report.bundles), (2, 5));
        fixture
    }

    async fn ingest(&mut self, files: &[(String, Vec<u8>)]) -> Report {
        self.images += 1;
        let layout = self.directory.path().join(self.images.to_string());
        image(files).write_layout(&layout);
        self.ingest.run_layout(&layout).await.unwrap()
    }
}

/// Returns where metas begin in the text of a file, and the file.
fn text_of(metas: &[Value]) -> (Vec<u64>, Vec<u8>) {
    let begin = |count: usize| write_json(&metas[..count]).len() as u64;
    ((0..metas.len()).map(begin).collect(), write_json(metas))
}

#[tokio::test]
async fn every_fault_is_reported_with_its_place_and_touches_nobody_else() {
    for Case { name, spoil, expected } in CASES {
        let mut fixture = Fixture::new().await;
        let before = fixture.ingest.content().await;
        let (version, _) = fixture.ingest.now().await;
        let mut metas = package_metas("two", 3);
        spoil(&mut metas);
        let (places, text) = text_of(&metas);
        let files =
            [("one/catalog.json".to_owned(), package("one", 3)), ("two/catalog.json".to_owned(), text)];
        let report = fixture.ingest(&files).await;

        let problems = report.invalid.get("two").unwrap_or_else(|| panic!("{name}: {report:?}"));
        assert_eq!(report.invalid.len(), 1, "{name}: {report:?}");
        let is_as_expected = |(problem, (place, message)): (&Problem, &(Option<usize>, &str))| {
            problem.message.starts_with(message)
                && problem.offset == place.map(|place| places[place])
                && problem.file.as_deref() == place.map(|_| "two/catalog.json")
        };
        assert!(
            problems.len() == expected.len() && problems.iter().zip(*expected).all(is_as_expected),
            "{name}: {problems:#?}"
        );
        // The other package went on, and the bad one is what it was.
        let events = fixture.ingest.events(version).await;
        let expected =
            ["ADDED bundlemetadata/one.v1.0.2", "MODIFIED packages/one", "MODIFIED catalogcaches/catalog"];
        assert_eq!(events, expected, "{name}");
        assert_eq!((report.packages, report.bundles, report.tally.added), (2, 6, 1), "{name}");
        let mut content = fixture.ingest.content().await;
        content.retain(|key, _| before.contains_key(key) && key != "packages/test/one");
        assert!(before.iter().all(|(key, object)| key == "packages/test/one" || content[key] == *object));

        // Once more with something else that is new: it is reported again.
        let files = [("one/catalog.json".to_owned(), package("one", 2)), files[1].clone()];
        let again = fixture.ingest(&files).await;
        assert_eq!(again.invalid.get("two"), Some(problems), "{name}");
        assert_eq!((again.packages, again.bundles), (2, 5), "{name}");
        // And when it is good again all is well.
        let files = CatalogBuilder::default().package("one", 2).package("two", 4).files();
        let report = fixture.ingest(&files).await;
        assert_eq!((report.packages, report.bundles, report.invalid.len()), (2, 6, 0), "{name}");
    }
}

#[tokio::test]
async fn validate_prints_what_an_ingest_reports() {
    for Case { name, spoil, expected } in CASES {
        let directory = tempfile::tempdir().unwrap();
        let mut metas = package_metas("two", 3);
        spoil(&mut metas);
        let (places, text) = text_of(&metas);
        CatalogBuilder::default().package("one", 2).write(directory.path());
        std::fs::create_dir(directory.path().join("two")).unwrap();
        std::fs::write(directory.path().join("two/catalog.json"), text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_packageserver"))
            .args(["validate", &format!("fbc:{}", directory.path().display())])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {printed}");
        let mut lines = printed.lines();
        for (place, message) in *expected {
            let place = place
                .map_or(String::new(), |place| format!("`two/catalog.json` at byte {}: ", places[place]));
            let message = message.replace("/test/", "/default/");
            let line = lines.next().unwrap_or_default();
            assert!(line.starts_with(&format!("two: {place}{message}")), "{name}: {printed}");
        }
        assert_eq!(lines.next(), Some("1 packages and 2 bundles are valid, 1 packages are not"), "{name}");
    }
    let directory = tempfile::tempdir().unwrap();
    CatalogBuilder::default().package("one", 2).write(directory.path());
    let source = format!("fbc:{}", directory.path().display());
    let output = Command::new(env!("CARGO_BIN_EXE_packageserver")).args(["validate", &source]).output();
    let output = output.unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "1 packages and 2 bundles are valid, 0 packages are not\n"
    );
    assert!(output.status.success());
}

#[tokio::test]
async fn in_a_file_with_many_packages_a_bad_meta_is_its_packages_own() {
    let mut fixture = Fixture::new().await;
    let mut metas = [package_metas("one", 2), package_metas("two", 3), package_metas("three", 1)].concat();
    let whole = write_json(&metas);
    let report = fixture.ingest(&[("index.json".to_owned(), whole)]).await;
    assert_eq!((report.packages, report.bundles), (3, 6));
    // A wrong type: the meta is none, but whose it is can be told.
    metas[5 + 3]["relatedImages"] = json!("none");
    let (places, text) = text_of(&metas);
    let report = fixture.ingest(&[("index.json".to_owned(), text)]).await;
    let problem = &report.invalid["two"][0];
    assert_eq!(report.invalid.len(), 1, "{report:?}");
    assert!(problem.offset.is_some_and(|offset| offset > places[8] && offset < places[9]), "{problem:?}");
    assert_eq!((report.packages, report.bundles), (3, 6));
    // In broken JSON nothing can be told: all packages of the file stay.
    let text =
        String::from_utf8(write_json(&metas[..8])).unwrap() + "{\"schema\": \"olm.bundle\", \"package\"";
    let other = ("four/catalog.json".to_owned(), package("four", 1));
    let report = fixture.ingest(&[("index.json".to_owned(), text.into_bytes()), other]).await;
    assert_eq!(report.invalid.keys().collect::<Vec<_>>(), ["one", "three", "two"]);
    assert_eq!((report.packages, report.bundles, report.tally.deleted), (4, 7, 0));
}

#[tokio::test]
async fn names_that_kubernetes_cannot_have_are_refused() {
    let ingest = Ingest::new();
    let directory = tempfile::tempdir().unwrap();
    for (number, name) in ["Upper", "under_score", "dotted.name", &"x".repeat(64)].iter().enumerate() {
        let layout = directory.path().join(number.to_string());
        let catalog = CatalogBuilder::default().package("good", 1).package(name, 1);
        catalog.image().write_layout(&layout);
        let report = ingest.run_layout(&layout).await.unwrap();
        let said = report.invalid[*name][0].to_string();
        let expected =
            format!("`{name}/catalog.json` at byte 0: the name of the package is not a DNS label (RFC 1123)");
        assert_eq!((said, report.packages), (expected, 1));
    }
}
