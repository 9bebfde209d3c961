//! Which live state moves to a new configuration: load, latency and breaker of an endpoint by cluster, address and
//! identity, and its connections where the same is on the wire; retry budgets by cluster.
//!
//! Configuration is immutable and replaced as a whole, and replacing it must cost no warmth: an edit of a route that
//! emptied pools would be a burst of handshakes, and one that closed breakers a burst of failures. So each worker makes
//! its own live copy of the new one and hands over what it knows (a warm handover). What is the same is shared as it
//! is, and what is only said otherwise keeps what was seen of it. An address under another identity is another
//! workload, of which nothing is known.

use std::{collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc};

use selvedge_policies::attempt::retry::RetryBudget;

use super::{Cluster, Snapshot, endpoint::Endpoint};
use crate::config::{ClusterConfig, EndpointConfig, InForce};

/// A worker's snapshot of what is in force, with what it can keep of `previous`.
pub(crate) fn carry(InForce { config, trust }: InForce, previous: &Snapshot) -> Snapshot {
    if Arc::ptr_eq(&config, &previous.config) && !previous.clusters.is_empty() {
        return Snapshot { clusters: previous.clusters.clone(), config, trust };
    }
    let known: HashMap<_, _> = previous.clusters.iter().map(|cluster| (&cluster.config.name, cluster)).collect();
    let clusters = config.clusters.iter().map(|cluster| carry_cluster(cluster, known.get(&cluster.name).copied()));
    Snapshot { clusters: clusters.collect(), config: config.clone(), trust }
}

fn carry_cluster(config: &Arc<ClusterConfig>, old: Option<&Rc<Cluster>>) -> Rc<Cluster> {
    if let Some(old) = old.filter(|old| old.config == *config) {
        return old.clone();
    }
    let known: HashMap<_, _> = old.iter().flat_map(|cluster| &cluster.endpoints).map(|e| (id(&e.config), e)).collect();
    let endpoints = config.endpoints.iter().map(|endpoint| carry_endpoint(endpoint, known.get(&id(endpoint)).copied()));
    let budget = match old.filter(|old| old.config.traffic.budget == config.traffic.budget) {
        Some(old) => old.budget.clone(),
        None => Rc::new(RetryBudget::new(&config.traffic.budget)),
    };
    Rc::new(Cluster::new(config.clone(), endpoints.collect(), budget))
}

/// The endpoints of `previous` that `next` has not. Most clusters are the same in both, and cost nothing.
pub(crate) fn left(previous: &Snapshot, next: &Snapshot) -> Vec<Rc<Endpoint>> {
    let known: HashMap<_, _> = next.clusters.iter().map(|cluster| (&cluster.config.name, cluster)).collect();
    let mut left = Vec::new();
    for old in &previous.clusters {
        let new = known.get(&old.config.name);
        if new.is_some_and(|new| Rc::ptr_eq(new, old)) {
            continue;
        }
        let still: HashMap<_, _> = new.iter().flat_map(|new| &new.endpoints).map(|e| (id(&e.config), e)).collect();
        let is_left = |old: &&Rc<Endpoint>| !still.get(&id(&old.config)).is_some_and(|new| new.is(old));
        left.extend(old.endpoints.iter().filter(is_left).cloned());
    }
    left
}

/// What makes an endpoint the same one.
fn id(endpoint: &EndpointConfig) -> (SocketAddr, &str) {
    (endpoint.address, &endpoint.identity)
}

fn carry_endpoint(config: &Arc<EndpointConfig>, old: Option<&Rc<Endpoint>>) -> Rc<Endpoint> {
    match old {
        Some(old) if old.config == *config => old.clone(),
        Some(old) => Rc::new(old.carried(config.clone())),
        None => Rc::new(Endpoint::new(config.clone())),
    }
}

#[cfg(test)]
mod tests {
    use selvedge_policies::testing::Clock;

    use super::*;
    use crate::config::{RuntimeConfig, Transport};

    fn snapshot(previous: &Snapshot, identity: &str, weight: u32) -> Snapshot {
        let endpoint = EndpointConfig {
            cluster: "shop/web:80".parse().ok(),
            address: ([10, 0, 0, 1], 80).into(),
            transport: Transport::Plain,
            workload: "shop/web".parse().ok(),
            identity: identity.into(),
            weight,
            http2: false,
            traffic: Arc::default(),
        };
        let cluster = ClusterConfig {
            name: "shop/web:80".parse().unwrap(),
            endpoints: vec![Arc::new(endpoint)],
            traffic: Arc::default(),
            nowhere: None,
        };
        let clusters = vec![Arc::new(cluster)];
        let config = Arc::new(RuntimeConfig { clusters, ..RuntimeConfig::default() });
        carry(InForce { config, ..InForce::default() }, previous)
    }

    #[test]
    fn an_endpoint_is_the_same_by_address_and_identity() {
        let none = Snapshot::default();
        let now = Clock::default().now();
        let endpoint = |snapshot: &Snapshot| snapshot.clusters[0].endpoints[0].clone();
        let first = snapshot(&none, "spiffe://mesh.local/ns/shop/sa/web", 1);
        endpoint(&first).leave_alone(now);
        let edited = snapshot(&first, "spiffe://mesh.local/ns/shop/sa/web", 5);
        assert_eq!(endpoint(&edited).load(now).weight, 5);
        assert!(!endpoint(&edited).reachable(now), "what was seen of it stays");
        assert!(left(&first, &edited).is_empty());
        let another = snapshot(&edited, "spiffe://mesh.local/ns/shop/sa/other", 5);
        assert!(endpoint(&another).reachable(now), "another workload at its address");
        assert!(left(&edited, &another).iter().all(|left| left.is(&endpoint(&first))), "the one before has left");
        assert_eq!((left(&edited, &another).len(), left(&another, &none).len()), (1, 1));
    }
}
