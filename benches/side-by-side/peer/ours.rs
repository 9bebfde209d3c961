//! Our pair, with everything on or with mTLS alone.

use selvedge_benches::pair::{Extent, Pair, Plan};

use super::{Name, Peer};
use crate::ground::Ground;

/// Starts control plane and sidecars; `name` says whether with policies.
pub(super) async fn start(name: Name, ground: &Ground) -> anyhow::Result<Peer> {
    let everything = name == Name::Selvedge;
    let folder = ground.folder(if everything { "selvedge" } else { "selvedge-plain" })?;
    let application = [ground.http1.address, ground.http2.address];
    let plan =
        Plan { folder, binaries: &ground.binaries, everything, application, extent: Extent::default(), under: &[] };
    Ok(Peer::of_pair(name, plan.start().await?))
}

impl Peer {
    /// `pair` as it is compared.
    pub(crate) fn of_pair(name: Name, pair: Pair) -> Self {
        let Pair { http1, http2, sidecars, control_plane, .. } = pair;
        Self { name, http1, http2, proxies: sidecars.into(), support: vec![control_plane] }
    }
}
