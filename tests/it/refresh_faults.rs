//! Ingests and removals that are cut short anywhere: whatever comes next ends in the state of an undisturbed one.

use std::collections::BTreeMap;
use std::sync::Arc;

use packageserver::pipeline::submit::BatchLimits;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::catalog::{CatalogBuilder, Edit};
use crate::support::hooked_store::{AppendFault, HookedStore};
use crate::support::ingest::{Ingest, catalog};

/// Catalogs whose packages do not all fit in a batch.
struct Catalogs {
    directory: TempDir,
}

const BATCH: BatchLimits = BatchLimits { operations: 6, bytes: 1_400_000 };

impl Catalogs {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let old = CatalogBuilder::default().wordy();
        let old = old.package("large", 12).package("small", 2).package("stays", 2);
        let new = old.clone().without("small").package("fresh", 9).edit("large", Edit::Images);
        for (name, catalog) in [("old", old), ("new", new)] {
            catalog.image().write_layout(&directory.path().join(name));
        }
        Catalogs { directory }
    }

    fn source(&self, name: &str) -> String {
        format!("oci:{}", self.directory.path().join(name).display())
    }

    async fn expected(&self, name: &str) -> BTreeMap<String, Value> {
        let ingest = Ingest::new();
        ingest.run(&self.source(name)).await.unwrap();
        ingest.content().await
    }
}

fn faulty() -> (Arc<HookedStore>, Ingest) {
    let store = HookedStore::in_memory();
    let ingest = Ingest { batches: BATCH, ..Ingest::on(Arc::<HookedStore>::clone(&store)) };
    (store, ingest)
}

#[tokio::test]
async fn an_ingest_that_is_cut_short_leaves_the_next_one_nothing_to_be_wrong_about() {
    let catalogs = Catalogs::new();
    let expected = [("old", catalogs.expected("old").await), ("new", catalogs.expected("new").await)];
    for fault in AppendFault::ALL {
        // The next one finds the same image, or the tag was moved back in between.
        for (next, expected) in &expected {
            for append in 0.. {
                let (store, ingest) = faulty();
                ingest.run(&catalogs.source("old")).await.unwrap();
                store.fail(append, fault);
                let outcome = ingest.refresh(&catalogs.source("new")).await;
                let appends = store.heal();
                if append >= appends {
                    assert!(append > 5, "the catalog takes several batches");
                    break;
                }
                let place = format!("{fault:?} at append {append}, then {next}");
                let must_fail = matches!(fault, AppendFault::Refused | AppendFault::Death);
                assert!(outcome.is_err() || !must_fail, "{place}");
                ingest.refresh(&catalogs.source(next)).await.unwrap();
                assert!(ingest.content().await == *expected, "{place}");
                assert!(!ingest.dictionaries().await.is_empty(), "{place}");
                // And what is remembered is true as well.
                ingest.refresh(&catalogs.source("old")).await.unwrap();
                assert!(ingest.content().await == catalogs.expected("old").await, "{place}, then old");
            }
        }
    }
}

#[tokio::test]
async fn a_first_ingest_that_is_cut_short_can_be_removed_or_completed() {
    let catalogs = Catalogs::new();
    let expected = catalogs.expected("new").await;
    for fault in AppendFault::ALL {
        for append in 0.. {
            let (store, ingest) = faulty();
            store.fail(append, fault);
            let _ = ingest.refresh(&catalogs.source("old")).await;
            let appends = store.heal();
            if append >= appends {
                break;
            }
            let place = format!("{fault:?} at append {append}");
            if append % 2 == 0 {
                ingest.refresh(&catalogs.source("new")).await.unwrap();
                assert!(ingest.content().await == expected, "{place}");
            }
            ingest.remove().await.unwrap();
            assert_eq!(ingest.stored().await.len(), 0, "{place}");
        }
    }
}

#[tokio::test]
async fn a_removal_that_is_cut_short_is_completed_by_the_next() {
    let catalogs = Catalogs::new();
    let expected = catalogs.expected("old").await;
    for fault in AppendFault::ALL {
        for append in 0.. {
            let (store, mut ingest) = faulty();
            ingest.run(&catalogs.source("old")).await.unwrap();
            store.fail(append, fault);
            let _ = ingest.remove().await;
            let appends = store.heal();
            if append >= appends {
                assert!(append > 3, "the removal takes several batches");
                break;
            }
            let place = format!("{fault:?} at append {append}");
            if append % 2 == 0 {
                ingest.remove().await.unwrap();
                assert_eq!(ingest.stored().await.len(), 0, "{place}");
            }
            // Somebody made a CatalogSource of the same name: it finds nothing that is not its own.
            ingest.catalog = catalog("catalog", 2);
            ingest.refresh(&catalogs.source("old")).await.unwrap();
            let content = ingest.content().await;
            assert_eq!(content.len(), expected.len(), "{place}");
            let owner = |object: &Value| object["metadata"]["ownerReferences"][0]["uid"].clone();
            let is_own = |object: &Value| !object.is_object() || owner(object) == ingest.catalog.uid;
            assert!(content.values().all(is_own), "{place}");
        }
    }
}

#[tokio::test]
async fn readers_of_the_catalog_cache_are_told_also_after_an_ingest_that_was_cut_short() {
    let catalogs = Catalogs::new();
    for append in 0.. {
        let (store, ingest) = faulty();
        ingest.run(&catalogs.source("old")).await.unwrap();
        let (before, _) = ingest.now().await;
        store.fail(append, AppendFault::DeathAfter);
        let cut = ingest.refresh(&catalogs.source("new")).await;
        let appends = store.heal();
        if append >= appends {
            break;
        }
        ingest.refresh(&catalogs.source("new")).await.unwrap();
        let touched = "MODIFIED catalogcaches/catalog".to_owned();
        let events = ingest.events(before).await;
        assert!(events.contains(&touched), "{append}: {events:?} after {cut:?}");
        // But not told again.
        let (before, _) = ingest.now().await;
        ingest.refresh(&catalogs.source("new")).await.unwrap();
        assert_eq!(ingest.events(before).await, [""; 0], "{append}");
    }
}
