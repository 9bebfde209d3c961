//! The trust bundle where the injector finds it: one field of the settings of sidecars, which go there with it.

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use selvedge_inject::setting::{API_VERSION, KIND, NAME, Settings, TRUST_BUNDLE};
use serde_json::json;

use super::ClusterError;
use crate::source::kubernetes;

/// Who owns what is written, and nothing else of it.
const MANAGER: &str = "selvedge-control-plane";

/// The object with the settings, there or not.
#[derive(Debug)]
pub(super) struct Bundle {
    api: Api<DynamicObject>,
}

impl Bundle {
    pub(super) fn new(client: &Client, namespace: &str) -> Self {
        Self { api: kubernetes::injection_configs(client, namespace) }
    }

    /// The certificates that pods are told to trust, PEM, where there is, or was, an authority.
    pub(super) async fn read(&self) -> Result<Option<String>, ClusterError> {
        let object = kubernetes::answered(self.api.get_opt(NAME)).await.map_err(failed)?;
        let pem = object.and_then(|object| Settings::of(&object.data).get(&TRUST_BUNDLE).map(str::to_owned));
        Ok(pem.filter(|pem| !pem.trim().is_empty()))
    }

    /// Puts `settings` and `pem` there, whoever wrote these fields before.
    pub(super) async fn write(&self, settings: &Settings, pem: &str) -> Result<(), ClusterError> {
        let mut spec = settings.spec().clone();
        spec.insert(TRUST_BUNDLE.key.to_owned(), pem.into());
        let object = json!({ "apiVersion": API_VERSION, "kind": KIND, "metadata": { "name": NAME }, "spec": spec });
        let params = PatchParams::apply(MANAGER).force();
        kubernetes::answered(self.api.patch(NAME, &params, &Patch::Apply(object))).await.map_err(failed)?;
        Ok(())
    }
}

fn failed(error: kube::Error) -> ClusterError {
    let what = match &error {
        // That there is no such object is no failure.
        kube::Error::Api(status) if status.code == 404 => {
            "an InjectionConfig, whose definition is missing (what `selvedge install` prints has it)"
        }
        _ => "the trust bundle in the InjectionConfig selvedge-inject",
    };
    ClusterError::Api { what, error }
}
