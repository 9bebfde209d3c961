//! How many control frames a peer may send.

use tokio::time::Instant;

use super::frames::Kind;

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

    /// For authenticated sidecars, which carry the requests of many clients on one connection, and for the
    /// workload itself: a client that gives up a thousand requests at once must not cost the others theirs.
    pub(crate) const TRUSTED: Self = Self {
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
pub(super) struct Account {
    budget: &'static Budget,
    since: Instant,
    resets: f64,
    pings: f64,
    settings: f64,
    others: f64,
    priorities: f64,
    window_updates: f64,
}

/// Credit earned by use is capped, so that a long quiet life does not pay for a flood at its end: that of a [`Rate`] by its
/// burst, in [`Account::refill`], and every other by this.
const EARNED_MAX: f64 = 100_000.0;

impl Account {
    pub(super) fn new(budget: &'static Budget, now: Instant) -> Self {
        Self {
            budget,
            since: now,
            resets: budget.resets.burst,
            pings: budget.pings.burst,
            settings: budget.settings.burst,
            others: budget.others.burst,
            priorities: budget.priorities_per_stream,
            window_updates: budget.window_updates,
        }
    }

    pub(super) fn stream_opened(&mut self) {
        let earn = |left: f64, by: f64| (left + by).min(EARNED_MAX);
        self.resets += self.budget.resets_per_stream;
        self.priorities = earn(self.priorities, self.budget.priorities_per_stream);
        self.window_updates = earn(self.window_updates, self.budget.window_updates_per_stream);
    }

    pub(super) fn data_sent(&mut self) {
        self.window_updates = (self.window_updates + self.budget.window_updates_per_data).min(EARNED_MAX);
        self.pings += self.budget.pings_per_data;
    }

    /// Books one frame from the peer; `false` when there is nothing left for it.
    pub(super) fn received(&mut self, kind: Kind, now: impl FnOnce() -> Instant) -> bool {
        let left = match kind {
            Kind::Data | Kind::Headers | Kind::Continuation => return true,
            Kind::Priority => &mut self.priorities,
            Kind::WindowUpdate => &mut self.window_updates,
            Kind::Reset | Kind::Settings | Kind::Ping | Kind::Other => {
                self.refill(now());
                match kind {
                    Kind::Reset => &mut self.resets,
                    Kind::Settings => &mut self.settings,
                    Kind::Ping => &mut self.pings,
                    _ => &mut self.others,
                }
            }
        };
        *left -= 1.0;
        *left >= 0.0
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
