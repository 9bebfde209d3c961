//! The end that calls.

use std::{cell::RefCell, fmt, future::poll_fn, rc::Rc};

use http::{HeaderValue, Method, Response, response};
use http_body::Body as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_local,
    time::Instant,
};

use super::{Shared, Tunnel, accepts, content, drive, pump::Pump};
use crate::{
    frames::{self, Asked, Broken, Code, End, Session, Stream},
    http::{Body, Content},
};

/// Calls another sidecar. When it is dropped the connection ends with what is under way on it.
pub(crate) struct Caller {
    session: Shared,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed(pub End);

impl Caller {
    /// A caller on `io`, which is driven on this worker.
    pub(crate) fn new<T: AsyncRead + AsyncWrite + Unpin + 'static>(io: T) -> Self {
        let session = Rc::new(RefCell::new(Session::new(true, Instant::now())));
        let driven = session.clone();
        spawn_local(async move { drive(io, driven, || {}).await });
        Self { session }
    }

    /// True when it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.session.borrow().is_closed()
    }

    /// Something to send requests with, for as long as one takes.
    pub(crate) fn sender(&self) -> Sender {
        Sender { session: self.session.clone() }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.session.borrow_mut().leave();
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

/// Sends one request, and is used up by it.
pub(crate) struct Sender {
    session: Shared,
}

impl Sender {
    /// Sends a request, and gives its answer with how the names of its fields were written.
    pub(crate) async fn send(
        self,
        asked: &Asked<'_>,
        body: Body,
    ) -> Result<(Response<Content>, Option<HeaderValue>), Failed> {
        let ends = body.is_end_stream() && asked.becomes.is_none();
        let opened = self.session.borrow_mut().open(ends, |out| frames::encode_request(out, asked));
        let stream = opened.map_err(|code| Failed(End::Reset(code)))?;
        let mut call = Call { session: self.session, stream, answered: false };
        let mut pump = (!body.is_end_stream()).then(|| Pump::new(call.session.clone(), call.stream.clone(), body));
        let head = poll_fn(|cx| {
            if pump.as_mut().is_some_and(|pump| pump.poll(cx).is_ready()) {
                pump = None;
            }
            call.stream.borrow_mut().poll_head(cx)
        })
        .await
        .map_err(|end| match end {
            // Of the answer's head; that of the request has gone out.
            End::Reset(Code::TooLarge) => Failed(End::Reset(Code::BrokenOff)),
            end => Failed(end),
        })?;
        if let Some(mut pump) = pump {
            spawn_local(poll_fn(move |cx| pump.poll(cx)));
        }
        let (parts, told) = frames::response(head).map_err(|broken| Failed(End::Broken(broken.0)))?;
        let content = call.content(asked, &parts).map_err(|broken| Failed(End::Broken(broken.0)))?;
        call.answered = true;
        Ok((Response::from_parts(parts, content), told.spelling))
    }
}

/// A request without an answer. Dropped, it is given up.
struct Call {
    session: Shared,
    stream: Rc<RefCell<Stream>>,
    answered: bool,
}

impl Call {
    /// What follows the head of the answer.
    fn content(&self, asked: &Asked<'_>, parts: &response::Parts) -> Result<Content, Broken> {
        let (session, stream) = (self.session.clone(), self.stream.clone());
        if asked.becomes.is_some() {
            if accepts(asked.method, parts.status) {
                return Ok(Content::Tunnel(Some(Box::new(Tunnel::new(session, stream)))));
            }
            session.borrow_mut().finish(&stream, None);
        }
        let leaves_out = *asked.method == Method::HEAD || matches!(parts.status.as_u16(), 204 | 304);
        content::Content::of_answer(session, stream, &parts.headers, leaves_out).map(Content::Frames)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.answered {
            let mut session = self.session.borrow_mut();
            session.ignore(&self.stream);
            session.reset(&self.stream, Code::Cancelled);
        }
    }
}
