//! The trust bundle where the injector finds it: one key of the ConfigMap with the injector's settings.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use selvedge_inject::setting::{CONFIG_MAP, TRUST_BUNDLE};
use serde_json::json;

use super::ClusterError;
use crate::source::kubernetes;

/// Who owns the key, and nothing else of it.
const MANAGER: &str = "selvedge-control-plane";

/// The ConfigMap, there or not.
#[derive(Debug)]
pub(super) struct Bundle {
    api: Api<ConfigMap>,
}

/// What there is of the ConfigMap.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// True where there is one: a control plane is here, or is to be.
    pub(super) is_installed: bool,
    /// The certificates that pods are told to trust, PEM, where there is, or was, an authority.
    pub(super) pem: Option<String>,
}

impl Bundle {
    pub(super) fn new(client: &Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client.clone(), namespace) }
    }

    /// What there is of it.
    pub(super) async fn read(&self) -> Result<Found, ClusterError> {
        let map = kubernetes::answered(self.api.get_opt(CONFIG_MAP)).await.map_err(failed)?;
        let Some(map) = map else { return Ok(Found::default()) };
        let pem = map.data.and_then(|mut data| data.remove(TRUST_BUNDLE.key));
        Ok(Found { is_installed: true, pem: pem.filter(|pem| !pem.trim().is_empty()) })
    }

    /// Puts `pem` there, whoever wrote the key before.
    pub(super) async fn write(&self, pem: &str) -> Result<(), ClusterError> {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": CONFIG_MAP }, "data": { TRUST_BUNDLE.key: pem },
        });
        let params = PatchParams::apply(MANAGER).force();
        kubernetes::answered(self.api.patch(CONFIG_MAP, &params, &Patch::Apply(map))).await.map_err(failed)?;
        Ok(())
    }
}

fn failed(error: kube::Error) -> ClusterError {
    ClusterError::Api { what: "the trust bundle in the ConfigMap selvedge-inject", error }
}
