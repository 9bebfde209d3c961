//! `selvedge run --config sidecar.yaml -- COMMAND`: a command with a sidecar that comes before it and leaves after it.
//!
//! The command starts once the sidecar is ready, gets the signals that this process gets, and its end is the end of
//! all: the sidecar drains, and the exit code is the command's (128 + signal when a signal ended it).

use std::{
    ffi::OsString,
    io::IsTerminal,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_proxy::Bootstrap;
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{child, probe};

const READY_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// On top of the drain's own deadline.
const LEAVE: Duration = Duration::from_secs(5);

/// The arguments of `selvedge run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The sidecar's bootstrap file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command beside its sidecar; returns the command's exit code.
///
/// # Errors
/// The bootstrap file is unusable, the sidecar does not get ready or ends first, or the command cannot be started.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let bootstrap = Bootstrap::load(&args.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let code = runtime.block_on(together(&args.config, &bootstrap, args.command))?;
    Ok(ExitCode::from(code))
}

async fn together(config: &Path, bootstrap: &Bootstrap, command: Vec<OsString>) -> anyhow::Result<u8> {
    let mut signals = forwarded()?;
    let mut sidecar = start_sidecar(config)?;
    tokio::select! {
        ready = timeout(READY_LIMIT, ready(bootstrap)) => ready.context("the sidecar did not get ready; the command was not started")?,
        status = sidecar.wait() => bail!("the sidecar ended ({}) before it was ready; the command was not started", status?),
        _ = signals.recv() => {
            // Nothing was started that could be in flight.
            sidecar.kill().await.context("ending the sidecar")?;
            return Ok(128 + 15);
        }
    }
    let words = child::tied(None, command)?;
    let mut command =
        Command::new(&words[0]).args(&words[1..]).kill_on_drop(true).spawn().context("starting the command")?;
    // A terminal sends Ctrl-C to the command itself.
    let by_terminal = |signal| std::io::stdin().is_terminal() && matches!(signal, Signal::INT | Signal::QUIT);
    let mut alone = false;
    let status = loop {
        tokio::select! {
            status = command.wait() => break status?,
            Some(signal) = signals.recv() => if !by_terminal(signal) {
                send(&command, signal);
            },
            _ = sidecar.wait(), if !alone => {
                // A command without its sidecar reaches nobody: it is better started again, with one.
                alone = true;
                send(&command, Signal::TERM);
            }
        }
    };
    if alone {
        bail!("the sidecar ended before the command, which was told to end too ({status})");
    }
    leave(sidecar, bootstrap).await?;
    Ok(code(status))
}

fn start_sidecar(config: &Path) -> anyhow::Result<Child> {
    let itself: OsString = child::own_binary()?.into();
    let words = child::tied(None, [itself, "proxy".into(), "--config".into(), config.into()])?;
    // In a process group of its own, Ctrl-C does not reach the sidecar before the command is done.
    let spawned = Command::new(&words[0]).args(&words[1..]).process_group(0).kill_on_drop(true).spawn();
    spawned.context("starting the sidecar")
}

/// Returns when the sidecar says that it is ready.
async fn ready(bootstrap: &Bootstrap) {
    loop {
        if let Some(address) = bootstrap.own_port("metrics", bootstrap.metrics)
            && probe::get(address, "/ready").await.is_ok()
        {
            return;
        }
        sleep(POLL).await;
    }
}

/// Signals as they arrive.
fn forwarded() -> anyhow::Result<mpsc::UnboundedReceiver<Signal>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let kinds = [
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::user_defined1(), Signal::USR1),
        (SignalKind::user_defined2(), Signal::USR2),
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::quit(), Signal::QUIT),
    ];
    for (kind, number) in kinds {
        let (mut arrivals, sender) = (signal(kind).context("watching for signals")?, sender.clone());
        tokio::spawn(async move { while arrivals.recv().await.is_some() && sender.send(number).is_ok() {} });
    }
    Ok(receiver)
}

fn send(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        // It may have ended in this moment.
        let _ = kill_process(pid, signal);
    }
}

/// Lets the sidecar drain. It is told that the command is done, which a signal would not say; where its admin port is
/// not known it gets the signal and finds out, or waits for its deadline.
async fn leave(mut sidecar: Child, bootstrap: &Bootstrap) -> anyhow::Result<()> {
    let told = match bootstrap.own_port("admin", bootstrap.admin) {
        Some(admin) => probe::post(admin, "/drain").await.is_ok(),
        None => false,
    };
    if !told {
        send(&sidecar, Signal::TERM);
    }
    if timeout(bootstrap.drain_deadline.0 + LEAVE, sidecar.wait()).await.is_err() {
        sidecar.kill().await.context("ending the sidecar")?;
    }
    Ok(())
}

/// As a shell says it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
