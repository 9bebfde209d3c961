//! Going away without losing a request.
//!
//! Leaving comes first, where somebody says so in time: readiness goes off, and once callers have had the time to hear of
//! it by their configuration they are told on their connections. Everything is served as before.
//!
//! A drain has phases. First readiness goes off and calls to the application finish: peers are told by GOAWAY or
//! `Connection: close`, new connections are still served. For as long as the application takes connections they are until
//! the end, because there may be nobody else to take them. Where it is gone none are taken any more, and where it is said
//! to be done none after a third of the deadline, for callers that hear of nothing. The application's own calls, and new
//! ones, work until nothing has been in flight for a while, or the deadline passes; connections that it leaves idle are
//! closed. Then those finish too and the process ends.
//!
//! Where another process takes the connections all are told at once, and end as soon as they can without loss. Where it takes them
//! only once this one has ended new ones are served, and told, until those are gone that were there at first.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, interval, sleep},
};

use crate::{heading::Heading, http::pace::Pace};

mod application;

use application::Application;

/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// The same where nobody is listened to any more: each moment that nobody serves costs callers.
const LAST_LOOK: Duration = Duration::from_millis(2);
/// How long new calls are still taken after the last one ended: peers need this long to hear of the drain.
const QUIET: Duration = Duration::from_millis(500);
/// The same while the application may have more to say: many close their listener first and say their last words to other
/// services after that.
const LINGER: Duration = Duration::from_secs(2);
/// The same where the application is gone: what it said last is on its way through the kernel.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long the application may leave a connection idle before it is closed in a drain.
const IDLE: Duration = Duration::from_secs(2);
/// The part of the deadline after which new connections to an application that is done are not taken any more.
const TAKEN: u32 = 3;
/// How often it is looked whether the application is gone.
const ASK: Duration = Duration::from_secs(1);
/// How long the application takes no connections before it is gone.
const AWAY: Duration = Duration::from_secs(2);
/// How long the application's calls have after the deadline to close in order.
const LAST: Duration = Duration::from_secs(1);

/// How long callers have to hear by their configuration that a workload leaves, before they are told on their connections:
/// what a cluster mostly takes from a pod's end to the last node that knows of it.
pub(crate) const LEAVE: Duration = Duration::from_secs(5);

/// How far a drain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// No drain: everything is served.
    #[default]
    Serving,
    /// It leaves: not ready any more, so that the mesh sends no new callers.
    Leaving,
    /// Callers are told on their connections; new ones are served.
    Told,
    /// Calls to the application finish.
    Draining,
    /// Calls to the application finish, and no new connections to it are taken.
    Shut,
    /// Another process takes the connections when this one has ended: all calls finish, and new ones are served meanwhile.
    Restarting,
    /// Another process takes the connections: all calls finish, and callers come back there.
    Replaced,
    /// The application is gone: what is in flight finishes, and what it has left idle is over.
    Gone,
    /// All calls finish, those of the application too.
    Closing,
}

impl Phase {
    /// Whether whoever calls anew gets to another process, now or soon.
    pub(crate) const fn gives_way(self) -> bool {
        matches!(self, Self::Restarting | Self::Replaced)
    }
}

/// Connections open on all workers.
#[derive(Debug, Default)]
pub(crate) struct Open {
    inbound: AtomicUsize,
    outbound: AtomicUsize,
    /// All that there were.
    ever: AtomicUsize,
    /// Of those that are open the ones that have come late.
    late: AtomicUsize,
    /// Whether those that come now come late.
    is_late: AtomicBool,
    /// Whether anybody has called the application, other than to see how it is.
    called: AtomicBool,
    /// Where inbound ones lead.
    pub application: Application,
}

impl Open {
    /// None, and none ever; the application is known to be called at `addresses`.
    pub(crate) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { application: Application::new(addresses), ..Self::default() }
    }

    fn of(&self, heading: &Heading) -> &AtomicUsize {
        match heading {
            Heading::Inbound { .. } => &self.inbound,
            Heading::Outbound { .. } => &self.outbound,
        }
    }

    /// Counts one more connection of this heading; whether it comes late.
    pub(crate) fn opened(&self, heading: &Heading) -> bool {
        self.of(heading).fetch_add(1, Ordering::Relaxed);
        self.ever.fetch_add(1, Ordering::Relaxed);
        if let Heading::Inbound { forward, .. } = heading {
            self.application.called(*forward);
        }
        let is_late = self.is_late.load(Ordering::Relaxed);
        self.late.fetch_add(is_late.into(), Ordering::Relaxed);
        is_late
    }

    /// Counts one connection less of this heading, which had come late or not.
    pub(crate) fn closed(&self, heading: &Heading, was_late: bool) {
        // In between an early one too many is counted, never one too few.
        self.late.fetch_sub(was_late.into(), Ordering::Relaxed);
        self.of(heading).fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are open that have not come late.
    fn early(&self) -> usize {
        self.all().saturating_sub(self.late.load(Ordering::Relaxed))
    }

    /// Notes that somebody calls the application.
    pub(crate) fn note_call(&self) {
        self.called.store(true, Ordering::Relaxed);
    }

    /// How many are open now, of both kinds.
    pub(crate) fn all(&self) -> usize {
        self.inbound.load(Ordering::Relaxed) + self.outbound.load(Ordering::Relaxed)
    }
}

