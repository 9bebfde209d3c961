//! `selvedge demo`: a real product of seven services behind sidecars, with faults planted for the mesh to hide or
//! explain, on this machine and in one command.
//!
//! Every service and every sidecar is a process of its own, started from this binary. All of them end with the demo,
//! however it ends, and everything written lies in one temporary folder that goes too. Every number shown is
//! measured: by the load generator, by the sidecars' metrics, or by the kernel.

use std::{collections::VecDeque, ffi::OsString, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use selvedge_policies::duration::Span as Length;
use selvedge_saas::Service;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use self::{
    children::Children,
    files::Files,
    load::{Counts, Sample},
    observe::{Look, Sidecar, Span, look},
    plan::INGRESS,
    screen::Screen,
    stage::{Place, Stage},
    summary::Summary,
};

mod children;
mod files;
mod load;
mod metrics;
mod observe;
mod plan;
mod screen;
mod stage;
mod story;
mod summary;

/// How long everything may take to come up.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at all sidecars.
const REFRESH: Duration = Duration::from_secs(1);
/// The live table shows so many looks back.
const WINDOW: usize = 5;
const POLL: Duration = Duration::from_millis(10);

/// `selvedge demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End after this time, such as 20s; on Ctrl-C when absent.
    #[arg(long)]
    duration: Option<Length>,
    /// What to print.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// Requests a second of the load generator.
    #[arg(long, default_value_t = 50.0, value_parser = positive)]
    rate: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A live table on a terminal, lines elsewhere.
    Text,
    /// One JSON object at the end.
    Json,
}

/// `selvedge demo-service`.
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

fn positive(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("'{text}' is not a number"))?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("expected a number above 0".into()) }
}

async fn demo(args: &DemoArgs, start: Instant) -> anyhow::Result<()> {
    let watch = |kind| signal(kind).context("watching for signals");
    let (mut interrupt, mut terminate) = (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    let files = Files::new()?;
    let stage = Stage::on_loopback().context("finding free ports")?;
    let mut children = Children::new(files.path("logs"));
    let told = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let result = act(args, start, &files, &stage, &mut children, told).await;
    children.stop().await;
    result
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
        println!("selvedge demo: 7 services in 10 processes, 11 sidecars; state in {}", files.path("").display());
    }
    let sidecars = tokio::select! {
        sidecars = launch(files, stage, children) => sidecars?,
        () = told.as_mut() => return Ok(()),
    };
    let entrance = *stage.place(INGRESS).and_then(|place| place.outbound.first()).context("nowhere to enter")?;
    tokio::select! {
        came = timeout(START_LIMIT, load::first_page(entrance)) => came.with_context(|| not_ready(files))?,
        failure = children.failure() => return Err(failure),
        () = told.as_mut() => return Ok(()),
    }
    let ready_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    if args.output == Output::Text {
        println!("first page through the mesh after {ready_ms} ms; Ctrl-C ends everything\n");
    }
    let mut show = Show { args, ready_ms, sidecars, screen: Screen::new() };
    let (users, samples) = load::start(entrance, args.rate);
    tokio::select! {
        result = show.run(samples, told) => result?,
        failure = children.failure() => return Err(failure),
    }
    drop(users);
    Ok(())
}

/// Starts everything; returns the sidecars.
async fn launch(files: &Files, stage: &Stage, children: &mut Children) -> anyhow::Result<Vec<Sidecar>> {
    files.write_mesh(stage)?;
    files.write_tokens(stage)?;
    let control_plane = start_control_plane(files, stage, children).await?;
    let third_party = ["demo-service", "third-party", "--reuse-port", "--listen", &stage.third_party.to_string()];
    children.start("third-party", None, third_party.map(OsString::from).into())?;
    let mut sidecars = Vec::with_capacity(stage.places.len());
    for place in &stage.places {
        let config = files.write_bootstrap(place, control_plane)?;
        let name = format!("{}-sidecar", place.instance.name);
        let arguments = vec!["proxy".into(), "--config".into(), config.into()];
        let pid = children.start(&name, place.namespace.as_deref(), arguments)?;
        sidecars.push(Sidecar { instance: place.instance, inbound: place.inbound, metrics: place.metrics, pid });
        if let Some(arguments) = service_arguments(place, files) {
            children.start(place.instance.name, place.namespace.as_deref(), arguments)?;
        }
    }
    Ok(sidecars)
}

