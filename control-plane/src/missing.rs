//! Pods that should have a sidecar and have none: those that were there before their namespace was enabled, or that came
//! while nobody injected. They are counted all the time, and told of once each.

use std::{collections::HashSet, sync::Arc, time::Duration};

use kube::Client;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    source::kubernetes::{self, Lacking, Pods},
    telemetry::Telemetry,
};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(10);
/// How many Events one look makes at most; the others follow.
const EVENTS: usize = 20;
const REASON: &str = "NoSidecar";
const MESSAGE: &str = "this pod should have a sidecar of Selvedge and has none, so it is called and calls in plaintext: \
    create it anew (kubectl rollout restart), or label it selvedge.dev/inject: disabled";

/// Counts and tells of them for ever.
pub(crate) async fn watch(client: Client, pods: Pods, telemetry: Telemetry) {
    let mut told = HashSet::new();
    loop {
        sleep(LOOK).await;
        let found = pods.without_sidecar();
        telemetry.pods_without_sidecar.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
        let present: HashSet<Arc<str>> = found.iter().map(|pod| Arc::clone(&pod.uid)).collect();
        told.retain(|uid| present.contains(uid));
        for pod in found.iter().filter(|pod| !told.contains(&pod.uid)).take(EVENTS).collect::<Vec<_>>() {
            let Lacking { namespace, name, uid, .. } = &**pod;
            let about =
                json!({ "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": **uid });
            kubernetes::tell(&client, &about, "Warning", REASON, MESSAGE).await;
            told.insert(Arc::clone(uid));
        }
    }
}
