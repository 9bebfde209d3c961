//! What a pod costs the control plane in memory, beside the same workload from a file.

use std::{fs, path::Path, process::Command, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use selvedge_tests::{
    api_server::ApiServer,
    client,
    ports::Reserved,
    process::{Process, binary},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How many pods there are at first, and at last where `SELVEDGE_TEST_PODS` does not say.
const PODS: [usize; 2] = [500, 2_000];
/// What a pod may cost beyond what a workload of a file costs, in bytes.
const MOST: u64 = 1536;
/// How long reading everything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pod as a real cluster tells of it, with much that the mesh does not need.
fn pod(n: usize) -> Value {
    let env: Vec<Value> = (0..8).map(|n| json!({ "name": format!("SETTING_{n}"), "value": "v".repeat(300) })).collect();
    let address = format!("10.{}.{}.{}", 1 + n / 60_000, n / 250 % 240, 1 + n % 250);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "shop", "name": format!("web-7d9f8b6c5d-{n:05}"),
            "labels": { "app": "web", "pod-template-hash": "7d9f8b6c5d" },
            "annotations": { "note": "n".repeat(1000) },
        },
        "spec": {
            "serviceAccountName": "web", "nodeName": "node-1",
            "initContainers": [{ "name": "selvedge-proxy", "image": "sidecar", "restartPolicy": "Always", "env": env }],
            "containers": [{ "name": "web", "image": "web", "env": env, "ports": [{ "name": "http", "containerPort": 8080 }] }],
        },
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] },
    })
}

/// The same workload as somebody writes it.
fn workload(n: usize) -> String {
    let pod = pod(n);
    let (metadata, address) = (&pod["metadata"], &pod["status"]["podIP"]);
    let document = json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "Workload",
        "metadata": { "namespace": "shop", "name": metadata["name"], "labels": metadata["labels"] },
        "spec": { "serviceAccount": "web", "address": address, "ports": [{ "name": "http", "port": 8080 }] },
    });
    format!("---\n{document}\n")
}

/// What a control plane with these arguments needs, in bytes, once it has that many workloads in force.
async fn resident(folder: &Path, arguments: &[&str], count: usize) -> u64 {
    let (listen, admin) = (Reserved::new(), Reserved::new());
    let mut command = Command::new(binary("selvedge"));
    command.args(["control-plane", "--listen", &listen.address().to_string(), "--admin", &admin.address().to_string()]);
    command.arg("--config-dir").arg(folder.join("config")).arg("--state-dir").arg(folder.join("state")).args(arguments);
    let control_plane = Process::start("control-plane", &mut command, folder);
    let begun = Instant::now();
    let state = "selvedge_control_plane_objects{state=\"current\"} ";
    loop {
        let answer = client::get(admin.address(), "/metrics").await.map(|answer| answer.text());
        let answer = answer.unwrap_or_default();
        let current = answer.lines().find_map(|line| line.strip_prefix(state)?.parse::<usize>().ok());
        // A cluster has a service of its own besides.
        if current >= Some(count) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "never {count} workloads, but {current:?}: {answer}");
        sleep(Duration::from_millis(200)).await;
    }
    // What is saved of it is memory that comes and goes.
    let mut resident = control_plane.resident_bytes();
    for _ in 0..10 {
        sleep(Duration::from_millis(300)).await;
        resident = resident.min(control_plane.resident_bytes());
    }
    println!("{count} workloads: {} MiB after {:?}", resident >> 20, begun.elapsed());
    resident
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("selvedge-memory-").tempdir().unwrap();
    fs::create_dir(folder.path().join("config")).unwrap();
    fs::create_dir(folder.path().join("state")).unwrap();
    folder
}

/// An authority's file, as a Secret has it.
fn authority() -> String {
    let folder = folder();
    let state = folder.path().join("state");
    let made = Command::new(binary("selvedge")).args(["ca", "new", "--state-dir"]).arg(&state).status().unwrap();
    assert!(made.success());
    BASE64_STANDARD.encode(fs::read(state.join("ca.pem")).unwrap())
}

/// Of a server that has `had` of them already.
async fn from_pods(server: &ApiServer, had: usize, count: usize) -> u64 {
    let folder = folder();
    for n in had..count {
        server.put(pod(n)).await;
    }
    let kubeconfig = server.kubeconfig(folder.path());
    resident(folder.path(), &["--kubernetes", "--kubeconfig", kubeconfig.to_str().unwrap()], count).await
}

async fn from_files(count: usize) -> u64 {
    let folder = folder();
    for (n, first) in (0..count).step_by(500).enumerate() {
        let text: String = (first..count.min(first + 500)).map(workload).collect();
        fs::write(folder.path().join(format!("config/{n}.yaml")), text).unwrap();
    }
    resident(folder.path(), &[], count).await
}

#[tokio::test]
async fn a_pod_costs_little_more_than_a_workload_of_a_file() {
    let asked = std::env::var("SELVEDGE_TEST_PODS").ok();
    let (few, many) = (PODS[0], asked.map_or(PODS[1], |count| count.parse().expect("a number of pods")));
    let more = many.saturating_sub(few).max(1) as u64;
    let server = ApiServer::double().await;
    // Where pods have sidecars already, no control plane makes an authority.
    let begun = json!({ "namespace": "selvedge-system", "name": "selvedge-ca" });
    let authority = authority();
    server
        .put(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": begun, "data": { "ca.pem": authority } }))
        .await;
    let of_few = from_pods(&server, 0, few).await;
    let of_pods = from_pods(&server, few, many).await.saturating_sub(of_few) / more;
    let of_files = from_files(many).await.saturating_sub(from_files(few).await) / more;
    println!("{of_pods} bytes a pod, {of_files} bytes a workload of a file");
    assert!(of_pods <= of_files + MOST, "a pod costs {of_pods} bytes, a workload of a file {of_files}");
}
