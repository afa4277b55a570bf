//! The bytes of a blob, also when the connection breaks off in the middle: the rest is asked for by range.
//!
//! Whether the pieces make the right whole is for the reader to judge; the digest is of all of it.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, Response, StatusCode};

use super::endpoint::{Ask, Endpoint, Failure};
use super::retry::Retries;
use crate::pipeline::fetch::{BlobStream, Digest, FetchError};

/// How often one blob may break off, whatever came in between.
const MAX_BREAKS: u32 = 100;

struct Download {
    endpoint: Arc<Endpoint>,
    path: String,
    size: u64,
    /// How many bytes came.
    position: u64,
    current: Option<Body>,
    retries: Retries,
    breaks: u32,
}

/// The body of one answer.
struct Body {
    chunks: BoxStream<'static, Result<Bytes, reqwest::Error>>,
    /// How much of it came before.
    known: u64,
}

/// Returns the bytes of a blob of a known size. That it exists is known when this returns.
pub(super) async fn download(
    endpoint: Arc<Endpoint>,
    digest: Digest,
    size: u64,
) -> Result<BlobStream, FetchError> {
    let mut download = Download {
        endpoint,
        path: format!("blobs/{digest}"),
        size,
        position: 0,
        current: None,
        retries: Retries::new(),
        breaks: 0,
    };
    download.current = Some(download.open().await?);
    Ok(download.chunks().boxed())
}

impl Download {
    fn chunks(self) -> impl Stream<Item = Result<Bytes, FetchError>> + Send {
        stream::try_unfold(self, |mut download| async move {
            let chunk = download.next().await?;
            Ok(chunk.map(|chunk| (chunk, download)))
        })
    }

    /// Returns the next bytes; none behind the last.
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let mut body = match self.current.take() {
                Some(body) => body,
                None => self.open().await?,
            };
            let broken = match body.chunks.next().await {
                Some(Ok(mut chunk)) => {
                    let known = body.known.min(chunk.len() as u64);
                    body.known -= known;
                    chunk.advance(known as usize);
                    self.current = Some(body);
                    if chunk.is_empty() {
                        continue;
                    }
                    self.position += chunk.len() as u64;
                    self.retries.reset();
                    return Ok(Some(chunk));
                }
                None if self.position >= self.size => return Ok(None),
                None => {
                    let reason = format!("the answer ended after {} of {} bytes", self.position, self.size);
                    FetchError::Transport { place: self.endpoint.place(), reason }
                }
                // All is there; how the connection ended does not matter.
                Some(Err(_)) if self.position >= self.size => return Ok(None),
                Some(Err(error)) => match self.endpoint.transport(&error) {
                    Failure::Passing(error, _) => error,
                    Failure::Final(error) => return Err(error),
                },
            };
            self.breaks += 1;
            if self.breaks > MAX_BREAKS || !self.retries.wait(None).await {
                return Err(broken);
            }
            tracing::debug!(
                place = self.endpoint.place(),
                at = self.position,
                "a download broke off; resuming"
            );
        }
    }

    /// Asks for the rest.
    async fn open(&mut self) -> Result<Body, FetchError> {
        let ask = Ask { method: Method::GET, path: &self.path, from: self.position };
        let response = self.endpoint.ask(&ask).await?;
        let response = self.endpoint.success(response).await?;
        let known = match (response.status(), self.position) {
            // Without ranges everything comes again.
            (StatusCode::OK, position) => position,
            (StatusCode::PARTIAL_CONTENT, position) if range_start(&response) == Some(position) => 0,
            (status, _) => {
                return Err(self.endpoint.answer(format!("{status} with another part of the blob")));
            }
        };
        Ok(Body { chunks: response.bytes_stream().boxed(), known })
    }
}

/// Reads where a part begins: `bytes 100-199/200`.
fn range_start(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let range = text.trim().strip_prefix("bytes")?.trim_start();
    range.split_once('-')?.0.parse().ok()
}
