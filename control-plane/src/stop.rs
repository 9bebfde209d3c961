//! One signal that ends everything.

use tokio::sync::watch;

/// Turns true, or loses its sender, when the control plane is to end.
pub(crate) type Stop = watch::Receiver<bool>;

/// Waits for the signal.
pub(crate) async fn requested(stop: &mut Stop) {
    // The guard of the channel's value must not live on, hence no `wait_for` in a `select!`.
    while !*stop.borrow_and_update() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}
