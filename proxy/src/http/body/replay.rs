//! A request body that can be sent again, and whose start can be read before it is sent at all.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use selvedge_policies::{facts::Section, request::PolicySet};

use super::{Body, BodyError, Source};
use crate::http::{Content, body_error, pace::Sender};

/// Bytes of a request body that are kept so that a try can be repeated.
const REPLAY_LIMIT: usize = 64 * 1024;
/// Bytes that mostly come with the head.
const SMALL: u64 = 4 * 1024;

/// A request body that can be sent again while no more than 64 KiB of it have passed.
pub(crate) struct Replay {
    /// `None` for a request without a body, which most are.
    shared: Option<Rc<RefCell<Shared>>>,
}

struct Shared {
    source: Content,
    sender: Sender,
    /// Who says what may not trail it.
    sanitizing: Option<Arc<PolicySet>>,
    /// Copied, because a frame of a few bytes holds the whole buffer it was read into.
    kept: Vec<u8>,
    /// Bytes of what is kept that the newest reader has read.
    next: usize,
    trailers: Option<HeaderMap>,
    /// The source has no more frames.
    over: bool,
    /// More passes than is kept: it cannot be sent again.
    overflown: bool,
    failed: bool,
    /// It failed because its framing is none.
    malformed: bool,
    /// Only the newest reader may poll the source.
    readers: u32,
    size: SizeHint,
}

impl Replay {
    /// Keeps what passes of `source`, which comes from the sender of a body of that length.
    pub(crate) fn new(source: Content, sender: impl FnOnce(Option<u64>) -> Sender) -> Self {
        if http_body::Body::is_end_stream(&source) {
            return Self { shared: None };
        }
        let size = http_body::Body::size_hint(&source);
        let overflown = size.exact().is_some_and(|exact| exact > REPLAY_LIMIT as u64);
        let shared = Shared {
            sender: sender(size.exact()),
            source,
            sanitizing: None,
            kept: Vec::new(),
            next: 0,
            trailers: None,
            over: false,
            overflown,
            failed: false,
            malformed: false,
            readers: 0,
            size,
        };
        Self { shared: Some(Rc::new(RefCell::new(shared))) }
    }

