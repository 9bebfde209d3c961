//! What a pod costs the control plane in memory, beside the same workload from a file.

use std::{fs, path::Path, process::Command, time::Duration};

use selvedge_tests::{
    api_server::ApiServer,
    client,
    ports::Reserved,
    process::{Process, binary},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How many pods there are at first, and at last where `SELVEDGE_TEST_PODS` does not say.
const PODS: [usize; 2] = [1_000, 4_000];
/// What a pod may cost beyond what a workload of a file costs, in bytes.
const MOST: u64 = 1536;
/// How long reading everything may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// A pod as a real cluster tells of it, with much that the mesh does not need.
fn pod(n: usize) -> Value {
    let env: Vec<Value> = (0..40).map(|n| json!({ "name": format!("SETTING_{n}"), "value": "v".repeat(40) })).collect();
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
    let wanted = format!("selvedge_control_plane_objects{{state=\"current\"}} {count}");
    loop {
        let answer = client::get(admin.address(), "/metrics").await.map(|answer| answer.text());
        if answer.is_ok_and(|metrics| metrics.lines().any(|line| line == wanted)) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {wanted}");
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

async fn from_pods(count: usize) -> u64 {
    let (server, folder) = (ApiServer::double().await, folder());
    for n in 0..count {
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
    let of_pods = from_pods(many).await.saturating_sub(from_pods(few).await) / more;
    let of_files = from_files(many).await.saturating_sub(from_files(few).await) / more;
    println!("{of_pods} bytes a pod, {of_files} bytes a workload of a file");
    assert!(of_pods <= of_files + MOST, "a pod costs {of_pods} bytes, a workload of a file {of_files}");
}
