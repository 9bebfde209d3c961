//! The operator's commands over a cluster: which one they ask, and where in it they look.

use std::{path::Path, process::Command};

use selvedge_tests::{api_server::ApiServer, process::binary};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs `selvedge` in a surrounding that says nothing of clusters but what is given here, and returns whether it succeeded
/// and all that it printed. The test's servers answer meanwhile.
pub(super) async fn selvedge(arguments: &[&str], surrounding: &[(&str, &Path)]) -> (bool, String) {
    let mut command = Command::new(binary("selvedge"));
    command.args(arguments);
    for name in ["KUBECONFIG", "HOME", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").envs(surrounding.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Makes the context of a kubeconfig file work in `namespace`.
fn work_in(kubeconfig: &Path, namespace: &str) {
    let mut config: Value = serde_json::from_slice(&std::fs::read(kubeconfig).unwrap()).unwrap();
    config["contexts"][0]["context"]["namespace"] = namespace.into();
    std::fs::write(kubeconfig, config.to_string()).unwrap();
}

async fn secrets(server: &ApiServer) -> Vec<String> {
    let all = server.all("Secret").await;
    let text = |secret: &Value, field: &str| secret["metadata"][field].as_str().unwrap_or_default().to_owned();
    let named = all.iter().map(|secret| format!("{}/{}", text(secret, "namespace"), text(secret, "name")));
    named.filter(|name| name.ends_with("/selvedge-ca")).collect()
}

#[tokio::test]
async fn the_key_of_an_authority_is_made_where_its_control_plane_reads_it_and_nowhere_else() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let folder = TempDir::new().unwrap();
        let kubeconfig = server.kubeconfig(folder.path());
        work_in(&kubeconfig, "shop");
        for namespace in ["shop", "selvedge-system"] {
            server.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } })).await;
        }
        let ca = async |arguments: &[&str]| {
            let ca = [&["ca"], arguments, &["--kubernetes", "--kubeconfig", kubeconfig.to_str().unwrap()]].concat();
            // A pod has read-only files and no such folder.
            selvedge(&ca, &[("TMPDIR", Path::new("/nonexistent"))]).await
        };
        let (made, told) = ca(&["new"]).await;
        assert!(!made && told.contains("no Service selvedge") && told.contains("--namespace"), "{told}");
        assert_eq!(secrets(&server).await, [""; 0]);

        let metadata = json!({ "namespace": "selvedge-system", "name": "selvedge" });
        let spec = json!({ "ports": [{ "port": 15010 }] });
        server.put(json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec })).await;
        let (made, told) = ca(&["new"]).await;
        assert!(made && told.contains("in the Secret selvedge-system/selvedge-ca"), "{told}");
        assert_eq!(secrets(&server).await, ["selvedge-system/selvedge-ca"]);
        let (shown, told) = ca(&["show"]).await;
        assert!(shown && told.contains("signs"), "{told}");

        let (shown, told) = ca(&["show", "--namespace", "shop"]).await;
        assert!(!shown && told.contains("no CA in the Secret shop/selvedge-ca"), "{told}");
        let (made, told) = ca(&["new", "--namespace", "shop"]).await;
        assert!(made && told.contains("in the Secret shop/selvedge-ca"), "who names a namespace means it: {told}");
    }
}

#[tokio::test]
async fn every_command_finds_the_cluster_in_one_order() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let (folder, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let good = server.kubeconfig(folder.path());
        let bad = folder.path().join("bad");
        std::fs::write(&bad, "{}").unwrap();
        std::fs::create_dir(home.path().join(".kube")).unwrap();
        let of_home = home.path().join(".kube/config");
        let state = folder.path().join("state");
        let control_plane = ["control-plane", "--kubernetes", "--state-dir", state.to_str().unwrap()];
        let commands: [&[&str]; 4] =
            [&["ca", "show", "--kubernetes"], &["lint", "--kubernetes"], &["uninstall", "--dry-run"], &control_plane];
        for command in commands {
            let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
            let named = |kubeconfig| [command, &["--kubeconfig", kubeconfig]].concat();
            let cannot_be_used = |path: &str| format!("the kubeconfig file {path} cannot be used");
            let (succeeded, told) = selvedge(command, &[]).await;
            assert!(
                !succeeded && told.contains("nothing names a cluster: give --kubeconfig FILE"),
                "{command:?}: {told}"
            );
            std::fs::write(&of_home, "{}").unwrap();
            let at_home = ("HOME", home.path());
            let (_, told) = selvedge(command, &[at_home]).await;
            assert!(told.contains(&cannot_be_used(of_home.to_str().unwrap())), "{command:?}: {told}");
            let (_, told) = selvedge(command, &[at_home, ("KUBECONFIG", Path::new(bad))]).await;
            assert!(told.contains(&cannot_be_used(bad)), "{command:?}: {told}");
            // A control plane that finds its cluster goes on.
            if command == control_plane {
                continue;
            }
            let is_found = |told: &str| !told.contains("cannot be used") && !told.contains("nothing names a cluster");
            let (_, told) = selvedge(&named(good), &[at_home, ("KUBECONFIG", Path::new(bad))]).await;
            assert!(is_found(&told), "{command:?}: {told}");
            let (_, told) = selvedge(command, &[at_home, ("KUBECONFIG", Path::new(good))]).await;
            assert!(is_found(&told), "{command:?}: {told}");
            std::fs::copy(good, &of_home).unwrap();
            let (_, told) = selvedge(command, &[at_home]).await;
            assert!(is_found(&told), "{command:?}: {told}");
        }
    }
}

