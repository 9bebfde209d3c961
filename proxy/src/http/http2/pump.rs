//! Sends the content of a request on its stream, as fast as its reader takes it.

use std::{
    error::Error,
    iter::successors,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;

use crate::http::{Body, body_error::BodyError};

/// A body on its way.
pub(super) struct Pump {
    stream: SendStream<Bytes>,
    body: Body,
    /// What was taken from the body and is not sent, and whether it is the last of it.
    held: Option<(Bytes, bool)>,
}

impl Pump {
    /// Sends `body` on `stream`.
    pub(super) const fn new(stream: SendStream<Bytes>, body: Body) -> Self {
        Self { stream, body, held: None }
    }

    /// Ready when all was sent, or nobody wants more of it. Why not, whoever waits for the answer is told.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_sent(cx).map(drop)
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if let Poll::Ready(reset) = self.stream.poll_reset(cx) {
                return Poll::Ready(reset.map(drop));
            }
            if self.held.is_some() {
                ready!(poll_room(&mut self.stream, cx))?;
            }
            if let Some((data, last)) = self.held.take() {
                self.stream.send_data(data, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => return Poll::Ready(self.stream.send_data(Bytes::new(), true)),
                Some(Err(error)) => {
                    self.stream.send_reset(reason(&error));
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => self.held = Some((data, self.body.is_end_stream())),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return Poll::Ready(self.stream.send_trailers(trailers));
                    }
                },
            }
        }
    }
}

/// Ready when there is room on `stream` for what is in hand. One byte of the connection's window is asked for, and for the rest
/// when it is sent: whoever waits with a claim to more holds up the others.
pub(super) fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(room) => drop(room?),
            None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
        }
    }
    Poll::Ready(Ok(()))
}

/// What the peer is told of a body that breaks off: what was said of it where it came over HTTP/2.
fn reason(error: &BodyError) -> Reason {
    let mut causes = successors(Some(&**error as &(dyn Error + 'static)), |error| (**error).source());
    let said = causes.find_map(|error| error.downcast_ref::<h2::Error>()?.reason());
    said.unwrap_or(Reason::INTERNAL_ERROR)
}
