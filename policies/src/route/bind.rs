//! What a route is attached to, and where it sends requests.

use serde_json::Value;

use super::{HttpRouteSpec, ParentRef, filter, unusable};
use crate::{
    kind::{self, Problem},
    policy::{Bound, Reference, Relation, Target},
};

/// A route shapes calls to services of its own namespace, whoever makes them. With a parent in another one (a consumer route,
/// GEP-1294) it is for the calls from its own alone: otherwise anybody could redirect anybody's calls.
pub(super) fn bind(document: &Value, namespace: &str) -> Result<Bound, Vec<Problem>> {
    let mut spec: HttpRouteSpec = kind::parse(document)?;
    let (warnings, mut references) = (unusable::close(&mut spec), Vec::new());
    for (n, parent) in spec.parent_refs.iter_mut().enumerate().filter(|(_, parent)| parent.is_service()) {
        let path = format!("parentRefs[{n}]");
        let home = parent.namespace.get_or_insert_with(|| namespace.to_owned());
        let to = Target::Service(home.as_str().into(), parent.name.as_str().into());
        let section = parent.section().map(Into::into);
        references.push(Reference { to, port: parent.port, section, path, relation: Relation::AttachedTo });
    }
    // Older sidecars look at the name alone, and know of one spelling of the group.
    spec.parent_refs.retain(ParentRef::is_service);
    spec.parent_refs.iter_mut().for_each(|parent| parent.group = None);
    for (r, rule) in spec.rules.iter_mut().enumerate() {
        references.extend(filter::references(&rule.filters, namespace, &format!("rules[{r}].filters")));
        let services = rule.backend_refs.iter_mut().enumerate().filter(|(_, backend)| backend.is_service());
        for (n, backend) in services {
            let home = backend.namespace.get_or_insert_with(|| namespace.to_owned());
            let to = Target::Service(home.as_str().into(), backend.name.as_str().into());
            backend.group.clear();
            let path = format!("rules[{r}].backendRefs[{n}]");
            references.extend(filter::references(&backend.filters, namespace, &format!("{path}.filters")));
            references.push(Reference { to, port: backend.port, section: None, path, relation: Relation::SendsTo });
        }
    }
    Ok(Bound { references, port: None, warnings, document: kind::document(&spec) })
}
