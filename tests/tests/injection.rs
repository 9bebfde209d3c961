//! The policies of injection in a real API server: it says of every shape of pod what the injector says, and what is on file
//! as its answer.
//!
//! `SELVEDGE_GOLDEN=write`, with `KUBEBUILDER_ASSETS`, writes the answers anew.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use selvedge_inject::policy::{advising, mutating, requiring};
use selvedge_install::crd;
use selvedge_tests::{api_server::ApiServer, wait, workspace};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

#[path = "../../inject/tests/golden/answers.rs"]
mod answers;
#[path = "../../inject/tests/golden/shapes.rs"]
mod shapes;

use shapes::{Shape, shapes};

/// How long a policy or a parameter may take to be in force.
const PATIENCE: Duration = Duration::from_secs(60);

fn path() -> PathBuf {
    workspace().join("inject/tests/golden/answers.json")
}

/// How long an API server goes on with the kinds that it knew for parameters, and one second.
const KINDS: Duration = Duration::from_secs(31);

/// A real server with the namespaces of the shapes; `None`, after saying so, when there is none.
async fn server() -> Option<ApiServer> {
    let server = ApiServer::real().await?;
    for shape in shapes() {
        server.put(shape.namespace).await;
    }
    Some(server)
}

/// The shape of that name.
fn shape(name: &str) -> Shape {
    shapes().into_iter().find(|shape| shape.name == name).unwrap_or_else(|| panic!("no shape '{name}'"))
}

/// What a server answers to a shape, in the form that is kept.
async fn asked(server: &ApiServer, shape: &Shape) -> Value {
    let mut pod = shape.pod.clone();
    pod["metadata"]["namespace"] = shape.namespace["metadata"]["name"].clone();
    match server.calls().try_out(&pod).await {
        Ok(pod) => answers::parts(&pod),
        Err(refusal) => json!({ "refused": refusal.message }),
    }
}

/// Asks until the answer is that of the injector: what was written last takes a moment to be in force.
async fn agreed(server: &ApiServer, shape: &Shape) -> Value {
    let (ours, end) = (answers::injector(shape), Instant::now() + PATIENCE);
    loop {
        let theirs = asked(server, shape).await;
        if answers::is_same(&ours, &theirs) {
            return theirs;
        }
        assert!(Instant::now() < end, "{}\n  injector: {ours}\n  server:   {theirs}", shape.name);
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_real_server_says_what_the_injector_and_the_answers_on_file_say() {
    let Some(server) = server().await else { return };
    without_the_kind_of_the_settings_only_pods_that_should_have_a_sidecar_are_refused(&server).await;
    it_answers_as_the_injector(&server).await;
    it_warns_in_the_words_of_the_injector(&server).await;
    where_restricted_is_enforced_a_sidecar_may_run_and_a_capture_container_may_not(&server).await;
    without_settings_only_pods_that_should_have_a_sidecar_are_refused(&server).await;
}

/// The policies, on a server that learns of the kind of their parameter after them.
async fn without_the_kind_of_the_settings_only_pods_that_should_have_a_sidecar_are_refused(server: &ApiServer) {
    let definition = crd::injection_config();
    let name = definition["metadata"]["name"].as_str().unwrap();
    server.delete("CustomResourceDefinition", "", name).await;
    sleep(KINDS).await;
    for object in [requiring::objects(), mutating::objects(), advising::objects()].concat() {
        server.put(object).await;
    }
    let plain = &shapes()[0];
    let waits = async || asked(server, plain).await["refused"].as_str().map(str::to_owned);
    let why = wait::until("the pod waits", waits).await;
    assert!(why.contains("mesh not ready: nothing has put a sidecar into this pod"), "{why}");
    // In both parts the server notices its policies with a delay.
    sleep(Duration::from_secs(3)).await;
    only_those_are_refused(server).await;
    server.put(definition).await;
    wait::until("the kind is known", async || server.try_put(&plain.settings).await.ok()).await;
}

/// Pods that should have no sidecar are taken.
async fn only_those_are_refused(server: &ApiServer) {
    for name in ["an unlabelled namespace", "a disabled namespace", "kube-system"] {
        assert_eq!(asked(server, &shape(name)).await["refused"], Value::Null, "{name}");
    }
}

async fn it_answers_as_the_injector(server: &ApiServer) {
    let version = server.calls().read("/version").await.unwrap();
    let mut answered = BTreeMap::new();
    for shape in shapes() {
        // Server-side apply by one manager: a key that is absent now is taken away.
        server.put(shape.settings.clone()).await;
        answered.insert(shape.name.clone(), agreed(server, &shape).await);
    }
    if std::env::var_os("SELVEDGE_GOLDEN").is_some_and(|value| value == "write") {
        let by = format!("kube-apiserver {}", version["gitVersion"].as_str().unwrap());
        std::fs::write(path(), written(&by, &answered)).unwrap();
    }
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path()).unwrap()).unwrap();
    for (name, answer) in answered {
        // Another version may have other defaults.
        assert!(answers::is_same(&golden["answers"][&name], &answer) || golden["answers"][&name] == answer, "{name}");
    }
}

