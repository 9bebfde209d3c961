//! What people see while the demo runs: a table that renews itself on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::summary::{ServiceSummary, Summary};

/// Cuts long lines off on a narrow terminal (DECAWM): a wrapped line would be two, and the table could not be replaced.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Standard output, and how much of it the table occupies.
pub(super) struct Screen {
    live: bool,
    lines: usize,
}

impl Screen {
    /// For the terminal, or whatever standard output is.
    pub(super) fn new() -> Self {
        Self { live: io::stdout().is_terminal(), lines: 0 }
    }

    /// Shows the state: replaces the table before it, or adds one line where there is no terminal.
    pub(super) fn update(&mut self, summary: &Summary, story: &[String]) -> io::Result<()> {
        if self.live { self.draw(&render(summary, story)) } else { writeln!(io::stdout(), "{}", line(summary)) }
    }

    /// Shows the final state, in full.
    pub(super) fn finish(&mut self, summary: &Summary, story: &[String]) -> io::Result<()> {
        self.erase()?;
        write!(io::stdout(), "{}", render(summary, story))
    }

    fn draw(&mut self, text: &str) -> io::Result<()> {
        self.erase()?;
        self.lines = text.lines().count();
        let mut out = io::stdout().lock();
        write!(out, "{NO_WRAP}{text}{WRAP}")?;
        out.flush()
    }

    /// Takes the table away that is shown now.
    fn erase(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.lines) {
            0 => Ok(()),
            // Back to the first line of the table, and erase from there on.
            lines => write!(io::stdout(), "\x1b[{lines}A\x1b[J"),
        }
    }
}

fn render(summary: &Summary, story: &[String]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // The last three are of the sidecars. A terminal of 80 columns has room for no more words.
    table.set_header(["service", "req/s", "success", "p50 ms", "p99 ms", "mTLS", "MiB", "CPU %", "us/req"]);
    for service in &summary.services {
        table.add_row(row(service));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n\n{}\n", line(summary));
    if !story.is_empty() {
        text.push_str("\nWhat the mesh did\n");
    }
    for sentence in story {
        text.push_str(&format!("  {sentence}\n"));
    }
    text
}

fn row(service: &ServiceSummary) -> [String; 9] {
    let milliseconds = |value: Option<f64>| value.map_or_else(|| "-".into(), |ms| format!("{ms:.1}"));
    [
        service.name.to_owned(),
        format!("{:.1}", service.rps),
        percent(service.success_rate),
        milliseconds(service.p50_ms),
        milliseconds(service.p99_ms),
        percent(service.mtls_share),
        format!("{:.1}", service.sidecar_rss_bytes as f64 / f64::from(1 << 20)),
        format!("{:.1}", service.cpu_share * 100.0),
        service.sidecar_cpu_us_per_request.map_or_else(|| "-".into(), |us| format!("{us:.0}")),
    ]
}

fn line(summary: &Summary) -> String {
    format!(
        "{} requests, {} well answered, {} mTLS, {} denied, {} limited",
        summary.requests,
        percent(summary.success_rate),
        percent(summary.mtls_share),
        summary.denied,
        summary.rate_limited,
    )
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.1} %", share * 100.0))
}
