//! Where objects of each kind are listed, for all who write paths.

use std::sync::LazyLock;

use selvedge_control_plane::source::kubernetes::watched;
use selvedge_inject::setting;
use serde_json::Value;

/// A kind that tests write or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `kind` of its objects.
    pub name: &'static str,
    /// `apiVersion` of its objects.
    pub api_version: &'static str,
    /// How paths call it.
    pub plural: String,
    /// Whether its objects are in namespaces.
    pub is_namespaced: bool,
    /// Whether `status` is written apart from the rest.
    pub has_status: bool,
}

const POLICY: &str = "admissionregistration.k8s.io/v1";
const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// Kinds of Kubernetes itself: name, API, in namespaces, status apart.
const BUILT_IN: [(&str, &str, bool, bool); 22] = [
    ("Pod", "v1", true, true),
    ("Node", "v1", false, true),
    ("Service", "v1", true, true),
    ("ConfigMap", "v1", true, false),
    ("Secret", "v1", true, false),
    ("ServiceAccount", "v1", true, false),
    ("Event", "v1", true, false),
    ("EndpointSlice", "discovery.k8s.io/v1", true, false),
    ("Lease", "coordination.k8s.io/v1", true, false),
    ("Deployment", "apps/v1", true, true),
    ("DaemonSet", "apps/v1", true, true),
    ("MutatingWebhookConfiguration", POLICY, false, false),
    ("MutatingAdmissionPolicyBinding", POLICY, false, false),
    ("MutatingAdmissionPolicy", POLICY, false, false),
    ("ValidatingAdmissionPolicyBinding", POLICY, false, false),
    ("ValidatingAdmissionPolicy", POLICY, false, true),
    ("ClusterRoleBinding", RBAC, false, false),
    ("ClusterRole", RBAC, false, false),
    ("RoleBinding", RBAC, true, false),
    ("Role", RBAC, true, false),
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1", false, true),
    // Last: what is in it goes first.
    ("Namespace", "v1", false, true),
];

static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let made = |(name, api_version, is_namespaced, has_status)| Kind {
        name,
        api_version,
        plural: plural(name),
        is_namespaced,
        has_status,
    };
    let is_built_in = |name: &str| BUILT_IN.iter().any(|(built_in, ..)| *built_in == name);
    let of_users = watched().into_iter().filter(|watched| !is_built_in(watched.api.kind));
    let of_users = of_users.map(|watched| (watched.api.kind, watched.api.api_version, true, true));
    let of_mesh = (setting::KIND, setting::API_VERSION, true, true);
    of_users.chain([of_mesh]).chain(BUILT_IN).map(made).collect()
});

impl Kind {
    /// Where everything of it is listed.
    pub fn path(&self) -> String {
        let root = if self.api_version.contains('/') { "apis" } else { "api" };
        format!("/{root}/{}/{}", self.api_version, self.plural)
    }

    /// Where everything of it in a namespace is.
    pub fn path_in(&self, namespace: &str) -> String {
        let path = self.path();
        match path.rsplit_once('/') {
            Some((api, plural)) if self.is_namespaced => format!("{api}/namespaces/{namespace}/{plural}"),
            _ => path,
        }
    }

    /// True for the kinds that a cluster knows by a CustomResourceDefinition only.
    pub(super) fn is_custom(&self) -> bool {
        !BUILT_IN.iter().any(|(name, ..)| *name == self.name)
    }
}

/// Every kind, those in front that others are about.
pub(super) fn all() -> &'static [Kind] {
    &KINDS
}

/// The kind of that name.
///
/// # Panics
/// When no test has used it yet: give it a line above.
pub fn kind(name: &str) -> &'static Kind {
    KINDS
        .iter()
        .find(|kind| kind.name == name)
        .unwrap_or_else(|| panic!("no kind {name} in tests/src/api_server/kinds.rs"))
}

/// The kind of an object.
pub(super) fn of(object: &Value) -> &'static Kind {
    kind(object["kind"].as_str().expect("an object that says its kind"))
}

/// The kind that is listed at `path`.
pub(super) fn at(path: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.path() == path)
}

fn plural(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    }
}
