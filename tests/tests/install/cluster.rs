//! What is installed, on an API server: it is taken, it takes what users write, and it goes in an order in which pods can
//! start whenever it is interrupted.

use std::process::Command;

use selvedge_control_plane::{
    removal::{Cluster, Step},
    source::kubernetes,
};
use selvedge_install::{NAMESPACE, injection::Capture, removal, version::Injector};
use selvedge_tests::{
    api_server::ApiServer,
    process::{Process, binary},
    wait,
};
use serde_json::{Value, json};

use super::{examples, package};

/// Installs everything, as far as an API server does it alone: no controller runs.
async fn install(server: &ApiServer) {
    install_for(server, Capture::Init, Injector::Policy).await;
}

/// What the control plane writes.
fn settings() -> Value {
    json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "InjectionConfig",
        "metadata": { "namespace": NAMESPACE, "name": "selvedge-inject" },
        "spec": { "image": "mesh/proxy@sha256:1", "capture": "none", "trustBundle": "-----BEGIN CERTIFICATE-----" },
    })
}

async fn install_for(server: &ApiServer, capture: Capture, injector: Injector) {
    for object in package::objects_for(capture, injector) {
        server.put(object).await;
    }
    // A definition that changed is in force after a moment, in which the kind cannot be listed.
    for path in removal::written().values() {
        wait::until_true(&format!("{path} is listed"), || async { server.calls().read(path).await.is_ok() }).await;
    }
    let applied = async || server.calls().apply(&settings(), "selvedge-control-plane").await.ok();
    wait::until("the settings are written", applied).await;
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "shop", "labels": { "selvedge.dev/inject": "enabled" } },
    });
    server.put(namespace).await;
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "shop", "name": "default" },
    });
    server.put(account).await;
}

fn pod(name: &str, sidecar: bool) -> Value {
    let containers = |name: &str| json!([{ "name": name, "image": "registry.example/a" }]);
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "shop", "name": name },
        // A cluster's own plug-in says so, and stands before all others.
        "spec": { "serviceAccountName": "default", "containers": containers("web") },
    });
    if sidecar {
        pod["metadata"]["labels"] = json!({ "pod-template-hash": "5d8f7" });
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f7", "uid": "1", "controller": true,
        }]);
        pod["spec"]["initContainers"] = containers("selvedge-proxy");
        pod["spec"]["initContainers"][0]["restartPolicy"] = "Always".into();
    }
    pod
}

/// The first `count` deletions of the steps.
fn interrupted(steps: Vec<Step>, count: usize) -> Vec<Step> {
    let mut left = count;
    let cut = steps.into_iter().map(|step| {
        let targets: Vec<_> = step.targets.into_iter().take(left).collect();
        left -= targets.len();
        Step { targets, ..step }
    });
    cut.collect()
}

#[tokio::test]
async fn a_server_takes_all_that_is_installed_also_twice() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install(&server).await;
        install(&server).await;
        let settings = server.calls().get("InjectionConfig", NAMESPACE, "selvedge-inject").await.unwrap();
        assert!(settings["spec"]["trustBundle"].is_string(), "it is the control plane's, and stays");
    }
}

