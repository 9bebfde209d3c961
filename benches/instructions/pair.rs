//! A whole request through our pair: both sidecars run under callgrind, and get one request at a time over one connection,
//! so that no figure depends on how fast the machine is.

use std::{path::Path, time::Duration};

use anyhow::Context;
use selvedge_benches::{
    application,
    client::{self, Connection},
    pair::Plan,
};
use tokio::time::sleep;

/// Requests of the two runs; what the second one has more is what is counted.
const FEW: u64 = 500;
const MANY: u64 = 4_500;

const VALGRIND: &[&str] = &["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];

/// Instructions of both sidecars for one request of a kept connection, with every kind of policy in force.
pub(crate) async fn per_request(binaries: &Path, over_http2: bool) -> anyhow::Result<f64> {
    let few = counted(binaries, over_http2, FEW).await?;
    let many = counted(binaries, over_http2, MANY).await?;
    Ok(many.saturating_sub(few) as f64 / (MANY - FEW) as f64)
}

async fn counted(binaries: &Path, over_http2: bool, requests: u64) -> anyhow::Result<u64> {
    let folder = tempfile::Builder::new().prefix("selvedge-bench-").tempdir().context("a temporary folder")?;
    let application = [application::start(false).await?, application::start(true).await?];
    let plan = Plan { folder: folder.path().to_owned(), binaries, everything: true, application, under: VALGRIND };
    let mut pair = plan.start().await?;
    let address = if over_http2 { pair.http2 } else { pair.http1 };
    while let Err(error) = client::probe(address, over_http2).await {
        pair.sidecars.iter_mut().try_for_each(|sidecar| sidecar.check()).with_context(|| format!("{error:#}"))?;
        sleep(Duration::from_millis(500)).await;
    }
    let (mut connection, driver) = Connection::open(address, over_http2).await?;
    for _ in 0..requests {
        connection.get().await?;
    }
    drop(connection);
    driver.await?;
    let mut count = 0;
    for sidecar in &mut pair.sidecars {
        count += crate::collected(&sidecar.end().await?)?;
    }
    Ok(count)
}
