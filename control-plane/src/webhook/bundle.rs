//! How the API server knows the webhook: the authorities of the mesh in `caBundle` of its configuration, which nobody else
//! writes. What else the configuration says is not touched.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use selvedge_inject::policy::webhook::NAME;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{identity::Authority, source::kubernetes};

/// Who owns `caBundle`, and nothing else of the configuration.
const MANAGER: &str = "selvedge-control-plane";
/// How often it is looked whether somebody else wrote it, or made the configuration anew.
const LOOK: Duration = Duration::from_secs(10);

/// Keeps `caBundle` as the authority says.
pub(super) async fn keep(client: Client, authority: Arc<Authority>) {
    let configurations = Api::<MutatingWebhookConfiguration>::all(client);
    let mut changes = authority.changes();
    let mut known = None;
    loop {
        let put = put(&configurations, authority.roots_pem().as_bytes()).await;
        let problem = put.err().map(|error| kubernetes::explain(&error));
        if let Some(problem) = problem.as_ref().filter(|_| problem != known) {
            tracing::error!(
                problem,
                "caBundle of the MutatingWebhookConfiguration {NAME} is not written, and pods of the mesh may not start"
            );
        }
        known = problem;
        tokio::select! {
            () = sleep(LOOK) => {}
            Ok(()) = changes.changed() => {}
        }
    }
}

/// Writes `pem` into each webhook that says otherwise. Without a configuration nobody asks.
async fn put(configurations: &Api<MutatingWebhookConfiguration>, pem: &[u8]) -> kube::Result<()> {
    let Some(found) = kubernetes::answered(configurations.get_opt(NAME)).await? else { return Ok(()) };
    let webhooks = found.webhooks.unwrap_or_default();
    let is_current = |bundle: &Option<k8s_openapi::ByteString>| bundle.as_ref().is_some_and(|bundle| bundle.0 == pem);
    if webhooks.iter().all(|webhook| is_current(&webhook.client_config.ca_bundle)) {
        return Ok(());
    }
    let bundle = BASE64_STANDARD.encode(pem);
    let said: Vec<Value> = webhooks
        .iter()
        .map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": bundle } }))
        .collect();
    let patch = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": NAME }, "webhooks": said,
    });
    let params = PatchParams::apply(MANAGER).force();
    kubernetes::answered(configurations.patch(NAME, &params, &Patch::Apply(patch))).await?;
    tracing::info!("the API server knows the webhook by the authorities of now");
    Ok(())
}
