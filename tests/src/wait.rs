//! Waiting for something to become true, with a deadline and a reason.

use std::{future::Future, process::Command, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// How long anything in a test may take that is not under test itself. Generous: two busy cores are enough.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// The time in so many seconds, as documents say when they expire.
pub fn in_seconds(seconds: u32) -> String {
    let later = format!("+{seconds} seconds");
    let printed = Command::new("date").args(["-u", "-d", &later, "+%Y-%m-%dT%H:%M:%SZ"]).output().expect("date runs");
    String::from_utf8(printed.stdout).expect("a date").trim().to_owned()
}

/// Asks `probe` again and again until it has a value. Panics after [`DEADLINE`], naming `what` never happened.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, probe: impl FnMut() -> F) -> T {
    until_within(DEADLINE, what, probe).await
}

/// Like [`until`], for what takes its time by itself.
pub async fn until_within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} and this did not happen: {what}");
        sleep(PAUSE).await;
    }
}

/// Like [`until`], for a plain condition.
pub async fn until_true<F: Future<Output = bool>>(what: &str, mut probe: impl FnMut() -> F) {
    until(what, || {
        let answer = probe();
        async move { answer.await.then_some(()) }
    })
    .await;
}

/// The value of `future`, or a panic after [`DEADLINE`] that names what hung.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} took longer than {DEADLINE:?}"))
}
