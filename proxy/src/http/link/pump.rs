//! Sends the content of a message on its stream, as fast as its reader takes it.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Body as _;

use super::Shared;
use crate::{
    frames::{Code, Stream},
    http::Body,
};

/// A body on its way.
pub(crate) struct Pump {
    session: Shared,
    stream: Rc<RefCell<Stream>>,
    body: Body,
    /// What was taken from the body and is not sent.
    held: Bytes,
    /// What is held is the last of it.
    last: bool,
}

impl Pump {
    /// Sends `body` on `stream`.
    pub(crate) const fn new(session: Shared, stream: Rc<RefCell<Stream>>, body: Body) -> Self {
        Self { session, stream, body, held: Bytes::new(), last: false }
    }

    /// Bytes that its reader holds up.
    pub(crate) const fn held(&self) -> usize {
        self.held.len()
    }

    /// Ready when all was sent, or nobody wants more of it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.stream.borrow().is_over() {
                return Poll::Ready(());
            }
            if !self.held.is_empty() {
                ready!(self.session.borrow_mut().send(&self.stream, &mut self.held, self.last, cx));
            }
            if self.last {
                return Poll::Ready(());
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                self.stream.borrow_mut().watch_writer(cx);
                return Poll::Pending;
            };
            match frame {
                None => {
                    self.session.borrow_mut().finish(&self.stream, None);
                    return Poll::Ready(());
                }
                Some(Err(_)) => {
                    self.session.borrow_mut().reset(&self.stream, Code::BrokenOff);
                    return Poll::Ready(());
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.last = self.body.is_end_stream();
                        self.held = data;
                        if self.held.is_empty() && self.last {
                            self.session.borrow_mut().finish(&self.stream, None);
                            return Poll::Ready(());
                        }
                    }
                    Err(frame) => {
                        self.session.borrow_mut().finish(&self.stream, frame.trailers_ref());
                        return Poll::Ready(());
                    }
                },
            }
        }
    }
}
