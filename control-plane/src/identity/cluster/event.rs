//! Events about the Secret of the authority, for `kubectl get events`.

use kube::{Client, core::Request};
use serde_json::{Value, json};

use super::SECRET;
use crate::{clock, source::kubernetes};

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
        if let Err(error) = self.create(weight, reason, message).await {
            tracing::warn!(reason, "no Event could be made: {}", kubernetes::explain(&error));
        }
    }

    async fn create(&self, weight: Weight, reason: &str, message: &str) -> kube::Result<()> {
        let namespace = self.client.default_namespace();
        let now = clock::rfc3339(i64::try_from(clock::unix()).unwrap_or(i64::MAX));
        let weight = match weight {
            Weight::Normal => "Normal",
            Weight::Warning => "Warning",
        };
        // The API server takes 1024 bytes.
        let message: String = message.chars().take(1000).collect();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "namespace": namespace, "generateName": format!("{SECRET}.") },
            "involvedObject": { "apiVersion": "v1", "kind": "Secret", "namespace": namespace, "name": SECRET },
            "type": weight,
            "reason": reason,
            "message": message,
            "source": { "component": "selvedge-control-plane" },
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let events = Request::new(format!("/api/v1/namespaces/{namespace}/events"));
        let body = event.to_string().into_bytes();
        let request = events.create(&Default::default(), body).map_err(kube::Error::BuildRequest)?;
        kubernetes::answered(self.client.request::<Value>(request)).await.map(drop)
    }
}
