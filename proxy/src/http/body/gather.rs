//! Crumbs become slices.
//!
//! Peers account for the frames of a body as well as for its bytes, and end a connection on which too many small ones
//! lie unread (h2: `ENHANCE_YOUR_CALM`), which would take all other requests of a shared connection along. A frame also
//! costs a wake-up at each hop. So small frames that come one after the other go on as one, and empty ones not at all.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use super::{BodyError, Source};
use crate::turn;

/// Frames below this size are gathered.
const SMALL: usize = 1024;
/// What was gathered goes on when it has this size: a whole TLS record, and the largest frame of HTTP/2 by default.
const SLICE: usize = 16 * 1024;
/// So many frames are taken before others of the worker have a turn: of a byte each, a slice is a long time.
const TURN: usize = 128;

type Next = Option<Result<Frame<Bytes>, BodyError>>;

/// A source whose small frames are gathered. The first goes on at once, along with the head; a later one when a turn
/// of the worker has brought no other.
pub(super) struct Gathered {
    source: Source,
    /// Made when a body turns out to come in crumbs.
    crumbs: Option<Box<Crumbs>>,
}

#[derive(Default)]
struct Crumbs {
    held: BytesMut,
    /// What came after those held, and goes on after them.
    next: Option<Next>,
    /// The others of this worker had a turn since the last crumb.
    waited: bool,
}

impl Gathered {
    pub(super) const fn new(source: Source) -> Self {
        Self { source, crumbs: None }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(crumbs) = &mut self.crumbs {
            return crumbs.poll(&mut self.source, cx);
        }
        loop {
            let next = ready!(self.source.poll(cx));
            match small(&next) {
                Some([]) => {}
                Some(_) if !self.source.is_end() => {
                    self.crumbs = Some(Box::default());
                    return Poll::Ready(next);
                }
                _ => return Poll::Ready(next),
            }
        }
    }

    /// Has it come next again.
    pub(super) fn put_back(&mut self, next: Next) {
        self.crumbs.get_or_insert_default().next = Some(next);
    }

    pub(super) fn is_end(&self) -> bool {
        match self.crumbs.as_deref() {
            Some(Crumbs { held, .. }) if !held.is_empty() => false,
            Some(Crumbs { next: Some(next), .. }) => next.is_none(),
            _ => self.source.is_end(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match &self.crumbs {
            Some(_) => SizeHint::default(),
            None => self.source.size_hint(),
        }
    }
}

impl Crumbs {
    fn poll(&mut self, source: &mut Source, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(next);
        }
        let mut taken = 0;
        while self.held.len() < SLICE {
            if taken == TURN {
                return turn::end(cx);
            }
            taken += 1;
            match source.poll(cx) {
                Poll::Ready(next) => match small(&next) {
                    Some(crumb) => {
                        self.held.extend_from_slice(crumb);
                        self.waited = false;
                        if source.is_end() {
                            break;
                        }
                    }
                    None if self.held.is_empty() => return Poll::Ready(next),
                    None => {
                        self.next = Some(next);
                        break;
                    }
                },
                Poll::Pending if self.held.is_empty() => return Poll::Pending,
                Poll::Pending if self.waited => break,
                Poll::Pending => {
                    self.waited = true;
                    return turn::end(cx);
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.held).freeze()))))
    }
}

fn small(next: &Next) -> Option<&[u8]> {
    let data = next.as_ref()?.as_ref().ok()?.data_ref()?;
    (data.len() < SMALL).then_some(data)
}
