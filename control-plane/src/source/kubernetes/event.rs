//! Events about objects of the cluster, for `kubectl get events` and `kubectl describe`.

use kube::{Client, core::Request};
use serde_json::{Value, json};

use crate::clock;

/// How long a message may be; the API server takes 1024 bytes.
const MESSAGE: usize = 1000;

/// Tells of the object that `about` refers to, which is in a namespace. `weight` is `Normal` or `Warning`.
pub(super) async fn create(
    client: &Client,
    about: &Value,
    weight: &str,
    reason: &str,
    message: &str,
) -> kube::Result<()> {
    let text = |field: &str| about[field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let now = clock::rfc3339(i64::try_from(clock::unix()).unwrap_or(i64::MAX));
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "namespace": namespace, "generateName": format!("{name}.") },
        "involvedObject": about,
        "type": weight,
        "reason": reason,
        "message": message.chars().take(MESSAGE).collect::<String>(),
        "source": { "component": "selvedge-control-plane" },
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    });
    let events = Request::new(format!("/api/v1/namespaces/{namespace}/events"));
    let body = event.to_string().into_bytes();
    let request = events.create(&Default::default(), body).map_err(kube::Error::BuildRequest)?;
    client.request::<Value>(request).await.map(drop)
}
