//! The webhook while things change around it: its authority, other webhooks, what it may do, and the cluster's version.

use std::{process::Command, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use selvedge_control_plane::settings::Kubernetes;
use selvedge_inject::{policy::webhook, setting};
use selvedge_install::version::Injector;
use selvedge_tests::{api_server::ApiServer, process::binary};
use serde_json::{Value, json};

use super::{
    another_webhook::{self, ADDED},
    identity::roles,
    webhook::{ControlPlane, has_sidecar, install, pod, settings_of_injection, until_shop},
};

const NAMESPACE: &str = "selvedge-system";

/// The authorities by which the API server knows the webhook.
async fn authorities(server: &ApiServer) -> Vec<String> {
    let configuration = server.get("MutatingWebhookConfiguration", "", webhook::NAME).await.unwrap_or_default();
    let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default();
    let pem = String::from_utf8(BASE64_STANDARD.decode(bundle).unwrap()).unwrap();
    pem.split_inclusive("-----END CERTIFICATE-----")
        .map(|root| root.trim().to_owned())
        .filter(|root| !root.is_empty())
        .collect()
}

/// Starts a rotation of the authority in the Secret.
async fn rotate(server: &ApiServer) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("selvedge"));
    command.args(["ca", "rotate", "--kubernetes", "--kubeconfig"]).arg(server.kubeconfig(folder.path()));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_rotation_of_the_authority_refuses_no_pod() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install(&server).await;
        let lifetime = Duration::from_secs(8);
        let _control_plane =
            ControlPlane::start_with(&server, |settings| settings.certificate_lifetime = lifetime).await;
        server.put(settings_of_injection()).await;
        until_shop(&server, "the pod gets a sidecar", |tried| tried.as_ref().is_ok_and(has_sidecar)).await;
        let before = authorities(&server).await;
        assert_eq!(before.len(), 1);
        rotate(&server).await;
        let mut stages = vec![before.len()];
        let began = tokio::time::Instant::now();
        let after = loop {
            let tried = server.calls().try_out(&pod("shop")).await;
            assert!(tried.as_ref().is_ok_and(has_sidecar), "after stages {stages:?}: {tried:?}");
            let now = authorities(&server).await;
            if stages.last() != Some(&now.len()) {
                stages.push(now.len());
            }
            if now.len() == 1 && now != before {
                break now;
            }
            assert!(began.elapsed() < Duration::from_secs(100), "the rotation does not end: {stages:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(stages, [1, 2, 1], "the next is known before it signs");
        until_shop(&server, "it goes on", |tried| tried.as_ref().is_ok_and(has_sidecar)).await;
        assert_eq!(authorities(&server).await, after);
    }
}

#[tokio::test]
async fn a_pod_that_another_webhook_changes_afterwards_keeps_its_one_sidecar() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install(&server).await;
        let _control_plane = ControlPlane::start(&server).await;
        server.put(settings_of_injection()).await;
        let _answering = another_webhook::install(&server).await;
        let is_both = |pod: &Value| {
            has_sidecar(pod)
                && pod["spec"]["containers"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == ADDED))
        };
        until_shop(&server, "both change the pod", |tried| tried.as_ref().is_ok_and(is_both)).await;
        let created = server.calls().create(&pod("shop")).await.unwrap();
        assert_eq!(created.to_string().matches("\"name\":\"selvedge-proxy\"").count(), 1, "{created:#}");

        let mut again = created.clone();
        again["metadata"] = json!({
            "namespace": "shop", "name": "again", "annotations": created["metadata"]["annotations"],
            "labels": created["metadata"]["labels"],
        });
        let again = server.calls().try_out(&again).await.unwrap();
        assert_eq!(again["spec"]["initContainers"], created["spec"]["initContainers"], "it has nothing to add");
    }
}

/// A real server forbids what is not among them; the double forbids nothing.
#[tokio::test]
async fn the_rights_of_an_installation_are_enough_for_the_webhook() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install(&server).await;
        let own = |kind: &str, name: &str| json!({ "apiVersion": "v1", "kind": kind, "metadata": { "namespace": NAMESPACE, "name": name } });
        server.put(own("ServiceAccount", "selvedge")).await;
        let mut of_itself = own("Pod", "selvedge-0");
        let containers = json!([{ "name": "control-plane", "image": "selvedge" }]);
        of_itself["spec"] = json!({ "serviceAccountName": "selvedge", "containers": containers });
        // Its namespace is left alone by the injector.
        server.put(of_itself).await;
        for is_everywhere in [true, false] {
            for object in roles(Injector::Webhook, is_everywhere) {
                server.put(object).await;
            }
        }
        let token = server.token(NAMESPACE, "selvedge-0", "https://kubernetes.default.svc").await;
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = Some(server.kubeconfig_of(&token, folder.path()));
        let sidecars = [(&setting::IMAGE, "proxy@sha256:1"), (&setting::CAPTURE, "none")];
        let sidecars = sidecars.into_iter().map(|(setting, value)| (setting, value.to_owned())).collect();
        let cluster = Kubernetes { kubeconfig, sidecars };
        let _control_plane = ControlPlane::start_with(&server, |settings| settings.kubernetes = Some(cluster)).await;
        until_shop(&server, "the pod gets a sidecar", |tried| tried.as_ref().is_ok_and(has_sidecar)).await;
    }
}

/// The oldest supported version and every one up to where the API server injects by itself.
const OLDER: [&str; 5] = ["1.31", "1.32", "1.33", "1.34", "1.35"];

#[tokio::test]
async fn a_cluster_of_every_supported_version_below_the_policy_gets_its_sidecars() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        for version in OLDER {
            assert_eq!(selvedge_install::version::injector(version), Ok(Injector::Webhook));
            server.relay().say_version(version);
            install(&server).await;
            let control_plane = ControlPlane::start(&server).await;
            server.put(settings_of_injection()).await;
            until_shop(&server, version, |tried| tried.as_ref().is_ok_and(has_sidecar)).await;
            drop(control_plane);
        }
    }
}
