//! The trust bundle where the injector finds it: one key of the ConfigMap with the injector's settings.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::ClusterError;
use crate::source::kubernetes;

/// The name of the ConfigMap.
pub(super) const CONFIG_MAP: &str = "selvedge-inject";
const KEY: &str = "trustBundle";
/// Who owns the key, and nothing else of it.
const MANAGER: &str = "selvedge-control-plane";

/// The ConfigMap, there or not.
#[derive(Debug)]
pub(super) struct Bundle {
    api: Api<ConfigMap>,
}

impl Bundle {
    pub(super) fn new(client: &Client) -> Self {
        Self { api: Api::default_namespaced(client.clone()) }
    }

    /// Whether there is, or was, an authority that pods were told to trust.
    pub(super) async fn is_there(&self) -> Result<bool, ClusterError> {
        Ok(self.read().await?.is_some())
    }

    /// The certificates as they stand there, PEM.
    pub(super) async fn read(&self) -> Result<Option<String>, ClusterError> {
        let map = kubernetes::answered(self.api.get_opt(CONFIG_MAP)).await.map_err(failed)?;
        let pem = map.and_then(|map| map.data).and_then(|mut data| data.remove(KEY));
        Ok(pem.filter(|pem| !pem.trim().is_empty()))
    }

    /// Puts `pem` there, whoever wrote the key before.
    pub(super) async fn write(&self, pem: &str) -> Result<(), ClusterError> {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": CONFIG_MAP }, "data": { KEY: pem },
        });
        let params = PatchParams::apply(MANAGER).force();
        kubernetes::answered(self.api.patch(CONFIG_MAP, &params, &Patch::Apply(map))).await.map_err(failed)?;
        Ok(())
    }
}

fn failed(error: kube::Error) -> ClusterError {
    ClusterError::Api { what: "the trust bundle in the ConfigMap selvedge-inject", error }
}
