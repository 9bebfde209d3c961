//! Which live state moves to a new configuration: connections by address and transport; load, latency and
//! breaker of an endpoint when nothing about it changed; retry budgets by cluster.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use selvedge_policies::attempt::retry::RetryBudget;

use super::{ClusterConfig, EndpointConfig, RuntimeConfig};
use crate::{
    balance::{
        cluster::{Cluster, Snapshot},
        endpoint::Endpoint,
    },
    upstream::pool::Pool,
};

/// A worker's snapshot for `config`, with what it can keep of `previous`.
pub fn carry(config: Arc<RuntimeConfig>, previous: &Snapshot) -> Snapshot {
    let clusters = config.clusters.iter().map(|(name, cluster)| (name.clone(), carry_cluster(cluster, previous)));
    Snapshot { clusters: clusters.collect(), config: config.clone() }
}

fn carry_cluster(config: &Arc<ClusterConfig>, previous: &Snapshot) -> Rc<Cluster> {
    let old = previous.clusters.get(&config.name);
    if let Some(old) = old.filter(|old| old.config == *config) {
        return old.clone();
    }
    let known: HashMap<_, _> =
        old.iter().flat_map(|cluster| &cluster.endpoints).map(|e| (e.config.address, e)).collect();
    let endpoints =
        config.endpoints.iter().map(|endpoint| carry_endpoint(endpoint, known.get(&endpoint.address).copied()));
    let budget = match old.filter(|old| old.config.budget == config.budget) {
        Some(old) => old.budget.clone(),
        None => Rc::new(RetryBudget::new(&config.budget)),
    };
    Rc::new(Cluster::new(config.clone(), endpoints.collect(), budget))
}

fn carry_endpoint(config: &Arc<EndpointConfig>, old: Option<&Rc<Endpoint>>) -> Rc<Endpoint> {
    match old {
        Some(old) if old.config == *config => old.clone(),
        Some(old) if old.config.transport == config.transport => {
            Rc::new(Endpoint::new(config.clone(), old.pool.clone()))
        }
        _ => Rc::new(Endpoint::new(config.clone(), Rc::new(Pool::default()))),
    }
}
