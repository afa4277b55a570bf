//! A way to a server of gRPC that can be cut: between a request and its answer, or altogether.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::eventually;

/// What becomes of what passes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Requests arrive, answers do not.
    SwallowAnswers,
    /// Nothing arrives.
    SwallowAll,
}

/// A proxy on loopback.
pub struct Proxy {
    url: String,
    mode: watch::Sender<Mode>,
    /// Connections of an earlier generation are closed.
    generation: watch::Sender<u64>,
    /// How many answers, or parts of them, did not arrive.
    swallowed: Arc<AtomicU64>,
    _accepting: DropGuard,
}

impl Proxy {
    /// Starts a proxy before a server at a URL.
    pub async fn start(url: &str) -> Self {
        let upstream = url.strip_prefix("http://").expect("servers of tests speak http").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (mode, generation) = (watch::Sender::new(Mode::Pass), watch::Sender::new(0));
        let swallowed = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let accept = {
            let (mode, generation, swallowed) = (mode.clone(), generation.clone(), Arc::clone(&swallowed));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = TcpStream::connect(&upstream).await else { continue };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let (closed, swallowed) = (generation.subscribe(), Arc::clone(&swallowed));
                    let passes = |answers: bool| {
                        let mode = mode.subscribe();
                        move || match *mode.borrow() {
                            Mode::Pass => true,
                            Mode::SwallowAnswers => !answers,
                            Mode::SwallowAll => false,
                        }
                    };
                    tokio::spawn(pump(from_client, to_server, passes(false), closed.clone(), Arc::default()));
                    tokio::spawn(pump(from_server, to_client, passes(true), closed, swallowed));
                }
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept));
        Proxy { url: format!("http://{address}"), mode, generation, swallowed, _accepting: stop.drop_guard() }
    }

    /// Returns where the proxy is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets requests through and not their answers, until there was one; then closes all connections.
    pub async fn cut_an_answer(&self) {
        let before = self.swallowed.load(Ordering::SeqCst);
        self.mode.send_replace(Mode::SwallowAnswers);
        eventually("an answer to swallow", || {
            let swallowed = self.swallowed.load(Ordering::SeqCst);
            async move { (swallowed > before).then_some(()) }
        })
        .await;
        self.heal();
    }

    /// Lets nothing through any more, without closing anything.
    pub fn black_out(&self) {
        self.mode.send_replace(Mode::SwallowAll);
    }

    /// Closes all connections and lets new ones through.
    pub fn heal(&self) {
        self.generation.send_modify(|generation| *generation += 1);
        self.mode.send_replace(Mode::Pass);
    }
}

/// Counts the frames of HTTP/2 that are of an answer: an acknowledgement of settings or a ping says nothing of a request.
#[derive(Default)]
struct Answers {
    /// What is there of the head of a frame.
    head: Vec<u8>,
    /// How much is to come of a frame whose head was there.
    payload: usize,
}

impl Answers {
    /// Returns how many begin in these bytes, which follow those of the call before (RFC 9113, section 4.1).
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        const HEAD: usize = 9;
        let mut answers = 0;
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            let taken = (HEAD - self.head.len()).min(bytes.len() - skipped);
            self.head.extend_from_slice(&bytes[skipped..skipped + taken]);
            bytes = &bytes[skipped + taken..];
            if let &[high, middle, low, kind, ..] = self.head.as_slice()
                && self.head.len() == HEAD
            {
                self.payload = u32::from_be_bytes([0, high, middle, low]) as usize;
                // DATA and HEADERS.
                answers += u64::from(kind <= 1);
                self.head.clear();
            }
        }
        answers
    }
}

/// Passes on what comes, or not, until either side or the test closes the connection.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    passes: impl Fn() -> bool,
    mut closed: watch::Receiver<u64>,
    swallowed: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut answers = Answers::default();
    closed.borrow_and_update();
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = closed.changed() => return,
        };
        let Ok(length @ 1..) = read else { return };
        let begun = answers.count(&buffer[..length]);
        if !passes() {
            swallowed.fetch_add(begun, Ordering::SeqCst);
        } else if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
