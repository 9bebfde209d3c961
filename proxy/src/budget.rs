//! How many control frames a peer may send, over HTTP/2 or over frames between sidecars.

use std::{cell::RefCell, rc::Rc};

use tokio::time::Instant;

/// Kinds of frames that are told apart, in the words of HTTP/2 (RFC 9113 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Content.
    Data,
    /// A head, or the start of one.
    Headers,
    /// What nobody heeds.
    Priority,
    /// The end of a stream before it is over.
    Reset,
    /// What has to be acknowledged.
    Settings,
    /// What has to be answered.
    Ping,
    /// Credit for content.
    WindowUpdate,
    /// More of a head.
    Continuation,
    /// Types of extensions, and those that a client has no business to send often.
    Other,
}

/// A token bucket of frames: so many at once, and so many a second after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Frames a second in the long run.
    pub per_second: f64,
    /// Frames that may come at once after a pause.
    pub burst: f64,
}

/// Limits for one connection. DATA, HEADERS and CONTINUATION are left to the HTTP/2 library, which bounds them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// RST_STREAM frames, beside those that streams earn.
    pub resets: Rate,
    /// RST_STREAM earned by each stream opened: cancelling some requests is normal, cancelling most is not.
    pub resets_per_stream: f64,
    /// PING frames, beside those that DATA earns.
    pub pings: Rate,
    /// PING earned by each DATA frame the peer was sent: gRPC measures the delay of a connection with what comes on it.
    pub pings_per_data: f64,
    /// SETTINGS frames, each of which has to be acknowledged.
    pub settings: Rate,
    /// Frames of unknown types, and GOAWAY and PUSH_PROMISE.
    pub others: Rate,
    /// PRIORITY earned by the connection and again by each stream opened.
    pub priorities_per_stream: f64,
    /// WINDOW_UPDATE every connection may send.
    pub window_updates: f64,
    /// WINDOW_UPDATE earned by each stream opened.
    pub window_updates_per_stream: f64,
    /// WINDOW_UPDATE earned by each DATA frame the peer was sent.
    pub window_updates_per_data: f64,
}

impl Budget {
    /// For callers that have proven no identity: many times what the clients in use send.
    pub(crate) const STRICT: Self = Self {
        resets: Rate { per_second: 100.0 / 30.0, burst: 100.0 },
        resets_per_stream: 0.05,
        pings: Rate { per_second: 10.0, burst: 50.0 },
        pings_per_data: 1.0,
        settings: Rate { per_second: 5.0, burst: 20.0 },
        others: Rate { per_second: 100.0, burst: 100.0 },
        priorities_per_stream: 100.0,
        window_updates: 100.0,
        window_updates_per_stream: 2.0,
        window_updates_per_data: 10.0,
    };

    /// For authenticated sidecars, which carry the requests of many clients on one connection: a client that gives up a thousand
    /// requests at once must not cost the others theirs.
    pub(crate) const KNOWN: Self = Self {
        resets: Rate { per_second: 1_000.0, burst: 10_000.0 },
        resets_per_stream: 0.2,
        priorities_per_stream: 100.0,
        window_updates: 1_000.0,
        ..Self::CALLED
    };

    /// For the workload itself, on one connection and on all: a sidecar passes on what its workload gives up, and must not be
    /// taken for somebody who floods.
    pub(crate) const OWN: Self =
        Self { resets: Rate { per_second: 500.0, burst: 1_000.0 }, resets_per_stream: 0.1, ..Self::PARTY };

    /// For all connections of one such caller to a worker; only what has a [`Rate`] is counted.
    pub(crate) const PARTY: Self = Self {
        resets: Rate { per_second: 4_000.0, burst: 20_000.0 },
        pings: Rate { per_second: 400.0, burst: 2_000.0 },
        settings: Rate { per_second: 200.0, burst: 800.0 },
        others: Rate { per_second: 4_000.0, burst: 4_000.0 },
        ..Self::KNOWN
    };

    /// For who is called: an application, or another sidecar, which may give up every request.
    pub(crate) const CALLED: Self = Self {
        resets: Rate { per_second: 1_000.0, burst: 10_000.0 },
        resets_per_stream: 1.0,
        pings: Rate { per_second: 100.0, burst: 500.0 },
        pings_per_data: 1.0,
        settings: Rate { per_second: 50.0, burst: 200.0 },
        others: Rate { per_second: 1_000.0, burst: 1_000.0 },
        priorities_per_stream: 1_000.0,
        window_updates: 10_000.0,
        window_updates_per_stream: 10.0,
        window_updates_per_data: 20.0,
    };
}

