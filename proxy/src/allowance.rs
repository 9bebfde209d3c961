//! A limit on what anybody can cause: leave to do it so many times a second, and so many times at once.

use std::cell::Cell;

use tokio::time::Instant;

/// How often leave is given. Somebody who gets none can come back as often as they like; what they cause must not grow as
/// fast.
#[derive(Debug)]
pub(crate) struct Allowance {
    per_second: f64,
    burst: f64,
    left: Cell<f64>,
    since: Cell<Option<Instant>>,
    refused: Cell<u64>,
}

impl Allowance {
    /// Leave `per_second` times a second, and `burst` times at once.
    pub(crate) const fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, left: Cell::new(burst), since: Cell::new(None), refused: Cell::new(0) }
    }

    /// Whether it would give leave as often at once as ever.
    pub(crate) fn has_rested(&self) -> bool {
        let passed = self.since.get().map_or(f64::MAX, |since| since.elapsed().as_secs_f64());
        self.left.get() + passed * self.per_second >= self.burst
    }

    /// Counts once and these more as refused: leave that was given could not be used.
    pub(crate) fn withdraw(&self, refused: u64) {
        self.refused.update(|before| before + refused + 1);
    }

    /// Leave for once, with the number refused since the last; `None` when there is none.
    pub(crate) fn take(&self) -> Option<u64> {
        let now = Instant::now();
        let passed = self.since.replace(Some(now)).map_or(0.0, |since| now.duration_since(since).as_secs_f64());
        let left = (self.left.get() + passed * self.per_second).min(self.burst);
        if left < 1.0 {
            self.left.set(left);
            self.refused.set(self.refused.get() + 1);
            return None;
        }
        self.left.set(left - 1.0);
        Some(self.refused.take())
    }
}
