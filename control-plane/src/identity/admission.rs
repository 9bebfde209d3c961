//! Whether workloads that have no certificate yet can get one, and how pods prove who they are.

use std::sync::Arc;

use tokio::sync::watch;

use super::review::Reviewer;

/// What lets those in who have no certificate.
#[derive(Debug)]
pub struct Admission {
    /// Knows pods by the tokens of their service accounts; absent where no cluster is watched.
    pub reviewer: Option<Reviewer>,
    /// Why nobody who has no certificate gets one; nothing while they do.
    pub closed: Closed,
}

/// Why nobody who has no certificate gets one, as it changes.
pub type Closed = watch::Receiver<Option<Arc<str>>>;

impl Default for Admission {
    fn default() -> Self {
        Self { reviewer: None, closed: watch::channel(None).1 }
    }
}

impl Admission {
    /// Why nobody who has no certificate gets one now.
    pub fn why_closed(&self) -> Option<Arc<str>> {
        self.closed.borrow().clone()
    }
}
