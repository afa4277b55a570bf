//! A client of HTTP/2 over TLS that costs next to nothing, so that what is measured is the server.
//!
//! It does what benches need and no more: requests that read, whole answers one at a time, and any number of watches whose
//! events are counted by their ends of line. Servers may send as much as they like; nobody waits for this client's window.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes that are taken from the system at once, and from TLS.
const INPUT: usize = 256 << 10;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames (RFC 9113, section 6), as far as they mean something here.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// What a window may be at most, and what every connection begins with.
const WINDOW: u32 = (1 << 31) - 1;
const FIRST_WINDOW: u32 = (1 << 16) - 1;

/// How long a server may keep silent that owes an answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// How to reach a server, and as whom: what a kubeconfig with a client certificate says.
#[derive(Clone)]
pub struct Access {
    address: String,
    tls: TlsConnector,
}

impl Access {
    /// Reads a kubeconfig.
    pub fn read(kubeconfig: &Path) -> Self {
        let text = std::fs::read_to_string(kubeconfig).expect("there is a kubeconfig");
        let config: Value = serde_saphyr::from_str(&text).expect("a kubeconfig is YAML");
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let pem = |value: &Value| {
            STANDARD.decode(value.as_str().expect("it is in the kubeconfig")).expect("it is base64")
        };
        let mut authorities = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(&pem(&cluster["certificate-authority-data"]));
        authorities.add(authority.expect("it is PEM")).expect("it is a certificate");
        let chain =
            vec![CertificateDer::from_pem_slice(&pem(&user["client-certificate-data"])).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(&pem(&user["client-key-data"])).expect("it is PEM");
        let mut tls = ClientConfig::builder()
            .with_root_certificates(authorities)
            .with_client_auth_cert(chain, key)
            .expect("key and certificate fit");
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let server = cluster["server"].as_str().expect("a cluster has a server");
        let address = server.strip_prefix("https://").expect("it speaks TLS").to_owned();
        Access { address, tls: TlsConnector::from(Arc::new(tls)) }
    }

    /// Connects.
    pub async fn connect(&self) -> Connection {
        let stream = TcpStream::connect(&self.address).await.expect("the server is there");
        stream.set_nodelay(true).expect("it is a socket");
        let name = ServerName::try_from("localhost").expect("it is a name");
        // Left alone, rustls reads a record at a time.
        let stream = BufReader::with_capacity(INPUT, stream);
        let stream = self.tls.connect(name, stream).await.expect("the handshake succeeds");
        let (input, body) = (Vec::with_capacity(INPUT), Vec::new());
        let mut connection = Connection { stream, input, start: 0, body, next: 1, received: 0 };
        let mut out = PREFACE.to_vec();
        // No table of headers, no pushes, no limits of a stream.
        let settings = [(1u16, 0u32), (2, 0), (4, WINDOW)];
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frame(SETTINGS, 0, 0, &payload, &mut out);
        frame(WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes(), &mut out);
        connection.write(&out).await;
        connection
    }
}

/// A request.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// With the query.
    pub path: &'a str,
    pub accept: &'a str,
    pub encoding: &'a str,
}

/// A connection to a server.
pub struct Connection {
    stream: TlsStream<BufReader<TcpStream>>,
    /// What was read; the part before `start` was dealt with.
    input: Vec<u8>,
    start: usize,
    /// The last answer: memory that is new costs as much as what is read into it.
    body: Vec<u8>,
    /// The number of the next stream.
    next: u32,
    /// Bytes since the server was last told that there is room.
    received: u32,
}

/// A frame that says something about an answer.
enum Frame<'a> {
    Head,
    Data(&'a [u8]),
    End,
}

impl Connection {
    /// Asks for something, and returns the whole answer. Panics when it is no success.
    pub async fn ask(&mut self, request: Request<'_>) -> &[u8] {
        self.send(request).await;
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let mut is_whole = false;
        while !is_whole {
            self.fill().await;
            self.frames(|frame| match frame {
                Frame::Data(data) => body.extend_from_slice(data),
                Frame::End => is_whole = true,
                Frame::Head => {}
            })
            .await;
        }
        self.body = body;
        &self.body
    }

