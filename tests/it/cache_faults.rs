//! A cache whose ground gives way: a store that is away, changes it does not know of, readers that do not keep up.

use std::sync::Arc;

use futures::StreamExt;
use packageserver::sink::{CachedResource, CachedStore, EmbeddedStore};
use packageserver::store::{
    At, Batch, DICTIONARIES, Dictionary, ListRequest, Object, Operation, Range, Store, StoreError, Tail,
    WatchItem,
};

use crate::store_faults::{append_for_sure, create, key};
use crate::support::etcd::{Etcd, Version};
use crate::support::hooked_store::{Call, Fault, HookedStore, Verdict};
use crate::support::{PATIENCE, eventually};

const CACHED: &[CachedResource] = &[CachedResource { name: "things", tail_bytes: usize::MAX }];

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_from_memory_while_etcd_is_away() {
    let mut etcd = Etcd::start(Version::Built).await;
    let inner: Arc<dyn Store> = Arc::new(etcd.store());
    let store = CachedStore::new(Arc::clone(&inner), CACHED);
    store.append(create("a")).await.unwrap();
    let version = store.current().await.unwrap();
    let mut watch = store.watch(Range::resource("things"), version).await.unwrap();
    etcd.kill(0);
    let list = || ListRequest { range: Range::resource("things"), at: At::Latest, after: None, limit: 10 };
    for _ in 0..3 {
        let page = store.list(list()).await.unwrap();
        assert_eq!((page.items.len(), page.version), (1, version));
        assert!(store.get(&key("a")).await.unwrap().is_some());
        assert!(store.current().await.is_ok());
        let late = store.watch(Range::resource("things"), version).await;
        assert!(late.is_ok(), "watches are opened too");
    }
    let error = store.append(create("b")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_) | StoreError::Unknown(_)), "{error:?}");
    etcd.restart(0).await;
    append_for_sure(&store, create("c")).await;
    let change = async {
        loop {
            if let WatchItem::Change(change) = watch.next().await.unwrap().unwrap() {
                return change;
            }
        }
    };
    let change = tokio::time::timeout(PATIENCE, change).await.expect("the watch goes on");
    assert!([key("b"), key("c")].contains(&change.key));
    eventually("the latest state to be listed", || async {
        store.list(list()).await.unwrap().items.iter().any(|stored| stored.key == key("c")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_held_are_read_while_the_store_is_away() {
    const CACHED: &[CachedResource] = &[
        CachedResource { name: "things", tail_bytes: 1000 },
        CachedResource { name: DICTIONARIES, tail_bytes: usize::MAX },
    ];
    let inner = HookedStore::in_memory();
    let lines: Vec<_> = (0..200).map(|line| format!("line {line} of {}", line * 7919 % 1000)).collect();
    let text = |version: usize| format!(r#""text":"{}","version":{version}}}}}"#, lines.join(" "));
    let dictionary = Dictionary::new("owner", text(0).as_bytes());
    let mut operations = vec![Operation::create(dictionary.id().key("default"), dictionary.object("{}"))];
    for version in 0..3 {
        let object = Object::cut(r#"{"spec":{"#, dictionary.pack(text(version).as_bytes()));
        operations.push(Operation::create(key(&format!("held{version}")), object));
    }
    let random: String = (0..4000_u64).map(|n| char::from(b'!' + (n * n * 7919 % 89) as u8)).collect();
    let large = Tail::Plain(random.into());
    operations.push(Operation::create(key("large"), Object::cut(r#"{"spec":{"#, large)));
    inner.append(Batch::new(operations)).await.unwrap();
    let cached = CachedStore::new(Arc::clone(&inner) as _, CACHED);
    cached.current().await.unwrap();

    inner.set(Fault::Unavailable);
    let request = ListRequest { range: Range::resource("things"), at: At::Latest, after: None, limit: 10 };
    let listed = cached.list(request).await.unwrap().items;
    let (held, large) = listed.split_at(3);
    for (version, object) in cached.complete_all(held).await.unwrap().iter().enumerate() {
        assert_eq!(object.json().unwrap(), format!(r#"{{"spec":{{{}"#, text(version)));
    }
    let error = cached.complete_all(large).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "there was no room for it: {error:?}");
    inner.set(Fault::None);
    assert!(cached.complete_all(&listed).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_before_the_cache_knows_is_read_as_it_was_listed() {
    const CACHED: &[CachedResource] = &[CachedResource { name: "things", tail_bytes: 0 }];
    let inner = HookedStore::in_memory();
    let object = |tail: &str| Object::cut(r#"{"spec":{"#, Tail::pack(tail.as_bytes()));
    for name in ["removed", "replaced"] {
        inner.append(Batch::of(Operation::create(key(name), object("\"as\":\"it was\"}}")))).await.unwrap();
    }
    // History of the objects is forgotten, and the objects are there.
    inner.append(create("other")).await.unwrap();
    inner.compact(inner.current().await.unwrap().revision()).await.unwrap();
    // The cache comes this far, and hears of nothing more.
    inner.hook(|call| match call {
        Call::Watch => Verdict::Hang,
        _ => Verdict::Pass,
    });
    let cached = CachedStore::new(Arc::clone(&inner) as _, CACHED);
    let start = cached.current().await.unwrap();
    let [removed, replaced] = ["removed", "replaced"].map(key);
    let at = inner.read(&[removed.clone(), replaced.clone()]).await.unwrap();
    let at: Vec<_> = at.into_iter().map(|stored| stored.unwrap().version).collect();
    inner.append(Batch::of(Operation::delete(removed, at[0]))).await.unwrap();
    inner.append(Batch::of(Operation::replace(replaced, at[1], object("\"as\":\"it is\"}}")))).await.unwrap();

    let range = Range::resource("things");
    let request = ListRequest { range, at: At::Exactly(start), after: None, limit: 10 };
    let listed = cached.list(request).await.unwrap().items;
    assert_eq!(listed.len(), 3);
    let deferred: Vec<_> = listed.into_iter().filter(|stored| !stored.object.tail().is_here()).collect();
    assert_eq!(deferred.len(), 2);
    for object in cached.complete_all(&deferred).await.unwrap() {
        assert_eq!(object.json().unwrap(), r#"{"spec":{"as":"it was"}}"#);
    }

    // Once the state that they were listed in is forgotten too, that is said.
    inner.append(create("later")).await.unwrap();
    inner.compact(inner.current().await.unwrap().revision()).await.unwrap();
    for stored in &deferred {
        let gone = cached.complete(stored).await;
        assert!(matches!(gone, Err(StoreError::Compacted { .. })), "{gone:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_falls_out_of_the_window_is_cut_off_and_can_resume() {
    let inner: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let store = CachedStore::new(inner, CACHED);
    let start = store.current().await.unwrap();
    let open = || store.watch(Range::resource("things"), start);
    let (mut slow, mut fast) = (open().await.unwrap(), open().await.unwrap());
    let mut written: u64 = 0;
    let mut read = 0;
    // More events than a window holds.
    while written < 15_000 {
        let create = |number| Operation::create(key(&format!("k{number:06}")), Object::whole("{}"));
        store.append(Batch::new((written..written + 500).map(create).collect())).await.unwrap();
        written += 500;
        while read < written {
            if let WatchItem::Change(_) = fast.next().await.expect("it keeps up").unwrap() {
                read += 1;
            }
        }
    }
    let mut last = start;
    let mut seen: u64 = 0;
    let mut cuts = 0;
    while seen < written {
        match slow.next().await {
            Some(item) => {
                if let WatchItem::Change(change) = item.unwrap() {
                    assert!(change.version > last);
                    last = change.version;
                    seen += 1;
                }
            }
            None => {
                cuts += 1;
                slow = store.watch(Range::resource("things"), last).await.unwrap();
            }
        }
    }
    assert_eq!((seen, cuts), (written, 1));
}
