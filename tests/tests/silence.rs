//! What a pod calls for the first time while no control plane answers: what may have a sidecar never in plaintext, everything
//! else as always, and nobody waits again and again. Needs root; without it the test says so.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    process::Command,
    thread,
};

use selvedge_tests::{
    api_server::ApiServer,
    client,
    mesh::Mesh,
    nodes::{self, HUB, Node},
    process::binary,
    program, wait,
};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

const SYSTEM: &str = "selvedge-system";
const ANSWERS: &str = "SELVEDGE_TEST_ANSWERS";
/// An address that the mesh knows nothing of.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// Run in a node: answers every request on port 8080 with a name.
#[test]
fn answers_with_a_name() {
    let Ok(name) = std::env::var(ANSWERS) else { return };
    answer_at(Ipv4Addr::UNSPECIFIED, 8080, &name);
}

fn answer_at(address: Ipv4Addr, port: u16, name: &str) {
    let listener = TcpListener::bind((address, port)).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}", name.len());
    }
}

fn pod(name: &str, address: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": "shop", "name": name, "labels": { "app": name } },
        "spec": {
            "serviceAccountName": name, "nodeName": "one", "containers": [{ "name": "application", "image": "it" }],
            "initContainers": [{ "name": "selvedge-proxy", "image": "proxy", "restartPolicy": "Always" }],
        },
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] },
    })
}

/// A service at a cluster address, and the slice with its one endpoint.
async fn serve(server: &ApiServer, name: [&str; 2], address: &str, port: u16, endpoint: Value, target: u16) {
    let [namespace, name] = name;
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": namespace, "name": name },
        "spec": {
            "clusterIP": address, "clusterIPs": [address],
            "ports": [{ "name": "main", "port": port, "targetPort": target, "protocol": "TCP" }],
        },
    });
    if endpoint.get("targetRef").is_some() {
        service["spec"]["selector"] = json!({ "app": name });
    }
    server.put(service).await;
    let labels = json!({ "kubernetes.io/service-name": name });
    server
        .put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "namespace": namespace, "name": format!("{name}-1"), "labels": labels },
            "endpoints": [endpoint], "ports": [{ "name": "main", "port": target, "protocol": "TCP" }],
        }))
        .await;
}

/// A pod with a sidecar and an application that answers with its name, behind a service of that name.
async fn deploy(server: &ApiServer, mesh: &Mesh, bundle: &str, name: &str, number: u8) -> Node {
    let mut node = Node::start(number, mesh.folder()).await;
    server.put(pod(name, node.address)).await;
    let target = json!({ "kind": "Pod", "namespace": "shop", "name": name });
    let endpoint = json!({ "addresses": [node.address], "conditions": { "ready": true }, "targetRef": target });
    serve(server, ["shop", name], &format!("10.96.0.{number}"), 80, endpoint, 8080).await;
    let (test, setting) = (std::env::current_exe().unwrap().display().to_string(), format!("{ANSWERS}={name}"));
    node.runs("answers", "env", &[&setting, &test, "--exact", "answers_with_a_name", "--nocapture"]);
    let token = server.token("shop", name, "selvedge").await;
    node.pod(mesh, &format!("shop/{name}"), &token, bundle).await;
    node
}

/// What `curl` is answered, and with which status.
fn get(node: &Node, url: &str) -> String {
    node.prints("curl", &["-s", "-m", "8", "-w", " %{http_code}", url])
}

#[test]
fn a_silent_control_plane_makes_nobody_call_a_sidecar_in_plaintext_or_wait_twice() {
    nodes::among("a_silent_control_plane_makes_nobody_call_a_sidecar_in_plaintext_or_wait_twice", silence);
}

