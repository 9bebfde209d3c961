//! All objects in force, with the indices that keep every question cheap at ten thousand workloads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use selvedge_policies::{
    merge::{Merged, Precedence},
    settings::Settings,
};

use super::{
    Attached, Labels, Object, ObjectId, Spec, Target,
    claims::{Claims, set},
    endpoint_slice::EndpointSliceSpec,
    external_service::{self, ExternalServiceSpec},
    mesh_policy::{self, MeshPolicySpec, ScopeKind},
    networks::Networks,
    nodes::Nodes,
    pods::Pods,
    service::{self, ServiceSpec},
    workload::{self, WorkloadSpec},
};

/// Namespace, label name and label value.
type LabelKey = (Arc<str>, String, String);

/// All objects in force. [`Model::put`] and [`Model::remove`] keep the indices; nothing else writes.
#[derive(Clone, Debug, Default)]
pub struct Model {
    objects: BTreeMap<ObjectId, Arc<Object>>,
    workloads_by_label: HashMap<LabelKey, BTreeSet<Arc<str>>>,
    /// By the first pair of the selector: a workload the service selects has that label.
    services_by_label: HashMap<LabelKey, BTreeSet<Arc<str>>>,
    attached: HashMap<Target, BTreeSet<ObjectId>>,
    /// Documents that cease to hold at a moment.
    expiring: BTreeSet<ObjectId>,
    claims: Claims,
    nodes: Nodes,
    pods: Pods,
    networks: Networks,
}

impl Model {
    /// Puts an object in place of the one with its id.
    pub fn put(&mut self, object: Arc<Object>) {
        self.remove(&object.id);
        self.index(&object, true);
        self.objects.insert(object.id.clone(), object);
    }

    /// Takes an object away, and returns it.
    pub fn remove(&mut self, id: &ObjectId) -> Option<Arc<Object>> {
        let object = self.objects.remove(id)?;
        self.index(&object, false);
        Some(object)
    }

    /// The object of that id.
    pub fn get(&self, id: &ObjectId) -> Option<&Arc<Object>> {
        self.objects.get(id)
    }

    /// Who refers to whom, and who claims which address.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The nodes, and what is on them.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// How far the pods of namespaces have sidecars.
    pub fn pods(&self) -> &Pods {
        &self.pods
    }

    /// Where something that has a sidecar may be.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// The documents that cease to hold at a moment.
    pub fn expiring(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.expiring.iter().filter_map(|id| self.get(id))
    }

    /// All objects, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// The objects of a kind in a namespace, by name.
    pub fn in_namespace(&self, kind: &'static str, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        let first = ObjectId::new(kind, namespace, "");
        let namespace = first.namespace.clone();
        let within = move |object: &&Arc<Object>| object.id.kind == kind && object.id.namespace == namespace;
        self.objects.range(first..).map(|(_, object)| object).take_while(within)
    }

    /// The objects of a kind, by namespace and name.
    pub fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Arc<Object>> {
        let of_kind = self.objects.range(ObjectId::new(kind, "", "")..);
        of_kind.map(|(_, object)| object).take_while(move |object| object.id.kind == kind)
    }

