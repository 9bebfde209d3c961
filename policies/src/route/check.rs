//! Every semantic problem of an `HTTPRoute`.

use serde_json::Value;

use super::{BackendRef, HttpRouteRule, HttpRouteSpec, RouteTable, filter};
use crate::{
    kind::{self, Attached, Problem},
    matching::host::host_problem,
};

/// Every semantic problem of `spec`.
pub(super) fn check(spec: &HttpRouteSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    if spec.parent_refs.is_empty() {
        problems.push(Problem::new("parentRefs", "a route without parent routes nothing: expected a Service"));
    }
    for (n, parent) in spec.parent_refs.iter().enumerate() {
        parent.check(&format!("parentRefs[{n}]"), &mut problems);
    }
    for (n, host) in spec.hostnames.iter().enumerate() {
        problems.extend(host_problem(host).map(|why| Problem::new(format!("hostnames[{n}]"), why)));
    }
    for (n, rule) in spec.rules.iter().enumerate() {
        check_rule(rule, &format!("rules[{n}]"), &mut problems);
        check_name(spec, n, &mut problems);
    }
    problems.extend(RouteTable::problems(&Attached { name: "default/unnamed".into(), spec: spec.clone() }));
    problems
}

/// Routes let nobody in, so where there is no version before, what is written and empty is what leaving it out is: the
/// type of the document drops it. `rules` may be empty, and a route without parents is refused whatever was before.
pub(super) fn close(document: &mut Value) -> Vec<Problem> {
    let mut found = Vec::new();
    for (field, value) in document.as_object().into_iter().flatten() {
        let may_be_empty =
            matches!(field.as_str(), "rules" | "parentRefs") && value.as_array().is_some_and(Vec::is_empty);
        if !may_be_empty {
            found.extend(kind::blanks(value, field, &[]));
        }
    }
    kind::take_nulls(document); // they are told of already
    kind::until_mended(found, "the route is taken as if the field were left out")
}

fn check_name(spec: &HttpRouteSpec, number: usize, problems: &mut Vec<Problem>) {
    let Some(name) = &spec.rules[number].name else { return };
    let at = format!("rules[{number}].name");
    problems.extend(kind::name_problem(name).map(|why| Problem::new(&*at, why)));
    if let Some(first) = spec.rules[..number].iter().position(|rule| rule.name.as_ref() == Some(name)) {
        problems.push(Problem::new(at, format!("'{name}' is already the name of rules[{first}]")));
    }
}

fn check_rule(rule: &HttpRouteRule, path: &str, problems: &mut Vec<Problem>) {
    filter::check(&rule.filters, &format!("{path}.filters"), problems);
    for (n, backend) in rule.backend_refs.iter().enumerate() {
        let path = format!("{path}.backendRefs[{n}]");
        check_backend(backend, &path, problems);
        filter::check(&backend.filters, &format!("{path}.filters"), problems);
    }
    let timeouts = rule.timeouts.as_ref().and_then(|timeouts| timeouts.request.zip(timeouts.backend_request));
    if let Some((request, backend)) = timeouts.filter(|(request, backend)| !request.0.is_zero() && backend > request) {
        let why = format!("{backend} is longer than the timeout of the whole request, {request}");
        problems.push(Problem::new(format!("{path}.timeouts.backendRequest"), why));
    }
}

/// What is wrong with a backend. One of another kind is sound, though nothing is sent to it.
fn check_backend(backend: &BackendRef, path: &str, problems: &mut Vec<Problem>) {
    if !backend.is_service() {
        let hint = kind::suggest(&backend.kind, ["Service"]);
        if backend.group.is_empty() && hint.contains("did you mean") {
            problems
                .push(Problem::new(format!("{path}.kind"), format!("kind '{}' is not known here{hint}", backend.kind)));
        }
        return;
    }
    if backend.port.is_none() {
        problems.push(Problem::new(format!("{path}.port"), "a Service as backend needs the port to send to"));
    }
    problems.extend(kind::name_problem(&backend.name).map(|why| Problem::new(format!("{path}.name"), why)));
    let namespace = backend.namespace.as_deref().and_then(kind::name_problem);
    problems.extend(namespace.map(|why| Problem::new(format!("{path}.namespace"), why)));
}
