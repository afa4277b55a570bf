//! What a refresh writes: what has changed, and no more.

use std::collections::BTreeSet;

use packageserver::pipeline::progress::Progress;
use packageserver::store::Tail;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::support::catalog::{self, CatalogBuilder, Edit};
use crate::support::image::Image;
use crate::support::ingest::Ingest;

fn source(directory: &TempDir, name: &str, image: &Image) -> String {
    let path = directory.path().join(name);
    image.write_layout(&path);
    format!("oci:{}", path.display())
}

#[tokio::test]
async fn one_changed_package_of_many_costs_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut builder = CatalogBuilder::default();
    for number in 0..200 {
        builder = builder.package(&format!("operator-{number:03}"), 5);
    }
    let ingest = Ingest::new();
    ingest.run(&source(&directory, "old", &builder.image())).await.unwrap();

    let edited = builder.edit("operator-077", Edit::LastImage);
    let new = source(&directory, "new", &edited.image());
    let (before, revision) = ingest.now().await;
    let progress = Progress::default();
    let report = ingest.refresh_with(&new, &progress).await.unwrap().unwrap();
    assert_eq!(ingest.events(before).await.len(), 2, "the bundle, and the cache that lists it");
    assert_eq!((report.tally.modified, report.tally.unchanged), (1, 1199));
    // One transaction for the package, one for the end.
    assert_eq!(ingest.now().await.1.get() - revision.get(), 2);
    // Seven metas of one file; the other files were not even cut into metas.
    assert_eq!(progress.metas(), 7);

    let (_, revision) = ingest.now().await;
    assert!(ingest.refresh(&new).await.unwrap().is_none());
    assert_eq!(ingest.now().await.1, revision);
}

#[tokio::test]
async fn dictionaries_come_before_what_is_packed_with_them_and_go_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let both = CatalogBuilder::default().wordy().package("one", 5).package("two", 3);
    let ingest = Ingest::new();
    let (start, _) = ingest.now().await;
    ingest.run(&source(&directory, "both", &both.image())).await.unwrap();
    let dictionaries = ingest.dictionaries().await;
    assert_eq!(dictionaries.len(), 2, "one for each package");
    // Each bundle refers to one that is there already.
    let (mut there, mut referring) = (BTreeSet::new(), 0);
    for change in ingest.changes(start).await {
        let Some(object) = &change.after else { continue };
        there.insert(change.key.clone());
        if let Tail::Referring { dictionary, .. } = object.tail() {
            assert!(there.contains(&dictionary.key("test")), "{}", change.key);
            referring += 1;
        }
    }
    assert_eq!(referring, 8);

    // What changes later is packed by itself, and the rest stays as it is.
    let changed = both.clone().edit("one", Edit::Images).package("two", 4);
    ingest.run(&source(&directory, "changed", &changed.image())).await.unwrap();
    assert_eq!(ingest.dictionaries().await, dictionaries);
    let fresh = Ingest::new();
    fresh.run(&source(&directory, "changed", &changed.image())).await.unwrap();
    assert!(ingest.content().await == fresh.content().await);

    // One that goes takes its own with it, last, and nobody else's.
    let (before, _) = ingest.now().await;
    ingest.run(&source(&directory, "less", &changed.clone().without("one").image())).await.unwrap();
    let left = ingest.dictionaries().await;
    assert!(left.len() == 1 && left.is_subset(&dictionaries));
    let changes = ingest.changes(before).await;
    let is_gone = |resource: &str| {
        changes.iter().rposition(|change| change.after.is_none() && change.key.resource() == resource)
    };
    assert!(is_gone("dictionaries").unwrap() > is_gone("bundlemetadata").unwrap());
    // And when it comes back, it has one again.
    ingest.run(&source(&directory, "again", &both.image())).await.unwrap();
    assert_eq!(ingest.dictionaries().await.len(), 2);
    ingest.remove().await.unwrap();
    assert_eq!(ingest.stored().await.len(), 0);
}

