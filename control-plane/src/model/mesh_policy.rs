//! `MeshPolicy`: how strict the mesh, a namespace or one workload is.

use schemars::JsonSchema;
use selvedge_policies::{
    kind::{self, Kind, Problem},
    policy::Posture,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The kind `MeshPolicy`.
pub const KIND: Kind = Kind {
    name: "MeshPolicy",
    api_version: kind::SELVEDGE,
    summary: "mTLS modes, default posture and access log of the mesh, a namespace or a workload.",
    schema: || schemars::schema_for!(MeshPolicySpec),
    check: |document| kind::check(document, check),
    close: kind::as_written,
};

/// `spec` of a `MeshPolicy`. Of several that cover a workload the most specific decides, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshPolicySpec {
    /// What it covers; its namespace when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<ScopeRef>,
    /// Which calls need mTLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
    /// What happens to a request that no ALLOW rule names; `allow` when nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_posture: Option<Posture>,
    /// Which requests are logged; `errors` when nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
}

/// What a `MeshPolicy` covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScopeRef {
    /// How much.
    pub kind: ScopeKind,
    /// Name of the workload; absent for the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What a `MeshPolicy` may cover beside its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScopeKind {
    /// Every workload.
    Mesh,
    /// One workload of the namespace.
    Workload,
}

/// Which calls need mTLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mtls {
    /// Calls received; `STRICT` when nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound: Option<InboundMode>,
    /// Calls made; `REQUIRE` when nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<OutboundMode>,
}

/// TLS mode for calls received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum InboundMode {
    /// Only mTLS.
    #[default]
    Strict,
    /// Plaintext too.
    Permissive,
}

/// TLS mode for calls made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum OutboundMode {
    /// Only to destinations of the mesh.
    #[default]
    Require,
    /// To others in plaintext.
    Prefer,
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// Errors and denials.
    #[default]
    Errors,
    /// None.
    Off,
    /// Every one.
    All,
}

/// What holds for one workload after all its `MeshPolicy` objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// TLS mode for calls received.
    pub inbound: InboundMode,
    /// TLS mode for calls made.
    pub outbound: OutboundMode,
    /// Default posture.
    pub posture: Posture,
    /// Which requests are logged.
    pub access_log: AccessLog,
}

impl Effective {
    /// Takes each field from the first policy that has it; `policies` come most specific first.
    pub fn of<'a>(policies: impl Iterator<Item = &'a MeshPolicySpec> + Clone) -> Self {
        let mtls = policies.clone().filter_map(|policy| policy.mtls.as_ref());
        Self {
            inbound: mtls.clone().find_map(|mtls| mtls.inbound).unwrap_or_default(),
            outbound: mtls.clone().find_map(|mtls| mtls.outbound).unwrap_or_default(),
            posture: policies.clone().find_map(|policy| policy.default_posture).unwrap_or_default(),
            access_log: policies.clone().find_map(|policy| policy.access_log).unwrap_or_default(),
        }
    }
}

/// The namespace of those who run the mesh: what covers all of it is written here.
pub const ROOT_NAMESPACE: &str = "selvedge-system";

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

fn check(spec: &MeshPolicySpec) -> Vec<Problem> {
    let Some(target) = &spec.target_ref else { return Vec::new() };
    let problem = match (target.kind, &target.name) {
        (ScopeKind::Workload, None) => Problem::new("targetRef", "missing field 'name': expected that of a Workload"),
        (ScopeKind::Workload, Some(name)) => match super::label_problem(name) {
            Some(why) => Problem::new("targetRef.name", why),
            None => return Vec::new(),
        },
        (ScopeKind::Mesh, Some(_)) => {
            Problem::new("targetRef.name", "the mesh has no name: expected none with kind Mesh")
        }
        (ScopeKind::Mesh, None) => return Vec::new(),
    };
    vec![problem]
}
