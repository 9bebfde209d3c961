//! A whole request through our pair: both sidecars run under callgrind, and get one request at a time over one connection.
//! Each waits until both have come to rest after the one before, so that it does not depend on how busy the machine is
//! what they find to do together at one wake-up. What the worker threads do is counted.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, ensure};
use selvedge_benches::{
    application,
    client::{self, Ask, Connection},
    pair::{Extent, Plan},
    process::Process,
};
use tokio::time::sleep;

/// Requests of the two runs; what the second one has more is what is counted.
const FEW: u64 = 200;
const MANY: u64 = 4_200;

/// How often it is looked whether the sidecars rest.
const LOOK: Duration = Duration::from_millis(1);

/// Instructions of the workers of both sidecars for one request of a kept connection, with every kind of policy in force or
/// with mTLS alone.
pub(crate) async fn per_request(binaries: &Path, over_http2: bool, everything: bool) -> anyhow::Result<f64> {
    let few = counted(binaries, over_http2, everything, FEW).await?;
    let many = counted(binaries, over_http2, everything, MANY).await?;
    Ok(many.saturating_sub(few) as f64 / (MANY - FEW) as f64)
}

async fn counted(binaries: &Path, over_http2: bool, everything: bool, requests: u64) -> anyhow::Result<u64> {
    let folder = tempfile::Builder::new().prefix("selvedge-bench-").tempdir().context("a temporary folder")?;
    let application = [application::start(false).await?, application::start(true).await?];
    let counts = folder.path().join("callgrind.%p");
    let out = format!("--callgrind-out-file={}", counts.display());
    // The control thread has its own timers, so what it does depends on how long a run takes.
    let under = &["valgrind", "--tool=callgrind", "--separate-threads=yes", &out];
    let plan =
        Plan { folder: folder.path().to_owned(), binaries, everything, application, extent: Extent::default(), under };
    let mut pair = plan.start().await?;
    let (address, ask) = if over_http2 { (pair.http2, Ask::Http2) } else { (pair.http1, Ask::Http1) };
    while let Err(error) = client::probe(address, ask).await {
        pair.sidecars.iter_mut().try_for_each(|sidecar| sidecar.check()).with_context(|| format!("{error:#}"))?;
        sleep(Duration::from_millis(500)).await;
    }
    let (mut connection, driver) = Connection::open(address, ask).await?;
    for _ in 0..requests {
        connection.get().await?;
        rest(&pair.sidecars).await;
    }
    drop(connection);
    driver.await?;
    let mut count = 0;
    for sidecar in &mut pair.sidecars {
        let threads = folder.path().join(format!("callgrind.{}", sidecar.id()));
        sidecar.end().await?;
        count += of_workers(&threads)?;
    }
    Ok(count)
}

/// Instructions of all threads but the first, which is the control thread's. callgrind writes a file for each, which ends
/// with `-` and a number.
fn of_workers(threads: &Path) -> anyhow::Result<u64> {
    let mut count = 0;
    for thread in 2.. {
        let file = format!("{}-{thread:02}", threads.display());
        let Ok(text) = fs::read_to_string(&file) else { break };
        let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<u64>().ok());
        count += total.with_context(|| format!("{file} has no total"))?;
    }
    ensure!(count > 0, "callgrind left no count in {}", threads.display());
    Ok(count)
}

/// Waits until both sidecars have been found asleep twice in a row: one that wakes the other is awake itself.
async fn rest(sidecars: &[Process; 2]) {
    let mut asleep = 0;
    while asleep < 2 {
        asleep = if sidecars.iter().all(Process::is_asleep) { asleep + 1 } else { 0 };
        sleep(LOOK).await;
    }
}
