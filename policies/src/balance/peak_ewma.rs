//! Power of two choices by peak-EWMA response time and load: prefers fast endpoints, and leaves one that turns slow
//! within a response or two.
//!
//! Of two endpoints drawn by chance the one with the lower expected wait gets the try: its average response time, times
//! the requests in flight and this one, over its weight. Two draws keep the herd apart that would run to a single best
//! endpoint (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001), and cost no look at the
//! others.
//!
//! The average is a moving one in time, not in responses: it decays with a constant of ten seconds, also while nothing
//! comes, so an endpoint that was slow once is tried again. A sample above it replaces it at once, because an endpoint
//! that stalls has few responses to be averaged; this is the peak EWMA of Twitter's Finagle. Each worker has averages
//! of its own, and nothing is shared or locked.
//!
//! Peaks alone would have a caller with one request at a time stay with whichever of two equal endpoints had the smaller
//! one, for seconds. So endpoints with as many requests in flight are alike, and chance decides, where what they usually
//! take is alike. One response that stands out is not usual, the second in a row is.
//!
//! How failures count is for whoever observes: one that fails or refuses at once must not look fast.

use std::cell::Cell;

use super::{Balancer, Candidates, Load, refusals, two_choices};
use crate::facts::Moment;

/// Of two endpoints by chance, the one with the lower expected wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma;

impl Balancer for PeakEwma {
    fn pick(&self, candidates: &dyn Candidates, chance: &mut fastrand::Rng) -> Option<usize> {
        two_choices(candidates, chance, |a, b| !are_alike(a, b) && expected_wait(a) < expected_wait(b))
    }
}

/// A new endpoint is worth one request at once and no second one before it answers, or while it refuses: otherwise it
/// would never be tried beside endpoints that are known to be faster than [`UNKNOWN_NANOS`].
fn expected_wait(load: &Load) -> f64 {
    let unknown = load.ewma_nanos == 0.0 && (load.in_flight > 0 || load.refusing > refusals::FORGOTTEN);
    let nanos = if unknown { UNKNOWN_NANOS } else { load.ewma_nanos };
    refusals::weigh(load.refusing) * nanos * (f64::from(load.in_flight) + 1.0) / f64::from(load.weight.max(1))
}

/// Whether nothing that was seen of two endpoints is more than what a network and a scheduler do by themselves.
fn are_alike(a: &Load, b: &Load) -> bool {
    let known = a.ewma_nanos > 0.0 && b.ewma_nanos > 0.0;
    let usual = (a.usual_nanos.min(b.usual_nanos), a.usual_nanos.max(b.usual_nanos));
    (a.in_flight, a.weight) == (b.in_flight, b.weight)
        && known
        && usual.1 <= 2.0 * usual.0
        && (a.refusing - b.refusing).abs() < refusals::FORGOTTEN
}

/// What an endpoint is assumed to take while its first response is awaited, in nanoseconds.
const UNKNOWN_NANOS: f64 = 30e6;
/// What a response stands out by from what is usual, in nanoseconds.
const OUTSTANDING_NANOS: f64 = 20e6;
/// Time constant of the decay, in nanoseconds.
const DECAY_NANOS: f64 = 10e9;

/// A moving average of response times that jumps up to a peak at once and decays over ten seconds, also while no
/// response comes, so that an endpoint that was slow is tried again. It is known after a few responses, of which the first does
/// not count: it waited for a connection, and whoever is new has caches to fill.
///
/// ```
/// use std::time::Duration;
///
/// use selvedge_policies::{balance::peak_ewma::Ewma, testing::Clock};
///
/// let (average, mut clock) = (Ewma::default(), Clock::default());
/// average.observe(80_000_000, clock.now());
/// assert_eq!(average.value(clock.now()), 0.0, "it is not known yet");
/// (0..4).for_each(|_| average.observe(5_000_000, clock.now()));
/// average.observe(9_000_000, clock.now());
/// assert_eq!(average.value(clock.now()), 9_000_000.0, "a peak counts at once");
/// assert!(average.usual() < 6_000_000.0, "but it is not usual");
/// let hangs = Ewma::default();
/// hangs.assume(1_000_000_000, clock.now());
/// assert!(hangs.value(clock.now()) > average.value(clock.now()));
/// assert!(average.value(clock.advance(Duration::from_secs(10))) < 4_000_000.0);
/// ```
#[derive(Debug, Default)]
pub struct Ewma {
    nanos: Cell<f64>,
    usual: Cell<f64>,
    /// The last sample.
    last: Cell<f64>,
    /// When `nanos` was right; `None` before the second response.
    at: Cell<Option<u64>>,
    /// Responses that came, [`SAMPLES`] at most.
    seen: Cell<u8>,
}

impl Ewma {
    /// Counts one response time in nanoseconds.
    pub fn observe(&self, rtt_nanos: u64, now: Moment) {
        self.seen.set((self.seen.get() + 1).min(SAMPLES));
        if self.seen.get() == 1 {
            return;
        }
        let sample = rtt_nanos as f64;
        self.become_usual(sample);
        let next = match self.at.get() {
            None => sample,
            Some(_) if sample >= self.value(now) => sample,
            Some(at) => {
                let kept = decay(at, now);
                self.nanos.get() * kept + sample * (1.0 - kept)
            }
        };
        self.nanos.set(next);
        self.at.set(Some(now.nanos));
    }

