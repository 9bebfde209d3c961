//! From the model to resources: a pure function, one subject at a time.
//!
//! A [`Subject`] is what a change can touch: a destination with its endpoints, a workload, the trust bundle.
//! [`affected`] says which subjects a changed object touches, [`subject`] compiles one of them into a draft, so a
//! change costs what it touches, and compiling all subjects is the same as compiling from nothing.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use selvedge_policies::names::{ServiceName, WorkloadName};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND, TRUST_BUNDLE},
    proto::mesh::{Attachment, Origin, TrustBundle},
    resource::Encoded,
};

use crate::{
    model::{
        Attached, Model, Object, ObjectId, Place, Spec, Target,
        endpoint_slice::EndpointSliceSpec,
        external_service, granted,
        service::{self, ServicePort},
        workload::{self, WorkloadSpec},
    },
    snapshot::Draft,
};

mod address;
mod destination;
mod inbound;

/// What is the same for all resources.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// Trust domain of every identity.
    pub trust_domain: String,
    /// Certificates of the trusted authorities, DER.
    pub roots: Vec<bytes::Bytes>,
}

/// What is compiled, and compiled again, as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The trust bundle of the mesh, of which there is one.
    Trust,
    /// A service or external service, and the endpoints of its ports.
    Destination(Arc<str>, Arc<str>),
    /// A workload's view of itself.
    Workload(Arc<str>, Arc<str>),
    /// What answers at the own address of workloads.
    Address(IpAddr),
}

impl Subject {
    fn destination(object: &Object) -> Self {
        Self::Destination(object.id.namespace.clone(), object.id.name.clone())
    }

    fn workload(object: &Object) -> Self {
        Self::Workload(object.id.namespace.clone(), object.id.name.clone())
    }
}

/// Adds the subjects that `object`, as `model` has it, has a part in. Ask before a change and after it.
pub fn affected(model: &Model, id: &ObjectId, subjects: &mut BTreeSet<Subject>) {
    let Some(object) = model.get(id) else { return };
    let namespace = &id.namespace;
    match &object.spec {
        Spec::Service(spec) => {
            subjects.insert(Subject::destination(object));
            subjects.extend(model.selected(namespace, &spec.selector).into_iter().flat_map(of_workload));
        }
        Spec::ExternalService(_) => {
            subjects.insert(Subject::destination(object));
        }
        Spec::EndpointSlice(_) => subjects.extend(service_of(object)),
        Spec::Node(_) => model.nodes().there(&id.name).for_each(|id| affected(model, id, subjects)),
        Spec::Workload(spec) => {
            subjects.extend(of_workload((object, spec)));
            let target = Target::Workload(namespace.clone(), id.name.clone());
            let claims = model.claims();
            let slices = claims.referring(&target).chain(spec.ips().flat_map(|ip| claims.pointing(ip)));
            let slices = slices.filter_map(|id| model.get(id));
            subjects.extend(slices.filter_map(|slice| service_of(slice)));
            subjects.extend(model.selecting(namespace, &object.labels).iter().map(|(o, _)| Subject::destination(o)));
        }
        Spec::MeshPolicy(spec) => match &spec.target_ref {
            None => subjects.extend(workloads_of(model, namespace)),
            Some(target) => match target.target(namespace) {
                Some(Target::Workload(namespace, name)) => drop(subjects.insert(Subject::Workload(namespace, name))),
                Some(Target::Service(namespace, name)) => {
                    let selector = model.service(&namespace, &name).map(|(_, service)| &service.selector);
                    let selected = selector.into_iter().flat_map(|selector| model.selected(&namespace, selector));
                    subjects.extend(selected.map(|(workload, _)| Subject::workload(workload)));
                }
                _ => subjects.extend(model.of_kind(workload::KIND.name).map(|object| Subject::workload(object))),
            },
        },
        Spec::ReferenceGrant(spec) => {
            let documents = granted::concerned(model, namespace, spec);
            documents.for_each(|(_, attached)| affected_by_document(model, attached, subjects));
        }
        Spec::Attached(attached) => affected_by_document(model, attached, subjects),
    }
}

/// The destination whose calls go where an `EndpointSlice` says.
fn service_of(slice: &Object) -> Option<Subject> {
    let Spec::EndpointSlice(_) = &slice.spec else { return None };
    let service = EndpointSliceSpec::service(&slice.labels)?;
    Some(Subject::Destination(slice.id.namespace.clone(), service.into()))
}

fn affected_by_document(model: &Model, attached: &Attached, subjects: &mut BTreeSet<Subject>) {
    for target in &attached.targets {
        match target {
            Target::Service(namespace, name) => {
                if attached.place != Place::Called {
                    subjects.insert(Subject::Destination(namespace.clone(), name.clone()));
                }
                if let Some((_, service)) = model.service(namespace, name) {
                    let selected = model.selected(namespace, &service.selector).into_iter();
                    let is_concerned = |subject: &Subject| match subject {
                        Subject::Address(_) => attached.is_setting,
                        _ => attached.place != Place::Caller,
                    };
                    subjects.extend(selected.flat_map(of_workload).filter(is_concerned));
                }
            }
            Target::ExternalService(namespace, name) => {
                subjects.insert(Subject::Destination(namespace.clone(), name.clone()));
            }
            Target::Workload(namespace, name) => {
                subjects.insert(Subject::Workload(namespace.clone(), name.clone()));
            }
            Target::Mesh(_) => {
                subjects.extend(model.of_kind(workload::KIND.name).map(|object| Subject::workload(object)));
            }
            Target::Namespace(namespace) => {
                subjects.extend(workloads_of(model, namespace));
                if attached.acts_at_callers() {
                    subjects.extend(destinations_of(model, namespace));
                }
                if attached.is_setting {
                    subjects.extend(addresses_of(model, namespace));
                }
            }
        }
    }
}

