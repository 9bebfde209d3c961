//! Who follows the page about Kubernetes from top to bottom has a mesh in a cluster, and takes it out again: its very
//! commands, by a shell and kubectl, against a real API server. The test is what a cluster has besides: controllers,
//! nodes, a registry.

use std::{fs, path::Path, process::Stdio, time::Duration};

use selvedge_tests::{api_server::ApiServer, commands, mesh::Mesh, pages::Page, program, skip, wait};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{process::Command, time::sleep};

const SYSTEM: &str = "selvedge-system";

/// What stands in for programs that are not run: images are neither built nor pushed, and the control plane, which runs
/// outside the cluster, is on another port of this machine.
const STAND_INS: &str = r#"
set -euo pipefail
make() { :; }
skopeo() { :; }
kubectl() { case "$*" in *port-forward*) ;; apply*) command kubectl "$@" $VALIDATION ;; *) command kubectl "$@" ;; esac; }
curl() { command curl "${@/localhost:15014/$ADMIN}"; }
"#;

/// The shell of somebody who follows a page.
struct Reader {
    folder: TempDir,
    kubeconfig: String,
    admin: String,
    /// How `kubectl apply` is told not to ask for schemas.
    validation: &'static str,
}

impl Reader {
    fn of(server: &ApiServer) -> Self {
        let folder = TempDir::new().unwrap();
        let kubeconfig = server.kubeconfig_of_kubectl(folder.path()).display().to_string();
        let digest = format!("sha256:{}", "1".repeat(64));
        let images = ["selvedge", "selvedge-proxy", "selvedge-capture", "selvedge-cni"].map(|name| (name, &digest));
        let list = serde_json::to_string(&images.into_iter().collect::<std::collections::BTreeMap<_, _>>()).unwrap();
        for place in ["target/image", "."] {
            fs::create_dir_all(folder.path().join(place)).unwrap();
            fs::write(folder.path().join(place).join("images.json"), &list).unwrap();
        }
        Self { folder, kubeconfig, admin: String::new(), validation: "" }
    }

    /// What a text of shell prints, and whether it succeeds.
    async fn try_out(&self, text: &str) -> (bool, String) {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("{STAND_INS}{text}")]).current_dir(self.folder.path());
        shell
            .env("PATH", commands::path())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("ADMIN", &self.admin)
            .env("VALIDATION", self.validation);
        // kubectl keeps there what it has learnt of a cluster.
        shell.env("HOME", self.folder.path());
        let told = shell.stdin(Stdio::null()).output().await.unwrap();
        (told.status.success(), [told.stdout, told.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat())
    }

    /// What a text of shell prints.
    async fn follow(&self, text: &str) -> String {
        let (mut succeeded, mut told) = self.try_out(text).await;
        // A person is slower than the second in which a deployment is restarted once.
        while !succeeded && told.contains("within the past second") {
            sleep(Duration::from_millis(300)).await;
            (succeeded, told) = self.try_out(text).await;
        }
        assert!(succeeded, "{text}\n{told}");
        told
    }
}

/// The block of shell of a page in which these words stand.
fn block(page: &str, words: &str) -> String {
    let page = Page::named(page);
    let mut blocks = page.shell();
    blocks.find(|block| block.contains(words)).unwrap_or_else(|| panic!("no block with '{words}'")).to_owned()
}

fn five_minutes(words: &str) -> String {
    block("docs/kubernetes/README.md", words)
}

/// A Deployment `web` in `shop`, with its pod, as its controllers make it of the template.
async fn start_web(server: &ApiServer, generation: u8) {
    server.put(web(generation)).await;
}

/// Waits until a pod would get a sidecar: the API server notices its policies with a delay, up to half a minute that of the
/// kind of the settings, and a ReplicaSet tries again until then.
async fn until_injected(server: &ApiServer) {
    let injected = async || {
        let tried = server.calls().try_out(&web(9)).await.ok()?;
        let containers = tried["spec"]["initContainers"].as_array()?.clone();
        containers.iter().any(|container| container["name"] == "selvedge-proxy").then_some(())
    };
    wait::until_within(2 * wait::DEADLINE, "a pod gets a sidecar", injected).await;
}

/// The pod of the Deployment in that generation.
fn web(generation: u8) -> Value {
    let containers = json!([{ "name": "web", "image": "registry.example/web" }]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": format!("web-5d8f7-{generation}"),
            "labels": { "app": "web", "pod-template-hash": "5d8f7" },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f7", "uid": "1", "controller": true,
            }],
        },
        "spec": { "serviceAccountName": "default", "containers": containers },
        "status": { "phase": "Running", "podIP": format!("10.1.0.{generation}"), "podIPs": [{ "ip": format!("10.1.0.{generation}") }] },
    })
}

/// Says that the Deployment of the control plane is there, as its controller does of one that is.
async fn roll_out(server: &ApiServer) {
    let find = || async { server.get("Deployment", SYSTEM, "selvedge").await };
    let mut deployment = wait::until("the Deployment is applied", find).await;
    deployment["status"] = json!({
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
    });
    server.calls().apply_status(&deployment, "controllers").await.unwrap();
}

