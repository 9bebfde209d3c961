//! Objects of the mesh's own in a cluster: names that all share, and labels by which they are found.

use selvedge_control_plane::model::mesh_policy::ROOT_NAMESPACE;
use serde_json::{Value, json};

/// The namespace of all that runs the mesh.
pub const NAMESPACE: &str = ROOT_NAMESPACE;
/// The name of the control plane and of all that belongs to it.
pub(crate) const NAME: &str = "selvedge";
/// Group and version of roles.
pub(crate) const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// An object that belongs to no namespace, with these fields beside its metadata.
pub(crate) fn object(api_version: &str, kind: &str, name: &str, fields: Value) -> Value {
    labelled(fields, api_version, kind, json!({ "name": name }))
}

/// An object in the mesh's namespace, with these fields beside its metadata.
pub(crate) fn namespaced(api_version: &str, kind: &str, name: &str, fields: Value) -> Value {
    labelled(fields, api_version, kind, json!({ "name": name, "namespace": NAMESPACE }))
}

fn labelled(mut fields: Value, api_version: &str, kind: &str, metadata: Value) -> Value {
    fields["apiVersion"] = api_version.into();
    fields["kind"] = kind.into();
    fields["metadata"] = metadata;
    marked(fields)
}

/// The object with the label that says what it is part of.
pub(crate) fn marked(mut object: Value) -> Value {
    object["metadata"]["labels"]["app.kubernetes.io/part-of"] = "selvedge".into();
    object
}
