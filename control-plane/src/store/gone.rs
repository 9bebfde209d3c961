//! Objects whose file is gone: each is a finding that says what is open now, until the object is back or whoever runs the
//! mesh confirms that it is meant.

use std::sync::Arc;

use selvedge_policies::{finding::Code, settings::Modes};

use crate::{
    diagnostic::{Diagnostic, Place, Severity},
    model::{Attached, Model, Object, ObjectId, Spec, Target, mesh_policy::MeshPolicySpec, workload},
};

/// Of how many objects it is told; the oldest are forgotten.
const MAX_TOLD: usize = 100;

/// The objects that went with their file.
#[derive(Debug, Default)]
pub(super) struct Gone {
    told: Vec<(ObjectId, Arc<str>, Diagnostic)>,
}

impl Gone {
    /// Tells of an object that is not in the model any more, and what is open without it.
    pub(super) fn tell(&mut self, object: &Object, file: &Arc<str>, opened: &str) {
        let message = format!(
            "{} is removed with its file{opened}: expected the file, or `selvedge confirm {file}` when that is meant",
            object.id
        );
        let finding =
            Diagnostic::new(Code::Held, Severity::Warning, Place::file(file), message).object(object.id.to_string());
        self.told.push((object.id.clone(), file.clone(), finding));
        self.told.drain(..self.told.len().saturating_sub(MAX_TOLD));
    }

    /// Forgets what was told of a file.
    pub(super) fn confirm(&mut self, file: &str) {
        self.told.retain(|(_, of, _)| **of != *file);
    }

    /// What is told, without the objects that `model` has again.
    pub(super) fn findings(&mut self, model: &Model) -> impl Iterator<Item = &Diagnostic> {
        self.told.retain(|(id, ..)| model.get(id).is_none());
        self.told.iter().map(|(.., finding)| finding)
    }
}

/// What is open without `object`, which `model` does not have any more, as the end of a sentence; nothing when it closed
/// nothing.
pub(super) fn opened(model: &Model, object: &Object) -> String {
    match &object.spec {
        Spec::Attached(attached) if attached.acts_where_called() => {
            let of = |target: &Target| uncovered(model, object.id.kind, target);
            attached.targets.iter().map(of).collect()
        }
        Spec::MeshPolicy(spec) => settings(model, &object.id, spec),
        Spec::Attached(Attached { .. })
        | Spec::Service(_)
        | Spec::Workload(_)
        | Spec::EndpointSlice(_)
        | Spec::Node(_)
        | Spec::ExternalService(_)
        | Spec::ReferenceGrant(_) => String::new(),
    }
}

fn uncovered(model: &Model, kind: &str, target: &Target) -> String {
    let others = model.attached(target, Attached::acts_where_called);
    let others = others.iter().filter(|(other, _)| other.id.kind == kind).count();
    if others > 0 {
        return format!("; {others} other {kind} of {} stay in force", name(target));
    }
    let (namespace, workload) = match target {
        Target::Service(namespace, service) => (namespace, first_behind(model, namespace, service)),
        Target::Workload(namespace, workload) | Target::ExternalService(namespace, workload) => {
            (namespace, workload.clone())
        }
        Target::Namespace(namespace) | Target::Mesh(namespace) => (namespace, Arc::default()),
    };
    let posture = model.effective(namespace, &workload).0.modes().posture.name();
    format!("; no {kind} names {} any more, and its default posture is {posture}", name(target))
}

/// The first workload behind a service; no name where there is none.
fn first_behind(model: &Model, namespace: &Arc<str>, service: &str) -> Arc<str> {
    let selector = model.service(namespace, service).map(|(_, spec)| spec.selector.clone()).unwrap_or_default();
    let first = model.selected(namespace, &selector).first().map(|(workload, _)| workload.id.name.clone());
    first.unwrap_or_default()
}

fn settings(model: &Model, id: &ObjectId, spec: &MeshPolicySpec) -> String {
    let (namespace, workload) = covered(model, id, spec);
    let (settings, merged) = model.effective(&namespace, &workload);
    let now = settings.modes();
    let inbound = if now.permissive { "PERMISSIVE" } else { "STRICT" };
    let mut opened =
        format!("; what it covered has mTLS mode {inbound} and default posture {} now", now.posture.name());
    for field in spec.settings.deciding().filter(|field| !merged.from.contains_key(field)) {
        opened.push_str(&format!("; nobody sets {field} any more"));
    }
    opened
}

/// How a mesh policy has what it covers work, together with all others; `None` for any other object.
pub(super) fn modes(model: &Model, object: &Object) -> Option<Modes> {
    let Spec::MeshPolicy(spec) = &object.spec else { return None };
    let (namespace, workload) = covered(model, &object.id, spec);
    Some(model.effective(&namespace, &workload).0.modes())
}

/// Of what a mesh policy covered the workload that is the most open without it: a pod, if there is one.
fn covered(model: &Model, id: &ObjectId, spec: &MeshPolicySpec) -> (Arc<str>, Arc<str>) {
    match spec.target_ref.as_ref().and_then(|target| target.target(&id.namespace)) {
        Some(Target::Workload(namespace, name)) => return (namespace, name),
        Some(Target::Service(namespace, name)) => {
            let first = first_behind(model, &namespace, &name);
            return (namespace, first);
        }
        _ => {}
    }
    let is_wide = spec.target_ref.is_some();
    let workloads = model.of_kind(workload::KIND.name);
    let mut covered = workloads.filter(|object| is_wide || object.id.namespace == id.namespace);
    let pod = covered.find(|object| matches!(&object.spec, Spec::Workload(spec) if spec.pod));
    pod.map_or_else(|| (id.namespace.clone(), Arc::default()), |pod| (pod.id.namespace.clone(), pod.id.name.clone()))
}

fn name(target: &Target) -> String {
    match target {
        Target::Service(namespace, name) => format!("Service {namespace}/{name}"),
        Target::ExternalService(namespace, name) => format!("ExternalService {namespace}/{name}"),
        Target::Workload(namespace, name) => format!("Workload {namespace}/{name}"),
        Target::Namespace(namespace) => format!("namespace {namespace}"),
        Target::Mesh(_) => "the mesh".to_owned(),
    }
}
