//! A picture of growth: one line over the size of something, from nothing up, readable on light and dark ground.

use std::fmt::Write as _;

use crate::spread::Spread;

const WIDTH: f64 = 470.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 200.0;
/// What is written at the first and the last point needs room.
const MARGIN: f64 = 30.0;

const STYLE: &str = "text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-size: 13px; font-weight: 600 } \
                     .note { fill: #57606a } .axis, .whisker { stroke: #9aa4af } .line { stroke: #0b7285; fill: none; \
                     stroke-width: 2 } .dot { fill: #0b7285 } @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } \
                     .note { fill: #9198a1 } .axis, .whisker { stroke: #59636e } .line { stroke: #3bc9db } .dot { fill: \
                     #3bc9db } }";

/// The picture as SVG: `cost`, which has a unit, over the number of `what`, at a logarithmic scale.
pub fn svg(what: &str, cost: &str, points: &[(usize, Spread)]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{cost}, by \
         {what}; flat is better\">\n<style>{STYLE}</style>\n<text class=\"title\" x=\"8\" y=\"22\">{cost}, by {what}</text>\n\
         <line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>\n",
        WIDTH - LEFT
    );
    let greatest = points.iter().map(|(_, spread)| spread.greatest).fold(f64::MIN_POSITIVE, f64::max);
    let scale = |size: usize| (size.max(1) as f64).ln();
    let first = points.first().map_or(0.0, |(size, _)| scale(*size));
    let span = points.last().map_or(0.0, |(size, _)| scale(*size) - first).max(f64::MIN_POSITIVE);
    let x = |size| LEFT + MARGIN + (scale(size) - first) / span * (WIDTH - 2.0 * (LEFT + MARGIN));
    let y = |value: f64| BOTTOM - value / greatest * (BOTTOM - TOP);
    let line: Vec<String> =
        points.iter().map(|(size, spread)| format!("{:.1},{:.1}", x(*size), y(spread.median))).collect();
    let _ = writeln!(svg, "<polyline class=\"line\" points=\"{}\"/>", line.join(" "));
    for (size, Spread { least, median, greatest }) in points {
        let at = x(*size);
        let _ = writeln!(
            svg,
            "<line class=\"whisker\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/><circle class=\"dot\" \
             cx=\"{at:.1}\" cy=\"{:.1}\" r=\"3\"/><text class=\"note\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{median:.1}\
             </text><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{size}</text>",
            y(*least),
            y(*greatest),
            y(*median),
            y(*greatest) - 8.0,
            BOTTOM + 18.0
        );
    }
    svg + "<text class=\"note\" x=\"8\" y=\"232\">Flat is better. Figures: median; lines: least to greatest.</text>\n</svg>\n"
}
