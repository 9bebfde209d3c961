//! Policies and routes: what they are attached to, and where they are enforced.

use std::sync::Arc;

use selvedge_policies::{
    kind::{self, Problem},
    matching::{TargetKind, TargetRef},
    request::REQUEST_POLICIES,
    route::{self, HttpRouteSpec},
};
use serde_json::Value;

/// A checked policy or route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where it is enforced.
    pub place: Place,
    /// What it is attached to.
    pub targets: Vec<Target>,
    /// Only this port of the target; every port when absent.
    pub port: Option<u16>,
    /// Everything it refers to, with the field that does: targets, and the services a route sends requests to.
    pub references: Vec<Reference>,
    /// `spec` as JSON, with every namespace filled in: what travels to the sidecars.
    pub document: Arc<str>,
}

/// Where a document is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the sidecars of callers (`TrafficPolicy`).
    Callers,
    /// At the sidecar of the workload that is called (request policies).
    Called,
    /// At both ends, so that both name a request's route the same way (`HTTPRoute`).
    Both,
}

/// What a document is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The `Service` of that namespace and name.
    Service(Arc<str>, Arc<str>),
    /// The `ExternalService` of that namespace and name.
    ExternalService(Arc<str>, Arc<str>),
    /// The `Workload` of that namespace and name.
    Workload(Arc<str>, Arc<str>),
    /// Every workload of that namespace.
    Namespace(Arc<str>),
}

/// A reference from a document to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What is referred to.
    pub to: Target,
    /// Its port, when one is named.
    pub port: Option<u16>,
    /// The field that refers, inside `spec`.
    pub path: String,
}

/// Reads a document of `kind` that its own check found sound.
///
/// # Errors
/// What only the namespace of the document tells.
pub fn read(kind: &str, namespace: &str, document: &Value) -> Result<Attached, Vec<Problem>> {
    if kind == route::KIND.name {
        return read_route(namespace, document);
    }
    let called = REQUEST_POLICIES.iter().any(|policy| policy.kind.name == kind);
    let place = if called { Place::Called } else { Place::Callers };
    let target: Option<TargetRef> = match document.get("targetRef") {
        Some(target) => kind::parse(target).map_err(|problems| under("targetRef", problems))?,
        None => None,
    };
    let namespace: Arc<str> = namespace.into();
    let port = target.as_ref().and_then(|target| target.port);
    let to = match target {
        None => Target::Namespace(namespace),
        Some(TargetRef { kind, name, .. }) => match kind {
            TargetKind::Service => Target::Service(namespace, name.into()),
            TargetKind::ExternalService => Target::ExternalService(namespace, name.into()),
            TargetKind::Workload => Target::Workload(namespace, name.into()),
        },
    };
    let targets = vec![to.clone()];
    let references = vec![Reference { to, port, path: "targetRef".to_owned() }];
    Ok(Attached { place, targets, port, references, document: document.to_string().into() })
}

fn under(field: &str, problems: Vec<Problem>) -> Vec<Problem> {
    problems.into_iter().map(|problem| Problem::new(field, problem.message)).collect()
}

/// A route may only shape calls to services of its own namespace: otherwise anybody could redirect anybody's calls.
fn read_route(namespace: &str, document: &Value) -> Result<Attached, Vec<Problem>> {
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
        references.push(Reference { to, port: parent.port, path });
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut targets: Vec<Target> = references.iter().map(|parent| parent.to.clone()).collect();
    targets.sort();
    targets.dedup();
    for (r, rule) in spec.rules.iter_mut().enumerate() {
        for (n, backend) in rule.backend_refs.iter_mut().enumerate() {
            let namespace = backend.namespace.get_or_insert_with(|| namespace.to_owned());
            let to = Target::Service(namespace.as_str().into(), backend.name.as_str().into());
            references.push(Reference { to, port: backend.port, path: format!("rules[{r}].backendRefs[{n}]") });
        }
    }
    let document = kind::document(&spec).to_string().into();
    Ok(Attached { place: Place::Both, targets, port: None, references, document })
}
