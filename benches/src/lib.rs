//! Modules stand data first: each uses only those listed above it.
//!
//! Meshes of any size to measure decisions on: what `n` services of one company would have written. And
//! [programs](process) that are measured from outside, such as [our pair](pair).

pub mod application;
pub mod client;
pub mod mesh;
pub mod page;
pub mod port;
pub mod process;
pub mod machine;
pub mod placement;
pub mod spread;
pub mod run;
pub mod curve;
pub mod pair;

use std::{cell::Cell, sync::Arc};

use selvedge_policies::{
    balance::{Candidates, Load},
    kind::{self, Attached},
    policy::{Place, Posture},
    registry,
    request::PolicySet,
    route::RouteTable,
};
use serde_json::{Value, json};

/// Raises this process's limit of open files to what it may be: thousands of connections are as many sockets and more.
pub fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("the limit of open files stays as it is: {error}");
    }
}

/// The sizes at which growth is measured.
pub const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

/// A table of `count` route rules; `matches` says what rule `n` matches.
pub fn routes(count: usize, matches: impl Fn(usize) -> Value) -> RouteTable {
    let rules: Vec<Value> = (0..count)
        .map(|n| json!({ "matches": [matches(n)], "backendRefs": [{ "name": "v1", "port": 80 }, { "name": "v2", "port": 80 }] }))
        .collect();
    let spec = json!({ "parentRefs": [{ "kind": "Service", "name": "shop" }], "rules": rules });
    let spec = kind::parse(&spec).unwrap_or_else(|problems| panic!("{problems:?}"));
    let route = Attached { name: Arc::from("shop/all"), spec };
    RouteTable::compile(&[route]).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The policies of a service with one of `kind` with this `spec`, and the posture that lets pass.
pub fn policy(kind: &str, spec: Value) -> PolicySet {
    let attached = [(kind.to_owned(), Attached { name: Arc::from("shop/all"), spec })];
    let compiled = registry::compile(Place::Called, &attached, Posture::Allow, &PolicySet::new());
    compiled.unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// An authorization policy of `count` ALLOW rules; `rule` gives rule `n`.
pub fn authorization(count: usize, rule: impl Fn(usize) -> Value) -> PolicySet {
    let rules: Vec<Value> = (0..count).map(rule).collect();
    policy("AuthorizationPolicy", json!({ "action": "ALLOW", "rules": rules }))
}

/// Endpoints with requests in flight.
pub struct Endpoints(Vec<Cell<Load>>);

impl Endpoints {
    /// `count` available endpoints whose loads differ.
    pub fn new(count: usize) -> Self {
        let mut chance = fastrand::Rng::with_seed(7);
        let mut load = || Load {
            available: true,
            in_flight: chance.u32(..8),
            ewma_nanos: 1e6 * (1.0 + chance.f64()),
            usual_nanos: 1e6,
            refusing: 0.0,
            weight: chance.u32(1..4),
        };
        Self((0..count).map(|_| Cell::new(load())).collect())
    }
}

impl Candidates for Endpoints {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn load(&self, index: usize) -> Load {
        self.0[index].get()
    }
}
