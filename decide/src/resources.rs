//! What the control plane has said: the resources that a configuration is compiled from, decoded and checked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use selvedge_xds::proto::mesh::{Destination, Endpoints, Inbound, TrustBundle};

/// A resource with its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned<T> {
    /// The canonical name, under which a resource is sent once whatever alias was asked for.
    pub name: String,
    /// Version by content: equal versions mean equal values.
    pub version: String,
    /// The resource itself, decoded from its bytes.
    pub value: T,
}

/// Everything known at one instant, all of it checked.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Counts up by one whenever a resource or an alias is another one: the same number means the same configuration.
    pub generation: u64,
    /// The workload's own view.
    pub inbound: Option<Arc<Inbound>>,
    /// The authorities of the trust domain.
    pub bundle: Option<Arc<TrustBundle>>,
    /// Destinations by canonical name.
    pub destinations: HashMap<String, Arc<Versioned<Destination>>>,
    /// Endpoints by canonical name.
    pub endpoints: HashMap<String, Arc<Versioned<Endpoints>>>,
    /// Canonical name of every destination asked for, by the name it was asked by; `None` where there is none that can be put
    /// in force. A name that is missing here and in `absent` has no answer yet.
    pub aliases: HashMap<String, Option<String>>,
    /// Names asked for of which the control plane said that there is none. They come and go as the workload calls, and no
    /// configuration is compiled of them: `generation` does not count them.
    pub absent: Arc<HashSet<String>>,
    /// Those of the names that stand for a destination of the mesh which cannot be put in force.
    pub refused: HashSet<String>,
    /// What the sidecar's own look-ups say: the addresses of the hosts of services outside the mesh that are called.
    pub looked_up: Arc<BTreeMap<String, BTreeSet<IpAddr>>>,
    /// Whether a stream to the control plane stands.
    pub connected: bool,
    /// What is wrong with the newest version of a resource, while an older one is in force instead.
    pub refusal: Option<String>,
}

/// What is called by `host` at `address`, in the place of a name. Nobody asks the control plane for one of these.
///
/// ```
/// use selvedge_decide::resources::called_at;
///
/// assert_eq!(called_at("api.example", ([203, 0, 113, 9], 443).into()), "api.example@203.0.113.9:443");
/// ```
pub fn called_at(host: &str, address: SocketAddr) -> String {
    format!("{host}@{address}")
}
