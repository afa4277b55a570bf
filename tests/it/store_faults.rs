//! Stores whose ground gives way: lost answers, members that go, no room, no permission. What is known is said, and nothing
//! is lost or doubled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use packageserver::sink::{EmbeddedStore, EtcdConfig, EtcdStore, EtcdTls, MeasuredStore};
use packageserver::store::{
    At, Batch, FencedStore, Key, ListRequest, Locks, Object, Operation, Outcome, Range, Store, StoreError,
    Tail, WatchItem,
};
use packageserver::telemetry::metrics;
use packageserver::tls::authority::{Authority, Signed, Validity};
use prometheus::Registry;

use crate::support::etcd::{Etcd, Version};
use crate::support::hooked_store::{Fault, HookedStore, Verdict};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually};

pub fn key(name: &str) -> Key {
    Key::new("things", "default", name)
}

pub fn create(name: &str) -> Batch {
    Batch::of(Operation::create(key(name), Object::whole("{}")))
}

/// Returns an object that does not get smaller however it is packed.
fn large(bytes: usize) -> Object {
    let mut state: u64 = 1;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    Object::cut("{}", Tail::Plain((0..bytes).map(|_| noise()).collect()))
}

fn through(proxy: &Proxy) -> EtcdStore {
    let config = EtcdConfig {
        endpoints: vec![proxy.url().to_owned()],
        timeout: Duration::from_secs(5),
        lease_duration: Duration::from_secs(2),
        ..EtcdConfig::default()
    };
    EtcdStore::new(config).expect("the configuration is good")
}

