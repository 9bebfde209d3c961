//! What every program that measures does around its measurement.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

/// The folder of `selvedge` and `selvedge-proxy`: the one that was named, or that of this program.
///
/// # Errors
/// None was named, and nobody knows where this program is.
pub fn binaries(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let beside = || env::current_exe().ok()?.parent().map(Path::to_path_buf);
    named.map(Path::to_path_buf).or_else(beside).context("where are the binaries? name their folder: --binaries")
}

/// Runs `measurement` until it is over or this program is told to end. What the measurement holds ends with it.
///
/// # Errors
/// That of the measurement, or that it was told to end.
pub async fn unless_told_to_end(measurement: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = measurement => result,
        _ = ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}
