//! Connections on which HTTP is spoken by hand, for what no client would send.

use std::collections::BTreeMap;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::PATIENCE;
use super::tls::TlsServer;

/// A connection on which HTTP/1.1 is spoken by hand.
pub struct Raw(pub BufReader<TlsStream<TcpStream>>);

impl Raw {
    pub async fn connect(server: &TlsServer) -> Self {
        let stream = server.connect(&["http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        Raw(BufReader::new(stream))
    }

    /// Sends the head of a request, which is all of it.
    pub async fn send(&mut self, head: &str) {
        let request = format!("{}\r\nHost: localhost\r\n\r\n", head.trim_end());
        self.0.write_all(request.as_bytes()).await.expect("the server reads");
        self.0.flush().await.expect("the server reads");
    }

    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_line(&mut line)).await;
        read.expect("a line comes").expect("the connection holds");
        line
    }

    /// Reads the head of an answer: the status line, and headers by their names in lower case.
    pub async fn head(&mut self) -> (String, BTreeMap<String, String>) {
        let status = self.line().await;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
                None => return (status.trim_end().to_owned(), headers),
            };
        }
    }

    /// Reads a chunk of a body; the last one is empty.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size =
            usize::from_str_radix(self.line().await.trim_end(), 16).expect("a chunk begins with its size");
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).await.expect("a chunk is as long as it says");
        chunk.truncate(size);
        chunk
    }
}

/// Opens a connection that speaks HTTP/2.
pub async fn http2(
    server: &TlsServer,
) -> (h2::client::SendRequest<bytes::Bytes>, tokio::task::JoinHandle<usize>) {
    let stream = server.connect(&["h2"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // As Go's client does: one reader of a stream who is slow does not keep the others waiting.
    let mut client = h2::client::Builder::new();
    client.initial_connection_window_size(1 << 24);
    let (send, connection) = client.handshake(stream).await.expect("the server speaks HTTP/2");
    let driving = tokio::spawn(async move {
        let mut connection = connection;
        let _ = (&mut connection).await;
        connection.max_concurrent_send_streams()
    });
    (send, driving)
}

/// Returns a request for [`http2`].
pub fn http2_get(path: &str) -> http::Request<()> {
    http::Request::get(format!("https://localhost{path}")).body(()).expect("it is a URL")
}
