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
//! How failures count is for whoever observes: one that fails at once must not look fast.

use std::cell::Cell;

use super::{Balancer, Candidates, Load, two_choices};
use crate::facts::Moment;

/// Of two endpoints by chance, the one with the lower expected wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma;

impl Balancer for PeakEwma {
    fn pick(&self, candidates: &dyn Candidates, chance: &mut fastrand::Rng) -> Option<usize> {
        two_choices(candidates, chance, expected_wait)
    }
}

/// A new endpoint is worth one request at once and no second one before it answers: otherwise it would never be
/// tried beside endpoints that are known to be faster than [`UNKNOWN_NANOS`].
fn expected_wait(load: &Load) -> f64 {
    let unknown = load.ewma_nanos == 0.0 && load.in_flight > 0;
    let nanos = if unknown { UNKNOWN_NANOS } else { load.ewma_nanos };
    nanos * (f64::from(load.in_flight) + 1.0) / f64::from(load.weight.max(1))
}

/// What an endpoint is assumed to take while its first response is awaited, in nanoseconds.
const UNKNOWN_NANOS: f64 = 30e6;
/// Time constant of the decay, in nanoseconds.
const DECAY_NANOS: f64 = 10e9;

/// A moving average of response times that jumps up to a peak at once and decays over ten seconds, also while no
/// response comes, so that an endpoint that was slow is tried again.
///
/// ```
/// use std::time::Duration;
///
/// use selvedge_policies::{balance::peak_ewma::Ewma, testing::Clock};
///
/// let (average, mut clock) = (Ewma::default(), Clock::default());
/// average.observe(5_000_000, clock.now());
/// average.observe(9_000_000, clock.now());
/// assert_eq!(average.value(clock.now()), 9_000_000.0, "a peak counts at once");
/// assert!(average.value(clock.advance(Duration::from_secs(10))) < 4_000_000.0);
/// ```
#[derive(Debug)]
pub struct Ewma {
    nanos: Cell<f64>,
    /// When `nanos` was right; `None` before the first response.
    at: Cell<Option<u64>>,
}

impl Default for Ewma {
    fn default() -> Self {
        Self { nanos: Cell::new(0.0), at: Cell::new(None) }
    }
}

impl Ewma {
    /// Counts one response time in nanoseconds.
    pub fn observe(&self, rtt_nanos: u64, now: Moment) {
        let sample = rtt_nanos as f64;
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

    /// The average in nanoseconds, decayed to `now`; 0 before the first response.
    pub fn value(&self, now: Moment) -> f64 {
        self.at.get().map_or(0.0, |at| self.nanos.get() * decay(at, now))
    }
}

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

    #[test]
    fn it_jumps_to_a_peak_and_decays_from_it() {
        let (ewma, mut clock) = (Ewma::default(), Clock::default());
        ewma.observe(10 * MILLI, clock.now());
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
        let load = |in_flight, ewma_nanos| Load { available: true, in_flight, ewma_nanos, weight: 1 };
        assert!(expected_wait(&load(0, 0.0)) < expected_wait(&load(0, 1e5)), "it is tried beside a fast one");
        assert!(expected_wait(&load(1, 0.0)) > expected_wait(&load(9, 1e6)), "one request is a sample, two are a bet");
    }

    #[test]
    fn a_clock_that_stands_still_is_harmless() {
        let (ewma, clock) = (Ewma::default(), Clock::default());
        ewma.observe(MILLI, clock.now());
        ewma.observe(0, Moment::default());
        assert!(ewma.value(clock.now()).is_finite());
    }
}
