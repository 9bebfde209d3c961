//! One end of a connection: what was read becomes streams, what is said becomes bytes to be written.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::{
    BACKLOG, Code, End, MAX_HEAD, SLICE, Stream, encode_trailers,
    flow::{Flow, Streams},
    wire::{self, Kind},
};
use crate::budget::{Account, Budget};

mod receive;

/// Bytes that wait to be written, of whatever kind, from when on the end that is called reads no more.
const MAX_OUTPUT: usize = 1 << 20;
/// Slices of content that one stream sends before another has its turn.
const TURN: usize = 2;

/// A request that came.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// The stream that its answer goes on.
    pub stream: Rc<RefCell<Stream>>,
    /// Its head as it came, to be read by [`super::request`].
    pub head: Bytes,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// This end opens streams; the other one answers on them.
    calls: bool,
    /// The start of a frame that is not whole.
    partial: Vec<u8>,
    out: Vec<u8>,
    /// Bytes of the output that are written.
    written: usize,
    streams: Streams,
    /// The stream that was opened last.
    newest: u32,
    arrived: VecDeque<Arrived>,
    flow: Flow,
    /// Bytes of trailers that lie unread.
    trailers: Rc<Cell<usize>>,
    /// What the peer may send beside messages.
    account: Account,
    /// Whoever drives this end.
    driver: Option<Waker>,
    /// This end has said that it opens no more streams.
    left: bool,
    /// The peer said so.
    peer_left: bool,
    /// The peer was asked to open no more streams.
    going_away: bool,
    /// The peer asked this end to open no more.
    told_to_leave: bool,
    /// The peer has had the time to hear that it should open no more.
    refuses: bool,
    /// Something came since [`Session::heard`] was asked.
    heard: bool,
    end: Option<End>,
}

impl Session {
    /// The end that `calls`, or the one that is called, of a new connection.
    pub(crate) fn new(calls: bool, now: Instant) -> Self {
        let budget = if calls { &Budget::CALLED } else { &Budget::KNOWN };
        Self::with(calls, Account::new(budget, now))
    }

    /// The end that is called by whoever has this account.
    pub(crate) fn called_by(account: Account) -> Self {
        Self::with(false, account)
    }

    fn with(calls: bool, account: Account) -> Self {
        Self {
            calls,
            partial: Vec::new(),
            out: Vec::new(),
            written: 0,
            streams: Streams::new(),
            newest: 0,
            arrived: VecDeque::new(),
            flow: Flow::new(),
            trailers: Rc::default(),
            account,
            driver: None,
            left: false,
            peer_left: false,
            going_away: false,
            told_to_leave: false,
            refuses: false,
            heard: false,
            end: None,
        }
    }

    // What whoever drives it calls.

    /// The next request that has come.
    pub(crate) fn arrived(&mut self) -> Option<Arrived> {
        self.arrived.pop_front()
    }

    /// What is to be written. Whoever has written some of it calls [`Session::written`].
    pub(crate) fn output(&self) -> &[u8] {
        &self.out[self.written..]
    }

    /// So many bytes of the output were written: whoever waited for room goes on.
    pub(crate) fn written(&mut self, bytes: usize) {
        self.written += bytes;
        // Room in a socket that was full: its peer takes what is there, if slowly.
        self.heard |= !self.output().is_empty();
        if self.output().is_empty() || self.written >= BACKLOG {
            self.out.drain(..self.written);
            self.written = 0;
        }
        if self.out.is_empty() && (self.streams.is_empty() || self.out.capacity() > 4 * BACKLOG) {
            self.out = Vec::new(); // an idle connection holds no buffer
        }
        for _ in 0..BACKLOG.saturating_sub(self.output().len()).div_ceil(SLICE) {
            self.flow.wake_for_room(&self.streams);
        }
    }

    /// True while the peer should take what is there for it before more is read of what it asks: each answer to that has to
    /// be kept. An end that calls reads always, so two ends never wait for each other.
    pub(crate) fn is_stuffed(&self) -> bool {
        !self.calls && self.output().len() >= MAX_OUTPUT
    }

    /// Remembers who is to be woken when there is something to write.
    pub(crate) fn driven_by(&mut self, cx: &Context<'_>) {
        remember(&mut self.driver, cx);
    }

    /// Whether something came since this was asked last.
    pub(crate) const fn heard(&mut self) -> bool {
        std::mem::replace(&mut self.heard, false)
    }

    /// Asks the peer for a sign of life.
    pub(crate) fn ping(&mut self) {
        self.say(Kind::Ping, 0, &[]);
    }

