//! The content of a message that comes on a stream.

use std::{
    cell::RefCell,
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Shared;
use crate::{
    frames::{self, Broken, Code, End, Next, Stream},
    http::body_error::BodyError,
};

/// What is read of a stream. Dropped before it is over, it tells the sender that nobody reads on.
pub(crate) struct Content {
    session: Shared,
    stream: Rc<RefCell<Stream>>,
    /// What is to come of the length that was announced.
    missing: Option<u64>,
    /// The request goes with the answer: who drops the answer wants nothing more of the stream.
    is_answer: bool,
}

impl Content {
    /// The content of a request with these fields. One that is shorter than it says would be completed by the next request
    /// on a connection to the application.
    ///
    /// # Errors
    /// It announces a length that is none, or content after its end.
    pub(crate) fn of_request(session: Shared, stream: Rc<RefCell<Stream>>, fields: &HeaderMap) -> Result<Self, Broken> {
        let missing = frames::announced(fields)?;
        if missing.is_some_and(|missing| missing > 0) && stream.borrow().is_read() {
            return Err(Broken("a request that ends before its content"));
        }
        Ok(Self { session, stream, missing, is_answer: false })
    }

    /// The content of an answer with these fields, which may announce the length of content that it leaves out (RFC 9110
    /// section 8.6).
    ///
    /// # Errors
    /// It announces a length that is none.
    pub(super) fn of_answer(
        session: Shared,
        stream: Rc<RefCell<Stream>>,
        fields: &HeaderMap,
        leaves_out: bool,
    ) -> Result<Self, Broken> {
        let missing = if leaves_out { None } else { frames::announced(fields)? };
        Ok(Self { session, stream, missing, is_answer: true })
    }

    fn came(&mut self, data: Bytes) -> Result<Frame<Bytes>, BodyError> {
        self.session.borrow_mut().consumed(&self.stream, data.len());
        if let Some(missing) = &mut self.missing {
            *missing = missing.checked_sub(data.len() as u64).ok_or("more content than was announced")?;
        }
        Ok(Frame::data(data))
    }

    fn over(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let missing = self.missing.take();
        missing.filter(|missing| *missing > 0).map(|_| Err("less content than was announced".into()))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let next = this.stream.borrow_mut().poll_next(cx);
        next.map(|next| match next {
            Next::Content(data) => Some(this.came(data)),
            Next::Trailers(trailers) => match this.over() {
                None => Some(frames::trailers(trailers).map(Frame::trailers).map_err(Into::into)),
                short => short,
            },
            Next::Nothing => this.over(),
            Next::Cut(end) => Some(Err(words(end).into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.missing.is_none_or(|missing| missing == 0) && self.stream.borrow().is_read()
    }

    fn size_hint(&self) -> SizeHint {
        match self.missing {
            Some(missing) => SizeHint::with_exact(missing),
            None if self.stream.borrow().is_read() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let mut session = self.session.borrow_mut();
        session.ignore(&self.stream);
        match self.is_answer {
            true => session.drop_answer(&self.stream),
            false => session.drop_request(&self.stream),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("missing", &self.missing).finish_non_exhaustive()
    }
}

/// What the end of a stream means for who reads its content.
pub(super) const fn words(end: End) -> &'static str {
    match end {
        End::Reset(Code::BrokenOff) => "its sender broke it off",
        End::Reset(_) => "the other sidecar gave it up",
        End::Lost => "the connection between the sidecars was lost",
        End::Broken(_) => "the other sidecar broke the rules of the wire",
    }
}
