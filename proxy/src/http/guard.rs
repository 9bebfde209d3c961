//! A guard against HTTP/2 control frames that cost the receiver more than the sender.
//!
//! The HTTP/2 library answers every PING and SETTINGS and takes every PRIORITY, WINDOW_UPDATE and unknown frame,
//! however many come (CVE-2019-9511 to 9518, RFC 9113 section 10.5). [`FrameGuard`] sits between TLS and that library,
//! reads the nine-byte frame headers as they pass and ends the connection when a peer is over its [`Budget`]. It never
//! changes or buffers a byte, and delays those behind many small frames for no longer than others of the worker have a turn.

use std::{cell::Cell, io, rc::Rc};

use selvedge_policies::reason::Reason;
use tokio::time::Instant;

use crate::{
    budget::{Account, Budget, Kind},
    socket::{End, Observed, Observer},
};

mod frames;
mod refused;

use frames::{Frames, Passed};
use refused::Refusals;

/// Watches a stream, and breaks it when its peer floods it with control frames.
#[derive(Debug)]
pub(crate) struct FrameGuard {
    incoming: Frames,
    outgoing: Frames,
    account: Account,
    /// Streams are opened by this side.
    client: bool,
    last_stream: u32,
    /// Its peer did too much for which streams were reset.
    over: bool,
    /// Frames that were read since others had a turn.
    taken: usize,
    seen: Seen,
    max_streams: MaxStreams,
}

/// How many streams a peer takes at once (`SETTINGS_MAX_CONCURRENT_STREAMS`, RFC 9113 section 6.5.2); clones share what
/// is known.
#[derive(Clone, Debug)]
pub(crate) struct MaxStreams(Rc<Cell<u32>>);

impl Default for MaxStreams {
    /// As few as a peer should take at least, until it has said so.
    fn default() -> Self {
        Self(Rc::new(Cell::new(100)))
    }
}

impl MaxStreams {
    /// As many as there can be.
    pub(crate) fn many() -> Self {
        Self(Rc::new(Cell::new(u32::MAX)))
    }

    /// The peer takes so many.
    pub(crate) fn learn(&self, streams: u32) {
        self.0.set(streams);
    }

    /// What is known now.
    pub(crate) fn get(&self) -> u32 {
        self.0.get()
    }
}

/// What the guard has seen; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Rc<Tally>);

#[derive(Debug, Default)]
struct Tally {
    flood: Cell<bool>,
    begun: Cell<bool>,
    wary: Cell<bool>,
    /// Bytes of heads that nobody has accounted for.
    heads: Cell<usize>,
    refusals: Refusals,
}

/// So many frames are read before others of the worker have a turn: the library goes on for as long as there is something to
/// read, and frames of a byte are read in thousands.
const TURN: usize = 128;

/// Bytes of heads that are remembered until somebody accounts for them: those of streams that are refused nobody does.
const HEADS: usize = 1 << 20;

impl Seen {
    /// [`Reason::FrameFlood`] when the guard ended the connection.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.0.flood.get().then_some(Reason::FrameFlood)
    }

    /// Whether the peer has sent the start of a frame.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.begun.get()
    }

    /// Whether so many streams were reset that the next one is likely to be.
    pub(crate) fn is_wary(&self) -> bool {
        self.0.wary.get()
    }

    /// Has `tell` called for each request that the library refuses by itself.
    pub(crate) fn tell_refused(&self, tell: impl Fn(Reason) + 'static) {
        self.0.refusals.tell(tell);
    }

    /// The request of this stream is about to be answered: it was not refused by the library.
    pub(crate) fn given(&self, stream: u32) {
        self.0.refusals.given(stream);
    }

    /// Bytes that were sent for the next head, of which `held` are held. Heads are read many at a time, so which of them it
    /// was is not known: their sum is right.
    pub(crate) fn sent(&self, held: usize) -> usize {
        let sent = self.0.heads.get().min(held);
        self.0.heads.update(|heads| heads - sent);
        sent
    }
}