async fn silence() {
    if program("curl").is_none() {
        return;
    }
    let added = Command::new("ip").args(["addr", "add", &format!("{OUTSIDE}/32"), "dev", "hub"]).status().unwrap();
    assert!(added.success());
    for (address, port, name) in [(OUTSIDE, 8080, "outside"), (HUB, 6443, "api-server")] {
        thread::spawn(move || answer_at(address, port, name));
    }
    let server = ApiServer::double().await;
    server.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SYSTEM } })).await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = server.kubeconfig(folder.path()).display().to_string();
    let mut mesh = Mesh::start_on(HUB, &["--kubernetes", "--kubeconfig", &kubeconfig]).await;
    let bundle = || async {
        let found = server.calls().get("InjectionConfig", SYSTEM, "selvedge-inject").await?;
        Some(found["spec"]["trustBundle"].as_str()?.to_owned())
    };
    let bundle = wait::until("the trust bundle is written", bundle).await;
    serve(&server, ["default", "kubernetes"], nodes::API_SERVER, 443, json!({ "addresses": [HUB] }), 6443).await;
    let _web = deploy(&server, &mesh, &bundle, "web", 11).await;
    let late = deploy(&server, &mesh, &bundle, "late", 12).await;
    let mut ui = deploy(&server, &mesh, &bundle, "ui", 10).await;
    wait::until_true("web is called", || async { get(&ui, "http://10.96.0.11/") == "web 200" }).await;
    let stored = mesh.folder().join("node-10/state/resources.pb");
    let is_stored =
        |known: &[u8]| std::fs::read(&stored).is_ok_and(|all| all.windows(known.len()).any(|at| at == known));
    for known in ["shop/web:80", "default/kubernetes:443", "10.99.0.0/24"] {
        wait::until_true(&format!("{known} is on the disk of ui's sidecar"), || async { is_stored(known.as_bytes()) })
            .await;
    }

    mesh.kill_control_plane();
    ui.metrics().until("selvedge_xds_connected", &[], 0.0).await;
    goes_on(&ui);
    // The application at the other end would answer in plaintext, too.
    ui.kill("sidecar");
    ui.runs("sidecar", binary("selvedge-proxy"), &["run", "--config", "sidecar.yaml"]);
    let metrics = ui.metrics().address();
    let is_ready = || async { client::get(metrics, "/ready").await.is_ok_and(|answer| answer.status == 200) };
    wait::until_true("ui's sidecar is ready again", is_ready).await;
    goes_on(&ui);
    late.metrics().absent("selvedge_requests_total", &["direction=\"inbound\""]).await;

    mesh.start_control_plane().await;
    let answered =
        || async { get(&ui, "http://10.99.0.12:8080/") == "late 200" && get(&ui, "http://10.96.0.12/") == "late 200" };
    wait::until_true("late is called", answered).await;
    late.metrics().absent("selvedge_requests_total", &["direction=\"inbound\"", "tls=\"none\""]).await;
}

/// Calls what was called before, what was not, and what is outside. Only one of these waits.
fn goes_on(ui: &Node) {
    let known =
        [(format!("http://{}:443/", nodes::API_SERVER), "api-server 200"), ("http://10.96.0.11/".into(), "web 200")];
    // What a call takes of which nobody has to ask anything.
    let each = known.map(|(url, expected)| {
        let began = Instant::now();
        assert_eq!(get(ui, &url), expected);
        began.elapsed()
    });
    // Seven that wait for two seconds would take fourteen, and the bound stays below.
    let each = each[0].max(each[1]).min(Duration::from_millis(700));
    let began = Instant::now();
    for url in ["http://10.99.0.12:8080/", "http://10.96.0.12/", "http://10.99.0.99:5432/", "http://10.96.0.12:81/"] {
        let answer = get(ui, url);
        assert!(answer.contains("not_ready") && answer.ends_with(" 503"), "{url}: {answer}");
    }
    for port in [8080, 8081, 8082] {
        let answer = get(ui, &format!("http://{OUTSIDE}:{port}/"));
        assert_eq!(answer == "outside 200", port == 8080, "{answer}");
    }
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(9) + 7 * each,
        "seven that were not called before took {took:?}, a known one {each:?}"
    );
}
