//! The chart: small panels of horizontal bars, ours in colour, readable on light and dark ground.

use std::fmt::Write as _;

use selvedge_benches::{placement::Placement, spread::Spread};

use super::{Cut, mebibytes, p99, present};
use crate::{load::Load, measure::Results, memory::BUSY, peer::Name};

const PANEL_WIDTH: usize = 470;
const PANEL_HEIGHT: usize = 214;
const LABEL_WIDTH: usize = 190;
const BAR_WIDTH: f64 = 200.0;
const ROW: usize = 24;
const FOOT: usize = 24;
const LEGEND: &str =
    "Shorter is better. Bars and figures: median; lines: least to greatest. CPU and memory: sum of both proxies.";

const STYLE: &str = "text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-size: 13px; font-weight: 600 } \
                     .note { fill: #57606a } .bar { fill: #9aa4af } .ours { fill: #0b7285 } .whisker { stroke: #24292f } \
                     @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .note { fill: #9198a1 } .bar { fill: \
                     #59636e } .ours { fill: #3bc9db } .whisker { stroke: #e6edf3 } }";

/// One bar.
struct Bar {
    peer: Name,
    spread: Spread,
}

/// The whole chart as SVG: a column for each placement.
pub(crate) fn chart(results: &Results, placements: &[Placement]) -> String {
    let columns = placements.len().max(1);
    let loads = [Load::Http1Closed, Load::Http1Paced, Load::Http2Closed, Load::GrpcClosed, Load::Large];
    let mut panels = Vec::new();
    for load in loads {
        for placement in placements.iter().copied() {
            let cut = Cut { results, placement, load };
            let title = format!("CPU us per request: {}, {}", load.title(), placement.title());
            panels.push((title, bars(results, |peer| cut.cpu(peer))));
        }
    }
    for placement in placements.iter().copied() {
        let cut = Cut { results, placement, load: Load::Http1Paced };
        let title = format!("p99 in ms: {}, {}", cut.load.title(), placement.title());
        panels.push((title, bars(results, |peer| cut.spread(peer, p99))));
    }
    panels.push(("Resident MiB, 1 000 busy connections".to_owned(), bars(results, |peer| memory(results, peer))));
    let (width, height) = (columns * PANEL_WIDTH, panels.len().div_ceil(columns) * PANEL_HEIGHT + FOOT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"Cost of \
         proxies side by side; shorter is better\">\n<style>{STYLE}</style>\n"
    );
    for (index, (title, bars)) in panels.iter().enumerate() {
        let (x, y) = (index % columns * PANEL_WIDTH, index / columns * PANEL_HEIGHT);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">\n{}</g>", panel(title, bars));
    }
    let _ = writeln!(svg, "<text class=\"note\" x=\"8\" y=\"{}\">{LEGEND}</text>\n</svg>", height - 10);
    svg
}

fn bars(results: &Results, value: impl Fn(Name) -> Option<Spread>) -> Vec<Bar> {
    present(results).filter_map(|peer| Some(Bar { peer, spread: value(peer)? })).collect()
}

/// The sum over the path.
fn memory(results: &Results, peer: Name) -> Option<Spread> {
    let bytes: u64 = results.memory.get(&peer)?.busy.get(&BUSY)?.iter().sum();
    let median = Some(mebibytes(bytes)).filter(|mebibytes| *mebibytes > 0.0)?;
    Some(Spread { least: median, median, greatest: median })
}

/// Enough to tell neighbours apart, and as many as the tables have.
fn decimals(value: f64) -> usize {
    if value < 10.0 { 2 } else { 1 }
}

fn panel(title: &str, bars: &[Bar]) -> String {
    let greatest = bars.iter().map(|bar| bar.spread.greatest).fold(f64::MIN_POSITIVE, f64::max);
    let scale = BAR_WIDTH / greatest;
    let mut svg = format!("<text class=\"title\" x=\"8\" y=\"22\">{title}</text>\n");
    for (row, Bar { peer, spread }) in bars.iter().enumerate() {
        let y = 34 + row * ROW;
        let (middle, text) = (y + 8, y + 12);
        let class = if peer.is_ours() { "bar ours" } else { "bar" };
        let width = spread.median * scale;
        let at = |value: f64| LABEL_WIDTH as f64 + 8.0 + value * scale;
        let _ = writeln!(
            svg,
            "<text x=\"{LABEL_WIDTH}\" y=\"{text}\" text-anchor=\"end\">{}</text><rect class=\"{class}\" x=\"{}\" \
             y=\"{y}\" width=\"{width:.1}\" height=\"16\" rx=\"2\"/><line class=\"whisker\" x1=\"{:.1}\" x2=\"{:.1}\" \
             y1=\"{middle}\" y2=\"{middle}\"/><text class=\"note\" x=\"{:.1}\" y=\"{text}\">{:.*}</text>",
            peer.title(),
            LABEL_WIDTH + 8,
            at(spread.least),
            at(spread.greatest),
            at(spread.greatest) + 6.0,
            decimals(spread.median),
            spread.median
        );
    }
    svg
}