/// Where a process that is replaced goes on listening, because the new one does not: known before it is [`Phase::Replaced`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<OnceLock<Vec<SocketAddr>>>);

impl Kept {
    /// Says which addresses stay; counts once.
    pub(crate) fn keep(&self, addresses: Vec<SocketAddr>) {
        let _ = self.0.set(addresses); // a process is replaced once
    }

    /// Whether the one at this address stays.
    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.0.get().is_some_and(|kept| kept.contains(&address))
    }
}

/// A connection's view of the drain.
#[derive(Clone, Debug)]
pub(crate) struct Drain(watch::Receiver<Phase>);

impl Drain {
    /// A view that follows `phases` from what they are now.
    pub(crate) const fn new(phases: watch::Receiver<Phase>) -> Self {
        Self(phases)
    }

    /// Waits until a connection with this heading should finish. The application's own may be idle for a while: it is
    /// at the end of something, and what comes next is needed. With a protocol in which a connection cannot be `asked` to
    /// finish while nothing is under way it is left idle for a while before it is closed, where a process takes the place of
    /// this one: who asks something at that moment would get no answer.
    pub(crate) async fn begun(&mut self, heading: &Heading, pace: &Pace, asked: bool) {
        if matches!(heading, Heading::Inbound { .. }) {
            self.reached(Phase::Told).await;
            if asked || !self.gives_way() {
                return;
            }
        } else {
            self.reached(Phase::Draining).await;
        }
        tokio::select! {
            () = pace.idle(IDLE) => {}
            () = self.reached(if asked { Phase::Restarting } else { Phase::Gone }) => {}
        }
    }

    fn gives_way(&self) -> bool {
        self.0.borrow().gives_way()
    }

    /// Waits until no new connection with this heading is taken; where another process takes the place of this one, unless the
    /// listener `is_kept`.
    pub(crate) async fn shut(&mut self, inbound: bool, is_kept: impl Fn() -> bool) {
        self.until(|now| match now {
            Phase::Restarting => false,
            Phase::Replaced => !is_kept(),
            now => now >= if inbound { Phase::Shut } else { Phase::Closing },
        })
        .await;
    }

    /// Whether connections with this heading should finish.
    pub(crate) fn has_begun(&self, heading: &Heading) -> bool {
        *self.0.borrow() >= end_of(heading)
    }

    /// Waits until there is no application any more that could say or hear anything.
    pub(crate) async fn gone(&mut self) {
        self.reached(Phase::Gone).await;
    }

    /// Waits until the deadline has passed, when even opaque connections must end.
    pub(crate) async fn passed(&mut self) {
        self.reached(Phase::Closing).await;
    }

    async fn reached(&mut self, phase: Phase) {
        self.until(|now| now >= phase).await;
    }

