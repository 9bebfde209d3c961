//! Going away without losing a request.
//!
//! A drain has phases. First readiness goes off and calls to the application finish: peers are told by GOAWAY or
//! `Connection: close`, new connections are still served. After a third of the deadline no new ones are taken, for
//! callers that hear of nothing. The application's own calls go on until it has closed its connections or leaves them
//! idle, or the deadline passes; then those finish too and the process ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, interval},
};

use crate::{exchange::Heading, http::pace::Pace};

/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// How long new calls are still taken after the last one ended: peers need this long to hear of the drain.
const QUIET: Duration = Duration::from_millis(500);
/// How long the application may leave a connection idle before it is closed in a drain.
const IDLE: Duration = Duration::from_secs(5);
/// The part of the deadline after which new connections to the application are not taken any more.
const TAKEN: u32 = 3;
/// How long the application's calls have after the deadline to close in order.
const LAST: Duration = Duration::from_secs(1);

/// How far a drain has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No drain.
    #[default]
    Serving,
    /// Calls to the application finish.
    Draining,
    /// The same, and no new connections to the application are taken.
    Shut,
    /// All calls finish.
    Closing,
}

/// Connections open on all workers.
#[derive(Debug, Default)]
pub struct Open {
    inbound: AtomicUsize,
    outbound: AtomicUsize,
    /// All that there were.
    ever: AtomicUsize,
}

impl Open {
    fn of(&self, heading: &Heading) -> &AtomicUsize {
        match heading {
            Heading::Inbound { .. } => &self.inbound,
            Heading::Outbound { .. } => &self.outbound,
        }
    }

    /// One more connection.
    pub fn opened(&self, heading: &Heading) {
        self.of(heading).fetch_add(1, Ordering::Relaxed);
        self.ever.fetch_add(1, Ordering::Relaxed);
    }

    /// One connection less.
    pub fn closed(&self, heading: &Heading) {
        self.of(heading).fetch_sub(1, Ordering::Relaxed);
    }

    fn inbound(&self) -> usize {
        self.inbound.load(Ordering::Relaxed)
    }

    fn outbound(&self) -> usize {
        self.outbound.load(Ordering::Relaxed)
    }
}

/// A connection's view of the drain.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Phase>);

impl Drain {
    /// Follows `phases`.
    pub const fn new(phases: watch::Receiver<Phase>) -> Self {
        Self(phases)
    }

    /// Waits until a connection with this heading should finish. The application's own may be idle for a while: it is
    /// at the end of something, and what comes next is needed.
    pub async fn begun(&mut self, heading: &Heading, pace: &Pace) {
        self.reached(Phase::Draining).await;
        if matches!(heading, Heading::Outbound { .. }) {
            tokio::select! {
                () = pace.idle(IDLE) => {}
                () = self.passed() => {}
            }
        }
    }

    /// Waits until no new connection with this heading is taken.
    pub async fn shut(&mut self, inbound: bool) {
        self.reached(if inbound { Phase::Shut } else { Phase::Closing }).await;
    }

    /// Whether connections with this heading should finish.
    pub fn has_begun(&self, heading: &Heading) -> bool {
        *self.0.borrow() >= end_of(heading)
    }

    /// Waits until the deadline has passed, when even opaque connections must end.
    pub async fn passed(&mut self) {
        self.reached(Phase::Closing).await;
    }

    async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|now| *now >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The phase in which connections with this heading finish.
const fn end_of(heading: &Heading) -> Phase {
    match heading {
        Heading::Inbound { .. } => Phase::Draining,
        Heading::Outbound { .. } => Phase::Closing,
    }
}

/// Drains: returns when the process may end.
pub async fn drain(phases: &watch::Sender<Phase>, open: &Arc<Open>, deadline: Duration) {
    let end = Instant::now() + deadline;
    phases.send_replace(Phase::Draining);
    let mut look = interval(LOOK);
    let (mut busy, mut ever) = (Instant::now(), open.ever.load(Ordering::Relaxed));
    let shut = Instant::now() + deadline / TAKEN;
    while Instant::now() < end {
        look.tick().await;
        if Instant::now() >= shut {
            phases.send_if_modified(|phase| std::mem::replace(phase, Phase::Shut) != Phase::Shut);
        }
        // A connection may have come and gone between two looks.
        let before = std::mem::replace(&mut ever, open.ever.load(Ordering::Relaxed));
        if open.inbound() > 0 || open.outbound() > 0 || ever != before {
            busy = Instant::now();
        } else if busy.elapsed() >= QUIET {
            break;
        }
    }
    phases.send_replace(Phase::Closing);
    let last = Instant::now() + LAST;
    while open.inbound() + open.outbound() > 0 && Instant::now() < last {
        look.tick().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound() -> Heading {
        Heading::Inbound { forward: ([127, 0, 0, 1], 80).into(), port: 80 }
    }

    fn outbound() -> Heading {
        Heading::Outbound { destination: "a/b".into(), port: 80, original: None }
    }

    #[tokio::test(start_paused = true)]
    async fn the_applications_calls_go_on_until_it_is_gone() {
        let (phases, receiver) = watch::channel(Phase::Serving);
        let open = Arc::new(Open::default());
        open.opened(&outbound());
        let draining = tokio::spawn({
            let (open, phases) = (open.clone(), phases.clone());
            async move { drain(&phases, &open, Duration::from_secs(30)).await }
        });
        let mut view = Drain::new(receiver.clone());
        view.begun(&inbound(), &Pace::default()).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(*receiver.borrow() < Phase::Closing, "the application still has a connection");
        open.closed(&outbound());
        draining.await.unwrap();
        assert_eq!(*receiver.borrow(), Phase::Closing);
    }

    #[tokio::test(start_paused = true)]
    async fn the_applications_connection_finishes_when_it_is_left_idle() {
        let (_phases, receiver) = watch::channel(Phase::Draining);
        let (mut view, pace, began) = (Drain::new(receiver), Pace::default(), Instant::now());
        let calls = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                let turn = pace.begin();
                tokio::time::sleep(Duration::from_secs(20)).await;
                drop(turn);
            }
        };
        let heading = outbound();
        tokio::join!(calls, view.begun(&heading, &pace));
        let idle = began.elapsed().as_secs() - 4 * 24;
        assert!((5..=10).contains(&idle), "{idle} s after the last call");
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_hear_of_nothing_are_turned_away_after_a_third_of_the_deadline() {
        let (phases, receiver) = watch::channel(Phase::Serving);
        let open = Arc::new(Open::default());
        open.opened(&inbound());
        let began = Instant::now();
        let callers = async {
            Drain::new(receiver.clone()).shut(true).await;
            assert_eq!(began.elapsed().as_secs(), 10);
            open.closed(&inbound());
        };
        tokio::join!(drain(&phases, &open, Duration::from_secs(30)), callers);
        assert!(began.elapsed().as_secs() < 12, "nothing is in flight any more");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_a_drain() {
        let (phases, _receiver) = watch::channel(Phase::Serving);
        let open = Arc::new(Open::default());
        open.opened(&inbound());
        let began = Instant::now();
        drain(&phases, &open, Duration::from_secs(5)).await;
        assert!((5..=7).contains(&began.elapsed().as_secs()));
    }
}
