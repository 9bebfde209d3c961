//! The settings of a `MeshPolicy`: the list of them, and what they come to for one workload.
//!
//! Whoever adds a setting adds its file and its entry in [`SETTINGS`]. A setting chooses among the [`Modes`] that the
//! sidecar has, or decides on requests as a policy does. Nobody else knows it by name.

use std::{borrow::Cow, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    facts::Identity,
    kind::Problem,
    merge::{self, Merged, Precedence, Strictness},
    policy::{Posture, RequestPolicy},
};

mod access_log;
mod ambiguous_paths;
mod caller_identity;
mod default_posture;
mod mtls;

pub use ambiguous_paths::{AmbiguousPaths, Onward};

/// The kind of the objects in which they are written.
pub const KIND: &str = "MeshPolicy";

/// The list: every setting.
pub const SETTINGS: &[&Setting] = &[
    &mtls::SETTING,
    &default_posture::SETTING,
    &access_log::SETTING,
    &caller_identity::SETTING,
    &ambiguous_paths::SETTING,
];

/// What a setting says of itself.
pub struct Setting {
    /// Its field in `spec`.
    pub field: &'static str,
    /// The schema of its value; of a value of several fields each is set by itself.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// What is wrong with a value that has the structure of the schema, with paths inside it.
    pub check: fn(&Value) -> Vec<Problem>,
    /// Of its fields that have strict and lax values, the path in `spec` and which they are.
    pub strict: &'static [(&'static str, Strictness)],
    /// What becomes of its value at a sidecar.
    pub effect: Effect,
    /// What holds in a pod where nobody says, if that is not what holds elsewhere.
    pub in_pods: Option<fn() -> Value>,
}

/// What a setting does.
#[derive(Clone, Copy)]
pub enum Effect {
    /// It chooses how the sidecar works.
    Chooses(fn(&Value, &mut Modes) -> Result<(), serde_json::Error>),
    /// It decides on calls received, after all policies; also where nobody sets it, when that is a decision. It is told the
    /// identity of the workload that is called.
    Decides(Decide),
}

/// Makes of a setting, as it is written, what decides at the workload of this identity.
///
/// # Errors
/// The value cannot be read, which no check has let pass.
pub type Decide =
    fn(Option<&Value>, Option<&Arc<Identity>>) -> Result<Option<Arc<dyn RequestPolicy>>, serde_json::Error>;

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
    /// What becomes of paths that services read in different ways; what the policies of a port need, when nobody says.
    pub ambiguous_paths: Option<AmbiguousPaths>,
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
///
/// ```
/// use selvedge_policies::{merge::Precedence, policy::Posture, settings::Settings};
/// use serde_json::json;
///
/// let settings = |value| serde_json::from_value::<Settings>(value).unwrap();
/// let (mesh, shop) = (settings(json!({ "defaultPosture": "deny" })), settings(json!({ "mtls": { "inbound": "PERMISSIVE" } })));
/// let said = [(0, "shop", &shop), (1, "mesh", &mesh)];
/// let said = said.map(|(scope, name, said)| (Precedence::new(scope, None, "x".into(), name.into()), name, said));
/// let (all, merged) = Settings::merge(said);
/// assert!(all.modes().permissive && all.modes().posture == Posture::Deny);
/// assert_eq!((merged.from["defaultPosture"], all.problems().len()), ("mesh", 0));
/// assert!(all.policies(None).is_ok() && all.deciding().count() == 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings(Map<String, Value>);

impl JsonSchema for Settings {
    fn schema_name() -> Cow<'static, str> {
        "Settings".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "properties": schemas(generator), "additionalProperties": false })
    }
}

