//! The body of an answer on its way to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::Exchange;
use super::passed::Passed;
use crate::api::serve::Reading;

/// Bytes that a stream of HTTP/2 is given at a time. It takes all of it or nothing, however little its client reads.
const PIECE: usize = 64 << 10;

/// The body of an answer on its way to the client.
pub(super) struct Sending {
    pub(super) inner: Body,
    /// What is there already of it, and was not asked for yet.
    pub(super) rest: Bytes,
    /// When an answer that is still being written is given up.
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    /// Knows whether the client reads, where nothing else would notice.
    pub(super) reading: Option<Arc<Reading>>,
    pub(super) passed: Passed,
    pub(super) code: StatusCode,
    pub(super) exchange: Exchange,
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(context).is_ready()
        {
            self.timer = None;
            let error = self.exchange.timed_out();
            return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::other(
                error.message().to_owned(),
            )))));
        }
        if self.rest.is_empty() {
            let frame = Pin::new(&mut self.inner).poll_frame(context);
            if let Some(reading) = &self.reading {
                // Whoever asks for more has taken what there was.
                if frame.is_ready() { reading.begin() } else { reading.end() }
            }
            match ready!(frame).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
            let Sending { passed, rest, .. } = &mut *self;
            passed.note(rest);
        } else if let Some(reading) = &self.reading {
            reading.begin();
        }
        let piece = if self.reading.is_some() { PIECE } else { usize::MAX };
        let length = self.rest.len().min(piece);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let exchange = &mut self.exchange;
        let seconds = (!exchange.is_long_running).then(|| exchange.start.elapsed().as_secs_f64());
        exchange.metrics.answered(&exchange.labels, self.code.as_u16(), seconds, self.passed.bytes);
        if let Some(record) = exchange.record.take() {
            record.complete();
        }
    }
}
