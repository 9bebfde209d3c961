//! One request and its answer, as one end of the connection sees them.

use std::{
    cell::Cell,
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};

use super::{Code, STREAM_WINDOW, flow::Window, session::remember};

/// Content below this size is put together with what lies unread before it.
const SMALL: usize = 4 * 1024;

/// How a stream ended before it was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// One end gave it up.
    Reset(Code),
    /// The connection ended without a word.
    Lost,
    /// The connection was ended because the peer broke the rules of the wire.
    Broken(&'static str),
}

/// What comes next of the content of a stream.
#[derive(Debug)]
pub(crate) enum Next {
    /// Some of it.
    Content(Bytes),
    /// The trailers after it, encoded.
    Trailers(Bytes),
    /// Nothing: it is over.
    Nothing,
    /// Nothing: the stream ended before it was.
    Cut(End),
}

/// Trailers that lie unread, among those of all streams.
#[derive(Debug)]
pub(super) struct Unread {
    trailers: Bytes,
    all: Rc<Cell<usize>>,
}

impl Unread {
    /// Puts `trailers` to `all` that lie unread, while they are kept.
    pub(super) fn new(trailers: Bytes, all: &Rc<Cell<usize>>) -> Self {
        all.update(|bytes| bytes + trailers.len());
        Self { trailers, all: Rc::clone(all) }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.all.update(|bytes| bytes - self.trailers.len());
    }
}

/// The state of a stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its number on the connection.
    pub(super) id: u32,
    /// The head of the answer has come, or was said.
    pub(super) answered: bool,
    /// The head of the answer, until it is taken.
    pub(super) head: Option<Bytes>,
    pub(super) trailers: Option<Unread>,
    unread: VecDeque<Bytes>,
    crumbs: BytesMut,
    pub(super) window: Window,
    /// The peer has said all.
    pub(super) ended: bool,
    /// All was said.
    pub(super) finished: bool,
    /// Nobody reads what comes.
    pub(super) ignored: bool,
    pub(super) end: Option<End>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// It waits in a queue of its connection to send more.
    pub(super) queued: bool,
}

impl Stream {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            answered: false,
            head: None,
            trailers: None,
            unread: VecDeque::new(),
            crumbs: BytesMut::new(),
            window: Window::new(STREAM_WINDOW),
            ended: false,
            finished: false,
            ignored: false,
            end: None,
            reader: None,
            writer: None,
            queued: false,
        }
    }

    /// Keeps content that came. What comes in crumbs is put together: each piece costs more than its bytes.
    pub(super) fn push(&mut self, content: &[u8]) {
        if !self.crumbs.is_empty() || (content.len() < SMALL && !self.unread.is_empty()) {
            self.crumbs.extend_from_slice(content);
        } else {
            self.unread.push_back(Bytes::copy_from_slice(content));
        }
    }

    /// The next piece of content.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let crumbs = || (!self.crumbs.is_empty()).then(|| std::mem::take(&mut self.crumbs).freeze());
        self.unread.pop_front().or_else(crumbs)
    }

    /// True when no content lies unread.
    fn is_drained(&self) -> bool {
        self.unread.is_empty() && self.crumbs.is_empty()
    }

    /// Bytes that came on it and were not taken.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        let trailers = self.trailers.as_ref().map(|unread| &unread.trailers);
        let pieces = self.unread.iter().chain(&self.head).chain(trailers);
        self.crumbs.len() + pieces.map(Bytes::len).sum::<usize>()
    }

    /// Forgets content that nobody will read: so many bytes.
    pub(super) fn ignore(&mut self) -> usize {
        self.ignored = true;
        let mut bytes = self.crumbs.len();
        bytes += self.unread.drain(..).map(|piece| piece.len()).sum::<usize>();
        self.crumbs = BytesMut::new();
        bytes
    }

    /// Ends it early; what came before the end can still be read.
    pub(super) fn cut(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.wake_reader();
        self.wake_writer();
    }

    /// What comes next of the peer's content; after its end that, whatever has become of the connection.
    pub(crate) fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Next> {
        if let Some(content) = self.pop() {
            return Poll::Ready(Next::Content(content));
        }
        if self.ended {
            return Poll::Ready(
                self.trailers.take().map_or(Next::Nothing, |unread| Next::Trailers(unread.trailers.clone())),
            );
        }
        if let Some(end) = self.end {
            return Poll::Ready(Next::Cut(end));
        }
        remember(&mut self.reader, cx);
        Poll::Pending
    }

    /// The head of the answer, or why there is none.
    pub(crate) fn poll_head(&mut self, cx: &Context<'_>) -> Poll<Result<Bytes, End>> {
        match (self.head.take(), self.end) {
            (Some(head), _) => Poll::Ready(Ok(head)),
            (None, Some(end)) => Poll::Ready(Err(end)),
            (None, None) => {
                remember(&mut self.reader, cx);
                Poll::Pending
            }
        }
    }

    /// Has the task of `cx` woken when the peer takes more, or nothing more.
    pub(crate) fn watch_writer(&mut self, cx: &Context<'_>) {
        remember(&mut self.writer, cx);
    }

    /// True when nothing can be said on it any more.
    pub(crate) const fn is_over(&self) -> bool {
        self.finished || self.end.is_some()
    }

    /// How it ended, if that was early.
    pub(crate) const fn ended_early(&self) -> Option<End> {
        self.end
    }

    /// True when nobody reads what comes on it.
    pub(crate) const fn is_ignored(&self) -> bool {
        self.ignored
    }

    /// True when the peer has said all, and all of it was read.
    pub(crate) fn is_read(&self) -> bool {
        self.ended && self.is_drained() && self.trailers.is_none()
    }

    pub(super) fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// It is its turn in the queue.
    pub(super) fn wake_queued(&mut self) {
        self.queued = false;
        self.wake_writer();
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
