//! `ReferenceGrant`: objects of other namespaces that may refer to objects of this one (Gateway API, GEP-709).

use schemars::JsonSchema;
use selvedge_policies::kind::{self, Kind, Problem};
use serde::{Deserialize, Serialize};

use super::{ObjectId, label_problem, service};

/// What the kind `ReferenceGrant` says of itself.
pub const KIND: Kind = Kind {
    name: "ReferenceGrant",
    api_version: kind::GATEWAY,
    summary: "Lets routes of other namespaces send requests to services of this one.",
    schema: || schemars::schema_for!(ReferenceGrantSpec),
    check: |document| kind::check(document, check),
    close: kind::as_written,
};

/// `spec` of a `ReferenceGrant` (Gateway API v1 and v1beta1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReferenceGrantSpec {
    /// Who may refer: whatever one of them names.
    pub from: Vec<GrantedFrom>,
    /// To what: whatever one of them names, in the namespace of the grant.
    pub to: Vec<GrantedTo>,
}

/// Objects of one kind and namespace that may refer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantedFrom {
    /// The group of the kind, such as `gateway.networking.k8s.io`.
    pub group: String,
    /// The kind of the object that refers, such as `HTTPRoute`.
    pub kind: String,
    /// The namespace it is in.
    pub namespace: String,
}

/// Objects that may be referred to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantedTo {
    /// The group of the kind; empty for that of a `Service`.
    pub group: String,
    /// The kind, such as `Service`.
    pub kind: String,
    /// The one object of that name; every object of the kind when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ReferenceGrantSpec {
    /// Whether it lets the object `from`, of a kind of this group, send requests to the service of this name.
    pub fn opens(&self, from: &ObjectId, group: &str, service: &str) -> bool {
        let may_refer =
            |of: &GrantedFrom| of.group == group && of.kind == from.kind && *of.namespace == *from.namespace;
        let may_be_referred_to = |to: &GrantedTo| {
            matches!(&*to.group, "" | "core")
                && to.kind == service::KIND.name
                && to.name.as_deref().is_none_or(|name| matches!(name, "") || name == service)
        };
        self.from.iter().any(may_refer) && self.to.iter().any(may_be_referred_to)
    }
}

/// The grant to write so that `from`, of a kind of this group, may send requests to the service: one line of YAML.
pub fn wanted(from: &ObjectId, group: &str, namespace: &str, service: &str) -> String {
    format!(
        "{{apiVersion: {}, kind: {}, metadata: {{name: {}-to-{service}, namespace: {namespace}}}, spec: {{from: [{{group: \
         {group}, kind: {}, namespace: {}}}], to: [{{group: \"\", kind: {}, name: {service}}}]}}}}",
        KIND.api_version,
        KIND.name,
        from.namespace,
        from.kind,
        from.namespace,
        service::KIND.name
    )
}

fn check(spec: &ReferenceGrantSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (field, is_empty) in [("from", spec.from.is_empty()), ("to", spec.to.is_empty())] {
        if is_empty {
            problems.push(Problem::new(field, "a grant without any grants nothing: expected at least one"));
        }
    }
    for (n, from) in spec.from.iter().enumerate() {
        problems.extend(label_problem(&from.namespace).map(|why| Problem::new(format!("from[{n}].namespace"), why)));
    }
    problems
}
