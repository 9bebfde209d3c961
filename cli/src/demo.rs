//! `selvedge demo`: a real product of seven services behind sidecars, with faults planted for the mesh to hide or
//! explain, on this machine and in one command.
//!
//! Every service and every sidecar is a process of its own, started from this binary. All of them end with the demo,
//! however it ends, and everything written lies in one temporary folder that goes too. Every number shown is
//! measured: by the load generator, by the sidecars' metrics, or by the kernel.

use std::{future::poll_fn, io, task::Poll};

use anyhow::Context;
use clap::Args;
use selvedge_saas::Service;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout},
};

use self::{
    args::Output,
    children::Children,
    files::Files,
    launch::{START_LIMIT, launch},
    load::Load,
    plan::INGRESS,
    screen::Screen,
    show::Show,
    stage::Stage,
    story::Rested,
};

mod args;
mod children;
mod files;
mod launch;
mod leftovers;
mod load;
mod metrics;
mod network;
mod observe;
mod plan;
mod screen;
mod show;
mod stage;
mod story;
mod summary;

pub use args::DemoArgs;

/// The arguments of `selvedge demo-service`.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    #[command(subcommand)]
    service: Service,
}

/// Runs the demo to its end.
///
/// # Errors
/// Something could not be started, or ended before it should.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    runtime()?.block_on(demo(args, Instant::now()))
}

/// Runs one service of the example until it is told to end.
///
/// # Errors
/// As [`selvedge_saas::run`].
pub fn run_service(args: ServiceArgs) -> anyhow::Result<()> {
    Ok(runtime()?.block_on(selvedge_saas::run(args.service))?)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")
}

async fn demo(args: &DemoArgs, start: Instant) -> anyhow::Result<()> {
    let told = told_to_end()?;
    let mut files = Files::new()?;
    if let Some(installed) = args.database.postgres()? {
        files.add_database(&installed)?;
    }
    let instances = plan::instances(files.database().is_some());
    let stage = if args.transparent {
        Stage::in_namespaces(&instances)?
    } else {
        Stage::on_loopback(&instances).context("finding free ports")?
    };
    let mut children = Children::new(files.path("logs"));
    let result = act(args, start, &files, &stage, &mut children, told).await;
    children.stop().await;
    result
}

/// Ready when somebody ends the demo: with Ctrl-C, SIGTERM, or by closing its terminal, which is SIGHUP.
fn told_to_end() -> anyhow::Result<impl Future<Output = ()>> {
    let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
    // Whoever starts it with nohup means it to outlive the terminal.
    if !hangup_is_ignored() {
        kinds.push(SignalKind::hangup());
    }
    let signals: io::Result<Vec<_>> = kinds.into_iter().map(signal).collect();
    let mut signals = signals.context("watching for signals")?;
    Ok(poll_fn(move |context| {
        let came = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if came { Poll::Ready(()) } else { Poll::Pending }
    }))
}

/// What the process was started with, from the mask in /proc (proc(5)): signal 1 is the lowest bit.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// The demo between its preparation and its end.
async fn act(
    args: &DemoArgs,
    start: Instant,
    files: &Files,
    stage: &Stage,
    children: &mut Children,
    told: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut told = std::pin::pin!(told);
    if args.output == Output::Text {
        println!("selvedge demo: {} sidecars, a process each", stage.places.len());
        println!("  its policies, logs and state lie in {}", files.path("").display());
    }
    let sidecars = tokio::select! {
        sidecars = launch(files, stage, children) => sidecars?,
        () = told.as_mut() => return Ok(()),
    };
    let ingress = stage.place(INGRESS).context("nowhere to enter")?;
    let entrance = *ingress.outbound.first().context("nowhere to enter")?;
    let mut load = Load::start(entrance, ingress.namespace.clone(), args.rate)?;
    tokio::select! {
        came = timeout(START_LIMIT, &mut load.first) => came.with_context(|| not_ready(files))?.context("nobody came")?,
        failure = children.failure() => return Err(failure),
        () = told.as_mut() => return Ok(()),
    }
    let ready_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    if args.output == Output::Text {
        println!("first page through the mesh after {ready_ms} ms; Ctrl-C ends everything");
        println!("  try: change a file of mesh/ there, such as a limit, and see the table follow\n");
    }
    let mut show = Show { args, ready_ms, sidecars, screen: Screen::new(), rested: Rested::default() };
    tokio::select! {
        result = show.run(load, told) => result?,
        failure = children.failure() => return Err(failure),
    }
    if args.output == Output::Text {
        println!("\nnext: a mesh for services of your own: selvedge up, then selvedge join");
    }
    Ok(())
}

fn not_ready(files: &Files) -> String {
    let log = std::fs::read_to_string(files.path("logs/ingress-access.log")).unwrap_or_default();
    let last = log.lines().last().unwrap_or("none");
    format!("no page came through the mesh within {START_LIMIT:?}; the last failure at the entrance: {last}")
}
