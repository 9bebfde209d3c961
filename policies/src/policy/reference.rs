//! What a document refers to: the objects it is attached to, and the services it sends requests to.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    kind::{self, Problem},
    matching::{TargetKind, TargetRef},
    names,
};

/// An object, or all workloads of a namespace or of the mesh.
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
    /// Every workload of the mesh, with the namespace in which alone that can be said.
    Mesh(Arc<str>),
}

impl Target {
    /// The namespace that it is in.
    ///
    /// ```
    /// use selvedge_policies::policy::Target;
    ///
    /// let web = Target::Service("shop".into(), "web".into());
    /// assert_eq!(web.namespace(), Target::Namespace("shop".into()).namespace());
    /// ```
    pub const fn namespace(&self) -> &Arc<str> {
        match self {
            Self::Service(namespace, _)
            | Self::ExternalService(namespace, _)
            | Self::Workload(namespace, _)
            | Self::Namespace(namespace)
            | Self::Mesh(namespace) => namespace,
        }
    }
}

/// Why a document names an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is attached to it.
    AttachedTo,
    /// It sends requests there, so whoever enforces it needs the endpoints.
    SendsTo,
}

/// A reference from a document to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What is referred to.
    pub to: Target,
    /// Its port, when one is named.
    pub port: Option<u16>,
    /// The name of the port, when it is named; of a port that is named in both ways both must be right.
    pub section: Option<Arc<str>>,
    /// The field that refers, inside `spec`.
    pub path: String,
    /// What the document wants of what it refers to.
    pub relation: Relation,
}

/// A document and everything it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// In the order of the document.
    pub references: Vec<Reference>,
    /// Only this port of what it is attached to; every port when absent.
    pub port: Option<u16>,
    /// What of it cannot be done, and is not done in silence; the rest is sound.
    pub warnings: Vec<Problem>,
    /// `spec` with every namespace filled in, as it travels.
    pub document: Value,
}

/// What all objects together tell of a document at one of its targets.
#[derive(Clone, Debug)]
pub struct Resolved<'a> {
    /// Whom it travels to: those whom this target concerns.
    pub target: &'a Target,
    /// The ports of the target that it is for; every port when absent.
    pub ports: Option<Vec<u16>>,
    /// The fields of those references ([`Reference::path`]) that must not be followed.
    pub refused: Vec<&'a str>,
}

/// The form in which a document travels, once that is known.
pub type Resolve = fn(&Value, &Resolved<'_>) -> Value;

impl Bound {
    /// What the document is attached to, each once and in order.
    ///
    /// ```
    /// use selvedge_policies::registry;
    /// use serde_json::json;
    ///
    /// let of = |port: u16| json!({ "kind": "Service", "name": "web", "port": port });
    /// let spec = json!({ "parentRefs": [of(80), of(81)] });
    /// let bound = (registry::find("HTTPRoute").unwrap().bind)(&spec, "shop").unwrap();
    /// assert_eq!((bound.references.len(), bound.targets().len()), (2, 1), "each once");
    /// ```
    pub fn targets(&self) -> Vec<Target> {
        let attached = self.references.iter().filter(|reference| reference.relation == Relation::AttachedTo);
        let mut targets: Vec<Target> = attached.map(|reference| reference.to.clone()).collect();
        targets.sort();
        targets.dedup();
        targets
    }
}

/// Binds a document that has `targetRef`, or without one covers its namespace, and refers to nothing else.
///
/// # Errors
/// `targetRef` cannot be read.
///
/// ```
/// use selvedge_policies::policy::{Target, bind_target};
/// use serde_json::json;
///
/// let spec = json!({ "targetRef": { "kind": "Service", "name": "web", "port": 80 } });
/// let bound = bind_target(&spec, "shop").unwrap();
/// assert_eq!((bound.targets(), bound.port), (vec![Target::Service("shop".into(), "web".into())], Some(80)));
/// let mesh = json!({ "targetRef": { "kind": "Mesh" } });
/// assert_eq!(bind_target(&mesh, "selvedge-system").unwrap().document, json!({}), "sidecars need not know it");
/// assert!(bind_target(&mesh, "shop").is_err());
/// assert_eq!(bind_target(&json!({}), "shop").unwrap().targets(), [Target::Namespace("shop".into())]);
/// ```
pub fn bind_target(document: &Value, namespace: &str) -> Result<Bound, Vec<Problem>> {
    let under = |problems: Vec<Problem>| {
        problems.into_iter().map(|problem| Problem::new("targetRef", problem.message)).collect::<Vec<_>>()
    };
    let target: Option<TargetRef> = document.get("targetRef").map(kind::parse).transpose().map_err(under)?;
    let namespace: Arc<str> = namespace.into();
    let port = target.as_ref().and_then(|target| target.port);
    let to = match target {
        None => Target::Namespace(namespace),
        Some(TargetRef { kind, name, .. }) => match kind {
            TargetKind::Service => Target::Service(namespace, name.into()),
            TargetKind::ExternalService => Target::ExternalService(namespace, name.into()),
            TargetKind::Workload => Target::Workload(namespace, name.into()),
            TargetKind::Mesh if *namespace != *names::ROOT_NAMESPACE => {
                let why = format!(
                    "a policy of namespace '{namespace}' cannot cover the whole mesh: expected namespace {}, or no \
                     targetRef",
                    names::ROOT_NAMESPACE
                );
                return Err(vec![Problem::new("targetRef.kind", why)]);
            }
            TargetKind::Mesh => Target::Mesh(namespace),
        },
    };
    let (path, relation) = ("targetRef".to_owned(), Relation::AttachedTo);
    let references = vec![Reference { to, port, section: None, path, relation }];
    let mut document = document.clone();
    if let ([Reference { to: Target::Mesh(_), .. }], Some(fields)) = (&*references, document.as_object_mut()) {
        // Sidecars of earlier releases do not know the word, and need none: they are told what covers their workload.
        fields.remove("targetRef");
    }
    Ok(Bound { references, port, warnings: Vec::new(), document })
}
