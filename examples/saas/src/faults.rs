//! Faults planted by flags, so that there is something for a mesh to hide.

use std::time::Duration;

use crate::error::Error;

/// What goes wrong on purpose.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Faults {
    /// This share of the requests, in percent, is answered 503 without being handled.
    #[arg(long, env = "FAULT_FAIL_PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub fail_percent: u8,
    /// Every request waits this many milliseconds first.
    #[arg(long, env = "FAULT_DELAY_MS", default_value_t = 0)]
    pub delay_ms: u64,
}

impl Faults {
    /// Waits and perhaps fails, as the flags say.
    pub(crate) async fn suffer(&self) -> Result<(), Error> {
        if self.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(self.delay_ms)).await;
        }
        if fastrand::u8(0..100) < self.fail_percent { Err(Error::Planted) } else { Ok(()) }
    }
}
