//! Which of two processes of one sidecar writes to the state directory and renews the certificate: while one takes the place
//! of the other there are two.

use tokio::sync::watch;

/// Whether it is this process.
#[derive(Clone, Debug)]
pub struct Tenure(watch::Receiver<bool>);

impl Default for Tenure {
    /// There is no other process.
    fn default() -> Self {
        Self(watch::channel(true).1)
    }
}

impl Tenure {
    /// One that begins and ends as it is said.
    pub(crate) fn new(is_ours: bool) -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(is_ours);
        (sender, Self(receiver))
    }

    /// Whether it is this process now.
    pub(crate) fn is_ours(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is.
    pub(crate) async fn begun(&mut self) {
        if self.0.wait_for(|is_ours| *is_ours).await.is_err() {
            std::future::pending::<()>().await; // it never will be
        }
    }
}
