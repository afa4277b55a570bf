//! What [`Store`] promises, checked for every implementation by the same tests.
//!
//! An implementation joins by one line of `store_contract!`: its name, and what makes a fresh store.

mod appends;
mod compaction;
mod concurrency;
mod dictionaries;
mod histories;
mod linearizable;
mod lists;
mod locks;
mod model;
mod under_faults;
mod watches;

use std::any::Any;
use std::sync::Arc;

use packageserver::sink::{CachedResource, CachedStore, EmbeddedStore};
use packageserver::store::{DICTIONARIES, Locks, Store};

use crate::support::etcd::{Etcd, Version};

/// A fresh store, and what has to live as long as it does.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    pub locks: Arc<dyn Locks>,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Fixture {
    fn new<S: Store + Locks>(store: S, keep: impl Any + Send + Sync) -> Self {
        let store = Arc::new(store);
        Fixture { locks: Arc::clone(&store) as _, store, _keep: Box::new(keep) }
    }

    /// The same store with a cache before it, which has room for so many bytes of tails of some resources.
    fn cached(self, tail_bytes: usize) -> Self {
        Fixture { store: Arc::new(CachedStore::new(self.store, &cached(tail_bytes))), ..self }
    }
}

/// Runs every test of the suite on one implementation.
macro_rules! store_contract {
    ($implementation:ident, $make:path) => {
        mod $implementation {
            store_contract!($make,
                appends: [
                    each_batch_has_a_later_revision_than_the_one_before
                    events_of_a_batch_are_numbered_in_its_order
                    a_refused_batch_changes_nothing
                    an_expectation_that_does_not_hold_is_a_conflict_that_names_the_key
                    a_version_of_another_event_of_the_same_batch_does_not_match
                    a_batch_sent_twice_is_refused_the_second_time
                    a_batch_that_breaks_a_rule_is_invalid
                    objects_come_back_as_they_were_put
                ]
                lists: [
                    an_empty_store_has_a_version_and_no_objects
                    objects_are_read_in_the_order_of_the_keys_that_were_asked_for
                    many_objects_are_read_from_one_state
                    a_range_holds_its_objects_and_no_neighbours
                    pages_are_filled_and_say_how_much_remains
                    a_list_at_the_latest_shows_every_answered_append
                    a_state_after_each_event_can_be_listed
                    a_state_within_a_batch_can_be_listed_in_pages
                    pages_of_one_list_show_one_state_while_others_write
                    a_state_of_the_future_is_refused
                ]
                watches: [
                    a_watch_after_any_version_delivers_exactly_the_rest
                    a_watch_of_a_part_delivers_the_same_versions_as_a_watch_of_everything
                    a_running_watch_delivers_what_is_appended
                    progress_comes_also_where_nothing_happens_in_the_range
                    progress_never_overtakes_an_event
                    a_watch_after_a_version_of_the_future_waits_for_it
                    a_reader_that_does_not_read_hinders_nobody
                ]
                compaction: [
                    what_is_compacted_is_gone_and_what_follows_stays
                    compacting_twice_is_no_error_and_the_future_cannot_be_compacted
                    deleted_objects_do_not_come_back_after_compaction
                    compaction_under_running_watches_leaves_no_gap
                ]
                dictionaries: [
                    objects_are_completed_with_their_dictionaries
                    a_dictionary_is_found_as_long_as_a_state_with_its_object_can_be_read
                    dictionaries_that_are_gone_are_found_in_history_until_that_is_compacted
                    an_object_whose_dictionary_was_never_there_is_an_error_that_names_both
                ]
                concurrency: [
                    of_many_creations_of_one_key_one_succeeds
                    concurrent_changes_are_neither_lost_nor_doubled
                    a_batch_is_seen_whole_or_not_at_all
                ]
                locks: [
                    a_lock_has_one_holder_at_a_time
                    a_writer_whose_lock_is_gone_cannot_write
                    locks_disturb_no_reader
                ]
                histories: [
                    random_histories_read_as_the_model_says
                ]
                under_faults: [
                    random_histories_of_many_with_faults_are_linearizable
                ]
            );
        }
    };
    ($make:path, $($group:ident: [$($test:ident)*])*) => {$($(
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            let fixture = $make().await;
            super::$group::$test(&fixture).await;
        }
    )*)*};
}

store_contract!(in_memory, super::in_memory_store);
store_contract!(embedded, super::embedded_store);
store_contract!(etcd_debian, super::etcd_debian_store);
store_contract!(etcd_built, super::etcd_built_store);
store_contract!(cached_embedded, super::cached_embedded_store);
store_contract!(cached_etcd, super::cached_etcd_store);

async fn in_memory_store() -> Fixture {
    Fixture::new(EmbeddedStore::in_memory().expect("there is memory"), ())
}

async fn embedded_store() -> Fixture {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let store = EmbeddedStore::open(&directory.path().join("store.redb")).expect("a store can be made");
    Fixture::new(store, directory)
}

/// What is cached: a resource with as many bytes of tails, one with all of them, and dictionaries; others are not.
fn cached(things: usize) -> [CachedResource; 3] {
    [("things", things), ("others", usize::MAX), (DICTIONARIES, things)]
        .map(|(name, tail_bytes)| CachedResource { name, tail_bytes })
}

async fn cached_embedded_store() -> Fixture {
    in_memory_store().await.cached(8_000)
}

async fn cached_etcd_store() -> Fixture {
    etcd_built_store().await.cached(0)
}

async fn etcd_debian_store() -> Fixture {
    let etcd = Etcd::start(Version::Debian).await;
    Fixture::new(etcd.store(), etcd)
}

async fn etcd_built_store() -> Fixture {
    let etcd = Etcd::start(Version::Built).await;
    Fixture::new(etcd.store(), etcd)
}
