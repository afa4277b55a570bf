//! Random histories of many clients at once, whose calls are lost, delayed, overtaken and done without an answer: what they
//! are told is explained by one order of their calls, and every watcher sees exactly the events of that order.

mod check;
mod plan;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use packageserver::sink::{EtcdConfig, EtcdStore};
use packageserver::store::{
    At, Batch, Expect, Key, Operation, Outcome, Range, ResourceVersion, Store, StoreError, Write as Stores,
};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::sync::watch;

use self::plan::{Blow, CLIENTS, Doing, Doings, Plan, SLOTS, STEPS, Step, Watcher, plan};
use super::Fixture;
use super::linearizable::{Appended, Call, Slot, Value, What, Write, explain};
use super::model::{Event, Reader, State, events, list, object};
use crate::support::etcd::{Etcd, Version};
use crate::support::hooked_store::{HookedStore, Verdict};
use crate::support::proxy::Proxy;
use crate::support::rounds;

/// Tries plans; what fails is shown with what everybody saw, and the same plans come again with `PROPTEST_RNG_SEED`.
fn try_plans<F>(cases: u32, run: impl Fn(String, Plan) -> F)
where
    F: Future<Output = Result<(), String>>,
{
    // Histories that are made shorter are other ones: what fails once need not fail again.
    let config = Config { cases, max_shrink_iters: 50, failure_persistence: None, ..Config::default() };
    let number = AtomicU64::new(0);
    let outcome = TestRunner::new(config).run(&plan(), |plan| {
        let namespace = format!("plan-{}", number.fetch_add(1, Ordering::Relaxed));
        let history = run(namespace, plan);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(history))
            .map_err(TestCaseError::fail)
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

pub async fn random_histories_of_many_with_faults_are_linearizable(fixture: &Fixture) {
    try_plans(rounds(24, 1500), |namespace, plan| async move {
        let history = History::new(namespace, Arc::clone(&fixture.store), Arc::clone(&fixture.store)).await;
        history.play(plan, None).await
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn random_histories_over_a_network_that_breaks_are_linearizable() {
    for version in [Version::Debian, Version::Built] {
        let etcd = Etcd::start(version).await;
        let proxy = Proxy::start(&etcd.endpoints()[0]).await;
        let config = EtcdConfig {
            endpoints: vec![proxy.url().to_owned()],
            timeout: Duration::from_millis(300),
            ..EtcdConfig::default()
        };
        let store: Arc<dyn Store> = Arc::new(EtcdStore::new(config).expect("the configuration is good"));
        let (bare, proxy): (Arc<dyn Store>, _) = (Arc::new(etcd.store()), &proxy);
        try_plans(rounds(8, 300), |namespace, plan| {
            let (bare, store) = (Arc::clone(&bare), Arc::clone(&store));
            async move { History::new(namespace, bare, store).await.play(plan, Some(proxy)).await }
        });
    }
}

/// Lets things happen to a network, again and again.
async fn trouble(network: Vec<(u64, Blow)>, proxy: Option<&Proxy>) {
    let Some(proxy) = proxy else { return std::future::pending().await };
    for (pause, blow) in network.into_iter().cycle() {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match blow {
            Blow::CutAnAnswer => proxy.cut_an_answer().await,
            Blow::Reset => proxy.heal(),
            Blow::BlackOut(time) => {
                proxy.black_out();
                tokio::time::sleep(Duration::from_millis(time)).await;
                proxy.heal();
            }
        }
    }
}

/// Clients and watchers of one history, in a namespace of its own.
struct History {
    namespace: String,
    /// The store that nothing happens to.
    bare: Arc<dyn Store>,
    /// The store that clients and watchers use, each over a link of its own.
    store: Arc<dyn Store>,
    start: ResourceVersion,
    clock: AtomicU64,
    values: AtomicU64,
    calls: Mutex<Vec<Call>>,
    /// Versions that clients were told of.
    known: watch::Sender<Vec<ResourceVersion>>,
}

/// What a client last saw under each key.
type Sight = [Option<(Value, ResourceVersion)>; SLOTS];

impl History {
    async fn new(namespace: String, bare: Arc<dyn Store>, store: Arc<dyn Store>) -> Arc<Self> {
        let start = bare.current().await.expect("the store answers");
        Arc::new(History {
            namespace,
            bare,
            store,
            start,
            clock: AtomicU64::new(1),
            values: AtomicU64::new(1),
            calls: Mutex::default(),
            known: watch::Sender::new(vec![start]),
        })
    }

    /// Plays a plan and checks what everybody saw.
    async fn play(self: &Arc<Self>, plan: Plan, proxy: Option<&Proxy>) -> Result<(), String> {
        let watchers: Vec<_> = plan
            .watchers
            .into_iter()
            .map(|watcher| tokio::spawn(Arc::clone(self).observe(watcher)))
            .collect();
        let clients =
            join_all(plan.clients.into_iter().map(|steps| tokio::spawn(Arc::clone(self).act(steps))));
        tokio::select! {
            acted = clients => acted.into_iter().for_each(|acted| acted.expect("a client comes to its end")),
            () = trouble(plan.network, proxy) => unreachable!("trouble has no end"),
        }
        if let Some(proxy) = proxy {
            proxy.heal();
        }
        // Watchers that wait for versions that never came begin now.
        self.known.send_modify(|known| known.resize(CLIENTS * STEPS * 2, self.start));
        let end = Batch::new(self.ends().map(|end| Operation::create(end, object("0"))).into());
        let end =
            self.bare.append(end).await.map_err(|error| format!("the end cannot be marked: {error}"))?;
        let (found, _) = self.look(&*self.bare, 2).await.map_err(|error| error.to_string())?;
        let log = self.log().await?;
        let watched = join_all(watchers).await;
        let mut calls = self.calls.lock().unwrap().clone();
        calls.push(found);
        let story = |error: String| format!("{error}\ncalls: {calls:#?}\nlog: {log:#?}");
        explain(&calls).map_err(story)?;
        self.explain_log(&calls, &log).map_err(story)?;
        for (range, after, seen) in watched.into_iter().map(|seen| seen.expect("a watcher comes to its end"))
        {
            // A batch without an answer may be done after the end; watchers do not wait for it.
            let is_in_time = |event: &Event| event.version > after && event.version.revision() <= end;
            let is_wanted = |event: &&Event| is_in_time(event) && range.contains(&event.key);
            let expected: Vec<_> = log.iter().filter(is_wanted).cloned().collect();
            if seen != expected {
                return Err(story(format!("a watcher of {range:?} after {after} saw {seen:#?}")));
            }
        }
        Ok(())
    }

    fn key(&self, slot: Slot) -> Key {
        Key::new(["things", "others"][slot % 2], &self.namespace, &format!("k{slot}"))
    }

    fn slot(&self, key: &Key) -> Option<Slot> {
        (0..SLOTS).find(|&slot| self.key(slot) == *key)
    }

    /// The last events of the history.
    fn ends(&self) -> [Key; 2] {
        ["others", "things"].map(|resource| Key::new(resource, &self.namespace, "z-end"))
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn note(&self, begun: u64, what: What) {
        let answered = self.now();
        self.calls.lock().unwrap().push(Call { begun, answered, what });
    }

    /// Does what a client does, over a link of its own.
    async fn act(self: Arc<Self>, steps: Vec<Step>) {
        let link = HookedStore::around(Arc::clone(&self.store));
        let mut sight = Sight::default();
        for Step { what, fault } in steps {
            link.hook(move |call| fault.verdict(&call));
            match what {
                Doing::Append(doings) => self.append(&*link, doings, &mut sight).await,
                Doing::Read(slots) => self.read(&*link, slots, &mut sight).await,
                Doing::List { page } => {
                    if let Ok((call, version)) = self.look(&*link, page).await {
                        if let What::Read(found, _) = &call.what {
                            found.iter().for_each(|(slot, found)| sight[*slot] = *found);
                        }
                        self.calls.lock().unwrap().push(call);
                        self.known.send_modify(|known| known.push(version));
                    }
                }
            }
        }
        link.settled().await;
    }

    async fn append(&self, store: &dyn Store, doings: BTreeMap<Slot, Doings>, sight: &mut Sight) {
        let mut operations = Vec::new();
        let mut writes = Vec::new();
        for (slot, doing) in doings.into_iter().rev() {
            let there = sight[slot].filter(|_| !matches!(doing, Doings::Create));
            let value = self.values.fetch_add(1, Ordering::Relaxed) as Value;
            let puts = (!matches!(doing, Doings::Delete) || there.is_none()).then_some(value);
            let write = puts.map_or(Stores::Delete, |value| Stores::Put(object(&value.to_string())));
            let expect = there.map_or(Expect::Absent, |(_, version)| Expect::Version(version));
            operations.push(Operation { key: self.key(slot), expect, write });
            writes.push(Write { slot, expects: there.map(|(value, _)| value), puts });
        }
        let begun = self.now();
        let appended = match store.append(Batch::new(operations)).await {
            Ok(revision) => Appended::Done(revision),
            Err(StoreError::Conflict { key }) => {
                Appended::Conflict(self.slot(&key).expect("a conflict names a key of the batch"))
            }
            Err(error) if error.outcome() == Outcome::DidNotHappen => Appended::NotDone,
            Err(_) => Appended::Unknown,
        };
        self.note(begun, What::Append(writes.clone(), appended.clone()));
        if let Appended::Done(revision) = appended {
            for (position, write) in writes.iter().enumerate() {
                let version = ResourceVersion::new(revision, position as u16 + 1);
                sight[write.slot] = write.puts.map(|value| (value, version));
                self.known.send_modify(|known| known.push(version));
            }
        }
    }

    async fn read(&self, store: &dyn Store, slots: Vec<Slot>, sight: &mut Sight) {
        let keys: Vec<_> = slots.iter().map(|&slot| self.key(slot)).collect();
        let begun = self.now();
        let Ok(read) = store.read(&keys).await else { return };
        let found =
            read.into_iter().map(|stored| Some((value(stored.as_ref()?.object.head()), stored?.version)));
        let found: Vec<_> = slots.into_iter().zip(found).collect();
        found.iter().for_each(|(slot, found)| sight[*slot] = *found);
        self.note(begun, What::Read(found, None));
    }

    /// Lists one of the resources in pages; pages after the first are of the state of the first.
    async fn look(&self, store: &dyn Store, page: usize) -> Result<(Call, ResourceVersion), StoreError> {
        let begun = self.now();
        let resource = ["things", "others"][begun as usize % 2];
        let range = Range::namespace(resource, &self.namespace);
        let (version, state) = list(store, range, At::Latest, page).await?;
        let slots = (0..SLOTS).filter(|&slot| self.key(slot).resource() == resource);
        let found = slots.map(|slot| (slot, self.in_state(&state, slot))).collect();
        let what = What::Read(found, Some(version.revision()));
        Ok((Call { begun, answered: self.now(), what }, version))
    }

    fn in_state(&self, state: &State, slot: Slot) -> Option<(Value, ResourceVersion)> {
        state.get(&self.key(slot)).map(|(version, object)| (value(object.head()), *version))
    }

    /// Watches until the end of the history; returns what was watched after which version, and what was seen.
    async fn observe(self: Arc<Self>, watcher: Watcher) -> (Range, ResourceVersion, Vec<Event>) {
        let link = HookedStore::around(Arc::clone(&self.store));
        let cuts = Mutex::new(watcher.cuts.clone());
        link.hook(move |_| cuts.lock().unwrap().pop().map_or(Verdict::Pass, Verdict::Cut));
        let mut known = self.known.subscribe();
        let after = {
            let enough = known.wait_for(|known| known.len() > watcher.patience).await;
            let known = enough.expect("the history is there");
            known[watcher.after.index(known.len())]
        };
        let (range, [_, of_things]) = (Range::namespace("things", &self.namespace), self.ends());
        let range = if watcher.of_one_resource { range } else { Range::everything() };
        let (mut progress, mut seen) = (after, Vec::<Event>::new());
        while seen.last().is_none_or(|event| event.key != of_things) {
            // Whatever ends a watch, it goes on after what was delivered.
            let Ok(mut reader) = Reader::open(&*link, range.clone(), progress).await else {
                tokio::task::yield_now().await;
                continue;
            };
            while seen.last().is_none_or(|event| event.key != of_things) {
                let Ok(event) = reader.next().await else { break };
                seen.extend(event);
            }
            progress = reader.progress;
        }
        (range, after, seen)
    }

    /// Returns the events of the history, as they are in the store.
    async fn log(&self) -> Result<Vec<Event>, String> {
        let log = events(&*self.bare, Range::everything(), self.start).await;
        let log = log.map_err(|error| format!("the log cannot be read: {error}"))?;
        Ok(log.into_iter().filter(|event| event.key.namespace() == self.namespace).collect())
    }
}

/// Reads what [`object`] wrote.
fn value(head: &[u8]) -> Value {
    let text: BTreeMap<String, String> = serde_json::from_slice(head).expect("objects are JSON");
    text["text"].parse().expect("it is a number")
}
