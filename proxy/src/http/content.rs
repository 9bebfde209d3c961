//! The content of a message as a peer sends it, whatever the wire.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{body_error::BodyError, link};

/// Content that comes over HTTP, or over frames between sidecars.
#[derive(Debug)]
pub(crate) enum Content {
    /// Over HTTP/1 or HTTP/2.
    Http(Incoming),
    /// Over frames.
    Frames(link::Content),
    /// None: what follows the head over frames is a tunnel, until it is taken.
    Tunnel(Option<Box<link::Tunnel>>),
}

impl Content {
    /// What follows the head over frames, where that is a tunnel.
    pub(crate) fn take_tunnel(&mut self) -> Option<Box<link::Tunnel>> {
        match self {
            Self::Tunnel(tunnel) => tunnel.take(),
            Self::Http(_) | Self::Frames(_) => None,
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
            Self::Frames(content) => Pin::new(content).poll_frame(cx),
            Self::Tunnel(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http(incoming) => incoming.is_end_stream(),
            Self::Frames(content) => content.is_end_stream(),
            Self::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http(incoming) => incoming.size_hint(),
            Self::Frames(content) => content.size_hint(),
            Self::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
