//! What grows, and how far.

use selvedge_benches::{pair::Extent, placement::Placement};

/// Connections of clients where something else grows.
const CONNECTIONS: usize = 32;

/// What there is more and more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Growing {
    /// Rules of the route of the called service.
    Routes,
    /// Rules of its authorization policy.
    Rules,
    /// Endpoints it has.
    Endpoints,
    /// Connections of clients that are busy.
    Connections,
    /// Services that are called in turn.
    Services,
    /// Worker threads of each sidecar.
    Workers,
}

impl Growing {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 6] =
        [Self::Routes, Self::Rules, Self::Endpoints, Self::Connections, Self::Services, Self::Workers];

    /// As tables say it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Routes => "route rules",
            Self::Rules => "authorization rules",
            Self::Endpoints => "endpoints",
            Self::Connections => "busy connections",
            Self::Services => "services called",
            Self::Workers => "workers",
        }
    }

    /// The file of its picture.
    pub(crate) fn picture(self) -> String {
        format!("growth-{}.svg", self.title().replace(' ', "-"))
    }

    /// How many there are, the fewest first.
    pub(crate) const fn sizes(self) -> &'static [usize] {
        match self {
            Self::Routes | Self::Rules => &[10, 100, 1_000, 10_000],
            Self::Endpoints | Self::Services => &[1, 10, 100, 1_000],
            Self::Connections => &[10, 100, 1_000, 6_000],
            Self::Workers => &[1, 2, 3, 4],
        }
    }

    /// What a pair is started with when there are so many, and how many connections clients have.
    pub(crate) fn extent(self, size: usize) -> (Extent, usize) {
        let one = Extent::default();
        match self {
            Self::Routes => (Extent { routes: size, ..one }, CONNECTIONS),
            Self::Rules => (Extent { rules: size, ..one }, CONNECTIONS),
            Self::Endpoints => (Extent { endpoints: size, ..one }, CONNECTIONS),
            Self::Connections => (one, size),
            Self::Services => (Extent { services: size, ..one }, CONNECTIONS),
            Self::Workers => (Extent { workers: size, ..one }, CONNECTIONS),
        }
    }

    /// Where sidecars and clients may run. Workers need processors.
    pub(crate) fn placement(self) -> Placement {
        if self == Self::Workers { Placement::Free } else { Placement::Pinned }
    }
}
