//! `mtls`: which calls need mTLS.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{Effect, Setting};
use crate::merge::Strictness;

pub(super) const SETTING: Setting = Setting {
    field: "mtls",
    schema: |generator| generator.subschema_for::<Option<Mtls>>(),
    check: |_| Vec::new(),
    strict: &[
        ("mtls.inbound", Strictness::Words(&["STRICT", "PERMISSIVE"])),
        ("mtls.outbound", Strictness::Words(&["REQUIRE", "PREFER"])),
    ],
    effect: Effect::Chooses(|value, modes| {
        let Mtls { inbound, outbound } = Mtls::deserialize(value)?;
        modes.permissive = inbound == Some(InboundMode::Permissive);
        modes.passthrough = outbound == Some(OutboundMode::Prefer);
        Ok(())
    }),
    in_pods: Some(|| json!({ "inbound": "PERMISSIVE", "outbound": "PREFER" })),
};

/// Which calls need mTLS.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mtls {
    /// Calls received; when nobody says `STRICT`, and `PERMISSIVE` in a pod.
    #[serde(default)]
    inbound: Option<InboundMode>,
    /// Calls made; when nobody says `REQUIRE`, and `PREFER` in a pod.
    #[serde(default)]
    outbound: Option<OutboundMode>,
}

/// TLS mode for calls received.
#[derive(PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum InboundMode {
    /// Callers without mTLS are refused.
    Strict,
    /// Callers without mTLS are let in too, and have no identity.
    Permissive,
}

/// TLS mode for calls made.
#[derive(PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum OutboundMode {
    /// Only to destinations of the mesh.
    Require,
    /// To others in plaintext.
    Prefer,
}