/// Objects about which there is something to say, and objects about which people might expect it.
fn written() -> Vec<Value> {
    let service = |name: &str, spec: Value| json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "shop", "name": name }, "spec": spec });
    let spoken = |protocol: &str| json!({ "ports": [{ "port": 80, "appProtocol": protocol }] });
    let route = |name: &str, parent: Value, backend: &str| {
        let rules = json!([{ "backendRefs": [{ "name": backend, "port": 80 }] }]);
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "namespace": "shop", "name": name }, "spec": { "parentRefs": [parent], "rules": rules },
        })
    };
    let (gateway, web) =
        (json!({ "kind": "Gateway", "name": "edge" }), json!({ "kind": "Service", "group": "", "name": "web" }));
    let policy = json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "AuthorizationPolicy",
        "metadata": { "namespace": "shop", "name": "nobody" },
        "spec": { "targetRef": { "kind": "Service", "name": "wbe" }, "action": "DENY", "rules": [{}] },
    });
    vec![
        service("web", json!({ "selector": { "app": "web" }, "ports": [{ "port": 80, "appProtocol": "http" }] })),
        service("outside", json!({ "type": "ExternalName", "externalName": "api.example.com" })),
        service("database", spoken("example.com/mongo")),
        service("misspelt", spoken("htpp")),
        route("of-a-gateway", gateway, "web"),
        route("to-nothing", web, "gone"),
        policy,
    ]
}

/// What is found and how bad it is, without the places.
fn found(report: &str) -> Vec<String> {
    let report: Value = serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {report}"));
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    let mut found: Vec<String> = findings
        .map(|finding| ["severity", "object", "field", "message", "hint"].map(|field| text(finding, field)).join(" | "))
        .map(|finding| finding.replace("no pod or Workload", "no Workload"))
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_cluster_is_told_the_same_as_a_directory_with_the_same_objects() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let (folder, mesh) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let kubeconfig = server.kubeconfig(folder.path());
        for (n, object) in written().into_iter().enumerate() {
            std::fs::write(mesh.path().join(format!("{n}.json")), object.to_string()).unwrap();
            server.put(object).await;
        }
        let of_cluster = ["lint", "--kubernetes", "--kubeconfig", kubeconfig.to_str().unwrap(), "-o", "json"];
        let (_, of_directory) = selvedge(&["lint", mesh.path().to_str().unwrap(), "-o", "json"], &[]).await;
        let (clean, told) = selvedge(&of_cluster, &[]).await;
        assert!(!clean);
        assert_eq!(found(&told), found(&of_directory));
        let about =
            ["selector", "AuthorizationPolicy shop/nobody", "HTTPRoute shop/to-nothing", "Service shop/misspelt"];
        for words in about {
            assert!(found(&told).iter().any(|finding| finding.contains(words)), "{words}: {told}");
        }
        assert_eq!(found(&told).len(), about.len(), "{told}");
        assert!(told.contains("no pod or Workload of namespace 'shop' has these labels"), "{told}");

        server.put(super::pod("shop", "web-1", "10.1.0.5", true)).await;
        let (_, told) = selvedge(&of_cluster, &[]).await;
        assert!(!told.contains("has these labels"), "{told}");
        let both = [&of_cluster[..], &[mesh.path().to_str().unwrap()]].concat();
        let (_, told) = selvedge(&both, &[]).await;
        assert!(told.contains("/0.json"), "a directory is read beside it: {told}");
        server.relay().forbid("/api/v1/pods");
        let (clean, told) = selvedge(&of_cluster, &[]).await;
        assert!(!clean && told.contains("the API server does not list /api/v1/pods"), "{told}");
    }
}