    /// Counts a try that had no answer in so many nanoseconds, where nothing is known yet: it takes at least as long.
    pub fn assume(&self, nanos: u64, now: Moment) {
        self.seen.set(SAMPLES);
        self.nanos.set(nanos as f64);
        self.at.set(Some(now.nanos));
    }

    fn become_usual(&self, sample: f64) {
        let (usual, before) = (self.usual.get(), self.last.replace(sample));
        let stands_out = |nanos: f64| (nanos - usual).abs() >= OUTSTANDING_NANOS && (nanos > usual) == (sample > usual);
        let changed = usual == 0.0 || (stands_out(before) && stands_out(sample));
        self.usual.set(match () {
            () if changed => sample,
            () if self.seen.get() < SAMPLES => sample.min(usual),
            () => sample.clamp(usual * DOWN, usual * UP),
        });
    }

    /// What a response usually takes, in nanoseconds; 0 while the average is. Each moves it by a few per cent at most, so it
    /// comes to stand where as many are above as below; two in a row that stand out move it to the second of them.
    pub fn usual(&self) -> f64 {
        self.usual.get()
    }

    /// The average in nanoseconds, decayed to `now`; 0 while the first few responses are awaited.
    pub fn value(&self, now: Moment) -> f64 {
        if self.seen.get() < SAMPLES {
            return 0.0;
        }
        self.at.get().map_or(0.0, |at| self.nanos.get() * decay(at, now))
    }
}

/// So many responses make an endpoint known. What is new is slow at first, and by one of them alone it would be left alone.
const SAMPLES: u8 = 5;
/// The least that one response makes of what is usual.
const DOWN: f64 = 0.9;
/// The most that one response makes of what is usual.
const UP: f64 = 1.1;

/// The share of an average that is left. Of `libm`, because for the `exp` of `std` every sidecar would keep a third of a
/// megabyte of the C library's mathematics in memory.
fn decay(at: u64, now: Moment) -> f64 {
    libm::exp(-(now.nanos.saturating_sub(at) as f64) / DECAY_NANOS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::Clock;

    const MILLI: u64 = 1_000_000;

    fn millis(ewma: &Ewma, clock: &Clock) -> f64 {
        (ewma.value(clock.now()) / 1e6 * 100.0).round() / 100.0
    }

    /// An average that is known, all but the first response of which took so long.
    fn known(nanos: u64) -> Ewma {
        let (ewma, clock) = (Ewma::default(), Clock::default());
        ewma.observe(900 * MILLI, clock.now());
        (0..4).for_each(|_| ewma.observe(nanos, clock.now()));
        ewma
    }

    #[test]
    fn one_slow_response_among_many_is_not_usual() {
        let (ewma, clock) = (known(MILLI), Clock::default());
        ewma.observe(900 * MILLI, clock.now());
        assert!(ewma.usual() < 1.2e6 && ewma.value(clock.now()) == 900e6);
        ewma.observe(800 * MILLI, clock.now());
        assert_eq!(ewma.usual(), 800e6, "the second in a row is no chance");
        (0..2).for_each(|_| ewma.observe(MILLI, clock.now()));
        assert_eq!(ewma.usual(), 1e6);
        (0..60).for_each(|_| ewma.observe(5 * MILLI, clock.now()));
        assert_eq!(ewma.usual(), 5e6, "what all take is");
    }

    #[test]
    fn it_jumps_to_a_peak_and_decays_from_it() {
        let (ewma, mut clock) = (known(10 * MILLI), Clock::default());
        assert_eq!(millis(&ewma, &clock), 10.0);
        ewma.observe(500 * MILLI, clock.now());
        assert_eq!(millis(&ewma, &clock), 500.0);
        clock.advance(Duration::from_secs(10));
        assert_eq!(millis(&ewma, &clock), 183.94);
        ewma.observe(10 * MILLI, clock.now());
        assert_eq!(millis(&ewma, &clock), 190.26);
        for _ in 0..600 {
            clock.advance(Duration::from_millis(100));
            ewma.observe(10 * MILLI, clock.now());
        }
        assert!((10.0..11.0).contains(&millis(&ewma, &clock)));
    }

    #[test]
    fn a_new_endpoint_gets_one_request_until_it_answers() {
        let load = |in_flight, ewma_nanos| Load {
            available: true,
            in_flight,
            ewma_nanos,
            usual_nanos: ewma_nanos,
            refusing: 0.0,
            weight: 1,
        };
        assert!(expected_wait(&load(0, 0.0)) < expected_wait(&load(0, 1e5)), "it is tried beside a fast one");
        assert!(expected_wait(&load(1, 0.0)) > expected_wait(&load(9, 1e6)), "one request is a sample, two are a bet");
    }

    #[test]
    fn a_clock_that_stands_still_is_harmless() {
        let (ewma, clock) = (known(MILLI), Clock::default());
        ewma.observe(0, Moment::default());
        assert!(ewma.value(clock.now()).is_finite());
    }
}
