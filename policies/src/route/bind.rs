//! What a route is attached to, and where it sends requests.

use serde_json::Value;

use super::{HttpRouteSpec, filter, unusable};
use crate::{
    kind::{self, Problem},
    policy::{Bound, Reference, Relation, Target},
};

/// A route may only shape calls to services of its own namespace: otherwise anybody could redirect anybody's calls. A parent
/// in another one (a consumer route, GEP-1294) is left out, and the rest holds.
pub(super) fn bind(document: &Value, namespace: &str) -> Result<Bound, Vec<Problem>> {
    let mut spec: HttpRouteSpec = kind::parse(document)?;
    let (mut warnings, mut references) = (unusable::close(&mut spec), Vec::new());
    for (n, parent) in spec.parent_refs.iter_mut().enumerate().filter(|(_, parent)| parent.is_service()) {
        let path = format!("parentRefs[{n}]");
        let given = parent.namespace.get_or_insert_with(|| namespace.to_owned());
        if given != namespace {
            let why = format!(
                "a route shapes calls to services of its own namespace only, so it is not attached to this one: expected \
                 '{namespace}'"
            );
            warnings.push(Problem::new(format!("{path}.namespace"), why));
            continue;
        }
        let to = Target::Service(namespace.into(), parent.name.as_str().into());
        let section = parent.section().map(Into::into);
        references.push(Reference { to, port: parent.port, section, path, relation: Relation::AttachedTo });
    }
    // Older sidecars look at the name alone, and know of one spelling of the group.
    spec.parent_refs.retain(|parent| parent.is_service() && parent.namespace.as_deref() == Some(namespace));
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