/// A real server alone checks by schemas.
#[tokio::test]
async fn a_real_server_takes_every_example_and_refuses_what_contradicts_itself() {
    let Some(server) = ApiServer::real().await else { return };
    install(&server).await;
    for (page, mut document) in examples() {
        let namespace = document["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
        document["metadata"]["namespace"] = namespace.as_str().into();
        server.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } })).await;
        let taken = server.calls().try_out(&document).await.unwrap_or_else(|refusal| panic!("{page}: {refusal}"));
        let kept =
            document["spec"].as_object().unwrap().iter().all(|(field, value)| contains(&taken["spec"][field], value));
        assert!(kept, "{page}: {document:#} became {taken:#}");
    }
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "selvedge.dev/v1alpha1", "kind": kind, "metadata": { "namespace": "shop", "name": "a" }, "spec": spec,
        })
    };
    for (kind, spec, why) in [
        ("MeshPolicy", json!({ "targetRef": { "kind": "Workload" } }), "a Workload has a name"),
        ("MeshPolicy", json!({ "targetRef": { "kind": "Mesh", "name": "a" } }), "the mesh has none"),
        ("TrafficPolicy", json!({ "targetRef": { "name": "a", "port": 80 } }), "leave the port out"),
        (
            "TrafficPolicy",
            json!({ "targetRef": { "name": "a" }, "timeouts": { "request": "1s", "backendRequest": "1m" } }),
            "backendRequest is longer",
        ),
        (
            "TrafficPolicy",
            json!({ "targetRef": { "name": "a" }, "breaker": { "openFor": "2m", "maxOpen": "60s" } }),
            "openFor is longer",
        ),
        (
            "AuthorizationPolicy",
            json!({ "targetRef": { "kind": "ExternalService", "name": "a" }, "action": "DENY" }),
            "expected Service or Workload",
        ),
        (
            "Workload",
            json!({ "serviceAccount": "a", "address": "10.0.0.1", "ports": [{ "port": 80 }, { "port": 80 }] }),
            "uplicate",
        ),
        ("Workload", json!({ "serviceAccount": "a", "address": "10.0.0.1", "pod": true }), "said by the cluster"),
        (
            "Workload",
            json!({ "serviceAccount": "a", "address": "10.0.0.1", "hostNetwork": true }),
            "said by the cluster",
        ),
        ("InjectionConfig", json!({ "uid": "root" }), "spec.uid"),
        ("InjectionConfig", json!({ "capture": "iptables" }), "spec.capture"),
        ("InjectionConfig", json!({ "imagePullPolicy": "Sometimes" }), "spec.imagePullPolicy"),
        ("InjectionConfig", json!({ "controlPlane": "a\"\nworkers: 9 $(X):15010" }), "spec.controlPlane"),
    ] {
        let refused =
            server.calls().try_out(&object(kind, spec.clone())).await.expect_err("a contradiction").to_string();
        assert!(refused.contains(why), "{kind} {spec}: {refused}");
    }
    let lost = object("AuthorizationPolicy", json!({ "action": "DENY", "rules": null, "expires": null }));
    let taken = server.calls().try_out(&lost).await.unwrap();
    let spec = taken["spec"].as_object().unwrap();
    assert!(
        spec.contains_key("rules") && spec.contains_key("expires"),
        "the control plane is to tell of it: {taken:#}"
    );
}

#[tokio::test]
async fn where_a_webhook_injects_it_goes_first_and_pods_start_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install_for(&server, Capture::Init, Injector::Webhook).await;
        wait::until_true("a pod waits for the control plane", || async {
            let tried = server.calls().try_out(&pod("web", false)).await;
            tried.is_err_and(|refusal| refusal.message.contains("failed calling webhook"))
        })
        .await;
        let cluster = Cluster::connect(Some(&server.kubeconfig(folder.path()))).await.unwrap();
        for step in interrupted(removal::steps(false), 1) {
            cluster.remove(&step, |_| {}).await.unwrap();
        }
        assert!(server.calls().list("MutatingWebhookConfiguration").await.is_empty());
        assert!(server.calls().get("Deployment", NAMESPACE, "selvedge").await.is_some(), "it goes later");
        server.calls().try_out(&pod("web", false)).await.unwrap();
    }
}

/// A real server alone asks for rights.
#[tokio::test]
async fn the_control_plane_may_do_what_it_does_and_see_no_secret_but_its_own() {
    let Some(server) = ApiServer::real().await else { return };
    install(&server).await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/selvedge/token");
    let wanted = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": { "audiences": ["https://kubernetes.default.svc"] },
    });
    let issued = server.calls().post(&path, &wanted).await.unwrap();
    let control_plane = server.calls().of(issued["status"]["token"].as_str().unwrap());
    for kubernetes::Watched { api, .. } in kubernetes::watched() {
        control_plane.read(&api.path).await.unwrap_or_else(|refusal| panic!("{}: {refusal}", api.path));
    }
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": "a", "audiences": ["selvedge"] },
    });
    control_plane.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.unwrap();
    for (path, answer) in [
        ("/apis/selvedge.dev/v1alpha1/namespaces/selvedge-system/injectionconfigs/selvedge-inject", None),
        ("/api/v1/namespaces/selvedge-system/secrets/selvedge-ca", Some(404)),
        ("/api/v1/namespaces/selvedge-system/secrets/another", Some(403)),
        ("/api/v1/namespaces/selvedge-system/secrets", Some(403)),
        ("/api/v1/namespaces/shop/secrets/selvedge-ca", Some(403)),
        ("/api/v1/secrets", Some(403)),
        ("/apis/apps/v1/deployments", Some(403)),
    ] {
        assert_eq!(control_plane.read(path).await.err().map(|refusal| refusal.code), answer, "{path}");
    }
}

/// Whether everything that `value` says is said by `whole`, which may say more.
fn contains(whole: &Value, value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().all(|(name, value)| contains(&whole[name], value)),
        Value::Array(items) => {
            let pairs = |wholes: &Vec<Value>| items.iter().zip(wholes).all(|(item, whole)| contains(whole, item));
            whole.as_array().is_some_and(|wholes| wholes.len() == items.len() && pairs(wholes))
        }
        other => whole == other,
    }
}

