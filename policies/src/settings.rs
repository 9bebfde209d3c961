//! The settings of a `MeshPolicy`: the list of them, and what they come to for one workload.
//!
//! Whoever adds a setting adds its file and its entry in [`SETTINGS`]. A setting chooses among the [`Modes`] that the
//! sidecar has, or decides on requests as a policy does. Nobody else knows it by name.

use std::{collections::BTreeMap, sync::Arc};

use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    kind::Problem,
    policy::{Posture, RequestPolicy},
};

mod access_log;
mod default_posture;
mod mtls;

/// The list: every setting.
pub const SETTINGS: &[&Setting] = &[&mtls::SETTING, &default_posture::SETTING, &access_log::SETTING];

/// What a setting says of itself.
pub struct Setting {
    /// Its field in `spec`.
    pub field: &'static str,
    /// The schema of its value; of a value of several fields each is set by itself.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// What is wrong with a value that has the structure of the schema, with paths inside it.
    pub check: fn(&Value) -> Vec<Problem>,
    /// What becomes of its value at a sidecar.
    pub effect: Effect,
}

/// What a setting does.
#[derive(Clone, Copy)]
pub enum Effect {
    /// It chooses how the sidecar works.
    Chooses(fn(&Value, &mut Modes) -> Result<(), serde_json::Error>),
    /// It decides on calls received, after all policies; also where nobody sets it, when that is a decision.
    Decides(fn(Option<&Value>) -> Option<Arc<dyn RequestPolicy>>),
}

/// How a sidecar works. The default is what holds when nobody says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// True when callers without mTLS are let in.
    pub permissive: bool,
    /// True when calls to destinations outside the mesh pass through in plaintext.
    pub passthrough: bool,
    /// What happens to a request that no ALLOW rule names.
    pub posture: Posture,
    /// Which requests and connections have a line in the access log.
    pub log: Log,
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Log {
    /// Those that failed, or that the mesh refused or would have refused.
    #[default]
    Errors,
    /// No request and no connection.
    Off,
    /// Every request and every opaque connection.
    All,
}

/// Settings as they are written, by field; of one object, or of all that cover a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings(BTreeMap<String, Value>);

impl Settings {
    /// Takes from `wider` what is not set here, field by field.
    pub fn fill(&mut self, wider: &Self) {
        for (field, value) in &wider.0 {
            fill(self.0.entry(field.clone()).or_default(), value);
        }
    }

    /// What is wrong with them.
    pub fn problems(&self) -> Vec<Problem> {
        let set = SETTINGS.iter().filter_map(|setting| Some((setting, self.get(setting)?)));
        let problems = set.flat_map(|(setting, value)| {
            let within =
                |problem: Problem| Problem::new(format!("{}.{}", setting.field, problem.path), problem.message);
            (setting.check)(value).into_iter().map(within)
        });
        problems.collect()
    }

    /// How the sidecar works by them. A value that cannot be read, which no check has let pass, chooses nothing.
    pub fn modes(&self) -> Modes {
        let mut modes = Modes::default();
        for setting in SETTINGS {
            if let (Effect::Chooses(choose), Some(value)) = (setting.effect, self.get(setting)) {
                let mut chosen = modes;
                if choose(value, &mut chosen).is_ok() {
                    modes = chosen;
                }
            }
        }
        modes
    }

    /// What decides on calls received by them.
    pub fn policies(&self) -> impl Iterator<Item = Arc<dyn RequestPolicy>> + '_ {
        SETTINGS.iter().filter_map(|setting| match setting.effect {
            Effect::Decides(compile) => compile(self.get(setting)),
            Effect::Chooses(_) => None,
        })
    }

    fn get(&self, setting: &Setting) -> Option<&Value> {
        self.0.get(setting.field).filter(|value| !value.is_null())
    }
}

/// The schema of every setting by its field.
pub fn schemas(generator: &mut SchemaGenerator) -> Map<String, Value> {
    SETTINGS.iter().map(|setting| (setting.field.to_owned(), (setting.schema)(generator).into())).collect()
}

fn fill(value: &mut Value, wider: &Value) {
    match (value, wider) {
        (Value::Object(fields), Value::Object(wider)) => {
            wider.iter().for_each(|(name, wider)| fill(fields.entry(name.clone()).or_insert(Value::Null), wider));
        }
        (value @ Value::Null, wider) => *value = wider.clone(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> Settings {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn each_field_is_set_by_the_most_specific_that_has_it() {
        let mut own = settings(json!({ "mtls": { "outbound": "PREFER" }, "accessLog": null }));
        own.fill(&settings(json!({ "mtls": { "outbound": "REQUIRE", "inbound": "PERMISSIVE" }, "accessLog": "all" })));
        own.fill(&settings(json!({ "defaultPosture": "deny", "accessLog": "off" })));
        let expected = Modes { permissive: true, passthrough: true, posture: Posture::Deny, log: Log::All };
        assert_eq!(own.modes(), expected);
        assert_eq!(Settings::default().modes(), Modes::default());
    }

    #[test]
    fn what_cannot_be_read_opens_nothing() {
        let odd = settings(json!({ "mtls": { "inbound": "OPEN", "outbound": "PREFER" }, "defaultPosture": 7 }));
        assert_eq!(odd.modes(), Modes::default());
    }
}
