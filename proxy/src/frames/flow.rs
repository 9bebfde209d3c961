//! Flow control by credit (RFC 9113 section 5.2): how much content each end may send, on a stream and in all, who waits to
//! send more, and when what was read is given back as credit.
//!
//! Of a peer's content no more lies unread than [`super::STREAM_WINDOW`] on a stream and [`CONNECTION_WINDOW`] in all.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use super::{Broken, CONNECTION_WINDOW, SLICE, Stream};

const TOO_MUCH: Broken = Broken("more content than there is credit for");

/// The streams of a connection, by their numbers.
pub(super) type Streams = BTreeMap<u32, Rc<RefCell<Stream>>>;

/// One direction of content on a stream or on a connection.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    /// Bytes that may be sent.
    credit: usize,
    /// Bytes that the peer has sent, and was not given credit for anew.
    owed: usize,
    /// Of those, what has been read, or was for nobody.
    read: usize,
}

impl Window {
    /// A window of so many bytes, all of which may be sent.
    pub(super) const fn new(size: usize) -> Self {
        Self { size, credit: size, owed: 0, read: 0 }
    }

    fn came(&mut self, bytes: usize) -> Result<(), Broken> {
        self.owed += bytes;
        if self.owed > self.size { Err(TOO_MUCH) } else { Ok(()) }
    }

    /// Books what was read. Once that is a `part` of the window, which is worth a frame: the credit to give for it.
    fn was_read(&mut self, bytes: usize, part: usize) -> Option<usize> {
        self.read += bytes;
        if self.read < self.size / part {
            return None;
        }
        let read = std::mem::take(&mut self.read);
        self.owed -= read;
        Some(read)
    }

    /// The peer lets so many bytes more be sent.
    pub(super) fn grant(&mut self, bytes: usize) -> Result<(), Broken> {
        self.credit += bytes;
        if self.credit > self.size { Err(Broken("more credit than there can be")) } else { Ok(()) }
    }
}

/// The content of all streams of one end of a connection.
#[derive(Debug)]
pub(super) struct Flow {
    window: Window,
    /// Streams whose content waits for room in the output, the first the longest.
    for_room: VecDeque<u32>,
    /// Streams whose content waits for credit of the connection.
    for_credit: VecDeque<u32>,
}

impl Flow {
    /// The flow of a new connection.
    pub(super) const fn new() -> Self {
        Self { window: Window::new(CONNECTION_WINDOW), for_room: VecDeque::new(), for_credit: VecDeque::new() }
    }

    /// The peer has sent so many bytes, for whomever.
    pub(super) fn came(&mut self, bytes: usize) -> Result<(), Broken> {
        self.window.came(bytes)
    }

    /// So many bytes are out of the way: the credit of the connection to give for them.
    pub(super) fn discarded(&mut self, bytes: usize) -> Option<usize> {
        self.window.was_read(bytes, 8)
    }

    /// The peer lets so many bytes more be sent on the connection.
    pub(super) fn grant(&mut self, bytes: usize) -> Result<(), Broken> {
        self.window.grant(bytes)
    }

    /// Bytes of content that may be sent on `stream` in one frame.
    pub(super) fn slice(&self, stream: &Stream) -> usize {
        stream.window.credit.min(self.window.credit).min(SLICE)
    }

    /// So many bytes were sent.
    pub(super) const fn sent(&mut self, stream: &mut Stream, bytes: usize) {
        stream.window.credit -= bytes;
        self.window.credit -= bytes;
    }

    /// Puts `stream` into the queue for what it lacks; the credit of its own comes to it without one.
    pub(super) fn queue(&mut self, stream: &mut Stream) {
        let queue = match (stream.window.credit, self.window.credit) {
            (0, _) => return,
            (_, 0) => &mut self.for_credit,
            _ => &mut self.for_room,
        };
        if !std::mem::replace(&mut stream.queued, true) {
            queue.push_back(stream.id);
        }
    }

    /// Wakes the stream that has waited longest for credit of the connection, if there is some.
    pub(super) fn wake_for_credit(&mut self, streams: &Streams) {
        if self.window.credit > 0 {
            wake(&mut self.for_credit, streams);
        }
    }

    /// Wakes the stream that has waited longest for room.
    pub(super) fn wake_for_room(&mut self, streams: &Streams) {
        wake(&mut self.for_room, streams);
    }
}

/// Wakes the first of a queue that still is there.
fn wake(queue: &mut VecDeque<u32>, streams: &Streams) {
    let stream = std::iter::from_fn(|| queue.pop_front()).find_map(|id| streams.get(&id));
    stream.iter().for_each(|stream| stream.borrow_mut().wake_queued());
}

impl Stream {
    /// The peer has sent so many bytes on it.
    pub(super) fn came(&mut self, bytes: usize) -> Result<(), Broken> {
        self.window.came(bytes)
    }

    /// So many bytes of it were read: the credit to give for them, where more may come.
    pub(super) fn was_read(&mut self, bytes: usize) -> Option<usize> {
        if self.ended || self.end.is_some() {
            return None;
        }
        self.window.was_read(bytes, 2)
    }
}