    /// The `Service` of that name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<(&Object, &ServiceSpec)> {
        match self.get(&ObjectId::new(service::KIND.name, namespace, name)).map(|object| (object, &object.spec)) {
            Some((object, Spec::Service(spec))) => Some((object, spec)),
            _ => None,
        }
    }

    /// The `ExternalService` of that name.
    pub fn external_service(&self, namespace: &str, name: &str) -> Option<(&Object, &ExternalServiceSpec)> {
        match self.get(&ObjectId::new(external_service::KIND.name, namespace, name)).map(|o| (o, &o.spec)) {
            Some((object, Spec::ExternalService(spec))) => Some((object, spec)),
            _ => None,
        }
    }

    /// The `Workload` of that name.
    pub fn workload(&self, namespace: &str, name: &str) -> Option<(&Object, &WorkloadSpec)> {
        self.get(&ObjectId::new(workload::KIND.name, namespace, name)).and_then(|object| as_workload(object))
    }

    /// The workloads of a namespace that have every label of `selector`, by name; none for an empty selector.
    pub fn selected(&self, namespace: &Arc<str>, selector: &Labels) -> Vec<(&Object, &WorkloadSpec)> {
        self.matching(namespace, selector).collect()
    }

    /// True when the selector selects any workload of the namespace.
    pub fn selects_any(&self, namespace: &Arc<str>, selector: &Labels) -> bool {
        self.matching(namespace, selector).next().is_some()
    }

    fn matching<'m, 's>(
        &'m self,
        namespace: &Arc<str>,
        selector: &'s Labels,
    ) -> impl Iterator<Item = (&'m Object, &'m WorkloadSpec)> + use<'m, 's> {
        let sets =
            selector.iter().map(|(k, v)| self.workloads_by_label.get(&(namespace.clone(), k.clone(), v.clone())));
        let names = sets.min_by_key(|set| set.map_or(0, BTreeSet::len)).flatten().into_iter().flatten();
        let namespace = namespace.clone();
        let candidates = names.filter_map(move |name| self.workload(&namespace, name));
        candidates.filter(move |(object, _)| selects(selector, &object.labels))
    }

    /// The services of a namespace whose selector these labels satisfy, by name.
    pub fn selecting(&self, namespace: &Arc<str>, labels: &Labels) -> Vec<(&Object, &ServiceSpec)> {
        let sets = labels.iter().map(|(k, v)| self.services_by_label.get(&(namespace.clone(), k.clone(), v.clone())));
        let names: BTreeSet<&Arc<str>> = sets.flatten().flatten().collect();
        let candidates = names.into_iter().filter_map(|name| self.service(namespace, name));
        candidates.filter(|(_, service)| selects(&service.selector, labels)).collect()
    }

    /// What a cluster tells of where the calls of a service go, by name.
    pub fn slices(&self, namespace: &Arc<str>, service: &str) -> Vec<(&Object, &EndpointSliceSpec)> {
        let target = Target::Service(namespace.clone(), service.into());
        let referring = self.claims.referring(&target).filter_map(|id| self.get(id));
        let slices = referring.filter_map(|object| match &object.spec {
            Spec::EndpointSlice(spec) => Some((&**object, spec)),
            _ => None,
        });
        slices.collect()
    }

    /// The documents attached to `target` that are `such`, by kind and name.
    pub fn attached(&self, target: &Target, such: impl Fn(&Attached) -> bool) -> Vec<(&Object, &Attached)> {
        let ids = self.attached.get(target).into_iter().flatten();
        let all = ids.filter_map(|id| match self.get(id).map(|object| (object, &object.spec)) {
            Some((object, Spec::Attached(attached))) => Some((&**object, attached)),
            _ => None,
        });
        all.filter(|(_, attached)| such(attached)).collect()
    }

    /// What the mesh policies together say of one workload, and which of them says it: none what holds of pods beneath all
    /// of them.
    pub fn effective(&self, namespace: &str, workload: &str) -> (Settings, Merged<Option<&Object>>) {
        let found = self.workload(namespace, workload);
        let services = found.map(|(object, _)| self.selecting(&object.id.namespace, &object.labels));
        let services: Vec<&str> = services.iter().flatten().map(|(object, _)| &*object.id.name).collect();
        // From the most specific on.
        let scope = |spec: &MeshPolicySpec| match spec.target_ref.as_ref().map(|target| (target.kind, &target.name)) {
            Some((ScopeKind::Workload, Some(name))) => (name == workload).then_some(0),
            Some((ScopeKind::Service, Some(name))) => services.contains(&name.as_str()).then_some(1),
            None => Some(2),
            Some(_) => None,
        };
        let is_wide = |spec: &MeshPolicySpec| spec.target_ref.as_ref().is_some_and(|t| t.kind == ScopeKind::Mesh);
        let local = self.in_namespace(mesh_policy::KIND.name, namespace).filter_map(|object| as_mesh_policy(object));
        let local = local.filter_map(|said| Some((scope(said.1)?, said)));
        let wide = self.of_kind(mesh_policy::KIND.name).filter_map(|object| as_mesh_policy(object));
        let of_mesh = wide.filter(|(_, spec)| is_wide(spec)).map(|said| (3, said));
        let said = local.chain(of_mesh);
        let said = said.map(|(scope, (object, spec))| (object.precedence(scope), Some(object), &spec.settings));
        let of_pods = found.is_some_and(|(_, spec)| spec.pod).then(Settings::of_pods);
        let beneath = |settings| (Precedence::new(4, None, Arc::default(), Arc::default()), None, settings);
        Settings::merge(said.chain(of_pods.as_ref().map(beneath)))
    }

    /// The mesh policies that cover what this one of `namespace` covers, itself among them, by name.
    pub fn of_scope(&self, namespace: &str, spec: &MeshPolicySpec) -> Vec<(&Object, &MeshPolicySpec)> {
        let local = self.in_namespace(mesh_policy::KIND.name, namespace).filter_map(|object| as_mesh_policy(object));
        local.filter(|(_, other)| other.target_ref == spec.target_ref).collect()
    }

    fn index(&mut self, object: &Object, add: bool) {
        self.claims.index(object, add);
        self.nodes.index(object, add);
        self.pods.index(object, add);
        self.networks.index(object, add);
        let namespace = &object.id.namespace;
        match &object.spec {
            Spec::Workload(_) => {
                for (key, value) in &object.labels {
                    let key = (namespace.clone(), key.clone(), value.clone());
                    set(&mut self.workloads_by_label, key, object.id.name.clone(), add);
                }
            }
            Spec::Service(spec) => {
                if let Some((key, value)) = spec.selector.first_key_value() {
                    let key = (namespace.clone(), key.clone(), value.clone());
                    set(&mut self.services_by_label, key, object.id.name.clone(), add);
                }
            }
            Spec::Attached(attached) => {
                for target in &attached.targets {
                    set(&mut self.attached, target.clone(), object.id.clone(), add);
                }
                if !add {
                    self.expiring.remove(&object.id);
                } else if attached.document.contains("\"expires\":") {
                    self.expiring.insert(object.id.clone());
                }
            }
            Spec::EndpointSlice(_)
            | Spec::Node(_)
            | Spec::ExternalService(_)
            | Spec::MeshPolicy(_)
            | Spec::ReferenceGrant(_) => {}
        }
    }
}

fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn as_workload(object: &Object) -> Option<(&Object, &WorkloadSpec)> {
    match &object.spec {
        Spec::Workload(spec) => Some((object, spec)),
        _ => None,
    }
}

fn as_mesh_policy(object: &Object) -> Option<(&Object, &MeshPolicySpec)> {
    match &object.spec {
        Spec::MeshPolicy(spec) => Some((object, spec)),
        _ => None,
    }
}