/// A control plane that has the rights which the installation gives, and the settings of sidecars that it names.
async fn control_plane(server: &ApiServer, folder: &Path) -> Mesh {
    let path = format!("/api/v1/namespaces/{SYSTEM}/serviceaccounts/selvedge/token");
    let wanted = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": { "audiences": ["https://kubernetes.default.svc"] },
    });
    let issued = server.calls().post(&path, &wanted).await.unwrap();
    let kubeconfig = server.kubeconfig_of(issued["status"]["token"].as_str().unwrap(), folder);
    let mut config: Value = serde_json::from_slice(&fs::read(&kubeconfig).unwrap()).unwrap();
    config["contexts"][0]["context"]["namespace"] = SYSTEM.into();
    fs::write(&kubeconfig, config.to_string()).unwrap();
    let deployment = server.get("Deployment", SYSTEM, "selvedge").await.unwrap();
    let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    let arguments = arguments.iter().map(|argument| argument.as_str().unwrap());
    let sidecars = arguments.skip_while(|argument| *argument != "--sidecar");
    let kubeconfig = kubeconfig.display().to_string();
    let own = ["--kubernetes", "--kubeconfig", &kubeconfig];
    Mesh::start_with(&own.into_iter().chain(sidecars).collect::<Vec<_>>()).await
}

/// A reader with a cluster in which a Deployment runs, and which has never heard of the mesh; `None` where a program that
/// the page names is missing.
async fn newcomer(server: &ApiServer) -> Option<Reader> {
    for needed in ["jq", "curl"] {
        program(needed)?;
    }
    let mut reader = Reader::of(server);
    if !reader.try_out("kubectl version --client").await.0 {
        skip("there is no kubectl");
        return None;
    }
    // A server that was built for tests may not tell its schemas in the form in which kubectl wants them.
    let applies =
        "kubectl create namespace a --dry-run=client -o yaml | kubectl apply --server-side --dry-run=server -f -";
    if !reader.try_out(applies).await.0 {
        reader.validation = "--validate=false";
    }
    let forget = "kubectl get crd --output name | grep selvedge.dev | xargs kubectl delete; rm -r $HOME/.kube";
    reader.follow(forget).await;
    let template = json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "web", "image": "registry.example/web" }] },
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "namespace": "shop", "name": "web" },
        "spec": { "selector": { "matchLabels": { "app": "web" } }, "template": template },
    });
    server.put(deployment).await;
    start_web(server, 1).await;
    Some(reader)
}

#[tokio::test]
async fn the_five_minutes_and_the_way_back() {
    let Some(server) = ApiServer::real().await else { return };
    let Some(mut reader) = newcomer(&server).await else { return };
    reader.follow(&five_minutes("make image")).await;
    let install = five_minutes("selvedge install --images");
    let (told, ()) = tokio::join!(reader.follow(&install), roll_out(&server));
    assert!(told.contains("successfully rolled out"), "{told}");
    let folder = TempDir::new().unwrap();
    let mesh = control_plane(&server, folder.path()).await;
    reader.admin = mesh.admin().to_string();
    wait::until_true("the trust bundle is written", || async {
        let settings = server.get("InjectionConfig", SYSTEM, "selvedge-inject").await;
        settings.is_some_and(|settings| settings["spec"]["trustBundle"].is_string())
    })
    .await;

    // What is in Git is what is in the cluster, also after the control plane added to it.
    let render = install.lines().find(|line| line.starts_with("selvedge install")).unwrap();
    let drift = reader.follow(&render.replace("kubectl apply", "kubectl diff")).await;
    assert_eq!(drift, "");

    let told = reader.follow(&five_minutes("selvedge.dev/inject=enabled")).await;
    assert!(told.contains("deployment.apps/web restarted") && told.contains("web-5d8f7-1"), "{told}");
    let told = reader.follow(&five_minutes("port-forward")).await;
    assert!(told.contains("\"namespace\": \"shop\"") && told.contains("\"canBeStrict\": false"), "{told}");

    server.delete("Pod", "shop", "web-5d8f7-1").await;
    until_injected(&server).await;
    start_web(&server, 2).await;
    let pod = server.get("Pod", "shop", "web-5d8f7-2").await.unwrap();
    let sidecar = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    assert!(sidecar.into_iter().any(|container| container["name"] == "selvedge-proxy"), "{pod:#}");
    let images = reader.follow(&block("docs/kubernetes/install.md", "jsonpath")).await;
    assert!(images.contains("shop/web-5d8f7-2 registry.example/mesh/selvedge-proxy@sha256:1111"), "{images}");

    let told = reader.follow(&five_minutes("kind: MeshPolicy")).await;
    assert!(told.contains("meshpolicy.selvedge.dev/strict") && told.contains("STRICT"), "{told}");

    let uninstall = block("docs/kubernetes/install.md", "selvedge uninstall");
    let (went, told) = reader.try_out(&uninstall).await;
    assert!(!went, "{told}");
    let commands: Vec<&str> = told.lines().map(str::trim).filter(|line| line.starts_with("kubectl ")).collect();
    assert_eq!(commands.len(), 2, "{told}");
    reader.follow(&commands.join("\n")).await;
    server.delete("Pod", "shop", "web-5d8f7-2").await;
    start_web(&server, 3).await;
    let told = reader.follow(&uninstall).await;
    assert!(told.contains("MeshPolicy shop/strict"), "what users wrote is listed: {told}");
    let left = reader.follow("kubectl get all,injectionconfigs --namespace selvedge-system --output name").await;
    assert!(!left.contains("selvedge"), "{left}");
}
