//! A compiled rule: where its requests go and what is changed on the way.

use std::{sync::Arc, time::Duration};

use super::{BackendRef, Filters, HttpRouteRule, HttpRouteTimeouts};
use crate::{
    kind::Problem,
    names::{self, ServiceName},
    reason::Reason,
};

/// What happens to the requests of one rule.
#[derive(Clone, Debug)]
pub struct RouteRule {
    /// `namespace/route/rule`, where the rule is its name or its index.
    pub name: Arc<str>,
    /// Where requests go; see [`RouteRule::choose`].
    pub backends: Vec<Backend>,
    /// True when the rule names no backend: requests go to the service they were sent to.
    pub to_parent: bool,
    /// What is decided and changed on the way.
    pub filters: Filters,
    /// Timeouts, when the rule has any.
    pub timeouts: Option<RouteTimeouts>,
    /// What a request that has no backend to go to is answered with.
    pub nowhere: Reason,
    /// The sum of the backends' weights.
    total_weight: u64,
}

/// A service that requests go to.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Which it is among all backends of its table, in the order of [`RouteTable::backends`](super::RouteTable::backends).
    pub number: usize,
    /// `namespace/name` of the service, or of what is none.
    pub service: ServiceName,
    /// Its port; the one the request was sent to when absent.
    pub port: Option<u16>,
    /// Its share in proportion to the other weights.
    pub weight: u32,
    /// Why no request can go there, whatever else there is; `None` for a service.
    pub unusable: Option<Arc<str>>,
    /// What is changed on the way to it, after what the rule changes, and on the way back, before that.
    pub filters: Filters,
}

/// Timeouts of a rule; `None` means no timeout of this kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// Of the whole request, over all tries.
    pub request: Option<Duration>,
    /// From the start of one try to its response head.
    pub backend_request: Option<Duration>,
}

impl RouteRule {
    /// A backend by chance, by weight. `None` when there are no backends (then [`RouteRule::to_parent`] says whether
    /// the parent is meant) or all weights are zero.
    ///
    /// ```
    /// use selvedge_policies::{
    ///     kind::{self, Attached},
    ///     route::RouteTable,
    /// };
    /// use serde_json::json;
    ///
    /// let backends = json!([{ "name": "old", "weight": 0 }, { "name": "new", "weight": 9 }]);
    /// let spec = json!({ "parentRefs": [{ "kind": "Service", "name": "web" }], "rules": [{ "backendRefs": backends }] });
    /// let table = RouteTable::compile(&[Attached { name: "shop/web".into(), spec: kind::parse(&spec).unwrap() }]).unwrap();
    /// let rule = table.rules().next().unwrap();
    /// assert_eq!(rule.choose(&mut fastrand::Rng::with_seed(7)).unwrap().service.to_string(), "shop/new");
    /// ```
    pub fn choose(&self, chance: &mut fastrand::Rng) -> Option<&Backend> {
        if let ([only], 1..) = (&*self.backends, self.total_weight) {
            return Some(only);
        }
        let mut left = if self.total_weight == 0 { return None } else { chance.u64(..self.total_weight) };
        self.backends.iter().find(|backend| {
            let weight = u64::from(backend.weight);
            let chosen = left < weight;
            left = left.saturating_sub(weight);
            chosen
        })
    }

    /// Compiles a rule found at `path` of the route `namespace/name`; what cannot be compiled is left out and reported.
    pub(super) fn new(
        spec: &HttpRouteRule,
        route: &str,
        number: usize,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let namespace = names::parts(route).map_or("default", |(namespace, _)| namespace);
        let name = spec.name.clone().unwrap_or_else(|| number.to_string());
        let filters = Filters::compile(&spec.filters, &format!("{path}.filters"), problems);
        let backends = spec.backend_refs.iter().enumerate();
        let backends = backends.map(|(n, backend)| {
            Backend::new(backend, namespace, &format!("{path}.backendRefs[{n}].filters"), problems)
        });
        let backends: Vec<Backend> = backends.collect();
        Self {
            name: format!("{route}/{name}").into(),
            to_parent: backends.is_empty(),
            total_weight: backends.iter().map(|backend| u64::from(backend.weight)).sum(),
            backends,
            nowhere: Reason::InvalidRoute,
            filters,
            timeouts: spec.timeouts.as_ref().map(timeouts),
        }
    }
}

impl Backend {
    fn new(spec: &BackendRef, home: &str, filters: &str, problems: &mut Vec<Problem>) -> Self {
        Self {
            number: 0,
            service: ServiceName::new(spec.namespace.as_deref().unwrap_or(home), &spec.name),
            port: spec.port,
            weight: spec.weight,
            unusable: spec.unusable(home).map(Into::into),
            filters: Filters::compile(&spec.filters, filters, problems),
        }
    }
}

fn timeouts(spec: &HttpRouteTimeouts) -> RouteTimeouts {
    let on = |duration: &Duration| !duration.is_zero();
    RouteTimeouts {
        request: spec.request.map(Duration::from).filter(on),
        backend_request: spec.backend_request.map(Duration::from).filter(on),
    }
}
