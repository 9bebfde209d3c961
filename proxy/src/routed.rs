//! What the route stage hands on: where a request may go, and how it is tried there.

use std::{rc::Rc, sync::Arc, time::Duration};

use selvedge_policies::{
    attempt::retry::TryOutcome,
    request::PolicySet,
    route::{Backend, RouteRule},
};
use tokio::time::Instant;

use crate::{
    balance::{self, Picked},
    cluster::{Cluster, endpoint::Endpoint},
    config::Traffic,
    error::Error,
    worker::Worker,
};

/// Tries that were provably not processed, or lost with a sidecar, are repeated this often without any policy.
pub(crate) const FREE_REPEATS: u32 = 3;

/// Where a request may go, and how it is tried there.
pub(crate) struct Upstream<'a> {
    /// The endpoints among which each try is balanced.
    pub target: Target,
    /// The traffic policy: timeouts and retries; `None` towards the application or an address outside any service.
    pub traffic: Option<&'a Traffic>,
    /// Timeouts of the route rule; they win over the policy's.
    pub rule: Option<&'a RouteRule>,
    /// The backend chosen, for its filters.
    pub backend: Option<&'a Backend>,
    /// Policies, those of single tries among them.
    pub policies: &'a Arc<PolicySet>,
}

/// Where a request may go.
pub(crate) enum Target {
    /// To any endpoint of a cluster.
    Cluster(Rc<Cluster>),
    /// To this endpoint and no other.
    One(Rc<Endpoint>),
}

/// When a request that began at `started` is over, whatever it waits for: the rule's timeout wins over the policy's.
pub(crate) fn deadline(rule: Option<&RouteRule>, traffic: Option<&Traffic>, started: Instant) -> Option<Instant> {
    let own = rule.and_then(|rule| rule.timeouts.as_ref()).and_then(|timeouts| timeouts.request);
    own.or_else(|| traffic?.request_timeout).map(|limit| started + limit)
}

impl Upstream<'_> {
    /// An endpoint for one try; another one than `avoid` where there is a choice.
    pub(crate) fn pick(&self, worker: &Worker, avoid: Option<&Endpoint>) -> Result<Picked, Error> {
        match &self.target {
            Target::Cluster(cluster) => balance::pick(worker, cluster, avoid),
            Target::One(endpoint) => Ok(Picked::new(endpoint.clone(), worker.now())),
        }
    }

    /// Whether there is another endpoint than this one that takes requests.
    pub(crate) fn welcomes(&self, worker: &Worker, but: &Endpoint) -> bool {
        self.cluster().is_some_and(|cluster| cluster.welcomes(worker.now(), but))
    }

    /// Whether a try is repeated without a policy, if it may be: one that was refused on a new connection, any other only
    /// where there is another endpoint.
    pub(crate) fn may_repeat(&self, outcome: &TryOutcome) -> bool {
        match &self.target {
            Target::Cluster(cluster) => *outcome == TryOutcome::Refused || cluster.endpoints.len() > 1,
            Target::One(_) => *outcome == TryOutcome::Refused,
        }
    }

    /// The cluster, where there is a choice.
    pub(crate) fn cluster(&self) -> Option<&Rc<Cluster>> {
        match &self.target {
            Target::Cluster(cluster) => Some(cluster),
            Target::One(_) => None,
        }
    }

    /// When a request that began at `started` is over, all tries together.
    pub(crate) fn deadline(&self, started: Instant) -> Option<Instant> {
        deadline(self.rule, self.traffic, started)
    }

    /// Limit for one try.
    pub(crate) fn try_timeout(&self) -> Option<Duration> {
        let rule = self.rule.and_then(|rule| rule.timeouts.as_ref()).and_then(|timeouts| timeouts.backend_request);
        rule.or_else(|| self.traffic?.try_timeout)
    }
}
