//! The picture of what an instance gets of the requests for two, readable on light and dark ground.

use std::{fmt::Write as _, fs};

const STYLE: &str = "text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-size: 13px; font-weight: 600 } \
                     .note { fill: #57606a } .axis { stroke: #9aa4af } .fair { stroke: #9aa4af; stroke-dasharray: 4 3 } .bar { \
                     fill: #0b7285 } @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .note { fill: #9198a1 } .axis, \
                     .fair { stroke: #59636e } .bar { fill: #3bc9db } }";
const BOTTOM: f64 = 180.0;
/// Of one per cent.
const HEIGHT: f64 = 2.2;
const GROUP: f64 = 92.0;
const BAR: f64 = 24.0;

/// Shares of the requests, each with the number of callers it is of.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) bars: Vec<(usize, f64)>,
}

/// Writes it into the docs, when what is generated is to be updated.
pub(crate) fn update(groups: &[Group]) {
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(selvedge_tests::workspace().join("docs/policies/who-refuses.svg"), svg(groups)).unwrap();
    }
}

fn svg(groups: &[Group]) -> String {
    let width = 20.0 + GROUP * groups.len() as f64;
    let fair = BOTTOM - 50.0 * HEIGHT;
    let title = "What one of two instances gets, in per cent, from 1, 8 and 32 callers";
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} 232\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n<text class=\"title\" x=\"8\" y=\"22\">{title}</text>\n<line class=\"fair\" x1=\"8\" x2=\"{0}\" \
         y1=\"{fair}\" y2=\"{fair}\"/><text class=\"note\" x=\"{0}\" y=\"{1}\" text-anchor=\"end\">half</text>\n<line class=\"axis\" x1=\"8\" \
         x2=\"{0}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>\n",
        width - 8.0,
        fair - 6.0,
    );
    for (n, Group { title, bars }) in groups.iter().enumerate() {
        let left = 20.0 + GROUP * n as f64;
        for (m, (callers, share)) in bars.iter().enumerate() {
            let (height, x) = (share * 100.0 * HEIGHT, left + (BAR + 2.0) * m as f64);
            let middle = x + BAR / 2.0;
            let _ = writeln!(
                svg,
                "<rect class=\"bar\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{BAR}\" height=\"{height:.1}\"/><text x=\"{middle:.1}\" \
                 y=\"{:.1}\" text-anchor=\"middle\">{:.1}</text><text class=\"note\" x=\"{middle:.1}\" y=\"{}\" \
                 text-anchor=\"middle\">{callers}</text>",
                BOTTOM - height,
                BOTTOM - height - 5.0,
                share * 100.0,
                BOTTOM + 15.0,
            );
        }
        let _ = writeln!(svg, "<text x=\"{left:.1}\" y=\"{}\">{title}</text>", BOTTOM + 34.0);
    }
    svg + "</svg>\n"
}
