//! A guard against HTTP/2 control frames that cost the receiver more than the sender.
//!
//! The HTTP/2 library answers every PING and SETTINGS and takes every PRIORITY, WINDOW_UPDATE and unknown frame,
//! however many come (CVE-2019-9511 to 9518, RFC 9113 section 10.5). [`FrameGuard`] sits between TLS and that library,
//! reads the nine-byte frame headers as they pass and ends the connection when a peer is over its [`Budget`]. It never
//! changes, delays or buffers a byte.

use std::{cell::Cell, io, rc::Rc};

use selvedge_policies::reason::Reason;
use tokio::time::Instant;

use crate::socket::{End, Observed, Observer};

mod budget;
mod frames;

pub(crate) use budget::Budget;

use budget::Account;
use frames::{Frames, Kind};

/// Watches a stream, and breaks it when its peer floods it with control frames.
#[derive(Debug)]
pub(crate) struct FrameGuard {
    incoming: Frames,
    outgoing: Frames,
    account: Account,
    /// Streams are opened by this side.
    client: bool,
    last_stream: u32,
    flood: Flood,
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

    /// What is known now.
    pub(crate) fn get(&self) -> u32 {
        self.0.get()
    }
}

/// Tells, after a guarded connection ended, whether the guard ended it; clones share the answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flood(Rc<Cell<bool>>);

impl Flood {
    /// [`Reason::FrameFlood`] when the guard ended the connection.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.0.get().then_some(Reason::FrameFlood)
    }
}

impl FrameGuard {
    /// Guards the server side of an HTTP/2 connection; `io` begins with the client's preface.
    pub(crate) fn server<T>(io: T, budget: &'static Budget) -> (Observed<T, Self>, Flood) {
        let guard = Self::new(budget, Frames::after_preface(), Frames::default(), false, MaxStreams::default());
        let flood = guard.flood.clone();
        (Observed::new(io, guard), flood)
    }

    /// Guards the client side: a service that floods its callers loses the connection, and the requests on it. What
    /// its settings say goes to `max_streams`.
    pub(crate) fn client<T>(io: T, budget: &'static Budget, max_streams: MaxStreams) -> Observed<T, Self> {
        Observed::new(io, Self::new(budget, Frames::default(), Frames::after_preface(), true, max_streams))
    }

    fn new(budget: &'static Budget, incoming: Frames, outgoing: Frames, client: bool, max_streams: MaxStreams) -> Self {
        let account = Account::new(budget, Instant::now());
        Self { incoming, outgoing, account, client, last_stream: 0, flood: Flood::default(), max_streams }
    }

    /// Books the frames in `bytes` from the peer; `false` when one was too many.
    fn admit(&mut self, bytes: &[u8]) -> bool {
        let Self { incoming, account, last_stream, client, max_streams, .. } = self;
        let admitted = incoming.pass(bytes, |frame| {
            let opens = !*client && frame.kind == Kind::Headers && frame.stream > *last_stream;
            if opens {
                *last_stream = frame.stream;
                account.stream_opened();
            }
            account.received(frame.kind, Instant::now)
        });
        if let Some(told) = incoming.max_streams() {
            max_streams.0.set(told);
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

impl Observer for FrameGuard {
    fn read(&mut self, bytes: &[u8]) -> Result<(), End> {
        if !self.flood.0.get() && self.admit(bytes) {
            return Ok(());
        }
        // Once is enough.
        let farewell = if self.flood.0.replace(true) { None } else { self.goodbye() };
        let error = io::Error::other("the peer sends HTTP/2 control frames faster than anybody needs");
        Err(End { farewell, error })
    }

    fn written(&mut self, bytes: &[u8]) {
        let Self { outgoing, account, client, .. } = self;
        outgoing.pass(bytes, |frame| {
            match frame.kind {
                Kind::Data => account.data_sent(),
                Kind::Headers if *client => account.stream_opened(),
                _ => {}
            }
            true
        });
    }
}

#[cfg(test)]
mod tests;
