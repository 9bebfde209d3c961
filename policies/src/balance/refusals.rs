//! How much an endpoint refuses of late. Whoever refuses is quick, so a balancer that goes by time or by requests in flight
//! would send it nearly everything.
//!
//! A refusal is an answer that says "not here" or "not now": too many requests, forbidden, an error of the server. The share of them
//! moves half-way with each answer and halves every few seconds without one, so an endpoint that refused is tried again soon.
//! An endpoint that says when to come back (`Retry-After`, RFC 9110 section 10.2.3) counts as refusing until then. Where all
//! refuse alike all weigh alike.

use std::{cell::Cell, f64::consts::LN_2, time::Duration};

use crate::facts::Moment;

/// In which time an endpoint that is not asked is forgiven half of it.
const HALF_LIFE_NANOS: f64 = 3e9;
/// The longest that an endpoint is left alone because it says so: nothing a service says turns it away for good.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A share of which nothing is held against an endpoint any more.
pub(super) const FORGOTTEN: f64 = 0.02;
/// How much busier than it is an endpoint looks that refuses everything.
const WEIGHT: f64 = 100.0;

/// What an endpoint's load is multiplied by that refuses this share. Whoever refuses now and then is little busier: what it
/// refuses can be tried elsewhere, and it serves the rest sooner than a slow one would.
pub(super) fn weigh(refusing: f64) -> f64 {
    1.0 + WEIGHT * refusing.powi(4)
}

/// The share of refusals of one endpoint.
///
/// ```
/// use std::time::Duration;
///
/// use selvedge_policies::{balance::refusals::Refusals, testing::Clock};
///
/// let (refusals, mut clock) = (Refusals::default(), Clock::default());
/// refusals.observe(true, None, clock.now());
/// refusals.observe(true, None, clock.now());
/// assert_eq!(refusals.share(clock.now()), 0.75);
/// assert!(refusals.share(clock.advance(Duration::from_secs(3))) < 0.4, "it is forgiven");
/// refusals.observe(true, Some(Duration::from_secs(5)), clock.now());
/// assert_eq!(refusals.share(clock.advance(Duration::from_secs(4))), 1.0, "it said when to come back");
/// ```
#[derive(Debug, Default)]
pub struct Refusals {
    share: Cell<f64>,
    /// When `share` was right, in monotonic nanoseconds; it may be to come.
    at: Cell<u64>,
}

impl Refusals {
    /// Counts an answer: whether it was a refusal, and for how long the endpoint wants to be left alone.
    pub fn observe(&self, refused: bool, retry_after: Option<Duration>, now: Moment) {
        let share = self.share(now);
        let (share, wait) = match retry_after.filter(|_| refused) {
            Some(wait) => (1.0, wait.min(LONGEST_WAIT)),
            None => (share + (f64::from(u8::from(refused)) - share) / 2.0, Duration::ZERO),
        };
        let until = now.nanos.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        // A wait that was asked for holds whatever other refusals come meanwhile.
        self.share.set(if refused && self.at.get() > until { 1.0 } else { share });
        self.at.set(if refused { until.max(self.at.get()) } else { until });
    }

    /// The share at `now`, from 0 to 1.
    pub fn share(&self, now: Moment) -> f64 {
        let share = self.share.get();
        if share == 0.0 {
            return share; // most endpoints refuse nothing, ever
        }
        share * libm::exp(-LN_2 * now.nanos.saturating_sub(self.at.get()) as f64 / HALF_LIFE_NANOS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Clock;

    #[test]
    fn no_service_turns_its_callers_away_for_good() {
        let (refusals, mut clock) = (Refusals::default(), Clock::default());
        refusals.observe(true, Some(Duration::MAX), clock.now());
        assert_eq!(refusals.share(clock.advance(LONGEST_WAIT)), 1.0);
        assert!(refusals.share(clock.advance(Duration::from_secs(30))) < FORGOTTEN);
    }

    #[test]
    fn who_answers_again_is_forgiven_by_a_few_answers() {
        let (refusals, clock) = (Refusals::default(), Clock::default());
        refusals.observe(true, Some(Duration::from_secs(9)), clock.now());
        (0..6).for_each(|_| refusals.observe(false, None, clock.now()));
        assert!(refusals.share(clock.now()) < FORGOTTEN);
    }
}
