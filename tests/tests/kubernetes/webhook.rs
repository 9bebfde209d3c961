//! The control plane as the webhook that puts sidecars into pods.

use std::{net::SocketAddr, path::Path};

use selvedge_control_plane::{
    run,
    settings::{Kubernetes, Settings},
};
use selvedge_inject::policy::webhook;
use selvedge_tests::{
    api_server::{ApiServer, Refusal},
    metrics::Metrics,
    wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A control plane with a webhook, in this process. It ends when it is dropped.
pub(super) struct ControlPlane {
    folder: TempDir,
    running: JoinHandle<()>,
}

impl ControlPlane {
    /// Starts one, and lets the API server find its webhook.
    pub(super) async fn start(server: &ApiServer) -> Self {
        Self::start_with(server, |_| {}).await
    }

    /// Starts one with other settings, and lets the API server find its webhook.
    pub(super) async fn start_with(server: &ApiServer, change: impl FnOnce(&mut Settings)) -> Self {
        let this = Self::start_unfound(server, change);
        server.route("selvedge-system/selvedge", this.webhook().await);
        this
    }

    fn start_unfound(server: &ApiServer, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(server, folder.path());
        change(&mut settings);
        let running = tokio::spawn(async {
            run::run(settings, std::future::pending()).await.unwrap();
        });
        Self { folder, running }
    }

    pub(super) async fn webhook(&self) -> SocketAddr {
        self.port("webhook").await
    }

    pub(super) async fn port(&self, of: &str) -> SocketAddr {
        let ports = self.folder.path().join("ports.json");
        wait::until("it listens", async || {
            let ports: Value = serde_json::from_slice(&std::fs::read(&ports).ok()?).ok()?;
            ports[of].as_str()?.parse().ok()
        })
        .await
    }

    async fn metrics(&self) -> Metrics {
        Metrics::at(self.port("admin").await)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn settings(server: &ApiServer, folder: &Path) -> Settings {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Settings {
        kubernetes: Some(Kubernetes { kubeconfig: Some(server.kubeconfig(folder)), ..Kubernetes::default() }),
        listen: any,
        admin: any,
        webhook: Some(any),
        ports_file: Some(folder.join("ports.json")),
        audit_log: Some("/dev/null".into()),
        ..Settings::new(folder.join("state"))
    }
}

/// What an administrator has installed, the trust bundle included.
pub(super) async fn install(server: &ApiServer) {
    for object in webhook::objects() {
        server.put(object).await;
    }
    let labels = json!({ "selvedge.dev/inject": "enabled" });
    for (name, labels) in [("shop", labels.clone()), ("plain", json!({})), ("selvedge-system", labels)] {
        server
            .put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } }))
            .await;
    }
}

pub(super) fn settings_of_injection() -> Value {
    json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "InjectionConfig",
        "metadata": { "namespace": "selvedge-system", "name": "selvedge-inject" },
        "spec": { "image": "proxy@sha256:1", "trustBundle": "PEM", "capture": "none" },
    })
}

pub(super) fn pod(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": namespace, "name": "web-1" },
        "spec": { "serviceAccountName": "web", "containers": [{ "name": "web", "image": "web" }] },
    })
}

pub(super) fn has_sidecar(pod: &Value) -> bool {
    pod["spec"]["initContainers"][0]["name"] == "selvedge-proxy"
}

/// Waits until a new pod of the namespace `shop` would come to what is `wanted`. API servers notice with a delay what
/// was told about webhooks.
pub(super) async fn until_shop(server: &ApiServer, what: &str, wanted: impl Fn(&Result<Value, Refusal>) -> bool) {
    wait::until_true(what, async || wanted(&server.calls().try_out(&pod("shop")).await)).await;
}