#[tokio::test]
async fn pods_can_start_wherever_a_removal_is_interrupted_and_doing_it_again_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let all: usize = removal::steps(false).iter().map(|step| step.targets.len()).sum();
    let mut servers = ApiServer::each();
    // Of the double and of a real server, which takes seconds for each, and injects by itself.
    let mut ways = [(1, false), (9, true)].into_iter();
    while let Some((server, (stride, injects))) = servers.next().await.zip(ways.next()) {
        let cluster = Cluster::connect(Some(&server.kubeconfig(folder.path()))).await.unwrap();
        for count in (0..=all).step_by(stride) {
            install(&server).await;
            until_injected(&server).await;
            let mut gone = 0;
            for step in interrupted(removal::steps(false), count) {
                // A real server notices with a delay what has gone.
                let pause = if injects { step.pause } else { step.pause / 10 };
                cluster.remove(&Step { pause, ..step }, |_| gone += 1).await.unwrap();
            }
            let started = server.calls().try_out(&pod("web", false)).await;
            assert!(started.is_ok(), "after {gone} deletions no pod can start: {}", started.unwrap_err());
            for step in removal::steps(false) {
                cluster.remove(&Step { pause: step.pause / 10, ..step }, |_| {}).await.unwrap();
            }
            for kind in ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy", "ClusterRole", "Deployment"] {
                let left = server.calls().list(kind).await;
                let ours =
                    |object: &&Value| object["metadata"]["name"].as_str().unwrap_or_default().starts_with("selvedge");
                assert_eq!(left.iter().filter(ours).count(), 0, "a {kind} is left");
            }
        }
    }
}

#[tokio::test]
async fn a_mesh_that_was_taken_out_is_installed_again_and_pods_get_sidecars() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        for _ in 0..2 {
            install(&server).await;
            until_injected(&server).await;
            let (done, told) = uninstall(&server, &[]).await;
            assert!(done && told.contains("deleted InjectionConfig selvedge-system/selvedge-inject"), "{told}");
            server.calls().try_out(&pod("web", false)).await.unwrap();
        }
    }
}

/// Waits until a server puts sidecars into pods: it notices with a delay that its policy is there again, and up to half a
/// minute late that the kind of the settings is; a policy that it notices in the middle of a removal would refuse pods for
/// what is gone already. The double carries out no policy.
async fn until_injected(server: &ApiServer) {
    if !server.carries_out_policies() {
        return;
    }
    let injected = async || {
        let tried = server.calls().try_out(&pod("web", false)).await.ok()?;
        let containers = tried["spec"]["initContainers"].as_array()?.clone();
        containers.iter().any(|container| container["name"] == "selvedge-proxy").then_some(())
    };
    wait::until_within(2 * wait::DEADLINE, "a pod gets a sidecar", injected).await;
}

/// Runs `selvedge uninstall` against the server, and says whether it succeeded and what it printed.
async fn uninstall(server: &ApiServer, arguments: &[&str]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("selvedge"));
    command.args(["uninstall", "--kubeconfig"]).arg(server.kubeconfig(folder.path())).args(arguments);
    let mut process = Process::start("uninstall", &mut command, folder.path());
    let status = process.ended().await;
    (status.success(), process.log())
}

#[tokio::test]
async fn the_plugin_is_taken_back_by_every_node_before_its_daemon_set_goes() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install_for(&server, Capture::Cni, Injector::Policy).await;
        let nodes = async {
            let set =
                || async { server.calls().get("DaemonSet", NAMESPACE, "selvedge-cni").await.expect("it is there") };
            let says = |set: &Value| set.to_string().contains("--remove-on-exit");
            wait::until_true("the plugin is told to go", || async { says(&set().await) }).await;
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            let mut set = set().await;
            set["status"] = json!({
                "observedGeneration": set["metadata"]["generation"], "desiredNumberScheduled": 2, "updatedNumberScheduled": 2,
                "numberReady": 2, "currentNumberScheduled": 2, "numberMisscheduled": 0,
            });
            server.calls().apply_status(&set, "nodes").await.unwrap();
        };
        let (uninstalled, ()) = tokio::join!(uninstall(&server, &[]), nodes);
        let (done, told) = uninstalled;
        assert!(done && told.contains("deleted DaemonSet selvedge-system/selvedge-cni"), "{told}");
        assert!(server.calls().get("DaemonSet", NAMESPACE, "selvedge-cni").await.is_none());
    }
}

