//! What puts sidecars into pods, and its settings.

use selvedge_inject::{
    policy::{advising, mutating, requiring, webhook},
    setting::{self, Setting, Settings},
};
use serde_json::{Value, json};

use crate::{
    images::{self, ImageError, Images},
    object::{marked, namespaced},
    version::Injector,
};

/// How connections reach sidecars that say nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// Applications are told where the sidecar listens.
    None,
    /// A container that runs before the others loads rules.
    Init,
    /// A plugin of the node's network loads rules, so pods need no right.
    Cni,
}

impl Capture {
    /// The word for it in settings and annotations.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Init => "init",
            Self::Cni => "cni",
        }
    }
}

/// The settings of all sidecars. The trust bundle is not among them: the control plane writes it.
pub(crate) fn settings(images: &Images, capture: Capture) -> Result<Value, ImageError> {
    let mut settings: Vec<(&Setting, String)> =
        vec![(&setting::IMAGE, images.reference(images::SIDECAR)?), (&setting::CAPTURE, capture.word().to_owned())];
    // A pod may ask for it whatever the others do.
    match images.reference(images::CAPTURE) {
        Ok(image) => settings.push((&setting::CAPTURE_IMAGE, image)),
        Err(missing) if capture == Capture::Init => return Err(missing),
        Err(_) => {}
    }
    let data: Settings = settings.into_iter().collect();
    let mut config_map = config_map();
    config_map["data"] = data.data().clone().into();
    Ok(config_map)
}

/// What injects and warns, in the order in which it may be applied: no pod is left out that should have a sidecar.
pub(crate) fn objects(injector: Injector) -> Vec<Value> {
    let injecting = match injector {
        Injector::Policy => [requiring::objects(), mutating::objects()].concat(),
        Injector::Webhook => webhook::objects(),
    };
    injecting.into_iter().chain(advising::objects()).map(marked).collect()
}

/// What keeps pods without a sidecar from starting in any cluster, in the order in which it goes.
pub(crate) fn refusing() -> Vec<Value> {
    let requiring = requiring::objects().into_iter().rev();
    webhook::objects().into_iter().chain(requiring).map(marked).collect()
}

/// What else injects and warns, in the order in which it goes.
pub(crate) fn injecting() -> Vec<Value> {
    [mutating::objects(), advising::objects()]
        .into_iter()
        .flat_map(|objects| objects.into_iter().rev())
        .map(marked)
        .collect()
}

/// The ConfigMap without its settings, to be named.
pub(crate) fn config_map() -> Value {
    namespaced("v1", "ConfigMap", setting::CONFIG_MAP, json!({}))
}