    /// Asks the peer to open no more streams; it says when it has understood.
    pub(crate) fn go_away(&mut self) {
        if !std::mem::replace(&mut self.going_away, true) {
            self.say(Kind::GoAway, 0, &[]);
        }
    }

    /// Takes no more streams: whoever was asked to open none has had the time to hear of it.
    pub(crate) fn refuse(&mut self) {
        self.refuses = true;
        self.wake_driver();
    }

    /// Opens no more streams, and says so.
    pub(crate) fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            self.say(Kind::Last, 0, &[]);
        }
    }

    /// True when nothing is under way, and nothing can come.
    pub(crate) fn is_over(&self) -> bool {
        let opener_left = if self.calls { self.left } else { self.peer_left || self.refuses };
        let is_done = self.streams.is_empty() && self.arrived.is_empty() && self.output().is_empty();
        self.end.is_some() || (opener_left && is_done)
    }

    /// The connection has ended: all streams end with it.
    pub(crate) fn cut(&mut self, end: End) {
        let end = *self.end.get_or_insert(end);
        for stream in std::mem::take(&mut self.streams).into_values() {
            let mut stream = stream.borrow_mut();
            if !stream.ended || !stream.finished {
                stream.cut(end);
            }
        }
        self.arrived.clear();
        self.wake_driver();
    }

    // What requests and answers call.

    /// True when no stream can be opened.
    pub(crate) const fn is_closed(&self) -> bool {
        self.left || self.told_to_leave || self.end.is_some() || self.newest == u32::MAX
    }

    /// Bytes that it keeps: what came and was not taken, and what is to be written.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        let heads: usize = self.arrived.iter().map(|arrived| arrived.head.len()).sum();
        let streams: usize = self.streams.values().map(|stream| stream.borrow().held()).sum();
        self.partial.capacity() + self.out.capacity() + heads + streams
    }

    /// True when the connection ended without a word.
    pub(crate) fn is_lost(&self) -> bool {
        self.end == Some(End::Lost)
    }

    /// Whether the peer has opened a stream by now, or said that it opens none.
    pub(crate) const fn has_begun(&self) -> bool {
        self.newest > 0 || self.peer_left
    }

    /// True when streams are open, something is to be written, or the peer owes the rest of a frame.
    pub(crate) fn is_busy(&self) -> bool {
        !self.streams.is_empty() || !self.output().is_empty() || !self.partial.is_empty()
    }

    /// Opens a stream with the head that `encode` appends, after which nothing follows if it `ends`.
    ///
    /// # Errors
    /// Nothing has left this end: the connection takes no more requests, or the head is too large.
    pub(crate) fn open(&mut self, ends: bool, encode: impl FnOnce(&mut Vec<u8>)) -> Result<Rc<RefCell<Stream>>, Code> {
        if self.is_closed() {
            return Err(Code::Refused);
        }
        let id = self.newest + 1;
        if !wire::put_with(&mut self.out, (Kind::Head, ends, id), MAX_HEAD, encode) {
            return Err(Code::TooLarge);
        }
        self.newest = id;
        self.account.stream_opened();
        let mut stream = Stream::new(id);
        stream.finished = ends;
        let stream = Rc::new(RefCell::new(stream));
        self.streams.insert(id, Rc::clone(&stream));
        self.wake_driver();
        Ok(stream)
    }

    /// Answers with the head that `encode` appends. One that is too large gives the stream up.
    pub(crate) fn answer(&mut self, stream: &RefCell<Stream>, ends: bool, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut stream = stream.borrow_mut();
        if stream.end.is_some() {
            return;
        }
        if !wire::put_with(&mut self.out, (Kind::Head, ends, stream.id), MAX_HEAD, encode) {
            return self.give_up(&mut stream, Code::TooLarge);
        }
        stream.answered = true;
        stream.finished = ends;
        self.settle(&stream);
        self.wake_driver();
    }

    /// Sends of `content` what there is credit and room for, and with the last of it, if it `ends`, that nothing follows.
    /// Pending while some is left.
    pub(crate) fn send(
        &mut self,
        stream: &RefCell<Stream>,
        content: &mut Bytes,
        ends: bool,
        cx: &Context<'_>,
    ) -> Poll<()> {
        let mut stream = stream.borrow_mut();
        let mut sent = 0;
        while stream.end.is_none() {
            let may = self.flow.slice(&stream).min(content.len());
            // After so much it is the turn of others.
            let is_full = self.output().len() >= BACKLOG || sent >= TURN;
            if is_full || (may == 0 && !content.is_empty()) {
                remember(&mut stream.writer, cx);
                self.flow.queue(&mut stream);
                drop(stream);
                if sent > 0 {
                    self.wake_next();
                }
                return Poll::Pending;
            }
            sent += 1;
            let slice = content.split_to(may);
            let last = ends && content.is_empty();
            wire::put(&mut self.out, Kind::Data, last, stream.id, &slice);
            self.account.data_sent();
            self.flow.sent(&mut stream, may);
            self.wake_driver();
            if content.is_empty() {
                stream.finished = last;
                self.settle(&stream);
                break;
            }
        }
        drop(stream);
        self.wake_next();
        Poll::Ready(())
    }

    /// Says the last of a stream: trailers, of which there may be none.
    pub(crate) fn finish(&mut self, stream: &RefCell<Stream>, trailers: Option<&HeaderMap>) {
        let mut stream = stream.borrow_mut();
        if stream.finished || stream.end.is_some() {
            return;
        }
        let said = match trailers {
            None => {
                wire::put(&mut self.out, Kind::Data, true, stream.id, &[]);
                true
            }
            Some(trailers) => {
                let what = (Kind::Trailers, true, stream.id);
                wire::put_with(&mut self.out, what, MAX_HEAD, |out| encode_trailers(out, trailers))
            }
        };
        if !said {
            return self.give_up(&mut stream, Code::TooLarge);
        }
        stream.finished = true;
        self.settle(&stream);
        self.wake_driver();
    }

    /// Gives a stream up, unless it is over.
    pub(crate) fn reset(&mut self, stream: &RefCell<Stream>, code: Code) {
        let mut stream = stream.borrow_mut();
        if stream.end.is_none() && !(stream.ended && stream.finished) {
            self.give_up(&mut stream, code);
        }
    }

    /// So many bytes of content were read: its sender may send more.
    pub(crate) fn consumed(&mut self, stream: &RefCell<Stream>, bytes: usize) {
        let mut stream = stream.borrow_mut();
        if let Some(credit) = stream.was_read(bytes) {
            self.give_credit(stream.id, credit);
        }
        drop(stream);
        self.discarded(bytes);
    }

    /// Nobody reads the content of a stream any more.
    pub(crate) fn ignore(&mut self, stream: &RefCell<Stream>) {
        let bytes = stream.borrow_mut().ignore();
        self.discarded(bytes);
    }

    /// An answer was sent. What is left of its request is of no use once nobody reads it.
    pub(crate) fn answered(&mut self, stream: &RefCell<Stream>) {
        if stream.borrow().ignored {
            self.reset(stream, Code::Done);
        }
    }

    /// Nobody reads on in a request. Once it is answered there is no use for the rest.
    pub(crate) fn drop_request(&mut self, stream: &RefCell<Stream>) {
        if stream.borrow().finished {
            self.reset(stream, Code::Done);
        }
    }

    /// Nobody wants what a stream has become. Of one that has not, the answer says so.
    pub(crate) fn drop_tunnel(&mut self, stream: &RefCell<Stream>) {
        self.ignore(stream);
        if stream.borrow().answered {
            self.reset(stream, Code::BrokenOff);
        }
    }

    /// Nobody wants more of an answer: unless it is whole, its request is given up too.
    pub(crate) fn drop_answer(&mut self, stream: &RefCell<Stream>) {
        if !stream.borrow().ended {
            self.reset(stream, Code::Cancelled);
        }
    }

    /// Forgets a stream on which both ends have said all; what it holds can still be read.
    fn settle(&mut self, stream: &Stream) {
        if stream.ended && stream.finished {
            self.streams.remove(&stream.id);
            if self.streams.is_empty() && (self.left || self.peer_left) {
                self.wake_driver();
            }
        }
    }

    fn give_up(&mut self, stream: &mut Stream, code: Code) {
        self.say(Kind::Reset, stream.id, &[code as u8]);
        stream.cut(End::Reset(code));
        self.streams.remove(&stream.id);
        self.wake_next();
    }

    /// So many bytes of content are out of the way.
    fn discarded(&mut self, bytes: usize) {
        if let Some(credit) = self.flow.discarded(bytes) {
            self.give_credit(0, credit);
        }
    }

    fn give_credit(&mut self, stream: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.say(Kind::Credit, stream, &bytes.to_be_bytes());
    }

    fn say(&mut self, kind: Kind, stream: u32, payload: &[u8]) {
        wire::put(&mut self.out, kind, false, stream, payload);
        self.wake_driver();
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Hands on what one stream has left: each that is woken sends, or hands it on.
    fn wake_next(&mut self) {
        self.flow.wake_for_credit(&self.streams);
        if self.output().len() < BACKLOG {
            self.flow.wake_for_room(&self.streams);
        }
    }
}

/// Remembers the task of `cx`, to be woken.
pub(super) fn remember(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(known) => known.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}
