//! Compression of large answers (C51).

use std::io::Write;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use axum::response::IntoResponse;
use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::Body as _;

use crate::api::status::ApiError;

/// Answers up to this many bytes are sent as they are: packing them costs more than it saves.
const THRESHOLD: usize = 128 << 10;

/// Bytes that are packed without a pause, so that other requests get their turn.
const SLICE: usize = 64 << 10;

/// What is packed: text that repeats itself.
const PACKED_TYPES: [&str; 2] = ["application/json", "application/yaml"];

/// Returns whether a client takes gzip. A weight is not read, as in k8s.io/apiserver: who weighs gets it unpacked.
pub(super) fn is_accepted(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| coding.trim() == "gzip")
}

/// Packs an answer that is large enough.
pub(super) async fn compress(answer: Response<Body>) -> Response<Body> {
    let (mut parts, mut body) = answer.into_parts();
    let media_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    let is_small = body.size_hint().upper().is_some_and(|most| most <= THRESHOLD as u64);
    if is_small || !PACKED_TYPES.contains(&media_type) || parts.headers.contains_key(header::CONTENT_ENCODING)
    {
        return Response::from_parts(parts, body);
    }
    // Of an answer that is written while it is sent, the size is known when there is enough of it.
    let (mut begun, mut size) = (Vec::new(), 0);
    while size <= THRESHOLD {
        match body.frame().await {
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                size += data.len();
                begun.push(data);
            }
            Some(Err(error)) => return ApiError::internal(error).into_response(),
            None => return Response::from_parts(parts, Body::from(begun.concat())),
        }
    }
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, pack(begun, body))
}

/// An answer that is being packed.
struct Packing {
    /// What was read and not packed yet, last part first.
    ready: Vec<Bytes>,
    body: Body,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

fn pack(mut begun: Vec<Bytes>, body: Body) -> Body {
    begun.reverse();
    let encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    let packing = Packing { ready: begun, body, encoder };
    let chunks = stream::unfold(packing, |mut packing| async move {
        let chunk = packing.next().await?;
        Some((chunk, packing))
    });
    Body::from_stream(chunks.fuse())
}

impl Packing {
    /// Returns the next packed bytes; none behind the last. An error ends the answer in the middle.
    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        loop {
            let encoder = self.encoder.as_mut()?;
            let Some(mut data) = self.ready.pop() else {
                match self.body.frame().await {
                    Some(Ok(frame)) => self.ready.extend(frame.into_data()),
                    Some(Err(error)) => {
                        self.encoder = None;
                        return Some(Err(error));
                    }
                    None => {
                        let last = self.encoder.take()?.finish().map_err(axum::Error::new);
                        return Some(last.map(Bytes::from));
                    }
                }
                continue;
            };
            let slice = data.split_to(data.len().min(SLICE));
            if let Err(error) = encoder.write_all(&slice) {
                self.encoder = None;
                return Some(Err(axum::Error::new(error)));
            }
            if data.has_remaining() {
                self.ready.push(data);
            }
            let packed = std::mem::take(encoder.get_mut());
            if packed.is_empty() {
                tokio::task::yield_now().await;
            } else {
                return Some(Ok(packed.into()));
            }
        }
    }
}
