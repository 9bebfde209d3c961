//! Events about the Secret of the authority, for `kubectl get events`.

use kube::Client;
use serde_json::json;

use super::SECRET;
use crate::source::kubernetes;

/// How much an event matters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Weight {
    Normal,
    Warning,
}

/// The events of the control plane's namespace.
pub(super) struct Events {
    client: Client,
}

impl Events {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    /// Tells of the Secret; that it cannot be told is logged and no more.
    pub(super) async fn tell(&self, weight: Weight, reason: &str, message: &str) {
        let namespace = self.client.default_namespace();
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "namespace": namespace, "name": SECRET });
        let weight = match weight {
            Weight::Normal => "Normal",
            Weight::Warning => "Warning",
        };
        kubernetes::tell(&self.client, &secret, weight, reason, message).await;
    }
}
