//! Instructions per decision and per request, counted by valgrind: figures that do not jitter, so that a change of one per
//! cent shows.
//!
//! Each is run under callgrind with two numbers of repetitions; the difference is what one costs without its set-up. For
//! requests the real programs are run; those of an older build are measured with `instructions DIR`.

use std::{
    env,
    hint::black_box,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, ensure};
use selvedge_benches::{Endpoints, authorization, policy, routes, run};
use selvedge_policies::{
    balance::BalancerSpec,
    testing::{Clock, Request},
};
use serde_json::json;

mod pair;

const FEW: u64 = 1_000;
const MANY: u64 = 3_000;

/// What is decided, and deciding it so many times.
type Decision = (&'static str, fn(u64));

const DECISIONS: [Decision; 5] = [
    ("route among 1000 rules", route),
    ("authorization among 1000 rules", authorize),
    ("rate limit by identity", limit),
    ("endpoint among 10, peak EWMA", balance),
    ("all four", all),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [decision, times] = &arguments[..] {
        let run = decision.parse().ok().and_then(|index: usize| DECISIONS.get(index));
        let (Some((_, run)), Ok(times)) = (run, times.parse()) else { return ExitCode::from(2) };
        run(times);
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: instructions: valgrind is missing (Debian package valgrind)");
        return ExitCode::SUCCESS;
    }
    let Err(error) = measure(arguments.first().map(PathBuf::from)).await else { return ExitCode::SUCCESS };
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Prints every figure; of requests alone, and of the programs in `binaries`, when that is given.
async fn measure(binaries: Option<PathBuf>) -> anyhow::Result<()> {
    let show = |name: &str, instructions: f64| println!("{name:44} {instructions:8.1} instructions");
    if binaries.is_none() {
        for (index, (name, _)) in DECISIONS.iter().enumerate() {
            show(name, per_decision(index).context(*name)?);
        }
    }
    let binaries = run::binaries(binaries.as_deref())?;
    for over_http2 in [false, true] {
        let name = format!("request of HTTP/{} through a pair", if over_http2 { 2 } else { 1 });
        for (name, everything) in [(name.clone(), true), (format!("{name}, mTLS only"), false)] {
            show(&name, pair::per_request(&binaries, over_http2, everything).await.context(name.clone())?);
        }
    }
    Ok(())
}

fn per_decision(index: usize) -> anyhow::Result<f64> {
    let difference = counted(index, MANY)?.saturating_sub(counted(index, FEW)?);
    Ok(difference as f64 / (MANY - FEW) as f64)
}

/// Instructions of this program when it takes decision `index` so many `times`.
fn counted(index: usize, times: u64) -> anyhow::Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(env::current_exe()?);
    let output = command.args([index.to_string(), times.to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {text}");
    let count = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.with_context(|| format!("valgrind printed no count: {text}"))
}

fn request() -> Request {
    let request = Request::new("GET", "/v1/tenants/00500/orders/12345").from("team-0/caller-00500");
    request.header("x-tenant", "gold").header("accept", "application/json")
}

fn route(times: u64) {
    let table = routes(1_000, |n| json!({ "path": { "value": format!("/v1/tenants/{n:05}") } }));
    let request = request();
    for _ in 0..times {
        let facts = request.facts();
        black_box(table.select(facts.host, facts.method, facts.path, facts.query, facts.headers));
    }
}

fn rule(n: usize) -> serde_json::Value {
    json!({ "from": [{ "serviceAccounts": [format!("team-{}/caller-{n:05}", n % 50)] }], "to": [{ "methods": ["GET"] }] })
}

fn authorize(times: u64) {
    let (policy, request, clock) = (authorization(1_000, rule), request(), Clock::default());
    for _ in 0..times {
        black_box(policy.on_request(&request.facts(), &mut clock.context()));
    }
}

fn limit(times: u64) {
    let spec = json!({ "limits": [{ "requests": 1_000_000, "per": "1s", "burst": 4_000_000, "key": ["identity"] }] });
    let (policy, request, mut clock) = (policy("RateLimit", spec), request(), Clock::default());
    for _ in 0..times {
        clock.advance(Duration::from_micros(10));
        black_box(policy.on_request(&request.facts(), &mut clock.context()));
    }
}

fn balance(times: u64) {
    let (endpoints, balancer) = (Endpoints::new(10), BalancerSpec::PeakEwma.build());
    let mut chance = fastrand::Rng::with_seed(7);
    for _ in 0..times {
        black_box(balancer.pick(&endpoints, &mut chance));
    }
}

fn all(times: u64) {
    route(times);
    authorize(times);
    limit(times);
    balance(times);
}