/// A workload, and the addresses that it is called at.
fn of_workload((object, spec): (&Object, &WorkloadSpec)) -> Vec<Subject> {
    std::iter::once(Subject::workload(object)).chain(spec.ips().map(Subject::Address)).collect()
}

/// The addresses of the workloads of a namespace.
fn addresses_of(model: &Model, namespace: &str) -> Vec<Subject> {
    let workloads = model.in_namespace(workload::KIND.name, namespace);
    let spec = workloads.filter_map(|object| model.workload(namespace, &object.id.name));
    spec.flat_map(|(_, spec)| spec.ips().map(Subject::Address).collect::<Vec<_>>()).collect()
}

fn workloads_of(model: &Model, namespace: &str) -> Vec<Subject> {
    model.in_namespace(workload::KIND.name, namespace).map(|object| Subject::workload(object)).collect()
}

fn destinations_of(model: &Model, namespace: &str) -> Vec<Subject> {
    let kinds = [service::KIND.name, external_service::KIND.name];
    let objects = kinds.into_iter().flat_map(|kind| model.in_namespace(kind, namespace));
    objects.map(|object| Subject::destination(object)).collect()
}

/// Compiles one subject into the draft, or takes its resources away when it is gone.
pub fn subject(model: &Model, mesh: &Mesh, subject: &Subject, draft: &mut Draft) {
    match subject {
        Subject::Trust => {
            let (trust_domain, roots_der) = (mesh.trust_domain.clone(), mesh.roots.clone());
            let networks = model.networks().all().iter().map(ToString::to_string).collect();
            let bundle = TrustBundle { trust_domain, roots_der, networks };
            draft.put(Encoded::new(TRUST_BUNDLE, &*mesh.trust_domain, Vec::new(), &bundle), false);
        }
        Subject::Destination(namespace, name) => {
            let compiled = destination::compile(model, mesh, namespace, name);
            let ports: BTreeSet<u16> = compiled.iter().flat_map(|compiled| compiled.ports()).collect();
            let service = ServiceName::new(namespace, name);
            for port in draft.ports_of(service.text()) {
                if !ports.contains(&port) {
                    draft.remove(ENDPOINTS, &service.port(port).to_string());
                }
            }
            match compiled {
                Some(compiled) => compiled.into_draft(draft),
                None => {
                    draft.set_views(service.text(), BTreeSet::new());
                    draft.remove(DESTINATION, service.text());
                }
            }
        }
        Subject::Workload(namespace, name) => {
            let path = WorkloadName::new(namespace, name).to_string();
            let compiled = inbound::compile(model, mesh, namespace, name);
            draft.set_identity(&path, compiled.as_ref().map(|inbound| inbound.identity.clone()));
            match compiled {
                Some(inbound) => draft.put(Encoded::new(INBOUND, path, Vec::new(), &inbound), false),
                None => draft.remove(INBOUND, &path),
            }
        }
        Subject::Address(ip) => {
            let name = ip.to_string();
            match address::compile(model, mesh, *ip) {
                Some(address) => draft.put(Encoded::new(DESTINATION, name, Vec::new(), &address), false),
                None => draft.remove(DESTINATION, &name),
            }
        }
    }
}

/// Every subject of the model.
pub fn everything(model: &Model) -> BTreeSet<Subject> {
    let mut subjects = BTreeSet::from([Subject::Trust]);
    for object in model.objects() {
        match &object.spec {
            Spec::Service(_) | Spec::ExternalService(_) => drop(subjects.insert(Subject::destination(object))),
            Spec::Workload(spec) => subjects.extend(of_workload((object, spec))),
            Spec::EndpointSlice(_)
            | Spec::Node(_)
            | Spec::MeshPolicy(_)
            | Spec::ReferenceGrant(_)
            | Spec::Attached(_) => {}
        }
    }
    subjects
}

fn origin(object: &Object) -> Origin {
    Origin {
        kind: object.id.kind.to_owned(),
        namespace: object.id.namespace.to_string(),
        name: object.id.name.to_string(),
        generation: object.generation,
    }
}

fn attachment(object: &Object, attached: &Attached) -> Attachment {
    Attachment { origin: Some(origin(object)), document: attached.document.to_string(), stands_for: None }
}

/// A route as it travels to whom the service `target` with these ports concerns; `None` when it is for none of them. With the
/// ports it is said whether they are all that the service has.
fn route(
    model: &Model,
    object: &Object,
    attached: &Attached,
    target: &Target,
    ports: (&[&ServicePort], bool),
) -> Option<Attachment> {
    let refused = granted::closed(model, object, attached, target);
    let refused = refused.into_iter().map(|reference| &*reference.path).collect();
    let document = attached.document_for(object.id.kind, target, ports, refused)?.to_string();
    Some(Attachment { origin: Some(origin(object)), document, stands_for: None })
}

/// The SPIFFE identity of a service account.
fn identity(mesh: &Mesh, namespace: &str, service_account: &str) -> String {
    format!("spiffe://{}/ns/{namespace}/sa/{service_account}", mesh.trust_domain)
}
