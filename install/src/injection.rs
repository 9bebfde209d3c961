//! What puts sidecars into pods, and the settings that an installation chooses.

use selvedge_inject::{
    policy::{advising, mutating, requiring, webhook},
    setting::{self, Setting},
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

/// The settings of all sidecars that an installation chooses. The control plane writes them where pods get them from, with the
/// trust bundle: one command applies all objects, and could not apply one of a kind that it defines itself.
pub(crate) fn settings(images: &Images, capture: Capture) -> Result<Vec<(&'static Setting, String)>, ImageError> {
    let mut settings =
        vec![(&setting::IMAGE, images.reference(images::SIDECAR)?), (&setting::CAPTURE, capture.word().to_owned())];
    // A pod may ask for it whatever the others do.
    match images.reference(images::CAPTURE) {
        Ok(image) => settings.push((&setting::CAPTURE_IMAGE, image)),
        Err(missing) if capture == Capture::Init => return Err(missing),
        Err(_) => {}
    }
    Ok(settings)
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

/// The object with the settings, to be named.
pub(crate) fn named() -> Value {
    namespaced(setting::API_VERSION, setting::KIND, setting::NAME, json!({}))
}
