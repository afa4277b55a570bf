//! A store around a store that does with its calls what a test wants. There are ready-made misfortunes: [`Fault`] for all
//! calls from now on, [`AppendFault`] for one append.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use packageserver::sink::EmbeddedStore;
use packageserver::store::{
    Batch, Key, ListRequest, Object, Page, Range, ResourceVersion, Revision, Store, StoreError, Stored,
    WatchStream,
};
use tokio::task::JoinSet;

/// A call, before it is passed on.
pub enum Call<'a> {
    Append(&'a Batch),
    Read,
    List,
    Watch,
    Complete,
}

/// What becomes of a call.
pub enum Verdict {
    /// It is passed on.
    Pass,
    /// It is passed on after this time.
    Delay(Duration),
    /// It fails.
    Fail(StoreError),
    /// It is passed on, and fails all the same.
    FailAfter(StoreError),
    /// It is passed on, and the answer takes this time.
    DelayAnswer(Duration),
    /// It fails, and is passed on all the same, after this time: appends only.
    FailBefore(StoreError, Duration),
    /// It is passed on, and the stream breaks after so many items: watches only.
    Cut(usize),
    /// It is never answered.
    Hang,
}

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It cannot be reached.
    Unavailable,
    /// It takes so long for everything.
    Slow(Duration),
    /// It takes no object, as if all were too large.
    TooLarge,
    /// The code is wrong.
    Panic,
}

/// How one append goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendFault {
    /// It is not done, and that is said.
    Refused,
    /// It is not done, and nothing is said.
    Lost,
    /// It is done, and nothing is said.
    Unanswered,
    /// The process dies: neither it nor any later one is done.
    Death,
    /// The process dies right after it.
    DeathAfter,
}

impl AppendFault {
    pub const ALL: [AppendFault; 5] = [
        AppendFault::Refused,
        AppendFault::Lost,
        AppendFault::Unanswered,
        AppendFault::Death,
        AppendFault::DeathAfter,
    ];
}