#[tokio::test]
async fn a_pod_of_an_enabled_namespace_gets_its_sidecar_and_no_other_pod_waits_for_the_mesh() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install(&server).await;
        until_shop(&server, "nobody starts unprotected", |tried| {
            tried.as_ref().is_err_and(|refusal| refusal.message.contains("failed calling webhook"))
        })
        .await;
        let control_plane = ControlPlane::start(&server).await;
        until_shop(&server, "the settings are missed", |tried| {
            tried.as_ref().is_err_and(|refusal| refusal.message.contains("mesh not ready"))
        })
        .await;
        server.put(settings_of_injection()).await;
        until_shop(&server, "the pod gets a sidecar", |tried| tried.as_ref().is_ok_and(has_sidecar)).await;
        assert!(server.get("Pod", "shop", "web-1").await.is_none(), "it was only tried");
        let created = server.calls().create(&pod("shop")).await.unwrap();
        assert!(has_sidecar(&created), "{created:#}");
        for namespace in ["plain", "selvedge-system"] {
            let other = server.calls().try_out(&pod(namespace)).await.unwrap();
            assert!(!has_sidecar(&other), "{namespace}: {other:#}");
        }
        let mut disabled = pod("shop");
        disabled["metadata"] =
            json!({ "namespace": "shop", "name": "no", "labels": { "selvedge.dev/inject": "disabled" } });
        assert!(!has_sidecar(&server.calls().try_out(&disabled).await.unwrap()));
        let mut enabled = pod("plain");
        enabled["metadata"]["labels"] = json!({ "selvedge.dev/inject": "enabled" });
        assert!(has_sidecar(&server.calls().try_out(&enabled).await.unwrap()));
        let metrics = control_plane.metrics().await;
        metrics.until("selvedge_control_plane_injections_total", &["result=\"injected\""], 3.0).await;
    }
}

#[tokio::test]
async fn while_the_webhook_is_away_only_pods_that_should_have_a_sidecar_wait() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install(&server).await;
        let control_plane = ControlPlane::start(&server).await;
        server.put(settings_of_injection()).await;
        until_shop(&server, "the pod gets a sidecar", |tried| tried.as_ref().is_ok_and(has_sidecar)).await;
        drop(control_plane);
        until_shop(&server, "the pod waits", |tried| {
            tried.as_ref().is_err_and(|refusal| refusal.message.contains("failed calling webhook"))
        })
        .await;
        server.calls().try_out(&pod("plain")).await.unwrap();
        server.calls().try_out(&pod("selvedge-system")).await.unwrap();
    }
}

#[tokio::test]
async fn what_proves_the_webhook_is_written_by_the_control_plane_alone_and_again_when_somebody_else_does() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install(&server).await;
        let _control_plane = ControlPlane::start(&server).await;
        let configuration = async || server.get("MutatingWebhookConfiguration", "", webhook::NAME).await.unwrap();
        let bundles = async || {
            let configuration = configuration().await;
            let all = configuration["webhooks"].as_array().unwrap();
            let all: Vec<Value> = all.iter().map(|webhook| webhook["clientConfig"]["caBundle"].clone()).collect();
            all.iter().all(Value::is_string).then_some(all)
        };
        let written = wait::until("it is written", bundles).await;
        for object in webhook::objects() {
            server.put(object).await;
        }
        assert_eq!(bundles().await.unwrap(), written, "whoever installs again does not take it away");
        let managers = configuration().await["metadata"]["managedFields"].to_string();
        assert!(managers.contains("selvedge-control-plane"), "{managers}");
    }
}

#[test]
fn the_configuration_in_the_page_is_the_one_that_is_tested() {
    let page = std::fs::read_to_string(selvedge_tests::workspace().join("docs/kubernetes/webhook.md")).unwrap();
    let yaml =
        page.split_once("```yaml webhook\n").and_then(|(_, rest)| rest.split_once("```")).expect("a block of YAML").0;
    let told: Value = serde_saphyr::from_str(yaml).unwrap();
    assert_eq!(vec![told], webhook::objects());
}

