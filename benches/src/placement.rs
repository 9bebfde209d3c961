//! Which processors the programs may use. At a fixed rate that weighs as much as the proxy does: to wake another
//! processor costs more than a request.

use anyhow::Context;
use rustix::thread::{CpuSet, sched_getaffinity};
use serde::{Deserialize, Serialize};

use crate::process::{self, Process};

/// Where the scheduler may put what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Everything anywhere.
    Free,
    /// All proxies on one processor, load and application on another.
    Pinned,
    /// Everything on one processor.
    Single,
}

impl Placement {
    /// As headings say it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Pinned => "pinned",
            Self::Single => "one processor",
        }
    }

    /// Moves `proxies` and `others`, with this process among the others, to where they may be.
    ///
    /// # Errors
    /// One of them is not ours to move.
    pub fn apply<'a>(
        self,
        processors: &Processors,
        proxies: impl IntoIterator<Item = &'a Process>,
        others: impl IntoIterator<Item = &'a Process>,
    ) -> anyhow::Result<()> {
        let (of_proxies, of_others) = match self {
            Self::Free => (&processors.all, &processors.all),
            Self::Pinned => (&processors.first, &processors.second),
            Self::Single => (&processors.first, &processors.first),
        };
        process::bind(std::process::id(), of_others)?;
        others.into_iter().try_for_each(|process| process::bind(process.id(), of_others))?;
        proxies.into_iter().try_for_each(|process| process::bind(process.id(), of_proxies))
    }
}

/// The processors this process was started with, and two of them.
pub struct Processors {
    all: CpuSet,
    first: CpuSet,
    second: CpuSet,
}

impl Processors {
    /// Finds them.
    ///
    /// # Errors
    /// There are not two.
    pub fn find() -> anyhow::Result<Self> {
        let all = sched_getaffinity(None)?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor));
        let (first, second) = usable.next().zip(usable.next()).context("this needs two processors")?;
        Ok(Self { all, first: only(first), second: only(second) })
    }
}

fn only(processor: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(processor);
    set
}
