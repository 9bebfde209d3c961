//! The content of a message as a peer sends it, whatever the wire.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_util::either::Either;

use super::{body_error::BodyError, http2, link};

/// Content that comes over HTTP, or over frames between sidecars.
#[derive(Debug)]
pub(crate) enum Content {
    /// Over HTTP/1, or of a request over HTTP/2.
    Http(Incoming),
    /// Of an answer over HTTP/2.
    Http2(http2::Content),
    /// Over frames.
    Frames(link::Content),
    /// None: what follows the head over frames is a tunnel, until it is taken.
    Tunnel(Option<Box<link::Tunnel>>),
    /// None: what follows the head of an answer over HTTP/2 is a tunnel, until it is taken.
    Stream(Option<Box<http2::Tunnel>>),
}

/// A tunnel over frames or HTTP/2.
pub(crate) type Stream = Either<Box<link::Tunnel>, Box<http2::Tunnel>>;

impl Content {
    /// What follows the head, where that is a tunnel on a stream.
    pub(crate) fn take_tunnel(&mut self) -> Option<Stream> {
        match self {
            Self::Tunnel(tunnel) => tunnel.take().map(Either::Left),
            Self::Stream(tunnel) => tunnel.take().map(Either::Right),
            Self::Http(_) | Self::Http2(_) | Self::Frames(_) => None,
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http(incoming) => {
                Poll::Ready(ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(Into::into)))
            }
            Self::Http2(content) => Pin::new(content).poll_frame(cx),
            Self::Frames(content) => Pin::new(content).poll_frame(cx),
            Self::Tunnel(_) | Self::Stream(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http(incoming) => incoming.is_end_stream(),
            Self::Http2(content) => content.is_end_stream(),
            Self::Frames(content) => content.is_end_stream(),
            Self::Tunnel(_) | Self::Stream(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http(incoming) => incoming.size_hint(),
            Self::Http2(content) => content.size_hint(),
            Self::Frames(content) => content.size_hint(),
            Self::Tunnel(_) | Self::Stream(_) => SizeHint::with_exact(0),
        }
    }
}
