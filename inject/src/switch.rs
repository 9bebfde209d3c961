//! Into which pods a sidecar is put: the labels, and what is left alone whatever they say.

use serde_json::{Value, json};

use crate::{
    pod::{self, Namespace},
    setting::NAMESPACE,
};

/// The label on a namespace or a pod.
pub const LABEL: &str = "selvedge.dev/inject";
/// The value of [`LABEL`] that asks for a sidecar.
pub const ENABLED: &str = "enabled";
/// The value of [`LABEL`] that asks for none.
pub const DISABLED: &str = "disabled";
/// Name of the sidecar's container.
pub const SIDECAR: &str = "selvedge-proxy";
/// Namespaces that no sidecar is put into.
pub const SYSTEM_NAMESPACES: [&str; 2] = ["kube-system", NAMESPACE];

/// Why a pod gets no sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// Its namespace is one of [`SYSTEM_NAMESPACES`].
    SystemNamespace(String),
    /// Its label says so.
    Disabled,
    /// Neither its label nor that of its namespace asks for one.
    NotEnabled,
    /// It is left alone by a [`Condition`], which says why.
    LeftAlone(&'static str),
    /// It should have one, and a setting is absent or wrong; the pod is refused.
    NotReady(String),
}

/// What leaves a pod alone that should have a sidecar.
#[derive(Debug)]
pub struct Condition {
    /// Name among the match conditions.
    pub name: &'static str,
    /// Whether a pod may have a sidecar.
    pub allows: fn(&Value) -> bool,
    /// The expression in CEL that holds of the same pods.
    pub cel: &'static str,
    /// Why not, for people.
    pub why: &'static str,
    /// Whether this is said to whoever writes the pod.
    pub is_told: bool,
}

/// What has a sidecar already, which is no reason to complain.
pub const NOT_INJECTED: Condition = Condition {
    name: "not-injected",
    allows: |pod| !pod::containers(pod).any(|container| pod::text(container, "/name") == SIDECAR),
    cel: "!(object.spec[?'containers'].orValue(dyn([])) + object.spec[?'initContainers'].orValue(dyn([]))).exists(c, c[?'name'].orValue('') == 'selvedge-proxy')",
    why: "it has a container selvedge-proxy already",
    is_told: false,
};

/// Every condition; all have to hold.
pub const CONDITIONS: [&Condition; 4] = [
    &Condition {
        name: "not-host-network",
        allows: |pod| pod.pointer("/spec/hostNetwork") != Some(&Value::Bool(true)),
        cel: "!object.spec[?'hostNetwork'].orValue(false)",
        why: "it has hostNetwork: true, where the sidecar would stand before the whole node",
        is_told: true,
    },
    &Condition {
        name: "not-windows",
        allows: |pod| {
            pod::text(pod, "/spec/os/name") != "windows"
                && pod::text(pod, "/spec/nodeSelector/kubernetes.io~1os") != "windows"
        },
        cel: "object.spec[?'os'][?'name'].orValue('') != 'windows' \
              && object.spec[?'nodeSelector'][?'kubernetes.io/os'].orValue('') != 'windows'",
        why: "it is for nodes of Windows, where the sidecar does not run",
        is_told: true,
    },
    &Condition {
        name: "not-mirror",
        allows: |pod| pod::annotation(pod, "kubernetes.io/config.mirror").is_empty(),
        cel: "object.metadata[?'annotations'][?'kubernetes.io/config.mirror'].orValue('') == ''",
        why: "it mirrors a static pod, which the API server cannot change",
        // A kubelet writes it, which reads nothing.
        is_told: false,
    },
    &NOT_INJECTED,
];

/// Whether a pod gets a sidecar; `Ok(false)` for one that has it.
///
/// # Errors
/// Why it gets none.
pub fn decide(pod: &Value, namespace: &Namespace) -> Result<bool, WhyNot> {
    if SYSTEM_NAMESPACES.contains(&namespace.name.as_str()) {
        return Err(WhyNot::SystemNamespace(namespace.name.clone()));
    }
    match pod::label(pod, LABEL) {
        Some(ENABLED) => {}
        Some(DISABLED) => return Err(WhyNot::Disabled),
        _ if namespace.labels.get(LABEL).and_then(Value::as_str) == Some(ENABLED) => {}
        _ => return Err(WhyNot::NotEnabled),
    }
    match CONDITIONS.iter().find(|condition| !(condition.allows)(pod)) {
        None => Ok(true),
        Some(condition) if condition.name == NOT_INJECTED.name => Ok(false),
        Some(condition) => Err(WhyNot::LeftAlone(condition.why)),
    }
}

/// One of the two ways to be chosen, which never hold both: selectors of an admission binding or webhook.
#[derive(Debug)]
pub struct Selectors {
    /// What tells the two apart in a name.
    pub suffix: &'static str,
    /// The `namespaceSelector`: labels that the namespace must have.
    pub namespaces: Value,
    /// The `objectSelector`: labels that the pod must have.
    pub pods: Value,
}

/// Pods of enabled namespaces that are not disabled, and enabled pods of all others.
pub fn selectors() -> [Selectors; 2] {
    let is = |values: &[&str]| json!({ "key": LABEL, "operator": "In", "values": values });
    let is_not = |values: &[&str]| json!({ "key": LABEL, "operator": "NotIn", "values": values });
    let outside = json!({ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": SYSTEM_NAMESPACES });
    [
        Selectors {
            suffix: "namespaces",
            namespaces: json!({ "matchExpressions": [is(&[ENABLED]), outside] }),
            pods: json!({ "matchExpressions": [is_not(&[DISABLED])] }),
        },
        Selectors {
            suffix: "pods",
            namespaces: json!({ "matchExpressions": [is_not(&[ENABLED]), outside] }),
            pods: json!({ "matchExpressions": [is(&[ENABLED])] }),
        },
    ]
}

/// The conditions as `matchConditions` of an admission policy or webhook.
pub fn match_conditions() -> Value {
    CONDITIONS.iter().map(|condition| json!({ "name": condition.name, "expression": condition.cel })).collect()
}

impl WhyNot {
    /// Whether the pod must not start: it should have a sidecar and cannot get one.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::NotReady(_))
    }
}

impl std::fmt::Display for WhyNot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SystemNamespace(name) => write!(f, "no sidecar is put into the namespace {name}"),
            Self::Disabled => write!(f, "its label {LABEL} is {DISABLED}"),
            Self::NotEnabled => {
                write!(f, "neither it nor its namespace has the label {LABEL}: {ENABLED}")
            }
            Self::LeftAlone(why) => f.write_str(why),
            Self::NotReady(why) => f.write_str(why),
        }
    }
}
