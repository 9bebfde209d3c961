//! Where the pods are in an object: a Pod itself, the template of a workload, and the items of a list.

use serde_json::Value;

use crate::pod;

/// A pod, or the template of one, within an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// JSON pointer to what has the pod's `metadata` and `spec`; empty for a Pod.
    pub pointer: String,
    /// What it is of, for people: kind, namespace and name.
    pub of: String,
    /// The namespace that is written, which may be empty.
    pub namespace: String,
}

/// Kinds with pods, and where these are.
const KINDS: [(&str, &str); 9] = [
    ("Pod", ""),
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
    ("PodTemplate", "/template"),
];

/// Every pod and template in an object, in the order in which they stand.
///
/// ```
/// use selvedge_inject::template::templates;
/// use serde_json::json;
///
/// let found = templates(&json!({ "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "template": {} } }));
/// assert_eq!((found[0].pointer.as_str(), found[0].of.as_str()), ("/spec/template", "Deployment web"));
/// ```
pub fn templates(object: &Value) -> Vec<Template> {
    let kind = pod::text(object, "/kind");
    if kind.ends_with("List") {
        let items = pod::list(object, "/items").iter().enumerate();
        return items.flat_map(|(at, item)| below(&format!("/items/{at}"), templates(item))).collect();
    }
    let known = KINDS.iter().find(|(known, pointer)| *known == kind && object.pointer(pointer).is_some());
    let (namespace, name) = (pod::text(object, "/metadata/namespace"), pod::text(object, "/metadata/name"));
    let name = if name.is_empty() { pod::text(object, "/metadata/generateName") } else { name };
    let slash = if namespace.is_empty() { "" } else { "/" };
    let template = |(kind, pointer): &(&str, &str)| Template {
        pointer: (*pointer).to_owned(),
        of: format!("{kind} {namespace}{slash}{name}"),
        namespace: namespace.to_owned(),
    };
    known.map(template).into_iter().collect()
}

fn below(pointer: &str, mut templates: Vec<Template>) -> Vec<Template> {
    for template in &mut templates {
        template.pointer.insert_str(0, pointer);
    }
    templates
}
