//! A worker's live copy of the configuration: the immutable part shared by all, and per-worker state that moves
//! from one version to the next by stable id.

use std::{fmt, rc::Rc, sync::Arc};

use selvedge_decide::config::Link;
use selvedge_policies::{
    attempt::retry::RetryBudget,
    balance::{Balancer, Candidates, Load},
    facts::Moment,
};

use crate::config::{ClusterConfig, RuntimeConfig, Trust};

pub(crate) mod carry;
pub(crate) mod connect;
pub(crate) mod endpoint;
pub(crate) mod pool;

use endpoint::Endpoint;

/// What one worker uses for one request, start to end.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The configuration, shared by all workers.
    pub config: Arc<RuntimeConfig>,
    /// What connections are made with.
    pub trust: Arc<Trust>,
    /// Clusters, in the places of those of the configuration.
    pub clusters: Vec<Rc<Cluster>>,
}

impl Snapshot {
    /// The cluster that a link of the configuration leads to.
    pub(crate) fn cluster(&self, link: Link) -> Option<&Rc<Cluster>> {
        self.clusters.get(link.place())
    }
}

/// The endpoints of one port of a service, with a worker's state for them.
pub(crate) struct Cluster {
    /// What it was made of.
    pub config: Arc<ClusterConfig>,
    /// Endpoints in configuration order.
    pub endpoints: Vec<Rc<Endpoint>>,
    /// Shared by all requests to it from this worker.
    pub budget: Rc<RetryBudget>,
    balancer: Rc<dyn Balancer>,
}

impl Cluster {
    /// A cluster; the state is new or carried.
    pub(crate) fn new(config: Arc<ClusterConfig>, endpoints: Vec<Rc<Endpoint>>, budget: Rc<RetryBudget>) -> Self {
        let balancer = config.traffic.balancer.build().into();
        Self { config, endpoints, budget, balancer }
    }

    /// An endpoint for one try; another one than `avoid`, and, when it has to be `reachable`, none that took no connection
    /// a moment ago. `None` when no such one is available.
    pub(crate) fn pick(
        &self,
        now: Moment,
        avoid: Option<&Endpoint>,
        reachable: bool,
        chance: &mut fastrand::Rng,
    ) -> Option<Rc<Endpoint>> {
        let index = self.balancer.pick(&Loads { endpoints: &self.endpoints, now, avoid, reachable }, chance)?;
        self.endpoints.get(index).cloned()
    }

    /// Whether an endpoint but this one takes connections, and no more refuses than serves.
    pub(crate) fn welcomes(&self, now: Moment, but: &Endpoint) -> bool {
        let others = self.endpoints.iter().filter(|endpoint| !std::ptr::eq(endpoint.as_ref(), but));
        let mut loads = others.filter(|endpoint| endpoint.reachable(now)).map(|endpoint| endpoint.load(now));
        loads.any(|load| load.available && load.refusing < 0.5)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("name", &self.config.name).field("endpoints", &self.endpoints.len()).finish()
    }
}

struct Loads<'a> {
    endpoints: &'a [Rc<Endpoint>],
    now: Moment,
    avoid: Option<&'a Endpoint>,
    /// Leave out endpoints that took no connection a moment ago.
    reachable: bool,
}

impl Candidates for Loads<'_> {
    fn len(&self) -> usize {
        self.endpoints.len()
    }

    fn load(&self, index: usize) -> Load {
        let Some(endpoint) = self.endpoints.get(index) else {
            return Load {
                available: false,
                in_flight: 0,
                ewma_nanos: 0.0,
                usual_nanos: 0.0,
                refusing: 0.0,
                weight: 1,
            };
        };
        let mut load = endpoint.load(self.now);
        load.available &= self.avoid.is_none_or(|avoid| !std::ptr::eq(avoid, endpoint.as_ref()));
        load.available &= !self.reachable || endpoint.reachable(self.now);
        load
    }
}