#[tokio::test]
async fn each_kind_of_change_gives_the_events_it_should() {
    for (edit, expected) in [
        // The head of the default channel speaks for the package; that it has another image it does not mention.
        (Edit::LastImage, &["MODIFIED bundlemetadata/one.v1.0.2"][..]),
        (Edit::Icon, &["MODIFIED packages/one"]),
        (Edit::Deprecation, &["MODIFIED bundlemetadata/one.v1.0.0"]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let builder = CatalogBuilder::default().package("one", 3).package("two", 3);
        let ingest = Ingest::new();
        ingest.run(&source(&directory, "old", &builder.image())).await.unwrap();
        let (before, _) = ingest.now().await;
        let edited = builder.edit("one", edit);
        let report = ingest.run(&source(&directory, "new", &edited.image())).await.unwrap();
        let mut events = ingest.events(before).await;
        // The cache lists bundles, and follows no other change.
        let cache = events.pop_if(|event| event.contains("catalogcaches"));
        assert_eq!(cache.is_some(), edit != Edit::Icon, "{edit:?}");
        assert_eq!(events, expected, "{edit:?}");
        assert_eq!(report.tally.modified, 1, "{edit:?}");
    }
}

/// Writes a value with the fields of every object in the opposite order.
fn reversed(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            out.push('{');
            for (index, (name, value)) in fields.iter().rev().enumerate() {
                out.push_str(if index > 0 { " ,\n" } else { "" });
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push_str(" : ");
                reversed(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                reversed(item, out);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

type Writing = (&'static str, fn(&[Value]) -> String);

/// Ways to write the same.
const WRITINGS: [Writing; 4] = [
    ("json", |metas| metas.iter().map(|meta| format!("{meta:#}\n")).collect()),
    ("json", |metas| metas.iter().map(Value::to_string).collect()),
    ("json", |metas| {
        let mut text = String::new();
        metas.iter().for_each(|meta| reversed(meta, &mut text));
        text
    }),
    ("yaml", |metas| {
        metas.iter().map(|meta| format!("---\n{}", serde_saphyr::to_string(meta).unwrap())).collect()
    }),
];

/// Returns packages in one of the writings, one file each.
fn written(packages: &[(String, Vec<Value>)], (extension, write): Writing) -> Vec<(String, Vec<u8>)> {
    let file = |(name, metas): &(String, Vec<Value>)| {
        (format!("{name}/catalog.{extension}"), write(metas).into_bytes())
    };
    packages.iter().map(file).collect()
}

#[tokio::test]
async fn the_same_written_differently_is_no_event() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["one", "two"];
    let mut packages: Vec<_> =
        names.map(|name| (name.to_owned(), catalog::package_metas(name, 3))).into_iter().collect();
    // Numbers, nested objects, text of many lines, and what YAML could take for something else.
    packages[0].1[2]["properties"][2]["value"] = serde_json::json!({
        "displayName": "on", "description": "# One\n\n- a: b\n  \"c\"\t\u{1f600}\n", "maturity": "1.10",
        "annotations": {"z": "1", "a": "2026-01-02", "n": "null"},
        "nested": [{"b": 1, "a": [true, null, 1.5, -7]}, {}],
    });
    if let Some(real) = catalog::real("community-v4.20") {
        packages.extend(catalog::metas(&real));
    }
    let image = |writing| catalog::image(&written(&packages, writing));
    let ingest = Ingest::new();
    ingest.run(&source(&directory, "first", &image(WRITINGS[0]))).await.unwrap();
    let content = ingest.content().await;
    for (number, writing) in WRITINGS.into_iter().enumerate().skip(1).chain([(0, WRITINGS[0])]) {
        let (before, _) = ingest.now().await;
        let source = source(&directory, &number.to_string(), &image(writing));
        let report = ingest.run(&source).await.unwrap();
        assert_eq!(ingest.events(before).await, [""; 0], "writing {number}");
        assert_eq!((report.tally.added, report.tally.modified, report.tally.deleted), (0, 0, 0));
        assert_eq!(
            report.tally.unchanged as usize,
            content.keys().filter(|key| !key.starts_with("icons/")).count()
        );
        assert!(ingest.content().await == content, "writing {number}");
    }
}

#[tokio::test]
async fn another_name_of_the_catalog_changes_packages_and_no_bundle() {
    let directory = tempfile::tempdir().unwrap();
    let builder = CatalogBuilder::default().package("one", 3).package("two", 2);
    let source = source(&directory, "catalog", &builder.image());
    let mut ingest = Ingest::new();
    ingest.run(&source).await.unwrap();
    let (before, _) = ingest.now().await;
    ingest.catalog.presentation.display_name = "Another name".to_owned();
    let progress = Progress::default();
    let report = ingest.refresh_with(&source, &progress).await.unwrap().unwrap();
    assert_eq!((report.tally.modified, report.tally.unchanged), (2, 5));
    let events: BTreeSet<_> = ingest.events(before).await.into_iter().collect();
    let expected = ["MODIFIED packages/one", "MODIFIED packages/two"];
    assert_eq!(events, expected.map(str::to_owned).into());
    for (key, object) in ingest.content().await {
        let shown = object.as_object().map_or(Value::Null, |object: &Map<String, Value>| {
            object["spec"]["catalogSourceDisplayName"].clone()
        });
        assert!(!key.starts_with("packages/") || shown == "Another name", "{key}: {shown}");
    }
}