/// What one peer has left.
#[derive(Debug)]
pub(crate) struct Account {
    budget: &'static Budget,
    /// What the party has left of which this is one of the connections.
    party: Option<Rc<RefCell<Account>>>,
    since: Instant,
    resets: f64,
    pings: f64,
    settings: f64,
    others: f64,
    priorities: f64,
    window_updates: f64,
}

/// What a connection may use of its own, as a share, when nothing is left for its party: who has done little is not cut for
/// what another connection does.
const MODEST: f64 = 0.05;

/// Credit earned by use is capped, so that a long quiet life does not pay for a flood at its end: that of a [`Rate`] by its
/// burst, in [`Account::refill`], and every other by this.
const EARNED_MAX: f64 = 100_000.0;

impl Account {
    /// What a peer has left whose connection has just begun.
    pub(crate) fn new(budget: &'static Budget, now: Instant) -> Self {
        Self::shared(budget, None, now)
    }

    /// What a peer has left on a new connection that is one of several of its `party`, whose account all of them draw on.
    pub(crate) fn shared(budget: &'static Budget, party: Option<Rc<RefCell<Self>>>, now: Instant) -> Self {
        Self {
            budget,
            party,
            since: now,
            resets: budget.resets.burst,
            pings: budget.pings.burst,
            settings: budget.settings.burst,
            others: budget.others.burst,
            priorities: budget.priorities_per_stream,
            window_updates: budget.window_updates,
        }
    }

    /// A stream was opened, which earns some.
    pub(crate) fn stream_opened(&mut self) {
        if let Some(party) = &self.party {
            party.borrow_mut().stream_opened();
        }
        let earn = |left: f64, by: f64| (left + by).min(EARNED_MAX);
        self.resets += self.budget.resets_per_stream;
        self.priorities = earn(self.priorities, self.budget.priorities_per_stream);
        self.window_updates = earn(self.window_updates, self.budget.window_updates_per_stream);
    }

    /// The peer was sent content, which earns some.
    pub(crate) fn data_sent(&mut self) {
        self.window_updates = (self.window_updates + self.budget.window_updates_per_data).min(EARNED_MAX);
        self.pings += self.budget.pings_per_data;
        if let Some(party) = &self.party {
            party.borrow_mut().pings += self.budget.pings_per_data;
        }
    }

    /// True when little is left of the resets of the connection, or of its party.
    pub(crate) fn is_scarce(&self) -> bool {
        self.resets < self.budget.resets.burst / 2.0
            || self.party.as_ref().is_some_and(|party| party.borrow().is_scarce())
    }

    /// When something was booked last that comes back with time.
    pub(crate) const fn since(&self) -> Instant {
        self.since
    }

    /// Books one frame from the peer; `false` when there is nothing left for it.
    pub(crate) fn received(&mut self, kind: Kind, now: impl FnOnce() -> Instant) -> bool {
        let left = match kind {
            Kind::Data | Kind::Headers | Kind::Continuation => return true,
            Kind::Priority => &mut self.priorities,
            Kind::WindowUpdate => &mut self.window_updates,
            Kind::Reset | Kind::Settings | Kind::Ping | Kind::Other => return self.timed(kind, now()),
        };
        *left -= 1.0;
        *left >= 0.0
    }

    /// Books what comes back with time, here and for the party. Nobody owes any: who goes on after a flood waits no longer.
    fn timed(&mut self, kind: Kind, now: Instant) -> bool {
        self.refill(now);
        let budget = self.budget;
        let (left, rate) = match kind {
            Kind::Reset => (&mut self.resets, budget.resets),
            Kind::Settings => (&mut self.settings, budget.settings),
            Kind::Ping => (&mut self.pings, budget.pings),
            _ => (&mut self.others, budget.others),
        };
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        // A reset goes on to whoever is called, who cuts the connection that all share.
        let is_modest = kind != Kind::Reset && *left >= rate.burst * (1.0 - MODEST);
        self.party.as_ref().is_none_or(|party| party.borrow_mut().timed(kind, now)) || is_modest
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.duration_since(self.since).as_secs_f64();
        self.since = now;
        let budget = self.budget;
        for (left, rate) in [
            (&mut self.resets, budget.resets),
            (&mut self.pings, budget.pings),
            (&mut self.settings, budget.settings),
            (&mut self.others, budget.others),
        ] {
            *left = (*left + passed * rate.per_second).min(rate.burst);
        }
    }
}
