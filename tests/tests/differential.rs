//! Real sidecars and the mesh in memory decide alike: thousands of requests, made up at random, go through processes, and
//! each is asked of `selvedge_decide` too. What is compared: status, reason, policy, route, and the workload that answered
//! or refused, which has to be one that the decision names.

use std::collections::HashMap;

use selvedge_decide::{mesh::Mesh, trace::Ending};
use selvedge_policies::{context::Context, facts::Moment};
use selvedge_tests::long;

#[path = "differential/cases.rs"]
mod cases;
#[path = "differential/processes.rs"]
mod processes;

use cases::Case;
use processes::{Processes, Seen};
/// How many requests are sent, in the short form and the long one.
const REQUESTS: [usize; 2] = [10_000, 100_000];
/// How many of them at a time.
const AT_ONCE: usize = 16;

#[tokio::test]
async fn sidecars_decide_as_the_mesh_in_memory_does() {
    let (seed, requests) = (long::seed(), long::either(REQUESTS[0], REQUESTS[1]));
    let processes = Processes::start().await;
    let mesh = processes.in_memory();
    let cases = cases::all(&mut fastrand::Rng::with_seed(seed), requests);
    let seen = processes.send(&cases, AT_ONCE).await;

    let mut decided: HashMap<usize, Decided> = HashMap::new();
    let mut endings: HashMap<String, usize> = HashMap::new();
    let mut disagreements = Vec::new();
    for (case, seen) in cases.iter().zip(&seen) {
        *endings.entry(format!("{} {}", seen.status, seen.reason)).or_default() += 1;
        let decided = decided.entry(case.number).or_insert_with(|| decide(&mesh, case));
        if !agrees(decided, seen) {
            disagreements.push(format!("{case:?}\n  was {seen:?}\n  should be {decided:?}"));
        }
    }
    println!("{endings:#?}");
    let count = disagreements.len();
    disagreements.truncate(5);
    assert!(count == 0, "SEED={seed}: {count} of {requests} differ, such as\n{}", disagreements.join("\n"));
    // A comparison that always comes to the same is none.
    for ending in ["200 ", "403 policy_denied", "403 policy_default_deny", "403 plaintext_refused", "404 no_route"] {
        assert!(endings.get(ending).is_some_and(|times| *times > requests / 100), "{ending} is rare: {endings:?}");
    }
    for ending in ["400 malformed_path", "500 invalid_route", "503 no_endpoints", "503 unknown_destination"] {
        assert!(endings.contains_key(ending), "{ending} never happened: {endings:?}");
    }
}

/// What the mesh in memory says of a request: the route at its caller's sidecar, and every way to end.
#[derive(Debug)]
struct Decided {
    route: String,
    /// Each with the workload whose sidecar gets the request, if one does.
    endings: Vec<(Ending, Option<String>)>,
}

fn decide(mesh: &Mesh, case: &Case) -> Decided {
    let request = case.request();
    let context = Context::new(Moment { nanos: 0, unix: 1_800_000_000 }, fastrand::Rng::new());
    if let Some(workload) = case.straight_to() {
        let received = mesh.why_received(workload, &request.facts(), &context);
        let (_, ending) = received.expect("the workload is known");
        return Decided { route: String::new(), endings: vec![(ending, Some(workload.to_owned()))] };
    }
    let trace = mesh.why(case.from, case.to, &request.facts(), &context);
    let ways = trace.ways.into_iter().map(|way| (way.ending, way.arrival.map(|arrival| arrival.workload)));
    let endings = trace.stopped.map(|ending| (ending, None)).into_iter().chain(ways).collect();
    Decided { route: trace.route.as_deref().unwrap_or_default().to_owned(), endings }
}

/// Whether what was seen is one of the things that could be.
fn agrees(decided: &Decided, seen: &Seen) -> bool {
    let is_it = |(ending, workload): &(Ending, Option<String>)| {
        let workload = workload.as_deref().unwrap_or_default();
        let reason = ending.reason.map(|reason| reason.code()).unwrap_or_default();
        ending.status.unwrap_or(200) == seen.status
            && reason == seen.reason
            && *ending.policy == *seen.policy
            && ending.audited.as_deref().unwrap_or_default() == seen.audited
            && workload == seen.workload
            && seen.served_by == if ending.status.is_some() { "" } else { workload }
    };
    decided.route == seen.route && decided.endings.iter().any(is_it)
}