    async fn until(&mut self, holds: impl Fn(Phase) -> bool) {
        if self.0.wait_for(|now| holds(*now)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The phase in which connections with this heading finish.
const fn end_of(heading: &Heading) -> Phase {
    match heading {
        Heading::Inbound { .. } => Phase::Told,
        Heading::Outbound { .. } => Phase::Restarting,
    }
}

/// Goes on to `phase`, unless it has come as far already.
fn reach(phases: &watch::Sender<Phase>, phase: Phase) {
    phases.send_if_modified(|now| {
        let is_news = *now < phase;
        *now = phase.max(*now);
        is_news
    });
}

/// Leaves: callers have so long to hear of it by their configuration, then they are told on their connections. A workload
/// that nobody has called has nobody to tell.
pub(crate) async fn leave(phases: &watch::Sender<Phase>, open: &Open, hearing: Duration) {
    reach(phases, Phase::Leaving);
    if open.called.load(Ordering::Relaxed) {
        sleep(hearing).await;
    }
    reach(phases, Phase::Told);
}

/// Drains: returns when the process may end. That is when nothing has been in flight for a while, a shorter one once the
/// application is said to be `done`, and at the latest when `deadline` has passed. Until then an application that is not
/// seen to be gone is called.
pub(crate) async fn drain(
    phases: &watch::Sender<Phase>,
    open: &Open,
    deadline: Duration,
    is_gone: impl AsyncFn() -> bool,
    done: impl Future<Output = ()>,
) {
    let (began, mut done) = (Instant::now(), pin!(done));
    reach(phases, Phase::Draining);
    let (mut look, mut quiet) = (interval(LOOK), Quiet::new(open));
    let mut application = Presence::new();
    let mut is_done = false;
    while began.elapsed() < deadline {
        tokio::select! {
            _ = look.tick() => {}
            () = done.as_mut(), if !is_done => is_done = true,
        }
        if is_done && began.elapsed() >= deadline / TAKEN || application.has_ended(&is_gone).await {
            reach(phases, Phase::Shut);
        }
        if quiet.lasts(open) >= if is_done { QUIET } else { LINGER } {
            break;
        }
    }
    close(phases, open).await;
}

/// Ends with an application that is gone: returns when nothing is in flight any more, at the latest when `deadline` has
/// passed. Callers whose connections are not taken any more repeat their calls elsewhere.
pub(crate) async fn follow(phases: &watch::Sender<Phase>, open: &Open, deadline: Duration) {
    finish(phases, open, Phase::Gone, deadline).await;
}

/// Gives way to another process, which takes connections by now: returns when nothing is in flight any more, at the latest
/// when `deadline` has passed.
pub(crate) async fn give_way(phases: &watch::Sender<Phase>, open: &Open, deadline: Duration) {
    finish(phases, open, Phase::Replaced, deadline).await;
}

/// Ends for a process that takes the connections, and those that wait, when this one has ended: returns when nothing is in flight
/// any more, at the latest when `deadline` has passed. Who comes is served for as long as any connection is open that was when it
/// began, so that nobody waits for what lives long; and no longer, nor where the application is gone.
pub(crate) async fn restart(
    phases: &watch::Sender<Phase>,
    open: &Open,
    deadline: Duration,
    is_gone: impl AsyncFn() -> bool,
) {
    let began = Instant::now();
    open.is_late.store(true, Ordering::Relaxed);
    reach(phases, Phase::Restarting);
    let (mut look, mut application) = (interval(LOOK), Presence::new());
    while open.early() > 0 && began.elapsed() < deadline && !application.has_ended(&is_gone).await {
        look.tick().await;
    }
    finish(phases, open, Phase::Replaced, deadline.saturating_sub(began.elapsed())).await;
}

async fn finish(phases: &watch::Sender<Phase>, open: &Open, phase: Phase, deadline: Duration) {
    let began = Instant::now();
    reach(phases, phase);
    let (mut look, mut quiet) = (interval(LOOK), Quiet::new(open));
    while began.elapsed() < deadline {
        look.tick().await;
        if quiet.lasts(open) >= LAST_WORDS {
            break;
        }
    }
    close(phases, open).await;
}

/// Lets what is open close in order, for a moment.
async fn close(phases: &watch::Sender<Phase>, open: &Open) {
    reach(phases, Phase::Closing);
    let (mut look, last) = (interval(LAST_LOOK), Instant::now() + LAST);
    while open.all() > 0 && Instant::now() < last {
        look.tick().await;
    }
}

/// Since when nothing is in flight.
struct Quiet {
    busy: Instant,
    ever: usize,
}

impl Quiet {
    fn new(open: &Open) -> Self {
        Self { busy: Instant::now(), ever: open.ever.load(Ordering::Relaxed) }
    }

    /// How long nothing has been. A connection may have come and gone between two looks.
    fn lasts(&mut self, open: &Open) -> Duration {
        let before = std::mem::replace(&mut self.ever, open.ever.load(Ordering::Relaxed));
        if open.all() > 0 || self.ever != before {
            self.busy = Instant::now();
        }
        self.busy.elapsed()
    }
}

/// Whether the application is there, asked not too often.
struct Presence {
    asked: Option<Instant>,
    away: Option<Instant>,
}

impl Presence {
    const fn new() -> Self {
        Self { asked: None, away: None }
    }

    async fn has_ended(&mut self, is_gone: &impl AsyncFn() -> bool) -> bool {
        if self.asked.is_none_or(|asked| asked.elapsed() >= ASK) {
            self.asked = Some(Instant::now());
            self.away = if is_gone().await { self.away.or(self.asked) } else { None };
        }
        self.away.is_some_and(|away| away.elapsed() >= AWAY)
    }
}

#[cfg(test)]
mod tests;
