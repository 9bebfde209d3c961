//! `accessLog`: which requests are logged.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Effect, Log, Setting};

pub(super) const SETTING: Setting = Setting {
    field: "accessLog",
    schema: |generator| generator.subschema_for::<Option<AccessLog>>(),
    check: |_| Vec::new(),
    strict: &[],
    effect: Effect::Chooses(|value, modes| {
        modes.log = match AccessLog::deserialize(value)? {
            AccessLog::Errors => Log::Errors,
            AccessLog::Off => Log::Off,
            AccessLog::All => Log::All,
        };
        Ok(())
    }),
    in_pods: None,
};

/// Which requests are logged.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum AccessLog {
    /// Requests and connections that failed, or that the mesh refused or would have refused.
    Errors,
    /// No request and no connection.
    Off,
    /// Every request and every opaque connection.
    All,
}