#[tokio::test]
async fn it_refuses_while_pods_run_with_sidecars_and_says_how_to_end_that() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install(&server).await;
        until_injected(&server).await;
        server.put(pod("web-5d8f7-1", true)).await;
        let (done, told) = uninstall(&server, &["--dry-run"]).await;
        assert!(
            !done && told.contains("MutatingAdmissionPolicy selvedge-inject") && told.contains("--force"),
            "{told}"
        );
        for absent in ["MutatingWebhookConfiguration", "selvedge-cni"] {
            assert!(!told.contains(absent), "{absent} is none of this cluster's: {told}");
        }
        let (done, told) = uninstall(&server, &[]).await;
        assert!(!done, "{told}");
        for command in [
            "kubectl label namespace shop selvedge.dev/inject-",
            "kubectl -n shop rollout restart deployment/web",
            "--force",
        ] {
            assert!(told.contains(command), "{command} is missing in: {told}");
        }
        assert!(server.calls().get("Deployment", NAMESPACE, "selvedge").await.is_some(), "nothing is gone");

        let (done, told) = uninstall(&server, &["--force"]).await;
        assert!(done && told.contains("kubectl -n shop rollout restart deployment/web"), "{told}");
        assert!(told.contains("kubectl label namespace shop selvedge.dev/inject-"), "the label stays: {told}");
        let order = [
            "MutatingAdmissionPolicyBinding",
            "Deployment selvedge-system/selvedge",
            "ClusterRole ",
            "InjectionConfig",
        ];
        let places: Vec<Option<usize>> = order.iter().map(|kind| told.find(&format!("deleted {kind}"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{told}");
        assert!(server.calls().get("Namespace", "", NAMESPACE).await.is_some(), "the key of the authority is in it");
    }
}

#[tokio::test]
async fn a_pod_that_nothing_makes_anew_is_not_simply_to_be_deleted() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let folder = tempfile::tempdir().unwrap();
        install(&server).await;
        until_injected(&server).await;
        let mut alone = pod("debug", true);
        alone["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        server.put(alone).await;
        let (done, told) = uninstall(&server, &[]).await;
        let command = "kubectl -n shop get pod/debug -o yaml | selvedge uninject | kubectl replace --force -f -";
        assert!(!done && told.contains(command), "{told}");
        // What stands between the two commands of kubectl, which does not show who said what.
        let mut shown = server.calls().get("Pod", "shop", "debug").await.unwrap();
        shown["metadata"].as_object_mut().unwrap().remove("managedFields");
        let manifest = folder.path().join("pod.json");
        std::fs::write(&manifest, shown.to_string()).unwrap();
        let output = Command::new(binary("selvedge")).args(["uninject", "-f"]).arg(&manifest).output().unwrap();
        let without = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && without.contains("name: debug"), "{without}");
        assert!(!without.contains("selvedge-proxy"), "{without}");
    }
}

#[tokio::test]
async fn where_nothing_is_installed_nothing_is_said_to_be_deleted() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        for arguments in [&["--dry-run"][..], &[]] {
            let (done, told) = uninstall(&server, arguments).await;
            assert!(done && told.trim() == "There is nothing of the mesh in this cluster.", "{told}");
        }
    }
}

/// The double alone: no controller ends the namespace on a real server, whose kinds all tests share.
#[tokio::test]
async fn what_users_have_written_goes_only_when_asked_and_is_listed_before() {
    let server = ApiServer::double().await;
    install(&server).await;
    let written = json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "MeshPolicy", "metadata": { "namespace": "shop", "name": "strict" },
        "spec": { "mtls": { "inbound": "STRICT" } },
    });
    server.put(written).await;
    let metadata = json!({ "namespace": NAMESPACE, "name": "selvedge-ca" });
    server.put(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata })).await;
    let (done, told) = uninstall(&server, &["--dry-run", "--purge"]).await;
    assert!(
        done && told.contains("MeshPolicy shop/strict") && told.contains("Secret selvedge-system/selvedge-ca"),
        "{told}"
    );
    assert!(server.calls().get("Deployment", NAMESPACE, "selvedge").await.is_some(), "nothing is gone");

    let (done, told) = uninstall(&server, &[]).await;
    assert!(done && told.contains("stays") && told.contains("MeshPolicy shop/strict"), "{told}");
    let definition = "meshpolicies.selvedge.dev";
    assert!(server.calls().get("CustomResourceDefinition", "", definition).await.is_some());

    let (done, told) = uninstall(&server, &["--purge"]).await;
    let (listed, _) = told.split_once("deleted ").expect("a deletion");
    for what in
        ["MeshPolicy shop/strict", "CustomResourceDefinition meshpolicies", "Secret selvedge-system/selvedge-ca"]
    {
        assert!(done && listed.contains(what), "{what}: {told}");
    }
    assert!(server.calls().get("CustomResourceDefinition", "", definition).await.is_none());
    assert!(server.calls().get("Namespace", "", NAMESPACE).await.is_none());
}

#[tokio::test]
async fn what_keeps_it_from_going_on_is_said_with_what_to_do() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        install(&server).await;
        server.relay().fail(Some(500));
        let (done, told) = uninstall(&server, &[]).await;
        assert!(!done && told.contains("cannot be listed") && told.contains("do it again"), "{told}");
    }
}