/// Appends until it is known that it is done, as every writer has to.
pub async fn append_for_sure(store: &dyn Store, batch: Batch) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match store.append(batch.clone()).await {
            Ok(_) | Err(StoreError::Conflict { .. }) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("the batch could not be appended");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answer_is_lost_is_found_by_reading_again() {
    let etcd = Etcd::start(Version::Debian).await;
    let proxy = Proxy::start(&etcd.endpoints()[0]).await;
    let store = through(&proxy);
    store.current().await.unwrap();
    for round in 0..10 {
        let name = format!("k{round}");
        // In this order: what is asked for after the cut has begun is what it swallows the answer of.
        let ((), appended) = tokio::join!(proxy.cut_an_answer(), store.append(create(&name)));
        let error = appended.unwrap_err();
        assert_eq!(error.outcome(), Outcome::MayHaveHappened, "{error}");
        // Here it did. Whoever tries again is told.
        assert!(store.get(&key(&name)).await.unwrap().is_some());
        let again = store.append(create(&name)).await;
        assert!(matches!(again, Err(StoreError::Conflict { .. })), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_not_there_did_nothing() {
    let config = EtcdConfig { endpoints: vec!["http://127.0.0.1:1".to_owned()], ..EtcdConfig::default() };
    let store = EtcdStore::new(config).unwrap();
    let error = store.append(create("k")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert!(matches!(store.current().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.acquire("x").await, Err(StoreError::Unavailable(_))));
    assert!(EtcdStore::new(EtcdConfig { endpoints: vec![], ..EtcdConfig::default() }).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_by_name() {
    // etcd allows less than it is said to: its word counts.
    let etcd = Etcd::start_with(Version::Built, 1, &["--max-request-bytes=1000000"]).await;
    let config = EtcdConfig { max_request_bytes: 1_200_000, ..etcd.config() };
    let store = EtcdStore::new(config).unwrap();
    for size in [1_100_000, 3_000_000, 10_000_000] {
        let large = Operation::create(key("large"), large(size));
        let small = Operation::create(key("small"), Object::whole("x"));
        let error = store.append(Batch::new(vec![small, large])).await.unwrap_err();
        match &error {
            StoreError::TooLarge { key: named, size: named_size, .. } => {
                assert!(*named == key("large") && *named_size > size, "{error}");
            }
            other => panic!("{size}: {other:?}"),
        }
    }
    assert!(store.get(&key("small")).await.unwrap().is_none());
    // As many operations as there is room for, and one more.
    let batch = |count| {
        let create = |number| Operation::create(key(&format!("k{number:03}")), Object::whole("x"));
        Batch::new((0..count).map(create).collect())
    };
    assert!(matches!(store.append(batch(128)).await, Err(StoreError::Invalid(_))));
    store.append(batch(127)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_something_else_puts_into_etcd_disturbs_only_itself() {
    let etcd = Etcd::start(Version::Built).await;
    let store = etcd.store();
    let start = store.current().await.unwrap();
    let mut client = etcd.client().await;
    let put = async |client: &mut etcd_client::Client, name: &str, value: &[u8]| {
        client.put(format!("/registry/core.rukpak.io/{name}"), value, None).await.unwrap();
    };
    store.append(create("a")).await.unwrap();
    put(&mut client, "nonsense", b"x").await;
    store.append(create("b")).await.unwrap();
    let request = ListRequest { range: Range::everything(), at: At::Latest, after: None, limit: 10 };
    assert_eq!(store.list(request).await.unwrap().items.len(), 2);
    let mut watch = store.watch(Range::everything(), start).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let WatchItem::Change(change) = watch.next().await.unwrap().unwrap() {
            seen.push(change.key.clone());
        }
    }
    assert_eq!(seen, [key("a"), key("b")]);
    // What is where an object should be has to be one.
    put(&mut client, "things/default/c", b"\x07 from the future").await;
    let error = store.get(&key("c")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`things/default/c` cannot be decoded: format version 7 is not known; it was written by a newer packageserver"
    );
    // What is deleted behind our back is deleted all the same.
    client.delete("/registry/core.rukpak.io/things/default/b", None).await.unwrap();
    assert!(store.get(&key("b")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_with_users_wants_the_right_one() {
    let etcd = Etcd::start_with(Version::Built, 1, &["--auth-token-ttl=2"]).await;
    let mut client = etcd.client().await;
    client.user_add("root", "secret", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("stranger", "other", None).await.unwrap();
    client.auth_enable().await.unwrap();
    let as_user = |name: &str, password: &str| {
        let user = Some((name.to_owned(), password.to_owned()));
        EtcdStore::new(EtcdConfig { user, ..etcd.config() }).unwrap()
    };
    for refused in [etcd.store(), as_user("root", "wrong"), as_user("stranger", "other")] {
        let error = refused.append(create("k")).await.unwrap_err();
        assert!(matches!(error, StoreError::Denied(_)), "{error:?}");
        assert!(matches!(refused.current().await, Err(StoreError::Denied(_))));
    }
    let store = as_user("root", "secret");
    store.append(create("k")).await.unwrap();
    let lock = store.acquire("lock").await.unwrap();
    // Tokens run out; nobody notices.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let fenced = FencedStore::new(Arc::new(store), lock.fence().clone());
    fenced.append(create("l")).await.unwrap();
    assert!(!lock.lost().is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_with_certificates_is_spoken_to_securely() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, _) = Authority::generate("etcd", Validity::days(1)).unwrap();
    let address = ["127.0.0.1".parse().unwrap()];
    let server = authority.server(&["localhost".to_owned()], &address, Validity::days(1)).unwrap();
    let client = authority.client("packageserver", &[], Validity::days(1)).unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let etcd = Etcd::start_secure(
        &file("ca.crt", authority.certificate()),
        &file("server.crt", &server.certificate),
        &file("server.key", &server.key),
    )
    .await;
    let with = |authority: &str, identity: Option<&Signed>| {
        let pem =
            |signed: &Signed| (signed.certificate.clone().into_bytes(), signed.key.clone().into_bytes());
        let tls = EtcdTls { authority: Some(authority.as_bytes().to_vec()), identity: identity.map(pem) };
        EtcdStore::new(EtcdConfig { tls: Some(tls), ..etcd.config() }).unwrap()
    };
    let store = with(authority.certificate(), Some(&client));
    eventually("etcd to answer", || async { store.current().await.ok() }).await;
    store.append(create("k")).await.unwrap();
    let (stranger, _) = Authority::generate("stranger", Validity::days(1)).unwrap();
    for refused in [with(authority.certificate(), None), with(stranger.certificate(), Some(&client))] {
        let error = refused.append(create("l")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_) | StoreError::Unknown(_)), "{error:?}");
    }
    assert!(store.get(&key("l")).await.unwrap().is_none());
    // Certificates that take the place of others are used from then on, in both directions.
    let tls = |identity: &Signed| EtcdTls {
        authority: Some(authority.certificate().as_bytes().to_vec()),
        identity: Some((identity.certificate.clone().into_bytes(), identity.key.clone().into_bytes())),
    };
    let foreign = stranger.client("packageserver", &[], Validity::days(1)).unwrap();
    store.set_tls(tls(&foreign));
    assert!(store.current().await.is_err());
    store.set_tls(tls(&client));
    store.append(create("m")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_written_and_that_is_said() {
    let mut etcd = Etcd::start_with(Version::Built, 3, &[]).await;
    let config = EtcdConfig { timeout: Duration::from_secs(4), ..etcd.config() };
    let store = EtcdStore::new(config).unwrap();
    store.append(create("before")).await.unwrap();
    etcd.kill(1);
    etcd.kill(2);
    // For a moment the member does not know; then it says so.
    eventually("etcd to notice", || async {
        match store.append(create("during")).await {
            Err(StoreError::NoLeader(_)) => Some(()),
            Err(error) => {
                assert!(matches!(error, StoreError::Unknown(_) | StoreError::Unavailable(_)), "{error:?}");
                None
            }
            Ok(revision) => panic!("written without a majority: {revision}"),
        }
    })
    .await;
    etcd.restart(1).await;
    append_for_sure(&store, create("after")).await;
    assert!(store.get(&key("before")).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_is_passed_over() {
    let etcd = Etcd::start_with(Version::Built, 3, &[]).await;
    let config = EtcdConfig { timeout: Duration::from_secs(4), ..etcd.config() };
    let store = EtcdStore::new(config).unwrap();
    store.append(create("k")).await.unwrap();
    let start = store.current().await.unwrap();
    let mut watch = store.watch(Range::everything(), start).await.unwrap();
    // The one that everything goes to.
    etcd.signal(0, "STOP");
    assert!(store.get(&key("k")).await.unwrap().is_some());
    append_for_sure(&store, create("l")).await;
    // The watch finds out that it should have heard of that, and opens elsewhere.
    let change = async {
        loop {
            if let WatchItem::Change(change) = watch.next().await.unwrap().unwrap() {
                return change;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, change).await.expect("the event comes").key, key("l"));
    etcd.signal(0, "CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_go_on_while_members_come_and_go() {
    let mut etcd = Etcd::start_with(Version::Built, 3, &[]).await;
    let store = Arc::new(etcd.store());
    let start = store.current().await.unwrap();
    let reader = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut watch = store.watch(Range::resource("things"), start).await.unwrap();
            let (mut seen, mut last) = (Vec::new(), start);
            while seen.last() != Some(&key("end")) {
                if let WatchItem::Change(change) = watch.next().await.unwrap().unwrap() {
                    assert!(change.version > last);
                    last = change.version;
                    seen.push(change.key.clone());
                }
            }
            seen
        })
    };
    let mut written = Vec::new();
    for round in 0..6 {
        let leader = etcd.leader().await;
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        for number in 0..10 {
            if number == 5 {
                etcd.kill(victim);
            }
            let name = format!("k{round}-{number}");
            append_for_sure(&*store, create(&name)).await;
            written.push(key(&name));
        }
        etcd.restart(victim).await;
    }
    append_for_sure(&*store, create("end")).await;
    written.push(key("end"));
    let seen = tokio::time::timeout(PATIENCE, reader).await.expect("the reader ends").unwrap();
    assert_eq!(seen, written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_cut_off_is_replaced_and_cannot_write_any_more() {
    let etcd = Etcd::start(Version::Debian).await;
    let proxy = Proxy::start(&etcd.endpoints()[0]).await;
    let first = Arc::new(through(&proxy));
    let lock = first.acquire("work").await.unwrap();
    let fenced = FencedStore::new(Arc::clone(&first) as _, lock.fence().clone());
    fenced.append(create("held")).await.unwrap();
    let second = Arc::new(etcd.store());
    proxy.black_out();
    let cut = Instant::now();
    let next = second.acquire("work").await.unwrap();
    assert!(cut.elapsed() < Duration::from_secs(10), "{:?}", cut.elapsed());
    assert_ne!(next.fence(), lock.fence());
    tokio::time::timeout(PATIENCE, lock.lost().cancelled()).await.expect("the first one notices");
    proxy.heal();
    let deposed = eventually("the first one to be answered", || async {
        match fenced.append(create("late")).await {
            Err(error @ StoreError::Deposed { .. }) => Some(error),
            Err(_) => None,
            Ok(revision) => panic!("written by a deposed writer: {revision}"),
        }
    })
    .await;
    assert_eq!(deposed.outcome(), Outcome::DidNotHappen);
    FencedStore::new(Arc::clone(&second) as _, next.fence().clone()).append(create("next")).await.unwrap();
    // Whoever lost a lock can wait for it again.
    next.release().await;
    let again = first.acquire("work").await.unwrap();
    FencedStore::new(Arc::clone(&first) as _, again.fence().clone()).append(create("again")).await.unwrap();
    assert!(second.get(&key("late")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_without_space_says_so_and_is_read_and_repaired() {
    let etcd = Etcd::start_with(Version::Debian, 1, &["--quota-backend-bytes=8000000"]).await;
    let store = etcd.store();
    let mut number = 0;
    let full = loop {
        match store.append(Batch::of(Operation::create(key(&format!("k{number}")), large(500_000)))).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 100, "etcd has no quota");
    };
    assert!(matches!(full, StoreError::NoSpace(_)), "{full:?}");
    // It may have been the last one that was carried out; the next one certainly is not.
    assert_eq!(full.outcome(), Outcome::MayHaveHappened);
    if store.get(&key(&format!("k{number}"))).await.unwrap().is_some() {
        number += 1;
    }
    eventually("the alarm", || async {
        matches!(store.append(create("no room")).await, Err(StoreError::NoSpace(_))).then_some(())
    })
    .await;
    assert!(store.get(&key("no room")).await.unwrap().is_none());
    assert!(store.health().await.unwrap().is_out_of_space);
    // Reads, watches and what is held go on.
    assert!(store.get(&key("k0")).await.unwrap().is_some());
    let request = ListRequest { range: Range::everything(), at: At::Latest, after: None, limit: 2 };
    assert_eq!(store.list(request).await.unwrap().remaining, number - 2);
    // Deleting makes room, once history is gone, the file is defragmented, and the alarm is off.
    let mut client = etcd.client().await;
    client
        .delete(
            "/registry/core.rukpak.io/things/default/k",
            Some(etcd_client::DeleteOptions::new().with_prefix()),
        )
        .await
        .unwrap();
    let revision = store.current().await.unwrap().revision();
    store.compact(revision).await.unwrap();
    eventually("room in etcd", || async {
        client.clone().defragment().await.ok()?;
        etcd.clear_alarms().await;
        store.append(create("after")).await.ok()
    })
    .await;
    let health = store.health().await.unwrap();
    assert!(!health.is_out_of_space && !health.is_corrupt && health.database_bytes > 0, "{health:?}");
}

#[tokio::test]
async fn calls_are_counted_and_failures_by_their_kind() {
    let inner = HookedStore::in_memory();
    let registry = Registry::new();
    let locks: Arc<dyn Locks> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let store = MeasuredStore::new(Arc::<HookedStore>::clone(&inner), locks, &registry).unwrap();
    store.append(create("a")).await.unwrap();
    let lock = store.acquire("lock").await.unwrap();
    lock.release().await;
    let failures: [fn() -> StoreError; 5] = [
        || StoreError::NoSpace(String::new()),
        || StoreError::NoLeader(String::new()),
        || StoreError::Denied(String::new()),
        || StoreError::Unknown(String::new()),
        || StoreError::TooLarge { key: key("b"), size: 2, limit: 1 },
    ];
    for failure in failures {
        inner.hook(move |_| Verdict::Fail(failure()));
        assert!(store.append(create("b")).await.is_err());
        assert!(store.get(&key("a")).await.is_err());
    }
    inner.set(Fault::None);
    assert!(store.append(create("a")).await.is_err(), "a conflict");
    assert!(store.watch(Range::resource("things"), store.current().await.unwrap()).await.is_ok());
    let (text, _) = metrics::text(&registry);
    let text = String::from_utf8(text).unwrap();
    let counts: Vec<_> =
        text.lines().filter(|line| line.starts_with("etcd_request") && line.contains("_total{")).collect();
    let errors = |operation: &str, kinds: &[&str]| -> Vec<String> {
        let line = |kind: &&str| {
            format!(
                "etcd_request_errors_total{{error=\"{kind}\",operation=\"{operation}\",resource=\"things\"}} 1"
            )
        };
        kinds.iter().map(line).collect()
    };
    let kinds = ["Denied", "NoLeader", "NoSpace", "TooLarge", "Unknown"];
    let mut expected = errors("append", &[&["Conflict"], &kinds[..]].concat());
    expected.extend(errors("get", &kinds));
    for (operation, resource, count) in
        [("append", "things", 7), ("current", "", 1), ("get", "things", 5), ("watch", "things", 1)]
    {
        let labels = format!("{{operation=\"{operation}\",resource=\"{resource}\"}}");
        expected.push(format!("etcd_requests_total{labels} {count}"));
    }
    expected.sort();
    let mut counts: Vec<_> = counts.into_iter().map(str::to_owned).collect();
    counts.sort();
    assert_eq!(counts, expected);
    let durations = "etcd_request_duration_seconds_count{operation=\"append\",resource=\"things\"} 7";
    assert!(text.contains(durations), "{text}");
    let again = MeasuredStore::new(inner, Arc::new(EmbeddedStore::in_memory().unwrap()), &registry);
    assert!(again.is_err(), "a registry has each metric once");
}
