//! What the control plane may do in a cluster: one list, of which roles are made and which the docs show.

use std::collections::BTreeMap;

use selvedge_control_plane::{model, source::kubernetes};
use selvedge_inject::{policy::webhook, setting};
use selvedge_policies::kind::Kind;
use serde_json::{Value, json};

use crate::{
    object::{NAME, NAMESPACE, RBAC, namespaced, object},
    version::Injector,
};

/// One right: these verbs on these resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The API group; empty for that of Kubernetes' core.
    pub group: String,
    /// What of it may be touched, by the names in paths.
    pub resources: Vec<String>,
    /// What may be done.
    pub verbs: Vec<&'static str>,
    /// The one object that is meant; every object when absent.
    pub name: Option<&'static str>,
    /// True where it holds in every namespace; else in that of the control plane alone.
    pub is_everywhere: bool,
    /// What it is for.
    pub reason: &'static str,
}

/// Every right of the control plane where this injects.
pub fn all(injector: Injector) -> Vec<Right> {
    let mut watched: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kubernetes::Watched { api, .. } in kubernetes::watched() {
        // What no user writes for the mesh is of the core: pods and namespaces.
        let group = model::kinds().find(|kind| kind.name == api.kind).map_or("", Kind::group);
        watched.entry(group.to_owned()).or_default().push(kubernetes::plural(api.kind));
    }
    let watching = watched.into_iter().map(|(group, mut resources)| {
        resources.sort_unstable();
        let reason = "the configuration of the mesh, and where its workloads are";
        Right { group, resources, verbs: vec!["list", "watch"], name: None, is_everywhere: true, reason }
    });
    let injecting = if injector == Injector::Webhook { &INJECTING[..] } else { &[] };
    watching.chain(OWN.iter().chain(injecting).map(Own::right)).collect()
}

/// A right on one resource.
struct Own {
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    name: Option<&'static str>,
    is_everywhere: bool,
    reason: &'static str,
}

/// Rights to do something.
const OWN: [Own; 5] = [
    Own {
        group: "authentication.k8s.io",
        resource: "tokenreviews",
        verbs: &["create"],
        name: None,
        is_everywhere: true,
        reason: "which pod a sidecar is in, by the token it shows",
    },
    Own {
        group: "",
        resource: "secrets",
        verbs: &["create"],
        name: None,
        is_everywhere: false,
        reason: "the key of the authority, made once",
    },
    Own {
        group: "",
        resource: "secrets",
        verbs: &["get", "update"],
        name: Some("selvedge-ca"),
        is_everywhere: false,
        reason: "the key of the authority, and its next one in a rotation",
    },
    Own {
        group: setting::GROUP,
        resource: "injectionconfigs",
        // `create` can be bound to the name, for it is made by server-side apply.
        verbs: &["create", "get", "patch"],
        name: Some(setting::NAME),
        is_everywhere: false,
        reason: "the settings of sidecars and the trust bundle, which pods get",
    },
    Own {
        group: "",
        resource: "events",
        verbs: &["create"],
        name: None,
        is_everywhere: true,
        reason: "pods without a sidecar, annotations that nobody reads, and what befalls the authority, for `kubectl get events`",
    },
];

/// Rights of the one that injects.
const INJECTING: [Own; 2] = [
    Own {
        group: "",
        resource: "namespaces",
        verbs: &["get"],
        name: None,
        is_everywhere: true,
        reason: "whether the namespace of a new pod is to have sidecars; only below Kubernetes 1.36",
    },
    Own {
        group: "admissionregistration.k8s.io",
        resource: "mutatingwebhookconfigurations",
        verbs: &["get", "patch"],
        name: Some(webhook::NAME),
        is_everywhere: true,
        reason: "how the API server knows the webhook; only below Kubernetes 1.36",
    },
];

impl Own {
    fn right(&self) -> Right {
        Right {
            group: self.group.to_owned(),
            resources: vec![self.resource.to_owned()],
            verbs: self.verbs.to_vec(),
            name: self.name,
            is_everywhere: self.is_everywhere,
            reason: self.reason,
        }
    }
}

impl Right {
    fn rule(&self) -> Value {
        let mut rule = json!({ "apiGroups": [self.group], "resources": self.resources, "verbs": self.verbs });
        if let Some(name) = self.name {
            rule["resourceNames"] = json!([name]);
        }
        rule
    }
}

/// The roles, and who has them.
pub(crate) fn objects(injector: Injector) -> Vec<Value> {
    let rules = |is_everywhere: bool| -> Vec<Value> {
        all(injector).iter().filter(|right| right.is_everywhere == is_everywhere).map(Right::rule).collect()
    };
    let subjects = json!([{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }]);
    let bound = |kind: &str| {
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME });
        json!({ "roleRef": role, "subjects": subjects })
    };
    vec![
        namespaced("v1", "ServiceAccount", NAME, json!({})),
        object(RBAC, "ClusterRole", NAME, json!({ "rules": rules(true) })),
        object(RBAC, "ClusterRoleBinding", NAME, bound("ClusterRole")),
        namespaced(RBAC, "Role", NAME, json!({ "rules": rules(false) })),
        namespaced(RBAC, "RoleBinding", NAME, bound("Role")),
    ]
}
