//! What is set for all sidecars: the `InjectionConfig` `selvedge-inject`, which the control plane writes.

use serde_json::{Map, Value, json};

use crate::form::{Form, LONGEST, shown};

/// The namespace of the control plane.
pub const NAMESPACE: &str = "selvedge-system";
/// The group of [`KIND`].
pub const GROUP: &str = "selvedge.dev";
/// The version of [`KIND`] in its group.
pub const VERSION: &str = "v1alpha1";
/// Group and version of [`KIND`], as its objects have it.
pub const API_VERSION: &str = "selvedge.dev/v1alpha1";
/// The kind of the object with the settings.
pub const KIND: &str = "InjectionConfig";
/// The one object of [`KIND`] that counts, in [`NAMESPACE`].
pub const NAME: &str = "selvedge-inject";

/// One field of the settings.
#[derive(Debug)]
pub struct Setting {
    /// The name of the field in `spec`.
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

/// `spec` of the object with the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(Map<String, Value>);

impl Settings {
    /// The settings of an object; none where it has no `spec`.
    pub fn of(object: &Value) -> Self {
        Self(object.get("spec").and_then(Value::as_object).cloned().unwrap_or_default())
    }

    /// What is set, else the default; `None` where neither is.
    pub fn get(&self, setting: &Setting) -> Option<&str> {
        let set = self.0.get(setting.key).and_then(Value::as_str).filter(|text| !text.is_empty());
        set.or(setting.default)
    }

    /// The settings as `spec` of an object.
    pub fn spec(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Why one of them is not what it must be, if so.
    pub fn mistake(&self) -> Option<String> {
        SETTINGS.iter().find_map(|setting| setting.mistake(self.get(setting)?))
    }
}

impl<'a> FromIterator<(&'a Setting, String)> for Settings {
    fn from_iter<I: IntoIterator<Item = (&'a Setting, String)>>(settings: I) -> Self {
        Self(settings.into_iter().map(|(setting, value)| (setting.key.to_owned(), value.into())).collect())
    }
}

impl Setting {
    /// What `KEY=VALUE` sets, of all but the trust bundle, which nobody writes by hand.
    ///
    /// # Errors
    /// Why it sets nothing.
    pub fn written(text: &str) -> Result<(&'static Self, String), String> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
        let mut known = SETTINGS.into_iter().filter(|setting| setting.key != TRUST_BUNDLE.key);
        let setting = known.clone().find(|setting| setting.key == key).ok_or_else(|| {
            let keys = known.by_ref().map(|setting| setting.key).collect::<Vec<_>>();
            format!("there is no setting '{key}': expected one of {}", keys.join(", "))
        })?;
        setting.mistake(value).map_or_else(|| Ok((setting, value.to_owned())), Err)
    }

    /// Why this is no value of it; none where it is one.
    fn mistake(&self, value: &str) -> Option<String> {
        let form = self.form.as_ref().filter(|form| !form.takes(value))?;
        Some(format!("the setting {} is '{}': expected {}", self.key, shown(value), form.expects))
    }

    /// Why nothing can be injected while it is absent, and what to do.
    pub fn missing(&self) -> String {
        let remedy = match self.key {
            "trustBundle" => "the control plane writes it when it has started; see whether it runs",
            _ => "install Selvedge again, or set it",
        };
        format!("mesh not ready: the {KIND} {NAMESPACE}/{NAME} has no {}; {remedy}", self.key)
    }
}

/// The schema of `spec`, by which an API server refuses what a sidecar would not start with.
pub fn schema() -> Value {
    let field = |setting: &&Setting| {
        let mut field = json!({ "type": "string", "description": setting.summary });
        if let Some(form) = &setting.form {
            field["pattern"] = form.pattern().into();
            field["maxLength"] = LONGEST.into();
        }
        (setting.key.to_owned(), field)
    };
    json!({ "type": "object", "properties": SETTINGS.iter().map(field).collect::<Map<_, _>>() })
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
                    said.starts_with("the setting ") && said.contains(&format!("is '{value}': expected ")),
                    "{said}"
                );
                assert_eq!(Setting::written(&format!("{}={value}", setting.key)).unwrap_err(), said);
            }
        }
    }

    #[test]
    fn a_setting_is_written_with_its_key_and_the_trust_bundle_by_nobody() {
        let (setting, value) = Setting::written("image=mesh/proxy:1=2").unwrap();
        assert_eq!((setting.key, value.as_str()), ("image", "mesh/proxy:1=2"));
        for (text, why) in [
            ("image", "expected KEY=VALUE"),
            ("user=1", "there is no setting 'user': expected one of image, "),
            ("trustBundle=PEM", "there is no setting 'trustBundle'"),
        ] {
            let said = Setting::written(text).unwrap_err();
            assert!(said.starts_with(why), "{said}");
        }
    }
}
