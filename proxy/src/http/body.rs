//! The one body type of the data path. It streams, counts, can be sent again when it was small, and tells when
//! it ended.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    pace::{Polled, Sender},
    trailers,
};

/// Bytes of a request body that are kept so that a try can be repeated.
pub const REPLAY_LIMIT: usize = 64 * 1024;

/// Errors while a body streams.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Told when a body is over. Dropping it without a call to either method means that its reader went away.
pub trait Ending {
    /// The last frame has passed; `trailers` when there were any.
    fn complete(&mut self, trailers: Option<&HeaderMap>);

    /// Its sender broke off.
    fn broke(&mut self);

    /// It was asked for a frame.
    fn polled(&mut self, polled: Polled);
}

/// A body.
pub struct Body {
    source: Source,
    /// Counts payload bytes that have passed.
    meter: Option<Rc<Cell<u64>>>,
    ending: Option<Box<dyn Ending>>,
}

enum Source {
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    Replay(Reader),
}

impl Body {
    /// No body.
    pub const fn empty() -> Self {
        Self { source: Source::Empty, meter: None, ending: None }
    }

    /// A body of our own.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Full(bytes.into()), meter: None, ending: None }
    }

    /// A body that streams from a peer.
    pub const fn incoming(incoming: Incoming) -> Self {
        Self { source: Source::Incoming(incoming), meter: None, ending: None }
    }

    /// Counts payload bytes into `meter`.
    pub fn metered(mut self, meter: Rc<Cell<u64>>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Tells `ending` when the body is over.
    pub fn ending(mut self, ending: Box<dyn Ending>) -> Self {
        self.ending = Some(ending);
        self
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(match &mut self.source {
            Source::Empty => None,
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Source::Incoming(incoming) => {
                ready!(http_body::Body::poll_frame(Pin::new(incoming), cx)).map(|frame| frame.map_err(Into::into))
            }
            Source::Replay(reader) => ready!(reader.poll(cx)),
        })
    }

    fn finish(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(mut ending) = self.ending.take() {
            ending.complete(trailers);
        }
    }
}

/// The frame as it may be forwarded; nothing when no field of a trailer section may.
fn without_refused_trailers(mut frame: Result<Frame<Bytes>, BodyError>) -> Option<Result<Frame<Bytes>, BodyError>> {
    if let Some(fields) = frame.as_mut().ok().and_then(Frame::trailers_mut) {
        trailers::strip(fields);
        return (!fields.is_empty()).then_some(frame);
    }
    Some(frame)
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = this.poll_source(cx);
        if let Some(ending) = &mut this.ending {
            ending.polled(if polled.is_pending() { Polled::Waits } else { Polled::Progressed });
        }
        let frame = ready!(polled).and_then(without_refused_trailers);
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(meter), Some(data)) = (&this.meter, frame.data_ref()) {
                    meter.set(meter.get() + data.len() as u64);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.finish(Some(trailers));
                } else if http_body::Body::is_end_stream(this) {
                    this.finish(None);
                }
            }
            Some(Err(_)) => {
                if let Some(mut ending) = this.ending.take() {
                    ending.broke();
                }
            }
            None => this.finish(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_empty(),
            Source::Incoming(incoming) => incoming.is_end_stream(),
            Source::Replay(reader) => reader.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Incoming(incoming) => incoming.size_hint(),
            Source::Replay(reader) => reader.shared.borrow().size,
        }
    }
}

impl Drop for Body {
    /// hyper may drop a body without polling it once its announced length has passed; that is not cut short.
    fn drop(&mut self) {
        if self.ending.is_some() && http_body::Body::is_end_stream(self) {
            self.finish(None);
        }
    }
}

/// A request body that can be sent again while no more than [`REPLAY_LIMIT`] bytes of it have passed.
pub struct Replay {
    /// `None` for a request without a body, which most are.
    shared: Option<Rc<RefCell<Shared>>>,
}

struct Shared {
    source: Incoming,
    sender: Sender,
    kept: Vec<Bytes>,
    kept_bytes: usize,
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
    /// Keeps what passes of `source`, which comes from the sender of a body of that length.
    pub fn new(source: Incoming, sender: impl FnOnce(Option<u64>) -> Sender) -> Self {
        if http_body::Body::is_end_stream(&source) {
            return Self { shared: None };
        }
        let size = http_body::Body::size_hint(&source);
        let overflown = size.exact().is_some_and(|exact| exact > REPLAY_LIMIT as u64);
        let shared = Shared {
            sender: sender(size.exact()),
            source,
            kept: Vec::new(),
            kept_bytes: 0,
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
        let reader = Reader { shared: shared.clone(), turn, next: 0, trailers_sent: false };
        Body { source: Source::Replay(reader), meter: None, ending: None }
    }
}

struct Reader {
    shared: Rc<RefCell<Shared>>,
    turn: u32,
    next: usize,
    trailers_sent: bool,
}

impl Reader {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let shared = &mut *self.shared.borrow_mut();
        if shared.readers != self.turn {
            return Poll::Ready(Some(Err("another try has taken the body over".into())));
        }
        if let Some(kept) = shared.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(kept.clone()))));
        }
        if !shared.over {
            let polled = http_body::Body::poll_frame(Pin::new(&mut shared.source), cx);
            if polled.is_pending() {
                ready!(shared.sender.poll_late(cx));
                shared.failed = true;
                return Poll::Ready(Some(Err("the caller did not send its body in time".into())));
            }
            match ready!(polled) {
                Some(Ok(frame)) => {
                    shared.sender.sent(frame.data_ref().map_or(0, Bytes::len));
                    if let Some(data) = frame.data_ref() {
                        shared.keep(data.clone());
                        self.next = shared.kept.len();
                    } else if let Some(trailers) = frame.trailers_ref() {
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

    fn is_end(&self) -> bool {
        let shared = self.shared.borrow();
        shared.over && self.next >= shared.kept.len() && (shared.trailers.is_none() || self.trailers_sent)
    }
}

impl Shared {
    fn keep(&mut self, data: Bytes) {
        self.kept_bytes += data.len();
        if self.overflown || self.kept_bytes > REPLAY_LIMIT {
            self.overflown = true;
            self.kept.clear();
        } else {
            self.kept.push(data);
        }
    }
}
