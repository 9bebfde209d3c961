//! How often something is logged that anybody can cause as often as they like: a log rate limit.

use std::time::Duration;

use tokio::time::Instant;

use crate::guarded::Guarded;

/// Lines that may be written at once.
const BURST: u32 = 20;
/// After that one line in this time.
const PACE: Duration = Duration::from_secs(6);

/// A kind of line that is logged in bounded number; what is left out is counted.
#[derive(Debug)]
pub(crate) struct Quiet {
    budget: Guarded<Budget>,
}

#[derive(Debug)]
struct Budget {
    lines: u32,
    since: Instant,
    left_out: u64,
}

impl Default for Quiet {
    fn default() -> Self {
        Self { budget: Guarded::new(Budget { lines: BURST, since: Instant::now(), left_out: 0 }) }
    }
}

impl Quiet {
    /// Whether a line may be logged now: with the number of those left out before it.
    pub(super) fn may_say(&self) -> Option<u64> {
        self.budget.with(Budget::take)
    }
}

impl Budget {
    fn take(&mut self) -> Option<u64> {
        let earned = self.since.elapsed().div_duration_f64(PACE) as u32;
        if earned > 0 {
            self.lines = BURST.min(self.lines.saturating_add(earned));
            self.since = Instant::now();
        }
        if self.lines == 0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_few_lines_that_say_how_many_there_were() {
        let quiet = Quiet::default();
        let said: Vec<u64> = (0..1000).filter_map(|_| quiet.may_say()).collect();
        assert_eq!(said, [0; BURST as usize]);
        tokio::time::advance(PACE).await;
        assert_eq!(quiet.may_say(), Some(1000 - u64::from(BURST)));
        assert_eq!(quiet.may_say(), None);
        tokio::time::advance(1000 * PACE).await;
        assert_eq!((0..100).filter_map(|_| quiet.may_say()).count(), BURST as usize, "silence is not saved up");
    }
}