#[tokio::test]
async fn a_cluster_that_is_too_old_is_refused_with_the_reason() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.relay().say_version("1.30");
        let folder = tempfile::tempdir().unwrap();
        let refused = run::run(settings(&server, folder.path()), std::future::pending()).await.unwrap_err().to_string();
        assert!(refused.contains("runs Kubernetes v1.30.0") && refused.contains("needs 1.31 or later"), "{refused}");
    }
}

#[tokio::test]
async fn pods_that_should_have_a_sidecar_and_have_none_are_counted_and_told_of_once() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let pod = |namespace: &str, name: &str, label: &str| {
            let mut pod = pod(namespace);
            pod["metadata"] =
                json!({ "namespace": namespace, "name": name, "labels": { "selvedge.dev/inject": label } });
            pod
        };
        server.put(pod("shop", "before", "")).await;
        server.put(pod("shop", "never", "disabled")).await;
        server.put(pod("plain", "asks", "enabled")).await;
        server.put(pod("plain", "other", "")).await;
        let mut host = pod("shop", "host", "");
        host["spec"]["hostNetwork"] = json!(true);
        server.put(host).await;
        let labels = json!({ "selvedge.dev/inject": "enabled" });
        let shop = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop", "labels": labels } });
        server.put(shop).await;
        server.put(settings_of_injection_without_bundle()).await;
        let control_plane = ControlPlane::start_unfound(&server, |_| {});
        let metrics = control_plane.metrics().await;
        metrics.until("selvedge_control_plane_pods_without_sidecar", &[], 2.0).await;
        let told = async || {
            let events = server.all("Event").await;
            let about = |event: &Value| event["involvedObject"]["name"].as_str().unwrap_or_default().to_owned();
            let mut of: Vec<String> = events.iter().filter(|event| event["reason"] == "NoSidecar").map(about).collect();
            of.sort();
            of
        };
        wait::until_true("both are told of", async || told().await == ["asks", "before"]).await;
        server.delete("Pod", "shop", "before").await;
        metrics.until("selvedge_control_plane_pods_without_sidecar", &[], 1.0).await;
        assert_eq!(told().await, ["asks", "before"]);
    }
}

#[tokio::test]
async fn annotations_that_nobody_reads_are_told_of_once_each_with_the_one_that_is_meant() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let mut misspelt = pod("shop");
        let keys = json!({ "config.selvedge.dev/worker": "2", "config.selvedge.dev/logs": "info", "config.selvedge.dev/uid": "7",
            "team": "shop" });
        misspelt["metadata"] = json!({ "namespace": "shop", "name": "web", "annotations": keys });
        server.put(misspelt.clone()).await;
        server.put(settings_of_injection_without_bundle()).await;
        let _control_plane = ControlPlane::start_unfound(&server, |_| {});
        let told = async || {
            let events = server.all("Event").await;
            let such = events.iter().filter(|event| event["reason"] == "UnknownAnnotation");
            let mut said: Vec<String> = such
                .map(|event| {
                    assert_eq!((&event["involvedObject"]["name"], &event["type"]), (&json!("web"), &json!("Warning")));
                    event["message"].as_str().unwrap_or_default().to_owned()
                })
                .collect();
            said.sort();
            said
        };
        let no = |key: &str, meant: &str| {
            format!("there is no annotation config.selvedge.dev/{key}: did you mean '{meant}'?")
        };
        let both = [no("logs", "log"), no("worker", "workers")];
        wait::until_true("both are told of", async || told().await == both).await;
        misspelt["metadata"]["annotations"]["config.selvedge.dev/captures"] = json!("cni");
        server.put(misspelt).await;
        wait::until_true("a third is told of", async || told().await.len() > 2).await;
        assert_eq!(told().await, [no("captures", "capture"), both[0].clone(), both[1].clone()], "and no other again");
    }
}

/// Makes the namespace of the control plane, and nothing that tells of an authority of before.
fn settings_of_injection_without_bundle() -> Value {
    let mut settings = settings_of_injection();
    settings["spec"].as_object_mut().unwrap().remove("trustBundle");
    settings
}
