//! How slow a caller may be while it holds what others need: limits for slow clients (slowloris, slow reads).
//!
//! A caller that sends its request a byte now and then, or asks and never reads the answer, holds a connection and a
//! place at the service. It is given up when it makes no progress for as long as [`CallerTimeouts`] says. Only the
//! *caller's* silence counts, and only where it owes something: the rest of a head, the rest of a body that it
//! announced, reading what is there. A service may be silent as long as it likes, and so may both ends of a tunnel, and
//! the sender of an HTTP/2 stream without a length, which is how gRPC streams; PING finds out whether such a peer
//! lives.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use selvedge_policies::duration::Span;
use serde::Deserialize;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

mod body;
mod io;
mod linger;

pub(crate) use body::Sender;
pub(crate) use io::{Outlives, Paced};

/// Bytes of a body of known length that must come in each [`CallerTimeouts::body`]. Of one without a length, which may
/// be events as they happen, any byte is enough.
const PROGRESS: u64 = 1024;

/// How long a caller may take. The defaults are the documentation (`docs/sidecar.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CallerTimeouts {
    /// For a header section of HTTP/1, from its first byte.
    pub head: Span,
    /// Without progress of a request body that the service waits for.
    pub body: Span,
    /// Without reading any of an answer that is there, for callers that have proven no identity.
    pub reader: Span,
    /// Without reading any of an answer, for sidecars, whose application may be slow, and for the workload itself.
    pub meshed_reader: Span,
}

impl Default for CallerTimeouts {
    fn default() -> Self {
        Self {
            head: Span::from_secs(10),
            body: Span::from_secs(30),
            reader: Span::from_secs(30),
            meshed_reader: Span::from_secs(300),
        }
    }
}

impl CallerTimeouts {
    /// The name of a field that gives no time at all, if there is one.
    pub fn zero(&self) -> Option<&'static str> {
        let fields =
            [("head", self.head), ("body", self.body), ("reader", self.reader), ("meshedReader", self.meshed_reader)];
        fields.into_iter().find(|(_, span)| span.0.is_zero()).map(|(name, _)| name)
    }

    /// How long a caller may leave unread what is there for it.
    pub const fn reader_of(&self, meshed: bool) -> Duration {
        if meshed { self.meshed_reader.0 } else { self.reader.0 }
    }
}

/// What is going on on one connection. Shared with the stream under it, which must be `Send` to be upgraded; a
/// connection stays on its worker, so nothing is ever contended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Requests that have begun on the connection, ended ones too.
    begun: AtomicU32,
    /// Requests whose body or answer is not over.
    open: AtomicU32,
    tunnelled: AtomicBool,
    given_up: AtomicBool,
    /// The content of the latest request was not read to its end.
    left: AtomicBool,
    /// How often all that was written has gone out.
    flushed: AtomicU32,
    /// The connection is to end as one that was broken off.
    broken: AtomicBool,
}

impl Shared {
    /// As of [`Pace::owes_content`].
    fn owes_content(&self) -> bool {
        self.left.load(Relaxed) || self.open.load(Relaxed) > 1
    }
}

impl Pace {
    /// Counts a request that begins; it is open until what is returned is dropped.
    pub(crate) fn begin(&self) -> Turn {
        self.0.begun.fetch_add(1, Relaxed);
        self.0.left.store(false, Relaxed);
        Turn::new(&self.0)
    }

    /// Waits until no request has been under way for this long, give or take a quarter.
    pub(crate) async fn idle(&self, span: Duration) {
        let (part, mut begun, mut idle) = (span / 4, self.0.begun.load(Relaxed), Duration::ZERO);
        while idle < span {
            sleep(part).await;
            let before = std::mem::replace(&mut begun, self.0.begun.load(Relaxed));
            let is_idle = self.0.open.load(Relaxed) == 0 && begun == before;
            idle = if is_idle { idle + part } else { Duration::ZERO };
        }
    }

    /// True when the content of the latest request is not over, or was not read to its end, on HTTP/1: what follows it on the
    /// connection may never be read.
    pub(crate) fn owes_content(&self) -> bool {
        self.0.owes_content()
    }

    /// A number that is greater once what has been handed over for writing has gone out.
    pub(crate) fn flushed(&self) -> u32 {
        self.0.flushed.load(Relaxed)
    }

    /// All that was handed over for writing has gone out.
    pub(crate) fn flush(&self) {
        self.0.flushed.fetch_add(1, Relaxed);
    }

    /// Has the connection end with a reset: an answer without a frame, as HTTP/1.0 has it, looks whole otherwise.
    pub(crate) fn break_off(&self) {
        self.0.broken.store(true, Relaxed);
    }

    /// From now on the bytes are those of a tunnel, whose ends may be as slow as they like.
    pub(crate) fn tunnel(&self) {
        self.0.tunnelled.store(true, Relaxed);
    }

    /// True when the caller's slowness ended the connection.
    pub(crate) fn gave_up(&self) -> bool {
        self.0.given_up.load(Relaxed)
    }
}

/// Held while a request is not over.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Shared>);

impl Turn {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Relaxed);
        Self(shared.clone())
    }

    /// Nobody reads on in the content of the request.
    fn leave(&self) {
        self.0.left.store(true, Relaxed);
    }
}

impl Clone for Turn {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// What a stream did when it was last looked after; the notes of one connection, whose streams take turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Polled {
    /// Neither asked for more of the answer nor got any: flow control holds it.
    #[default]
    Held,
    /// Some of the answer, or its head, went on to the caller.
    Progressed,
    /// It waits for the service.
    Waits,
    /// Its caller does not read and was given up.
    GivenUp,
}

/// A deadline that costs a timer only when somebody waits for it.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// One that does not run.
    pub(crate) const fn new() -> Self {
        Self { at: None, timer: None }
    }

    /// Starts it, unless it runs.
    pub(crate) fn start(&mut self, limit: Duration) {
        if self.at.is_none() {
            self.at = Some(Instant::now() + limit);
        }
    }

    /// Stops it; it never passes until it is started again.
    pub(crate) fn clear(&mut self) {
        self.at = None;
    }

    /// True while it may pass.
    pub(crate) const fn is_running(&self) -> bool {
        self.at.is_some()
    }

    /// Ready when it has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }
}