/// How a warning of an API server begins, of a policy that warns.
const WARNED: &str =
    "Validation failed for ValidatingAdmissionPolicy 'selvedge-annotations' with binding 'selvedge-annotations': ";

async fn it_warns_in_the_words_of_the_injector(server: &ApiServer) {
    let mut warned = 0;
    for shape in shapes() {
        server.put(shape.settings.clone()).await;
        let answered = agreed(server, &shape).await;
        if !answered["refused"].is_null() {
            continue;
        }
        let mut pod = shape.pod.clone();
        pod["metadata"]["namespace"] = shape.namespace["metadata"]["name"].clone();
        let mut ours = answers::said(&shape, &shape.pod);
        let said = server.calls().warnings(&pod).await;
        let said = said.iter().filter_map(|said| said.strip_prefix(WARNED));
        let mut theirs: Vec<_> = said.filter(|said| !said.starts_with("there is no annotation")).collect();
        ours.sort();
        theirs.sort_unstable();
        assert_eq!(ours, theirs, "{}", shape.name);
        warned += theirs.len();
    }
    assert!(warned > 40, "{warned} warnings");
}

/// One answer on each line.
fn written(by: &str, answered: &BTreeMap<String, Value>) -> String {
    let lines: Vec<String> = answered.iter().map(|(name, answer)| format!("{}: {answer}", json!(name))).collect();
    format!("{{ \"by\": {}, \"answers\": {{\n{}\n}} }}\n", json!(by), lines.join(",\n"))
}

/// A pod that the Pod Security Standard `restricted` admits.
fn restricted(capture: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web",
            "namespace": "strict",
            "annotations": { "config.selvedge.dev/capture": capture },
        },
        "spec": {
            "serviceAccountName": "default",
            "containers": [{ "name": "web", "image": "registry.test/app:1", "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 1000,
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"] },
                "seccompProfile": { "type": "RuntimeDefault" },
            } }],
        },
    })
}

async fn where_restricted_is_enforced_a_sidecar_may_run_and_a_capture_container_may_not(server: &ApiServer) {
    let labels = json!({ "selvedge.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": "restricted" });
    server
        .put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "strict", "labels": labels } }))
        .await;
    let shape = shapes().remove(0);
    server.put(shape.settings.clone()).await;
    agreed(server, &shape).await;
    for capture in ["none", "cni"] {
        let pod =
            server.calls().try_out(&restricted(capture)).await.unwrap_or_else(|refusal| panic!("{capture}: {refusal}"));
        assert_eq!(pod["spec"]["initContainers"][0]["name"], "selvedge-proxy");
    }
    let refusal = server.calls().try_out(&restricted("init")).await.unwrap_err();
    assert!(refusal.message.contains("selvedge-capture") && refusal.message.contains("NET_ADMIN"), "{refusal}");
}

async fn without_settings_only_pods_that_should_have_a_sidecar_are_refused(server: &ApiServer) {
    let plain = &shapes()[0];
    server.put(plain.settings.clone()).await;
    agreed(server, plain).await;
    server.delete("InjectionConfig", "selvedge-system", "selvedge-inject").await;
    let end = Instant::now() + PATIENCE;
    while asked(server, plain).await["refused"].is_null() {
        assert!(Instant::now() < end, "the pod is still injected");
        sleep(Duration::from_millis(50)).await;
    }
    only_those_are_refused(server).await;
}
