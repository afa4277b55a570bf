//! A way to etcd that tells calls apart: it can hold a transaction before etcd has it, or its answer.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::Request;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::PATIENCE;

/// Bytes of a transaction.
const MAX_TXN: usize = 4 << 20;

/// What becomes of a transaction that writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    Pass,
    /// etcd does not get it.
    Before,
    /// Who sent it does not get the answer.
    After,
}

type Hook = Box<dyn Fn(&[u8]) -> Hold + Send + Sync>;

/// A proxy on loopback.
pub struct EtcdProxy {
    url: String,
    shared: Arc<Shared>,
    _accepting: DropGuard,
}

struct Shared {
    upstream: String,
    hook: Mutex<Hook>,
    /// How many transactions are held, or were.
    held: watch::Sender<usize>,
}

impl EtcdProxy {
    /// Starts a proxy before a member at a URL. Everything passes.
    pub async fn start(url: &str) -> Self {
        let upstream = url.strip_prefix("http://").expect("servers of tests speak http").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let hook: Hook = Box::new(|_| Hold::Pass);
        let shared = Arc::new(Shared { upstream, hook: Mutex::new(hook), held: watch::Sender::default() });
        let stop = CancellationToken::new();
        let accept = {
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(connection(client, Arc::clone(&shared)));
                }
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept));
        EtcdProxy { url, shared, _accepting: stop.drop_guard() }
    }

    /// Returns where the proxy is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks this about transactions that write from now on, instead of what was asked before.
    pub fn hook(&self, hook: impl Fn(&[u8]) -> Hold + Send + Sync + 'static) {
        *self.shared.hook.lock().unwrap() = Box::new(hook);
    }

    /// Holds the first transaction that is asked for, and lets all others pass; returns what waits until it is held.
    pub fn hold<F>(&self, hold: Hold, is_it: F) -> impl Future<Output = ()> + use<F>
    where
        F: Fn(&[u8]) -> bool + Send + Sync + 'static,
    {
        let mut held = self.shared.held.subscribe();
        let next = *held.borrow() + 1;
        let is_open = Mutex::new(true);
        self.hook(move |txn| {
            let mut is_open = is_open.lock().unwrap();
            if *is_open && is_it(txn) {
                *is_open = false;
                return hold;
            }
            Hold::Pass
        });
        async move {
            let held = tokio::time::timeout(PATIENCE, held.wait_for(|held| *held >= next)).await;
            held.expect("the transaction comes").expect("the proxy is there");
        }
    }
}

/// Passes on what comes over a connection, until it ends.
async fn connection(client: TcpStream, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(&shared.upstream).await else { return };
    let Ok((send, upstream)) = h2::client::handshake(server).await else { return };
    let Ok(mut client) = h2::server::handshake(client).await else { return };
    let ended = CancellationToken::new();
    let _end = ended.clone().drop_guard();
    tokio::spawn(ended.clone().run_until_cancelled_owned(upstream));
    while let Some(Ok((request, respond))) = client.accept().await {
        let call = call(request, respond, send.clone(), Arc::clone(&shared));
        tokio::spawn(ended.clone().run_until_cancelled_owned(call));
    }
}

/// Passes on a call and its answer; none where either side ends it.
async fn call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    send: SendRequest<Bytes>,
    shared: Arc<Shared>,
) -> Option<()> {
    let (parts, mut body) = request.into_parts();
    let is_txn = parts.uri.path() == "/etcdserverpb.KV/Txn";
    let mut send = send.ready().await.ok()?;
    let mut hold = Hold::Pass;
    let mut txn = Vec::new();
    if is_txn {
        while let Some(data) = body.data().await {
            let data = data.ok()?;
            body.flow_control().release_capacity(data.len()).ok()?;
            txn.extend_from_slice(&data);
            assert!(txn.len() <= MAX_TXN, "a transaction is not larger than etcd takes");
        }
        // Behind five bytes of framing there are comparisons first; what only reads has none.
        if txn.get(5) == Some(&0x0a) {
            hold = (shared.hook.lock().unwrap())(&txn);
        }
    }
    if hold == Hold::Before {
        return shared.hold().await;
    }
    let (answer, mut to_server) = send.send_request(Request::from_parts(parts, ()), false).ok()?;
    if is_txn {
        to_server.send_data(txn.into(), true).ok()?;
    } else {
        tokio::spawn(pump(body, to_server));
    }
    let (parts, body) = answer.await.ok()?.into_parts();
    if hold == Hold::After {
        return shared.hold().await;
    }
    let end = body.is_end_stream();
    let to_client = respond.send_response(http::Response::from_parts(parts, ()), end).ok()?;
    if end { Some(()) } else { pump(body, to_client).await }
}

impl Shared {
    /// Notes that a call is held, and never returns.
    async fn hold(&self) -> Option<()> {
        self.held.send_modify(|held| *held += 1);
        std::future::pending().await
    }
}

async fn pump(mut from: RecvStream, mut to: SendStream<Bytes>) -> Option<()> {
    while let Some(data) = from.data().await {
        let data = data.ok()?;
        from.flow_control().release_capacity(data.len()).ok()?;
        to.send_data(data, false).ok()?;
    }
    match from.trailers().await.ok()? {
        Some(trailers) => to.send_trailers(trailers).ok(),
        None => to.send_data(Bytes::new(), true).ok(),
    }
}
