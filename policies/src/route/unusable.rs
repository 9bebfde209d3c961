//! What of a route cannot be done: the rule or backend answers for it with an error, and the rest of the route goes on.
//!
//! A rule keeps its conditions, so that no request of it falls to another rule.

use super::{BackendRef, HttpRouteSpec, filter};
use crate::kind::Problem;

/// Puts what answers with an error in place of what cannot be done, and says of each what it is.
pub(super) fn close(spec: &mut HttpRouteSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (r, rule) in spec.rules.iter_mut().enumerate() {
        let path = format!("rules[{r}]");
        for (n, backend) in rule.backend_refs.iter_mut().enumerate() {
            let path = format!("{path}.backendRefs[{n}]");
            if let Some((number, name)) = filter::unsupported_of_backend(&backend.filters) {
                let why = unsupported(name, "of a backend", "what would go to this one", false);
                problems.push(Problem::new(format!("{path}.filters[{number}].type"), why));
                *backend = BackendRef::unsupported(name, backend.weight);
            } else if !backend.is_service() {
                let what = "so what would go to this backend is answered with 500 (invalid_route)";
                problems.push(Problem::new(format!("{path}.kind"), format!("{} is no Service, {what}", backend.kind)));
            }
        }
        if let Some((number, name)) = filter::unsupported(&rule.filters) {
            let why = unsupported(name, "of a rule", "every request of this one", true);
            problems.push(Problem::new(format!("{path}.filters[{number}].type"), why));
            rule.backend_refs = vec![BackendRef::unsupported(name, 1)];
            rule.filters.clear();
        }
    }
    problems
}

fn unsupported(name: &str, of: &str, what: &str, of_rules: bool) -> String {
    let supported = filter::names(of_rules).join(", ");
    format!(
        "the filter {name} {of} is not supported, so {what} is answered with 500 (invalid_route): expected one of \
         {supported}"
    )
}
