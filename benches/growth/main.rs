//! What a request costs our pair while one thing after the other grows: routes, rules, endpoints, connections, services,
//! workers.
//!
//! The pairs of one thing run at the same time and take turns, in an order that changes with each round, so that whatever else
//! the machine does falls on all of its sizes alike.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Parser;
use selvedge_benches::{allow_many_files, curve, machine::Machine, page, placement::Processors, run, spread::Spread};

use crate::growing::Growing;

mod growing;
mod load;
mod turn;

/// Measure a request while one thing grows.
#[derive(Parser)]
#[command(name = "growth")]
struct Arguments {
    /// Two short rounds.
    #[arg(long)]
    quick: bool,
    /// What grows; everything when absent.
    #[arg(value_enum)]
    growing: Vec<Growing>,
    /// How often each size has its turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Milliseconds of a turn.
    #[arg(long, default_value_t = 1_000)]
    each: u64,
    /// Folder of `selvedge` and `selvedge-proxy`; that of this program when absent.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Write the figures into README.md of this folder, and a picture of each beside it.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The picture of a mesh that grows.
const OF_SIDECARS: &str = "growth-sidecars.svg";

/// The cost of a request at each size.
type Grown = (Growing, Vec<(usize, Spread)>);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run::unless_told_to_end(measure(&arguments)))
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    allow_many_files();
    let binaries = run::binaries(arguments.binaries.as_deref())?;
    let (rounds, each) = if arguments.quick { (2, 300) } else { (arguments.rounds, arguments.each) };
    let processors = Processors::find()?;
    let machine = Machine::describe(&binaries);
    let all = arguments.growing.is_empty();
    let mut measured = Vec::new();
    for growing in Growing::ALL.into_iter().filter(|growing| all || arguments.growing.contains(growing)) {
        let points = turn::measure(growing, (&binaries, &processors), rounds, Duration::from_millis(each))
            .await
            .with_context(|| format!("while {} grow", growing.title()))?;
        println!("{}", table(&[(growing, points.clone())]));
        measured.push((growing, points));
    }
    let Some(folder) = arguments.out.as_deref().filter(|_| all) else { return Ok(()) };
    for (growing, points) in &measured {
        let picture = curve::svg(growing.title(), "CPU us per request of the pair", points);
        fs::write(folder.join(growing.picture()), picture)?;
    }
    let mut page = page_of(&machine, (rounds, each), &measured);
    // What a change costs while sidecars grow in number, another program draws (benches/run).
    if folder.join(OF_SIDECARS).exists() {
        page += &format!("![sidecars]({OF_SIDECARS})\n");
    }
    page::replace(&folder.join("README.md"), "growth", &page)
}

fn page_of(machine: &Machine, (rounds, each): (usize, u64), measured: &[Grown]) -> String {
    let Machine { date, processor, processors, kernel, .. } = machine;
    let pictures = measured.iter().map(|(growing, _)| format!("![{}]({})\n", growing.title(), growing.picture()));
    format!(
        "Measured {date} on {processors} x {processor}, Linux {kernel}; {rounds} rounds of {each} ms.\n\n{}\n{}",
        table(measured),
        pictures.collect::<String>()
    )
}

/// A line for each size, with the ratio to that of the first.
fn table(measured: &[Grown]) -> String {
    let mut text = "| what grows | how many | CPU us/request | of the first |\n|---|---|---|---|\n".to_owned();
    for (growing, points) in measured {
        let first = points.first().map_or(1.0, |(_, spread)| spread.median);
        for (size, Spread { least, median, greatest }) in points {
            let ratio = median / first;
            text +=
                &format!("| {} | {size} | {median:.1} ({least:.1}-{greatest:.1}) | {ratio:.2} |\n", growing.title());
        }
    }
    text
}