type Hook = Arc<dyn Fn(Call<'_>) -> Verdict + Send + Sync>;

/// A store whose calls are looked at first.
pub struct HookedStore {
    inner: Arc<dyn Store>,
    hook: Mutex<Hook>,
    /// Appends since the last misfortune was planned.
    appends: Arc<AtomicUsize>,
    /// Appends that failed, and are done later.
    late: Mutex<JoinSet<()>>,
}

impl HookedStore {
    /// Puts itself around a store, and passes everything on.
    pub fn around(inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(HookedStore {
            inner,
            hook: Mutex::new(Arc::new(|_| Verdict::Pass)),
            appends: Arc::default(),
            late: Mutex::default(),
        })
    }

    /// Puts itself around an empty store.
    pub fn in_memory() -> Arc<Self> {
        Self::around(Arc::new(EmbeddedStore::in_memory().expect("there is memory")))
    }

    /// Puts a hook before the appends of a store.
    pub fn over(
        inner: Arc<dyn Store>,
        hook: impl Fn(&Batch) -> Verdict + Send + Sync + 'static,
    ) -> Arc<dyn Store> {
        let store = Self::around(inner);
        store.hook(move |call| match call {
            Call::Append(batch) => hook(batch),
            _ => Verdict::Pass,
        });
        store
    }

    /// Puts a hook before all calls from now on, in place of the last one.
    pub fn hook(&self, hook: impl Fn(Call<'_>) -> Verdict + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Arc::new(hook);
    }

    /// From now on, this is wrong.
    pub fn set(&self, fault: Fault) {
        self.hook(move |call| match (fault, call) {
            (Fault::None, _) => Verdict::Pass,
            (Fault::Unavailable, _) => Verdict::Fail(unavailable()),
            (Fault::Slow(duration), _) => Verdict::Delay(duration),
            (Fault::TooLarge, Call::Append(batch)) => {
                let key = batch.operations[0].key.clone();
                Verdict::Fail(StoreError::TooLarge { key, size: 2 << 20, limit: 3 << 19 })
            }
            (Fault::TooLarge, _) => Verdict::Pass,
            (Fault::Panic, _) => panic!("on command"),
        });
    }

    /// Lets one append go wrong, counted from now and from 0.
    pub fn fail(&self, append: usize, fault: AppendFault) {
        self.appends.store(0, Ordering::SeqCst);
        let appends = Arc::clone(&self.appends);
        self.hook(move |call| {
            let Call::Append(_) = call else { return Verdict::Pass };
            let number = appends.fetch_add(1, Ordering::SeqCst);
            match fault {
                AppendFault::Refused if number == append => Verdict::Fail(unavailable()),
                AppendFault::Lost if number == append => Verdict::Fail(unknown()),
                AppendFault::Unanswered if number == append => Verdict::FailAfter(unknown()),
                AppendFault::Death if number >= append => Verdict::Fail(unavailable()),
                AppendFault::DeathAfter if number > append => Verdict::Fail(unavailable()),
                _ => Verdict::Pass,
            }
        });
    }

    /// Lets everything go well, and returns how many appends there were since [`Self::fail`].
    pub fn heal(&self) -> usize {
        self.set(Fault::None);
        self.appends.swap(0, Ordering::SeqCst)
    }

    /// Waits until everything that was passed on after it had failed is done.
    pub async fn settled(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        late.join_all().await;
    }

    fn ask(&self, call: Call<'_>) -> Verdict {
        let hook = Arc::clone(&self.hook.lock().unwrap());
        hook(call)
    }

    /// Asks the hook, and does what it says with a call.
    async fn pass<T>(
        &self,
        call: Call<'_>,
        inner: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        Self::follow(self.ask(call), inner).await
    }

    async fn follow<T>(
        verdict: Verdict,
        inner: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match verdict {
            Verdict::Pass => inner.await,
            Verdict::DelayAnswer(duration) => {
                let answer = inner.await;
                tokio::time::sleep(duration).await;
                answer
            }
            Verdict::Delay(duration) => {
                tokio::time::sleep(duration).await;
                inner.await
            }
            Verdict::Fail(error) => Err(error),
            Verdict::FailAfter(error) => {
                inner.await?;
                Err(error)
            }
            Verdict::Hang => std::future::pending().await,
            Verdict::FailBefore(..) | Verdict::Cut(_) => panic!("there is no such verdict on this call"),
        }
    }
}

/// An error that says that nothing happened.
pub fn unavailable() -> StoreError {
    StoreError::Unavailable("the test wants it so".to_owned())
}

/// An error that says nothing.
pub fn unknown() -> StoreError {
    StoreError::Unknown("the test wants it so".to_owned())
}

#[async_trait]
impl Store for HookedStore {
    async fn append(&self, batch: Batch) -> Result<Revision, StoreError> {
        match self.ask(Call::Append(&batch)) {
            Verdict::FailBefore(error, duration) => {
                let inner = Arc::clone(&self.inner);
                self.late.lock().unwrap().spawn(async move {
                    tokio::time::sleep(duration).await;
                    // Nobody waits for the answer any more.
                    let _ = inner.append(batch).await;
                });
                Err(error)
            }
            verdict => Self::follow(verdict, self.inner.append(batch)).await,
        }
    }

    async fn read(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, StoreError> {
        self.pass(Call::Read, self.inner.read(keys)).await
    }

    async fn list(&self, request: ListRequest) -> Result<Page, StoreError> {
        self.pass(Call::List, self.inner.list(request)).await
    }

    async fn watch(&self, range: Range, after: ResourceVersion) -> Result<WatchStream, StoreError> {
        match self.ask(Call::Watch) {
            Verdict::Cut(items) => {
                let whole = self.inner.watch(range, after).await?;
                Ok(Box::pin(whole.take(items).chain(stream::once(async { Err(unavailable()) }))))
            }
            verdict => Self::follow(verdict, self.inner.watch(range, after)).await,
        }
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn complete(&self, stored: &Stored) -> Result<Object, StoreError> {
        self.pass(Call::Complete, self.inner.complete(stored)).await
    }

    async fn complete_all(&self, stored: &[Stored]) -> Result<Vec<Object>, StoreError> {
        self.pass(Call::Complete, self.inner.complete_all(stored)).await
    }
}
