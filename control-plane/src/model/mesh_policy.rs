//! `MeshPolicy`: how strict the mesh, a namespace, the workloads of a service or one workload is.

use std::{borrow::Cow, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use selvedge_policies::{
    kind::{self, Kind, Problem},
    settings::{self, Settings},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Target;

/// What the kind `MeshPolicy` says of itself.
pub const KIND: Kind = Kind {
    name: settings::KIND,
    api_version: kind::SELVEDGE,
    summary: "mTLS modes, default posture, access log, caller identity and ambiguous paths of the mesh or a part of it.",
    schema: || schemars::schema_for!(MeshPolicySpec),
    check: |document| blanks(document).unwrap_or_else(|| kind::check(document, check)),
    close: kind::as_written,
};

/// `spec` of a `MeshPolicy`. Of several that cover a workload the most specific decides, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshPolicySpec {
    /// What it covers; its namespace when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<ScopeRef>,
    /// What it says; the schema lets only settings of the list be.
    #[serde(flatten)]
    pub settings: Settings,
}

impl JsonSchema for MeshPolicySpec {
    fn schema_name() -> Cow<'static, str> {
        "MeshPolicySpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = settings::schemas(generator);
        properties.insert("targetRef".into(), generator.subschema_for::<Option<ScopeRef>>().into());
        json_schema!({ "type": "object", "properties": properties, "additionalProperties": false })
    }
}

/// What a `MeshPolicy` covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "self.kind == 'Mesh' ? !has(self.name) : has(self.name)",
          "message": "a Service and a Workload have a name, and the mesh has none" },
    ])
)]
pub struct ScopeRef {
    /// Whether it covers the whole mesh, the workloads of a service or one workload.
    pub kind: ScopeKind,
    /// Name of the service or workload; absent for the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What a `MeshPolicy` may cover beside its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScopeKind {
    /// Every workload of the mesh, whatever its namespace.
    Mesh,
    /// Every workload behind one service of the namespace.
    Service,
    /// One workload of the namespace.
    Workload,
}

impl ScopeRef {
    /// What of `namespace` it names; `None` for the mesh.
    pub(crate) fn target(&self, namespace: &Arc<str>) -> Option<Target> {
        let name = self.name.as_deref()?.into();
        match self.kind {
            ScopeKind::Mesh => None,
            ScopeKind::Service => Some(Target::Service(namespace.clone(), name)),
            ScopeKind::Workload => Some(Target::Workload(namespace.clone(), name)),
        }
    }
}

pub use selvedge_policies::names::ROOT_NAMESPACE;

/// Why a policy of `namespace` may not cover what it names, if so: who may write to one namespace does not decide for
/// the others.
fn scope_problem(spec: &MeshPolicySpec, namespace: &str) -> Option<Problem> {
    let wide = spec.target_ref.as_ref().is_some_and(|target| target.kind == ScopeKind::Mesh);
    (wide && namespace != ROOT_NAMESPACE).then(|| {
        let why = format!(
            "a policy of namespace '{namespace}' cannot cover the whole mesh: expected namespace {ROOT_NAMESPACE}, or \
             no targetRef"
        );
        Problem::new("targetRef.kind", why)
    })
}

/// Reads a document of `namespace`.
pub(super) fn read(document: &Value, namespace: &str) -> Result<MeshPolicySpec, Vec<Problem>> {
    let spec = kind::parse(document)?;
    match scope_problem(&spec, namespace) {
        Some(problem) => Err(vec![problem]),
        None => Ok(spec),
    }
}

/// What is written without a value, if anything. Read as if it were left out it would cover another part of the mesh or be
/// less strict than was meant, and nobody can know what that was: the object is refused.
fn blanks(document: &Value) -> Option<Vec<Problem>> {
    let mut problems = kind::take_nulls(&mut document.clone());
    let empty = |(field, value): (&String, &Value)| {
        let why = "{} says nothing, as when values get lost: write a field of it, or leave it out";
        value.as_object().is_some_and(|fields| fields.is_empty()).then(|| Problem::new(field, why))
    };
    problems.extend(document.as_object().into_iter().flatten().filter_map(empty));
    (!problems.is_empty()).then_some(problems)
}

fn check(spec: &MeshPolicySpec) -> Vec<Problem> {
    spec.target_ref.iter().filter_map(target_problem).chain(spec.settings.problems()).collect()
}

fn target_problem(target: &ScopeRef) -> Option<Problem> {
    match (target.kind, &target.name) {
        (ScopeKind::Service | ScopeKind::Workload, None) => {
            let why = format!("missing field 'name': expected that of a {:?}", target.kind);
            Some(Problem::new("targetRef", why))
        }
        (ScopeKind::Service | ScopeKind::Workload, Some(name)) => {
            kind::name_problem(name).map(|why| Problem::new("targetRef.name", why))
        }
        (ScopeKind::Mesh, Some(_)) => {
            Some(Problem::new("targetRef.name", "the mesh has no name: expected none with kind Mesh"))
        }
        (ScopeKind::Mesh, None) => None,
    }
}