async fn start_control_plane(
    files: &Files,
    stage: &Stage,
    children: &mut Children,
) -> anyhow::Result<std::net::SocketAddr> {
    let ports = files.path("control-plane.ports");
    let mut arguments: Vec<OsString> = vec!["control-plane".into(), "--config-dir".into(), files.path("mesh").into()];
    arguments.extend(["--state-dir".into(), files.path("control-plane").into()]);
    arguments.extend(["--listen".into(), stage.control_plane.to_string().into()]);
    arguments.extend(["--admin", "127.0.0.1:0"].map(OsString::from));
    arguments.extend(["--ports-file".into(), ports.clone().into()]);
    children.start("control-plane", None, arguments)?;
    let listening = async {
        loop {
            if let Some(address) = files::read_port(&ports, "listen") {
                return address;
            }
            sleep(POLL).await;
        }
    };
    tokio::select! {
        address = timeout(START_LIMIT, listening) => address.context("the control plane does not come up"),
        failure = children.failure() => Err(failure),
    }
}

/// The command line of a service; `None` where there is only a sidecar.
fn service_arguments(place: &Place, files: &Files) -> Option<Vec<OsString>> {
    let instance = place.instance;
    let mut words = vec!["demo-service".to_owned(), instance.service.to_owned(), "--reuse-port".to_owned()];
    words.extend(["--listen".to_owned(), place.app?.to_string(), "--instance".to_owned(), instance.name.to_owned()]);
    for (call, address) in instance.calls.iter().zip(&place.outbound) {
        words.extend([call.flag.to_owned(), address.to_string()]);
    }
    words.extend(instance.flags.iter().map(ToString::to_string));
    let mut words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    match instance.service {
        "metrics-log" => words.extend(["--file".into(), files.path("metrics.log").into()]),
        "data" => words.extend(["--file".into(), files.path("saas.db").into()]),
        _ => {}
    }
    Some(words)
}

fn not_ready(files: &Files) -> String {
    let log = std::fs::read_to_string(files.path("logs/ingress-access.log")).unwrap_or_default();
    let last = log.lines().last().unwrap_or("none");
    format!("no page came through the mesh within {START_LIMIT:?}; the last failure at the entrance: {last}")
}

/// The demo while requests flow.
struct Show<'a> {
    args: &'a DemoArgs,
    ready_ms: u64,
    sidecars: Vec<Sidecar>,
    screen: Screen,
}

impl Show<'_> {
    async fn run(
        &mut self,
        mut samples: UnboundedReceiver<Sample>,
        told: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let mut told = std::pin::pin!(told);
        let over = sleep(self.args.duration.map_or(Duration::MAX, |length| length.0));
        let mut over = std::pin::pin!(over);
        let mut tick = interval(REFRESH);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let first = look(&self.sidecars, Counts::default()).await?;
        let mut recent = VecDeque::from([first.clone()]);
        let mut counts = Counts::default();
        loop {
            tokio::select! {
                Some(sample) = samples.recv() => counts.add(sample),
                _ = tick.tick() => self.refresh(&first, &mut recent, counts).await?,
                () = over.as_mut() => break,
                () = told.as_mut() => break,
            }
        }
        let last = look(&self.sidecars, counts).await?;
        let span = Span::between(&first, &last);
        let summary = Summary::of(self.ready_ms, &span);
        match self.args.output {
            Output::Json => println!("{}", serde_json::to_string(&summary)?),
            Output::Text => self.screen.finish(&summary, &story::tell(&span))?,
        }
        Ok(())
    }

    /// Looks again, and shows the last seconds in the table and the whole run in the sentences.
    async fn refresh(&mut self, first: &Look, recent: &mut VecDeque<Look>, counts: Counts) -> anyhow::Result<()> {
        if self.args.output == Output::Json {
            return Ok(());
        }
        recent.push_back(look(&self.sidecars, counts).await?);
        if recent.len() > WINDOW + 1 {
            recent.pop_front();
        }
        if let (Some(oldest), Some(newest)) = (recent.front(), recent.back()) {
            let whole = Span::between(first, newest);
            let mut summary = Summary::of(self.ready_ms, &whole);
            summary.services = Summary::of(self.ready_ms, &Span::between(oldest, newest)).services;
            self.screen.update(&summary, &story::tell(&whole))?;
        }
        Ok(())
    }
}
