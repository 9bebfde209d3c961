//! A request body that can be sent again.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use selvedge_policies::{facts::Section, request::PolicySet};

use super::{Body, BodyError, Source};
use crate::http::pace::Sender;

/// Bytes of a request body that are kept so that a try can be repeated.
const REPLAY_LIMIT: usize = 64 * 1024;

/// A request body that can be sent again while no more than 64 KiB of it have passed.
pub struct Replay {
    /// `None` for a request without a body, which most are.
    shared: Option<Rc<RefCell<Shared>>>,
}

struct Shared {
    source: Incoming,
    sender: Sender,
    /// Who says what may not trail it.
    sanitizing: Option<Arc<PolicySet>>,
    /// Copied, because a frame of a few bytes holds the whole buffer it was read into.
    kept: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// The source has no more frames.
    over: bool,
    /// More passed than is kept: it cannot be sent again.
    overflown: bool,
    failed: bool,
    /// Only the newest reader may poll the source.
    readers: u32,
    size: SizeHint,
}

impl Replay {
    /// Keeps what passes of `source`, which comes from the sender of a body of that length. What that one may not say,
    /// `policies` take out of its trailer section.
    pub fn new(source: Incoming, policies: &Arc<PolicySet>, sender: impl FnOnce(Option<u64>) -> Sender) -> Self {
        if http_body::Body::is_end_stream(&source) {
            return Self { shared: None };
        }
        let size = http_body::Body::size_hint(&source);
        let overflown = size.exact().is_some_and(|exact| exact > REPLAY_LIMIT as u64);
        let shared = Shared {
            sender: sender(size.exact()),
            source,
            sanitizing: policies.needs().sanitizes.then(|| Arc::clone(policies)),
            kept: Vec::new(),
            trailers: None,
            over: false,
            overflown,
            failed: false,
            readers: 0,
            size,
        };
        Self { shared: Some(Rc::new(RefCell::new(shared))) }
    }

    /// True while another [`Replay::body`] would carry the whole body.
    pub fn can_repeat(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| {
            let shared = shared.borrow();
            !shared.failed && (!shared.overflown || shared.readers == 0)
        })
    }

    /// Keeps nothing any more: there will be no other try.
    pub fn settle(&self) {
        if let Some(shared) = &self.shared {
            shared.borrow_mut().forget();
        }
    }

    /// Tells when the sender was given up; `None` for a request without a body.
    pub fn late(&self) -> Option<Rc<Cell<bool>>> {
        self.shared.as_ref().map(|shared| shared.borrow().sender.late().clone())
    }

    /// True when the body did not come whole, which is not the endpoint's failure.
    pub fn broke(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.borrow().failed)
    }

    /// The body from its start. Earlier readers end.
    pub fn body(&self) -> Body {
        let Some(shared) = &self.shared else { return Body::empty() };
        shared.borrow_mut().readers += 1;
        let turn = shared.borrow().readers;
        Body::of(Source::Replay(Reader { shared: shared.clone(), turn, next: 0, trailers_sent: false }))
    }
}

/// One try's view of the body.
pub(super) struct Reader {
    shared: Rc<RefCell<Shared>>,
    turn: u32,
    /// Bytes of what is kept that it has read.
    next: usize,
    trailers_sent: bool,
}

impl Reader {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let shared = &mut *self.shared.borrow_mut();
        if shared.readers != self.turn {
            return Poll::Ready(Some(Err("another try has taken the body over".into())));
        }
        if let Some(kept) = shared.kept.get(self.next..).filter(|kept| !kept.is_empty()) {
            self.next += kept.len();
            return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(kept)))));
        }
        if !shared.over {
            let polled = http_body::Body::poll_frame(Pin::new(&mut shared.source), cx);
            if polled.is_pending() {
                ready!(shared.sender.poll_late(cx));
                shared.failed = true;
                return Poll::Ready(Some(Err("the caller did not send its body in time".into())));
            }
            match ready!(polled) {
                Some(Ok(mut frame)) => {
                    shared.sender.sent(frame.data_ref().map_or(0, Bytes::len));
                    if let Some(data) = frame.data_ref() {
                        shared.keep(data);
                        self.next = shared.kept.len();
                    } else if let Some(trailers) = frame.trailers_mut() {
                        shared.sanitizing.iter().for_each(|policies| policies.sanitize(Section::Trailer, trailers));
                        shared.trailers = Some(trailers.clone());
                        shared.over = true;
                        self.trailers_sent = true;
                    }
                    shared.over |= http_body::Body::is_end_stream(&shared.source);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Err(error)) => {
                    shared.failed = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => shared.over = true,
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
        shared.over && self.next >= shared.kept.len() && (shared.trailers.is_none() || self.trailers_sent)
    }
}

impl Shared {
    fn keep(&mut self, data: &[u8]) {
        if self.overflown || self.kept.len() + data.len() > REPLAY_LIMIT {
            self.forget();
        } else {
            self.kept.extend_from_slice(data);
        }
    }

    fn forget(&mut self) {
        self.overflown = true;
        self.kept = Vec::new();
    }
}
