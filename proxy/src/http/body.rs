//! The one body type of the data path. It streams, counts, can be sent again when it was small, gathers crumbs, and
//! tells when it ended.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{Content, body_error::BodyError, pace::Polled, trailers};

mod gather;
mod replay;

pub(crate) use replay::Replay;

use gather::Gathered;
use replay::Reader;

/// Told when a body is over. Dropping it without a call to either method means that its reader went away.
pub(crate) trait Ending {
    /// The last frame has passed; `trailers` when there were any.
    fn complete(&mut self, trailers: Option<&HeaderMap>);

    /// Its sender broke off.
    fn broke(&mut self, why: &BodyError);

    /// Ready when what has passed is on its way to the reader, whom an error would overtake otherwise.
    fn poll_passed_on(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// It was asked for a frame.
    fn polled(&mut self, polled: Polled);
}

/// The content of a request or response, as it streams.
pub(crate) struct Body {
    source: Gathered,
    /// Counts payload bytes that have passed.
    meter: Option<Rc<Cell<u64>>>,
    ending: Option<Box<dyn Ending>>,
}

enum Source {
    Empty,
    Full(Bytes),
    Incoming(Content),
    Replay(Reader),
}

impl Body {
    /// A body without a byte, which is over at once.
    pub(crate) const fn empty() -> Self {
        Self::of(Source::Empty)
    }

    /// A body of our own.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::of(Source::Full(bytes.into()))
    }

    /// A body that streams from a peer.
    pub(crate) const fn incoming(incoming: Content) -> Self {
        Self::of(Source::Incoming(incoming))
    }

    const fn of(source: Source) -> Self {
        Self { source: Gathered::new(source), meter: None, ending: None }
    }

    /// Counts payload bytes into `meter`.
    pub(crate) fn metered(mut self, meter: Rc<Cell<u64>>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Tells `ending` when the body is over.
    pub(crate) fn ending(mut self, ending: Box<dyn Ending>) -> Self {
        self.ending = Some(ending);
        self
    }

    fn finish(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(mut ending) = self.ending.take() {
            ending.complete(trailers);
        }
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(match self {
            Self::Empty => None,
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Self::Incoming(incoming) => {
                ready!(http_body::Body::poll_frame(Pin::new(incoming), cx))
            }
            Self::Replay(reader) => ready!(reader.poll(cx)),
        })
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Incoming(incoming) => http_body::Body::is_end_stream(incoming),
            Self::Replay(reader) => reader.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Incoming(incoming) => http_body::Body::size_hint(incoming),
            Self::Replay(reader) => reader.size_hint(),
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
        let polled = this.source.poll(cx);
        if let Some(ending) = &mut this.ending {
            if matches!(polled, Poll::Ready(Some(Err(_)))) && ending.poll_passed_on(cx).is_pending() {
                // With an error the HTTP library forgets what it has not written.
                this.source.put_back(ready!(polled));
                return Poll::Pending;
            }
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
            Some(Err(error)) => {
                if let Some(mut ending) = this.ending.take() {
                    ending.broke(error);
                }
            }
            None => this.finish(None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
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
