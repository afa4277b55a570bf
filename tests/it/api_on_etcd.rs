//! The API over etcd, where it shows that there is another store behind it: history, and what is in the middle of it.

use std::sync::Arc;

use packageserver::store::{Revision, Store};

use crate::support::etcd::{Etcd, Version};
use crate::support::objects::{self, NAMESPACE, PACKAGES, Write, commit, current, package, put, version};
use crate::support::router::TestApi;
use crate::support::watching::{Watch, brief};

#[tokio::test]
async fn c060_c075_c079_c089_c096_c108_states_and_watches_on_etcd() {
    let etcd = Etcd::start(Version::Debian).await;
    let api = TestApi::over(Arc::new(etcd.store()) as Arc<dyn Store>);
    let empty = current(&api.store).await;
    let batch = commit(&api.store, (0..20).map(|n| Write::Put(package(&format!("p{n:02}")))).collect()).await;
    let last = put(&api.store, package("z")).await;

    // A state in the middle of a batch, page by page.
    let mut query = format!("limit=3&resourceVersion={}&resourceVersionMatch=Exact", batch[9]);
    let mut seen = 0;
    let token = loop {
        let page = api.get(&format!("{PACKAGES}?{query}")).await.expect(200);
        assert_eq!(version(&page), batch[9]);
        seen += objects::names(&page).len();
        match page["metadata"]["continue"].as_str() {
            Some(token) if seen < 9 => query = format!("limit=3&continue={token}"),
            token => break token.map(str::to_owned),
        }
    };
    assert_eq!(seen, 9);
    let token = token.expect("one is left");

    // Every event can be resumed from, also in the middle of a batch.
    for (from, rest) in [(empty, 21), (batch[4], 16), (batch[19], 1), (last, 0)] {
        let path = format!("{PACKAGES}?watch=1&timeoutSeconds=1&resourceVersion={from}");
        let events = Watch::open(&api, &path).await.rest().await;
        assert_eq!(events.len(), rest, "from {from}");
    }
    let streaming =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Watch::open(&api, &format!("{PACKAGES}?{streaming}")).await;
    let initial = watch.briefs(22).await;
    assert_eq!(initial[21], format!("BOOKMARK {}", current(&api.store).await));
    let deleted = commit(&api.store, vec![Write::Delete("packages", NAMESPACE, "z".to_owned())]).await[0];
    assert_eq!(watch.brief().await, format!("DELETED z {deleted}"));

    // What is compacted is expired: a page with a way on, a watch in its stream.
    let now = current(&api.store).await;
    api.store.compact(Revision::new(now / 1000)).await.unwrap();
    let body = api.get(&format!("{PACKAGES}?limit=3&continue={token}")).await.expect(410);
    let fresh = body["metadata"]["continue"].as_str().expect("a fresh token");
    let rest = api.get(&format!("{PACKAGES}?continue={fresh}")).await.expect(200);
    assert_eq!(objects::names(&rest).len(), 11);
    let events = Watch::open(&api, &format!("{PACKAGES}?watch=1&resourceVersion={empty}")).await.rest().await;
    assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), ["ERROR 410 Expired"]);
}
