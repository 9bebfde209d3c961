//! The content of an answer that comes on a stream.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};

use super::Peer;
use crate::http::body_error::BodyError;

/// What is read of a stream; what is taken of it makes room for more. Whether it is as long as it says the library sees to.
#[derive(Debug)]
pub(crate) struct Content {
    stream: RecvStream,
    /// What is to come of the length that was announced.
    missing: Option<u64>,
    /// Trailers are all that may follow.
    data_over: bool,
    peer: Rc<Peer>,
}

/// How content ends that is not whole.
#[derive(Debug, thiserror::Error)]
#[error("error reading a body from connection")]
struct Broken(#[source] h2::Error);

impl Content {
    /// The content of an answer that announces `length`, which it may leave out (RFC 9110 section 8.6).
    pub(super) fn new(stream: RecvStream, length: Option<u64>, peer: Rc<Peer>) -> Self {
        let missing = length.or_else(|| stream.is_end_stream().then_some(0));
        Self { stream, missing, data_over: false, peer }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, h2::Error>> {
        if !self.data_over {
            if let Some(data) = ready!(self.stream.poll_data(cx)).transpose()? {
                // It fails where the stream is over, and then nobody needs the room.
                let _ = self.stream.flow_control().release_capacity(data.len());
                self.missing = self.missing.map(|missing| missing.saturating_sub(data.len() as u64));
                self.peer.hear();
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
            self.data_over = true;
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(Ok(trailers.map(Frame::trailers)))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(match ready!(self.poll_next(cx)) {
            // An answer that is whole without the rest of its request (RFC 9113 section 8.1).
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => None,
            next => next.map_err(|error| Broken(error).into()).transpose(),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.missing.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
