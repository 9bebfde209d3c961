//! The Markdown tables.

use selvedge_benches::{machine::Machine, placement::Placement, spread::Spread};

use super::{Cut, cpu, mebibytes, p50, p99, present};
use crate::{
    idle::{PEERS, Rest},
    load::Load,
    measure::{Plan, Results, Sample},
    memory::{BUSY, CROWD, Memory},
    peer::Name,
};

/// Everything as Markdown.
pub(crate) fn tables(machine: &Machine, plan: &Plan, results: &Results) -> String {
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
    for load in Load::TABLES {
        for placement in plan.placements.iter().copied() {
            text.push_str(&under(Cut { results, placement, load }));
        }
    }
    for placement in plan.placements.iter().copied() {
        text.push_str(&added(plan, results, placement));
    }
    text.push_str(&footprint(results));
    if let Some(idle) = &results.idle {
        text.push_str(&rest(idle));
    }
    for reason in &results.skipped {
        text.push_str(&format!("\nSkipped: {reason}\n"));
    }
    text
}

fn under(cut: Cut<'_>) -> String {
    let mut text = format!(
        "\n### {}, {}\n\n| | CPU us/request | above the floor | of each proxy | of the floor's | of HAProxy's | of \
         Envoy's | requests/s | p50 ms | p99 ms | failed |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
        cut.load.title(),
        cut.placement.title()
    );
    for peer in present(cut.results) {
        let ratio = |base| or_dash(cut.ratio(peer, base), |ratio| format!("{:.2}", ratio.median));
        let above = cut.beside(peer, Name::Floor, cpu, |cpu, floor| cpu - floor);
        let rate = cut.spread(peer, |sample| Some(sample.requests_per_second));
        let failed: u64 = cut.samples(peer).map(|sample| sample.failed).sum();
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {failed} |\n",
            peer.title(),
            or_dash(cut.cpu(peer), |cpu| shown(cpu, 1)),
            or_dash(above, |above| format!("{:.1}", above.median)),
            of_each(cut, peer),
            ratio(Name::Floor),
            ratio(Name::Haproxy),
            ratio(Name::Envoy),
            or_dash(rate, |rate| format!("{:.0}", rate.median)),
            or_dash(cut.spread(peer, p50), |spread| shown(spread, 2)),
            or_dash(cut.spread(peer, p99), |spread| shown(spread, 2)),
        ));
    }
    text
}

/// The latency that each peer adds to that of no proxy, at rates that rise.
fn added(plan: &Plan, results: &Results, placement: Placement) -> String {
    let cuts = Load::RATES.map(|load| Cut { results, placement, load });
    let rates = [plan.rate / 4, plan.rate, plan.rate * 2];
    let heads = rates.map(|rate| format!(" {rate}/s: CPU us/request | added p50 ms | added p99 ms |")).concat();
    let mut text =
        format!("\n### Latency added to no proxy's, HTTP/1, 1 KiB, {}\n\n| |{heads}\n|---", placement.title());
    text.push_str(&"|---|---|---".repeat(cuts.len()));
    text.push_str("|\n");
    for peer in present(results).filter(|peer| *peer != Name::Direct) {
        let at = |cut: Cut<'_>| {
            let added = |value: fn(&Sample) -> Option<f64>| {
                let added = cut.beside(peer, Name::Direct, value, |value, direct| value - direct);
                or_dash(added, |added| format!("{:.2}", added.median))
            };
            let cpu = or_dash(cut.cpu(peer), |cpu| format!("{:.1}", cpu.median));
            format!(" {cpu} | {} | {} |", added(p50), added(p99))
        };
        text.push_str(&format!("| {} |{}\n", peer.title(), cuts.map(at).concat()));
    }
    text
}

/// The medians, in the order of the path.
fn of_each(cut: Cut<'_>, peer: Name) -> String {
    let median = |index: usize| {
        let spread = cut.spread(peer, |sample| sample.cpu_us_per_request_of_each.get(index).copied());
        Some(format!("{:.1}", spread?.median))
    };
    let medians: Vec<String> = (0..).map_while(median).collect();
    if medians.is_empty() { "-".to_owned() } else { medians.join(" + ") }
}

fn or_dash(spread: Option<Spread>, shown: impl Fn(Spread) -> String) -> String {
    spread.map_or_else(|| "-".to_owned(), shown)
}

fn shown(spread: Spread, digits: usize) -> String {
    let Spread { least, median, greatest } = spread;
    format!("{median:.digits$} ({least:.digits$}-{greatest:.digits$})")
}

fn footprint(results: &Results) -> String {
    let mut text =
        "\n### Memory and system calls\n\n| | resident MiB, idle | of it no file | with 1 000 busy connections | \
                    ten seconds after them | with 6 000 | after all loads | failed meanwhile | system calls/request \
                    |\n|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for peer in present(results).filter(|peer| *peer != Name::Direct) {
        let Memory { idle, idle_anonymous, busy, closed, after, failed } =
            results.memory.get(&peer).cloned().unwrap_or_default();
        let each = |bytes: &[u64]| {
            let each: Vec<_> = bytes.iter().map(|bytes| format!("{:.1}", mebibytes(*bytes))).collect();
            if each.is_empty() { "-".to_owned() } else { each.join(" + ") }
        };
        let with = |connections: usize| each(busy.get(&connections).map_or(&[], |bytes| bytes));
        let calls = results.syscalls.get(&peer);
        let calls = calls
            .map_or_else(|| "-".to_owned(), |calls| format!("{:.1} ({})", calls.per_request, calls.counted_by.title()));
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {failed} | {calls} |\n",
            peer.title(),
            each(&idle),
            each(&idle_anonymous),
            with(BUSY),
            each(&closed),
            with(CROWD),
            each(&after),
        ));
    }
    text
}

fn rest(rest: &Rest) -> String {
    let mut text = format!(
        "\n### Doing nothing\n\nTwo sidecars, of which the one has called the other at {PEERS} endpoints, over {:.0} s in \
         which nobody called; in the end {} connections between them are open.\n\n| | wake-ups a minute | CPU ms a minute | \
         KiB a connection |\n|---|---|---|---|\n",
        rest.seconds, rest.connections
    );
    let figures = rest.wake_ups_a_minute.iter().zip(&rest.cpu_ms_a_minute).zip(&rest.bytes_a_connection);
    for (side, ((wake_ups, cpu), bytes)) in ["the calling one", "the called one"].iter().zip(figures) {
        text.push_str(&format!("| {side} | {wake_ups:.0} | {cpu:.1} | {:.1} |\n", bytes / 1024.0));
    }
    text
}
