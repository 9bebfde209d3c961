//! What a route is attached to, and where it sends requests.

use serde_json::Value;

use super::{HttpRouteSpec, filter};
use crate::{
    kind::{self, Problem},
    policy::{Bound, Reference, Relation, Target},
};

/// A route may only shape calls to services of its own namespace: otherwise anybody could redirect anybody's calls.
pub(super) fn bind(document: &Value, namespace: &str) -> Result<Bound, Vec<Problem>> {
    let mut spec: HttpRouteSpec = kind::parse(document)?;
    let (mut problems, mut references) = (Vec::new(), Vec::new());
    for (n, parent) in spec.parent_refs.iter_mut().enumerate() {
        let path = format!("parentRefs[{n}]");
        let given = parent.namespace.get_or_insert_with(|| namespace.to_owned());
        if given != namespace {
            let why = format!("a route shapes calls to services of its own namespace only: expected '{namespace}'");
            problems.push(Problem::new(format!("{path}.namespace"), why));
        }
        let to = Target::Service(namespace.into(), parent.name.as_str().into());
        references.push(Reference { to, port: parent.port, path, relation: Relation::AttachedTo });
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for (r, rule) in spec.rules.iter_mut().enumerate() {
        references.extend(filter::references(&rule.filters, namespace, &format!("rules[{r}].filters")));
        for (n, backend) in rule.backend_refs.iter_mut().enumerate() {
            let home = backend.namespace.get_or_insert_with(|| namespace.to_owned());
            let to = Target::Service(home.as_str().into(), backend.name.as_str().into());
            let path = format!("rules[{r}].backendRefs[{n}]");
            references.extend(filter::references(&backend.filters, namespace, &format!("{path}.filters")));
            references.push(Reference { to, port: backend.port, path, relation: Relation::SendsTo });
        }
    }
    Ok(Bound { references, port: None, document: kind::document(&spec) })
}