impl FrameGuard {
    /// Guards the server side of an HTTP/2 connection; `io` begins with the client's preface.
    pub(crate) fn server<T>(io: T, account: Account) -> (Observed<T, Self>, Seen) {
        let guard = Self::new(account, Frames::after_preface(), Frames::default(), false, MaxStreams::default());
        let seen = guard.seen.clone();
        (Observed::new(io, guard), seen)
    }

    /// Guards the client side: a service that floods its callers loses the connection, and the requests on it. What
    /// its settings say goes to `max_streams`.
    pub(crate) fn client<T>(io: T, budget: &'static Budget, max_streams: MaxStreams) -> Observed<T, Self> {
        let account = Account::new(budget, Instant::now());
        Observed::new(io, Self::new(account, Frames::default(), Frames::after_preface(), true, max_streams))
    }

    fn new(account: Account, incoming: Frames, outgoing: Frames, client: bool, max_streams: MaxStreams) -> Self {
        Self {
            incoming,
            outgoing,
            account,
            client,
            last_stream: 0,
            over: false,
            taken: 0,
            seen: Seen::default(),
            max_streams,
        }
    }

    /// Books the frames in `bytes` from the peer; `false` when one was too many.
    fn admit(&mut self, bytes: &[u8]) -> bool {
        let Self { incoming, account, last_stream, client, max_streams, seen, taken, .. } = self;
        let admitted = incoming.pass(bytes, |passed| {
            let Passed::Frame(frame) = passed else { return true };
            seen.0.begun.set(true);
            *taken += 1;
            let opens = !*client && frame.kind == Kind::Headers && frame.stream > *last_stream;
            if opens {
                *last_stream = frame.stream;
                account.stream_opened();
                seen.0.refusals.opened(frame.stream);
            }
            if matches!(frame.kind, Kind::Headers | Kind::Continuation) {
                seen.0.heads.update(|heads| (heads + frame.length).min(HEADS));
            }
            account.received(frame.kind, Instant::now)
        });
        seen.0.wary.set(account.is_scarce());
        if let Some(told) = incoming.max_streams() {
            max_streams.learn(told);
        }
        admitted
    }

    /// Tells the peer why, between two frames: GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 section 6.8).
    fn goodbye(&self) -> Option<Vec<u8>> {
        let mut goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
        goaway[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
        self.outgoing.is_between().then(|| goaway.to_vec())
    }
}

/// Whether a stream is reset with this code for what its peer did: a protocol, a window or a size that was broken, a stream
/// that is over or was refused (RFC 9113 section 7).
const fn is_blame(code: u32) -> bool {
    matches!(code, 1 | 3 | 5 | 6 | 7)
}

impl Observer for FrameGuard {
    fn read(&mut self, bytes: &[u8]) -> Result<(), End> {
        if !self.seen.0.flood.get() && !self.over && self.admit(bytes) {
            return Ok(());
        }
        // Once is enough.
        let farewell = if self.seen.0.flood.replace(true) { None } else { self.goodbye() };
        let error = io::Error::other("the peer sends HTTP/2 control frames faster than anybody needs");
        Err(End { farewell, error })
    }

    fn is_full(&mut self) -> bool {
        let full = self.taken >= TURN;
        if full {
            self.taken = 0;
        }
        full
    }

    fn written(&mut self, bytes: &[u8]) {
        let Self { outgoing, account, client, over, seen, .. } = self;
        outgoing.pass(bytes, |passed| {
            match passed {
                Passed::Frame(frame) if frame.kind == Kind::Data => account.data_sent(),
                Passed::Frame(frame) if frame.kind == Kind::Headers => match *client {
                    true => account.stream_opened(),
                    false => seen.0.refusals.ended(frame.stream, Reason::HeadersTooLarge),
                },
                Passed::Reset { stream, code } if !*client => {
                    *over |= is_blame(code) && !account.received(Kind::Reset, Instant::now);
                    seen.0.refusals.ended(stream, refused::reason(code));
                }
                _ => {}
            }
            true
        });
    }
}

#[cfg(test)]
mod tests;
