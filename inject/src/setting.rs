//! What the administrator sets for all sidecars: the ConfigMap `selvedge-inject`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::form::{Form, shown};

/// The namespace of the control plane.
pub const NAMESPACE: &str = "selvedge-system";
/// The ConfigMap with the settings, in [`NAMESPACE`].
pub const CONFIG_MAP: &str = "selvedge-inject";

/// One key of the ConfigMap.
#[derive(Debug)]
pub struct Setting {
    /// The key in `data`.
    pub key: &'static str,
    /// What counts where it is absent; without one, nothing is injected before it is there.
    pub default: Option<&'static str>,
    /// What it must look like, where the sidecar would not start with anything else.
    pub form: Option<Form>,
    /// What it is, for people.
    pub summary: &'static str,
}

/// Image of the sidecar.
pub const IMAGE: Setting =
    Setting { key: "image", default: None, form: None, summary: "image of the sidecar, by digest" };

/// Image of the init container with the capture rules.
pub const CAPTURE_IMAGE: Setting = Setting {
    key: "captureImage",
    default: None,
    form: None,
    summary: "image of the container that sets the capture rules, by digest; needed where `capture` is `init`",
};

/// When the node pulls the images.
pub const IMAGE_PULL_POLICY: Setting = Setting {
    key: "imagePullPolicy",
    default: Some("IfNotPresent"),
    form: Some(Form { expects: "IfNotPresent, Always or Never", written: "^(IfNotPresent|Always|Never)$" }),
    summary: "when a node pulls the images: `IfNotPresent`, `Always` or `Never`",
};

/// Where sidecars find the control plane.
pub const CONTROL_PLANE: Setting = Setting {
    key: "controlPlane",
    default: Some("selvedge.selvedge-system.svc:15010"),
    form: Some(Form {
        expects: "HOST:PORT, such as selvedge.selvedge-system.svc:15010",
        written: "^([-._a-zA-Z0-9]{1,253}|\\[IPV6\\]):PORT$",
    }),
    summary: "`host:port` of the control plane",
};

/// The roots that the control plane proves itself under.
pub const TRUST_BUNDLE: Setting = Setting {
    key: "trustBundle",
    default: None,
    form: None,
    summary: "roots of the mesh in PEM; the control plane writes it, and until then no pod is injected",
};

/// How connections reach sidecars that say nothing else.
pub const CAPTURE: Setting = Setting {
    key: "capture",
    default: Some("init"),
    form: Some(CAPTURES),
    summary: "how connections reach the sidecar of a pod that says nothing else: `none`, `init` or `cni`",
};

/// User id of sidecars that say nothing else.
pub const UID: Setting = Setting {
    key: "uid",
    default: Some("1337"),
    form: Some(USER),
    summary: "user and group id of sidecars that say nothing else",
};

/// A way of capture.
pub(crate) const CAPTURES: Form = Form { expects: "none, init or cni", written: "^(none|init|cni)$" };

/// A user that is not root, and that Kubernetes and the kernel take.
pub(crate) const USER: Form =
    Form { expects: "a user id from 1 to 1999999999", written: "^([1-9][0-9]{0,8}|1[0-9]{9})$" };

/// Every setting, in the order of the page.
pub const SETTINGS: [&Setting; 7] =
    [&IMAGE, &CAPTURE_IMAGE, &IMAGE_PULL_POLICY, &CONTROL_PLANE, &TRUST_BUNDLE, &CAPTURE, &UID];

/// `data` of the ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(Map<String, Value>);

impl Settings {
    /// The settings of a ConfigMap; none where it has no `data`.
    pub fn of(config_map: &Value) -> Self {
        Self(config_map.get("data").and_then(Value::as_object).cloned().unwrap_or_default())
    }

    /// What is set, else the default; `None` where neither is.
    pub fn get(&self, setting: &Setting) -> Option<&str> {
        let set = self.0.get(setting.key).and_then(Value::as_str).filter(|text| !text.is_empty());
        set.or(setting.default)
    }

    /// The settings as `data` of a ConfigMap.
    pub fn data(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl<'a> FromIterator<(&'a Setting, String)> for Settings {
    fn from_iter<I: IntoIterator<Item = (&'a Setting, String)>>(settings: I) -> Self {
        Self(settings.into_iter().map(|(setting, value)| (setting.key.to_owned(), value.into())).collect())
    }
}

impl Setting {
    /// What stands around the value in what is said where it is not what it must be; none where it may be anything.
    pub(crate) fn mistaken(&self) -> Option<(&Form, String, String)> {
        let form = self.form.as_ref()?;
        let before = format!("mesh not ready: {} in the ConfigMap {NAMESPACE}/{CONFIG_MAP} is '", self.key);
        Some((form, before, format!("': expected {}", form.expects)))
    }

    /// Why nothing can be injected with this value; none where it is what it must be.
    pub(crate) fn mistake(&self, value: &str) -> Option<String> {
        let (form, before, behind) = self.mistaken()?;
        (!form.takes(value)).then(|| format!("{before}{}{behind}", shown(value)))
    }

    /// Why nothing can be injected while it is absent, and what to do.
    pub fn missing(&self) -> String {
        let remedy = match self.key {
            "trustBundle" => "the control plane writes it when it has started; see whether it runs",
            _ => "install Selvedge again, or set it",
        };
        format!("mesh not ready: the ConfigMap {NAMESPACE}/{CONFIG_MAP} has no {}; {remedy}", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_of_its_form_and_every_form_is_one() {
        for setting in SETTINGS {
            assert_eq!(setting.default.and_then(|value| setting.mistake(value)), None, "{}", setting.key);
        }
        for (setting, taken, mistaken) in [
            (&CONTROL_PLANE, ["10.0.0.1:15010", "[fd00::1]:1", "selvedge.mesh.svc:65535"], ["mesh", "mesh:0", "a b:1"]),
            (&UID, ["1", "1337", "1000680000"], ["root", "0", "-1"]),
        ] {
            for value in taken {
                assert_eq!(setting.mistake(value), None, "{value}");
            }
            for value in mistaken {
                let said = setting.mistake(value).unwrap();
                assert!(
                    said.starts_with("mesh not ready: ") && said.contains(&format!("is '{value}': expected ")),
                    "{said}"
                );
            }
        }
    }
}