impl Settings {
    /// What several objects say together, each told by what its caller calls it.
    pub fn merge<'a, T: Clone>(said: impl IntoIterator<Item = (Precedence, T, &'a Self)>) -> (Self, Merged<T>) {
        let said = said.into_iter().map(|(precedence, name, settings)| (precedence, name, &settings.0));
        let merged = merge::merge(said, strictness);
        (Self(merged.value.clone()), merged)
    }

    /// What holds in a pod where nobody says: on its first day in the mesh nothing that it calls or is called by may break.
    ///
    /// ```
    /// use selvedge_policies::settings::Settings;
    ///
    /// let modes = Settings::of_pods().modes();
    /// assert!(modes.permissive && modes.passthrough);
    /// ```
    pub fn of_pods() -> Self {
        let said = |setting: &&Setting| Some((setting.field.to_owned(), setting.in_pods?()));
        Self(SETTINGS.iter().filter_map(said).collect())
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

    /// The fields that are set of those settings that decide on calls received, by path.
    pub fn deciding(&self) -> impl Iterator<Item = String> + use<> {
        let alone = Precedence::new(0, None, Arc::default(), Arc::default());
        let (_, merged) = Self::merge([(alone, (), self)]);
        merged.from.into_keys().filter(|field| {
            let decides = |setting: &&&Setting| matches!(setting.effect, Effect::Decides(_));
            SETTINGS.iter().filter(decides).any(|setting| field.split('.').next() == Some(setting.field))
        })
    }

    /// What decides by them on calls received by the workload of this identity.
    ///
    /// # Errors
    /// A value cannot be read. What it would have decided nobody knows, so nothing may be let pass without it.
    pub fn policies(&self, called: Option<&Arc<Identity>>) -> Result<Vec<Arc<dyn RequestPolicy>>, serde_json::Error> {
        let decides = SETTINGS.iter().filter_map(|setting| match setting.effect {
            Effect::Decides(compile) => compile(self.get(setting), called).transpose(),
            Effect::Chooses(_) => None,
        });
        decides.collect()
    }

    fn get(&self, setting: &Setting) -> Option<&Value> {
        self.0.get(setting.field).filter(|value| !value.is_null())
    }
}

/// The schema of every setting by its field.
///
/// ```
/// use selvedge_policies::settings::schemas;
///
/// let schemas = schemas(&mut schemars::SchemaGenerator::default());
/// assert!(schemas.contains_key("defaultPosture"));
/// ```
pub fn schemas(generator: &mut SchemaGenerator) -> Map<String, Value> {
    SETTINGS.iter().map(|setting| (setting.field.to_owned(), (setting.schema)(generator).into())).collect()
}

fn strictness(field: &str) -> Strictness {
    let strict = SETTINGS.iter().flat_map(|setting| setting.strict);
    strict.filter(|(known, _)| *known == field).map(|(_, strictness)| *strictness).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> Settings {
        serde_json::from_value(value).unwrap()
    }

    /// What objects come to whose targets are as specific as they say.
    fn merged(said: &[(usize, Value)]) -> Modes {
        let said: Vec<_> = said.iter().map(|(scope, value)| (*scope, settings(value.clone()))).collect();
        let objects = said.iter().enumerate().map(|(n, (scope, settings))| {
            (Precedence::new(*scope, None, "shop".into(), n.to_string().into()), n, settings)
        });
        Settings::merge(objects).0.modes()
    }

    #[test]
    fn each_field_is_set_by_the_most_specific_that_has_it() {
        let modes = merged(&[
            (0, json!({ "mtls": { "outbound": "PREFER" }, "accessLog": null })),
            (1, json!({ "mtls": { "outbound": "REQUIRE", "inbound": "PERMISSIVE" }, "accessLog": "all" })),
            (2, json!({ "defaultPosture": "deny", "accessLog": "off", "ambiguousPaths": "rewrite" })),
        ]);
        let expected = Modes {
            permissive: true,
            passthrough: true,
            posture: Posture::Deny,
            log: Log::All,
            ambiguous_paths: Some(AmbiguousPaths::Rewrite),
        };
        assert_eq!(modes, expected);
        assert_eq!(Settings::default().modes(), Modes::default());
    }

    #[test]
    fn no_object_opens_what_another_closes_for_the_same_target() {
        let [open, closed] = [("PERMISSIVE", "PREFER", "allow", "pass"), ("STRICT", "REQUIRE", "deny", "refuse")].map(
            |(inbound, outbound, posture, paths)| {
                let mtls = json!({ "inbound": inbound, "outbound": outbound });
                json!({ "mtls": mtls, "defaultPosture": posture, "ambiguousPaths": paths })
            },
        );
        let ambiguous_paths = Some(AmbiguousPaths::Refuse);
        let expected = Modes { posture: Posture::Deny, ambiguous_paths, ..Modes::default() };
        assert_eq!(merged(&[(0, open.clone()), (0, closed.clone())]), expected);
        assert_eq!(merged(&[(0, closed), (0, open)]), expected);
    }

    #[test]
    fn what_cannot_be_read_opens_nothing() {
        let odd = settings(json!({ "mtls": { "inbound": "OPEN", "outbound": "PREFER" }, "defaultPosture": 7 }));
        assert_eq!(odd.modes(), Modes::default());
    }
}
