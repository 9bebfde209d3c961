//! `defaultPosture`: what happens to a request that no ALLOW rule names.

use serde::Deserialize;

use super::{Effect, Setting};
use crate::{merge::Strictness, policy::Posture};

pub(super) const SETTING: Setting = Setting {
    field: "defaultPosture",
    schema: |generator| generator.subschema_for::<Option<Posture>>(),
    check: |_| Vec::new(),
    strict: &[("defaultPosture", Strictness::Words(&["deny", "audit", "allow"]))],
    effect: Effect::Chooses(|value, modes| {
        modes.posture = Posture::deserialize(value)?;
        Ok(())
    }),
    in_pods: None,
};
