//! The Markdown tables.

use super::{Spread, mebibytes, present};
use crate::{
    load::Load,
    machine::Machine,
    measure::{Memory, Plan, Results},
    peer::Name,
};

/// Everything as Markdown.
pub(crate) fn tables(machine: &Machine, plan: Plan, results: &Results) -> String {
    let mut text = format!(
        "Measured {} on {} x {}, Linux {}; load average when the run began: {}. {}. {} rounds of {} ms a load; fixed \
         rate: {} requests/s. Median, and least to greatest in parentheses.\n",
        machine.date,
        machine.processors,
        machine.processor,
        machine.kernel,
        machine.load_before,
        machine.versions.join(", "),
        plan.rounds,
        plan.each.as_millis(),
        plan.rate
    );
    for load in Load::ALL {
        text.push_str(&under(load, results));
    }
    text.push_str(&footprint(results));
    for reason in &results.skipped {
        text.push_str(&format!("\nSkipped: {reason}\n"));
    }
    text
}

fn under(load: Load, results: &Results) -> String {
    let envoy = Spread::cpu(results, Name::Envoy, load).map(|spread| spread.median);
    let mut text = format!(
        "\n### {}\n\n| | CPU us/request | of each proxy | of Envoy's | requests/s | p50 ms | p99 ms | failed |\n|---|---|---|---|---|---|---|---|\n",
        load.title()
    );
    for peer in present(results) {
        let cpu = Spread::cpu(results, peer, load);
        let milliseconds = |value: fn(&crate::measure::Sample) -> Option<u64>| {
            let spread = Spread::of(results, peer, load, |sample| value(sample).map(|us| us as f64 / 1e3));
            spread.map_or_else(|| "-".to_owned(), |spread| shown(spread, 2))
        };
        let rate = Spread::of(results, peer, load, |sample| Some(sample.requests_per_second));
        let mine = |sample: &&crate::measure::Sample| sample.peer == peer && sample.load == load;
        let failed: u64 = results.samples.iter().filter(mine).map(|sample| sample.failed).sum();
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {failed} |\n",
            peer.title(),
            cpu.map_or_else(|| "-".to_owned(), |spread| shown(spread, 1)),
            of_each(results, peer, load),
            cpu.zip(envoy).map_or_else(|| "-".to_owned(), |(cpu, envoy)| format!("{:.2}", cpu.median / envoy)),
            rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.0}", rate.median)),
            milliseconds(|sample| sample.p50_us),
            milliseconds(|sample| sample.p99_us),
        ));
    }
    text
}

/// The medians, in the order of the path.
fn of_each(results: &Results, peer: Name, load: Load) -> String {
    let median = |index: usize| {
        let spread = Spread::of(results, peer, load, |sample| sample.cpu_us_per_request_of_each.get(index).copied());
        Some(format!("{:.1}", spread?.median))
    };
    let medians: Vec<String> = (0..).map_while(median).collect();
    if medians.is_empty() { "-".to_owned() } else { medians.join(" + ") }
}

fn shown(spread: Spread, digits: usize) -> String {
    let Spread { least, median, greatest } = spread;
    format!("{median:.digits$} ({least:.digits$}-{greatest:.digits$})")
}

fn footprint(results: &Results) -> String {
    let mut text =
        "\n### Memory and system calls\n\n| | resident MiB, idle | of it no file | with 1 000 busy connections | \
                    after all loads | system calls/request |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for peer in present(results).filter(|peer| *peer != Name::Direct) {
        let each = |bytes: &[u64]| {
            bytes.iter().map(|bytes| format!("{:.1}", mebibytes(*bytes))).collect::<Vec<_>>().join(" + ")
        };
        let memory = results.memory.get(&peer).cloned().unwrap_or_default();
        let calls = results.syscalls.get(&peer).map_or_else(|| "-".to_owned(), |calls| format!("{calls:.1}"));
        let Memory { idle, idle_anonymous, busy, after } = &memory;
        let [idle, own, busy, after] = [idle, idle_anonymous, busy, after].map(|bytes| each(bytes));
        text.push_str(&format!("| {} | {idle} | {own} | {busy} | {after} | {calls} |\n", peer.title()));
    }
    text
}