    /// Opens so many watches of the same; all are answered when this returns. Panics when one is refused.
    pub async fn open(&mut self, count: usize, request: Request<'_>) {
        for _ in 0..count {
            self.send(request).await;
        }
        let mut answered = 0;
        while answered < count {
            self.fill().await;
            self.frames(|frame| answered += usize::from(matches!(frame, Frame::Head))).await;
        }
    }

    /// Waits for events of the watches that were opened, and returns how many have come.
    pub async fn events(&mut self) -> usize {
        self.fill().await;
        let mut events = 0;
        self.frames(|frame| match frame {
            Frame::Data(data) => events += memchr::memchr_iter(b'\n', data).count(),
            Frame::End => panic!("the server ended a watch"),
            Frame::Head => {}
        })
        .await;
        events
    }

    async fn send(&mut self, request: Request<'_>) {
        let Request { path, accept, encoding } = request;
        let mut headers = Vec::new();
        let mut header = |name: &str, value: &str| {
            // A literal that nobody has to remember (RFC 7541, section 6.2.2).
            headers.push(0);
            text(name, &mut headers);
            text(value, &mut headers);
        };
        header(":method", "GET");
        header(":scheme", "https");
        header(":authority", "localhost");
        header(":path", path);
        header("accept", accept);
        if !encoding.is_empty() {
            header("accept-encoding", encoding);
        }
        let mut out = Vec::new();
        frame(HEADERS, END_HEADERS | END_STREAM, self.next, &headers, &mut out);
        self.next += 2;
        self.write(&out).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the server listens");
        self.stream.flush().await.expect("the server listens");
    }

    /// Reads what there is.
    async fn fill(&mut self) {
        self.input.drain(..self.start);
        self.start = 0;
        let reading = self.stream.read_buf(&mut self.input);
        let read = timeout(PATIENCE, reading).await.expect("the server says something");
        assert!(read.expect("the connection holds") > 0, "the server closed the connection");
    }

    /// Hands out the frames that are whole, and answers those that are not about an answer.
    async fn frames(&mut self, mut take: impl FnMut(Frame<'_>)) {
        let mut out = Vec::new();
        while let Some(head) = self.input.get(self.start..self.start + 9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (kind, flags) = (head[3], head[4]);
            let end = self.start + 9 + length as usize;
            let Some(payload) = self.input.get(self.start + 9..end) else { break };
            match kind {
                DATA => {
                    self.received += length;
                    take(Frame::Data(payload));
                }
                HEADERS if is_status(payload) => {
                    assert!(
                        is_success(payload),
                        "the server refused: {:?}",
                        String::from_utf8_lossy(payload)
                    );
                    take(Frame::Head);
                }
                SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[], &mut out),
                PING if flags & ACK == 0 => frame(PING, ACK, 0, payload, &mut out),
                RESET | GO_AWAY => panic!("the server gave up: {:?}", String::from_utf8_lossy(payload)),
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                take(Frame::End);
            }
            self.start = end;
        }
        if self.received > WINDOW / 2 {
            frame(WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes(), &mut out);
            self.received = 0;
        }
        if !out.is_empty() {
            self.write(&out).await;
        }
    }
}

/// Returns what a block of headers begins with, behind the size of the table (RFC 7541, section 6.3).
fn first_field(headers: &[u8]) -> &[u8] {
    match headers {
        [0x20, rest @ ..] => rest,
        headers => headers,
    }
}

/// Tells the head of an answer, which begins with its status, from its trailer.
fn is_status(headers: &[u8]) -> bool {
    // Of the static table, 8 to 14 are `:status`; as a literal, the name is one of them.
    matches!(first_field(headers), [0x88..=0x8e | 0x08 | 0x48, ..])
}

fn is_success(headers: &[u8]) -> bool {
    first_field(headers).first() == Some(&0x88)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("frames are small").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Writes a string that is not compressed (RFC 7541, section 5.2).
fn text(text: &str, out: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push((length % 128 + 128) as u8);
            length /= 128;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(text.as_bytes());
}