    /// True while another [`Replay::body`] would carry the whole body.
    pub(crate) fn can_repeat(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| {
            let shared = shared.borrow();
            !shared.failed && (!shared.overflown || shared.readers == 0)
        })
    }

    /// Keeps nothing any more: there will be no other try.
    pub(crate) fn settle(&self) {
        if let Some(shared) = &self.shared {
            shared.borrow_mut().forget();
        }
    }

    /// Tells when the sender was given up; `None` for a request without a body.
    pub(crate) fn late(&self) -> Option<Rc<Cell<bool>>> {
        self.shared.as_ref().map(|shared| shared.borrow().sender.late().clone())
    }

    /// True when the body did not come whole, which is not the endpoint's failure.
    pub(crate) fn broke(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.borrow().failed)
    }

    /// True when what came of it is not framed as content is.
    pub(crate) fn is_malformed(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.borrow().malformed)
    }

    /// Has `policies` take out of the trailer section what its sender may not say there; before there is a reader.
    pub(crate) fn sanitized_by(&self, policies: &Arc<PolicySet>) {
        let Some(shared) = self.shared.as_ref().filter(|_| policies.needs().sanitizes) else { return };
        let shared = &mut *shared.borrow_mut();
        shared.trailers.iter_mut().for_each(|trailers| policies.sanitize(Section::Trailer, trailers));
        shared.sanitizing = Some(Arc::clone(policies));
    }

    /// Reads so many bytes of it, or all there are, before there is a reader; dropped, it can be begun again. What is read is
    /// kept for the reader. It is over early when the body [broke](Self::broke).
    pub(crate) async fn read_ahead(&self, bytes: usize) {
        let Some(shared) = &self.shared else { return };
        let is_read = |shared: &Shared| shared.over || shared.failed || shared.kept.len() >= bytes;
        poll_fn(|cx| {
            let shared = &mut *shared.borrow_mut();
            while !is_read(shared) {
                ready!(shared.poll(cx));
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Its first bytes, as many as were read ahead and `bytes` at most, and whether they are all of it.
    pub(crate) fn start(&self, bytes: usize) -> (Box<[u8]>, bool) {
        let Some(shared) = &self.shared else { return (Box::default(), true) };
        let shared = shared.borrow();
        let start = &shared.kept[..shared.kept.len().min(bytes)];
        (start.into(), shared.over && start.len() == shared.kept.len())
    }

    /// The body from its start. Earlier readers end.
    pub(crate) fn body(&self) -> Body {
        let Some(shared) = &self.shared else { return Body::empty() };
        let turn = {
            let shared = &mut *shared.borrow_mut();
            shared.readers += 1;
            shared.next = 0;
            shared.readers
        };
        Body::of(Source::Replay(Reader { shared: shared.clone(), turn, trailers_sent: false }))
    }
}

/// One try's view of the body.
pub(super) struct Reader {
    shared: Rc<RefCell<Shared>>,
    turn: u32,
    trailers_sent: bool,
}

impl Reader {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let shared = &mut *self.shared.borrow_mut();
        if shared.readers != self.turn {
            return Poll::Ready(Some(Err("another try has taken the body over".into())));
        }
        if let Some(kept) = shared.unread() {
            return Poll::Ready(Some(Ok(Frame::data(kept))));
        }
        if !shared.over {
            match ready!(shared.poll(cx)) {
                Some(Ok(frame)) => {
                    shared.next = shared.kept.len();
                    self.trailers_sent = frame.is_trailers();
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {}
            }
        }
        if self.trailers_sent {
            return Poll::Ready(None);
        }
        self.trailers_sent = true;
        Poll::Ready(shared.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.shared.borrow().size
    }

    pub(super) fn is_end(&self) -> bool {
        let shared = self.shared.borrow();
        shared.over && shared.next >= shared.kept.len() && (shared.trailers.is_none() || self.trailers_sent)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What is small is there already, and the HTTP library reads over it.
        let is_small = self.size.exact().is_some_and(|exact| exact <= SMALL);
        if !self.over && !self.failed && !is_small {
            self.sender.leave();
        }
    }
}

impl Shared {
    /// The next frame of the source, which is kept. An error of its sender is one of the body.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = http_body::Body::poll_frame(Pin::new(&mut self.source), cx);
        if polled.is_pending() {
            ready!(self.sender.poll_late(cx));
            self.failed = true;
            return Poll::Ready(Some(Err("the caller did not send its body in time".into())));
        }
        match ready!(polled) {
            Some(Ok(mut frame)) => {
                self.sender.sent(frame.data_ref().map_or(0, Bytes::len));
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                } else if let Some(trailers) = frame.trailers_mut() {
                    self.sanitizing.iter().for_each(|policies| policies.sanitize(Section::Trailer, trailers));
                    self.trailers = Some(trailers.clone());
                    self.over = true;
                }
                self.over |= http_body::Body::is_end_stream(&self.source);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.failed = true;
                self.malformed = body_error::is_malformed(&*error);
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.over = true;
                Poll::Ready(None)
            }
        }
    }

    /// What is kept and not read yet. It is kept no longer where there will be no other try.
    fn unread(&mut self) -> Option<Bytes> {
        let unread = self.kept.get(self.next..).filter(|unread| !unread.is_empty()).map(Bytes::copy_from_slice)?;
        self.next = self.kept.len();
        self.let_go();
        Some(unread)
    }

    /// Keeps what passes. What is read ahead is kept at any length: nobody has seen it yet.
    fn keep(&mut self, data: &[u8]) {
        self.overflown |= self.kept.len() + data.len() > REPLAY_LIMIT;
        if self.overflown && self.readers > 0 {
            (self.kept, self.next) = (Vec::new(), 0);
        } else {
            self.kept.extend_from_slice(data);
        }
    }

    fn forget(&mut self) {
        self.overflown = true;
        self.let_go();
    }

    fn let_go(&mut self) {
        if self.overflown && self.next >= self.kept.len() {
            (self.kept, self.next) = (Vec::new(), 0);
        }
    }
}
