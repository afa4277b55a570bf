//! A connection that takes turns with the answers it carries, and writes once a turn.
//!
//! An event for ten thousand watchers is ten thousand answers that each have a little to write. Left alone, the connection
//! runs after every one of them, and every frame is a call to the system. Here it lets those go first that are ready
//! already, and what it then writes is gathered and goes out together, at the end of the turn.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered; a turn that has more to say writes them in between.
const GATHERED: usize = 64 << 10;

/// The stream of a connection. Until turns are taken, what is written is passed on.
pub(super) struct Gathering<S>(Arc<Mutex<Gathered<S>>>);

struct Gathered<S> {
    inner: S,
    takes_turns: bool,
    waiting: Vec<u8>,
    /// How many of them are written.
    written: usize,
}

/// What a connection is done with: its future, and the stream that it writes to.
pub(super) struct Turns<F, S> {
    connection: Pin<Box<F>>,
    stream: Gathering<S>,
    has_let_others_go: bool,
}

impl<S> Gathering<S> {
    pub(super) fn new(inner: S) -> Self {
        Gathering(Arc::new(Mutex::new(Gathered {
            inner,
            takes_turns: false,
            waiting: Vec::new(),
            written: 0,
        })))
    }

    /// Returns another handle to the stream, for [`Turns`].
    pub(super) fn handle(&self) -> Self {
        Gathering(Arc::clone(&self.0))
    }

    fn lock(&self) -> MutexGuard<'_, Gathered<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Writes what was gathered.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            let rest = &self.waiting[self.written..];
            match ready!(Pin::new(&mut self.inner).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        // Connections that rest hold no memory.
        (self.waiting, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl<F, S> Turns<F, S> {
    /// Takes turns from now on. `connection` writes to the stream that `stream` is a handle to.
    pub(super) fn new(connection: F, stream: Gathering<S>) -> Self {
        stream.lock().takes_turns = true;
        Turns { connection: Box::pin(connection), stream, has_let_others_go: false }
    }

    /// Returns the connection.
    pub(super) fn connection(&mut self) -> Pin<&mut F> {
        self.connection.as_mut()
    }
}

impl<F, T, E, S> Future for Turns<F, S>
where
    F: Future<Output = Result<T, E>>,
    E: From<io::Error>,
    S: AsyncWrite + Unpin,
{
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.has_let_others_go {
            self.has_let_others_go = true;
            // Behind everything that is ready to run here.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_let_others_go = false;
        let done = self.connection.as_mut().poll(context);
        match self.stream.lock().poll_drain(context) {
            Poll::Ready(Err(error)) if done.is_pending() => Poll::Ready(Err(error.into())),
            // Where the peer does not take it all, it wakes the connection when it does.
            Poll::Ready(_) | Poll::Pending => done,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut gathered = self.lock();
        if !gathered.takes_turns {
            return Pin::new(&mut gathered.inner).poll_write(context, data);
        }
        if gathered.waiting.len() >= GATHERED {
            ready!(gathered.poll_drain(context))?;
        }
        if gathered.waiting.is_empty() {
            gathered.waiting.reserve(data.len());
        }
        let room = (GATHERED - gathered.waiting.len()).min(data.len());
        gathered.waiting.extend_from_slice(&data[..room]);
        Poll::Ready(Ok(room))
    }

    /// What was gathered is on its way at the end of the turn, which is nothing that anybody in it has to wait for.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.lock();
        match gathered.takes_turns {
            true => Poll::Ready(Ok(())),
            false => Pin::new(&mut gathered.inner).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.lock();
        ready!(gathered.poll_drain(context))?;
        Pin::new(&mut gathered.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_in_a_turn_arrives_at_its_end() {
        let (mut theirs, ours) = duplex(1 << 20);
        let mut stream = Gathering::new(ours);
        let handle = stream.handle();
        stream.write_all(b"before ").await.unwrap();
        let mut first = [0; 7];
        theirs.read_exact(&mut first).await.unwrap();
        let turns = Turns::new(
            async move {
                for part in [b"one ", b"two "] {
                    stream.write_all(part).await?;
                    stream.flush().await?;
                }
                assert!(futures::poll!(Box::pin(theirs.read_u8())).is_pending(), "the turn is not over");
                tokio::task::yield_now().await;
                let mut text = [0; 8];
                theirs.read_exact(&mut text).await?;
                stream.write_all(b"three").await?;
                stream.shutdown().await?;
                let mut rest = Vec::new();
                while let Ok(byte) = theirs.read_u8().await {
                    rest.push(byte);
                }
                Ok::<_, io::Error>((text, rest))
            },
            handle,
        );
        assert_eq!(turns.await.unwrap(), (*b"one two ", b"three".to_vec()));
    }

    #[tokio::test]
    async fn a_peer_that_reads_slowly_gets_everything_and_bounds_what_waits() {
        let (mut theirs, ours) = duplex(1000);
        let mut stream = Gathering::new(ours);
        let (handle, bound) = (stream.handle(), stream.handle());
        let sent: Vec<u8> = (0..GATHERED * 3).map(|number| number as u8).collect();
        let expected = sent.clone();
        let turns = tokio::spawn(Turns::new(
            async move {
                stream.write_all(&sent).await?;
                stream.shutdown().await
            },
            handle,
        ));
        let mut received = Vec::new();
        while let Ok(byte) = theirs.read_u8().await {
            received.push(byte);
            assert!(bound.lock().waiting.len() <= GATHERED);
        }
        assert_eq!(received, expected);
        turns.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_ends_the_connection() {
        let (theirs, ours) = duplex(16);
        let mut stream = Gathering::new(ours);
        let handle = stream.handle();
        drop(theirs);
        let connection = async move {
            stream.write_all(b"anybody?").await?;
            std::future::pending::<io::Result<()>>().await
        };
        let error = Turns::new(connection, handle).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
