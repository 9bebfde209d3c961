//! Pods without Kubernetes: network namespaces on a bridge, containers by runc as injection writes them, the
//! cluster's own network plugins before ours. Needs root; without it, or without the tools, the tests say so.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use http::Method;
use selvedge_inject::{injection::inject, pod::Namespace, setting::Settings};
use selvedge_tests::{
    client::{self, request},
    mesh::{Mesh, Workload},
    process::binary,
    wait,
};
use serde_json::{Value, json};

#[path = "pods/container.rs"]
mod container;
#[path = "pods/node.rs"]
mod node;

use container::Container;
use node::{Families, Node, Pod, in_namespace};

/// The pod's address for callers, and one that is outside of it, on the node.
const OUTSIDE_PORT: u16 = 9000;
const APPLICATION_PORT: u16 = 8080;

/// What injection adds to a pod whose annotations say this capture mode.
fn injected(mode: &str) -> Vec<Value> {
    let pod = json!({
        "metadata": { "annotations": { "config.selvedge.dev/capture": mode } },
        "spec": { "containers": [{ "name": "web" }] }
    });
    let labels = json!({ "selvedge.dev/inject": "enabled" }).as_object().unwrap().clone();
    let settings =
        json!({ "spec": { "image": "proxy@sha256:0", "captureImage": "capture@sha256:0", "trustBundle": "none" } });
    inject(&pod, &Namespace { name: "shop".into(), labels }, &Settings::of(&settings)).unwrap()
}

/// The container of this name as injection writes it in this mode.
fn container(mode: &str, name: &str) -> Value {
    let mut added = injected(mode).into_iter().map(|operation| operation["value"].clone());
    added.find(|value| value["name"] == name).unwrap_or_else(|| panic!("{mode} has no container {name}"))
}

/// A mesh around the pods of one node.
struct Test {
    mesh: Mesh,
    node: Node,
}

impl Test {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        let node = Node::start(mesh.control_plane_address()).await;
        Self { mesh, node }
    }

    /// The sidecar of `pod` as injection writes it in this capture mode, with more lines in its file. It joins by a token of
    /// the control plane, as there is no API server to issue one.
    fn sidecar(&self, pod: &Pod, mode: &str, more: &str) -> Container {
        let workload = Workload::new(&format!("shop/{}", pod.name));
        let address = pod.address().ip();
        self.mesh.write(
            &format!("{}.yaml", pod.name),
            &format!(
                "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {0}, namespace: shop}}\nspec: \
                 {{serviceAccount: {0}, address: '{address}'}}\n",
                pod.name
            ),
        );
        let home = self.mesh.folder().join(&pod.name);
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("token"), self.mesh.token(&workload)).unwrap();
        let control_plane = SocketAddr::new(pod.families.gateway(), node::CONTROL_PLANE_PORT);
        let bootstrap = format!(
            "workload: shop/{}\ncontrolPlane: '{control_plane}'\njoinTokenFile: /config/token\nstateDir: \
             /state/selvedge\n{more}",
            pod.name
        );
        fs::write(home.join("sidecar.yaml"), bootstrap).unwrap();
        let mut container = container(mode, "selvedge-proxy");
        container["args"] = json!(["run", "--config", "/config/sidecar.yaml"]);
        Container::of(pod, &container).with(&home, "/config")
    }
}

/// What `/ready` of a pod's sidecar says.
async fn ready(pod: &Pod) -> Option<(u16, String)> {
    let answer = client::get(pod.at(15020), "/ready").await.ok()?;
    Some((answer.status.as_u16(), answer.text()))
}

async fn until_ready(pod: &Pod) {
    let is_ready = async || ready(pod).await.is_some_and(|(status, _)| status == 200);
    wait::until_true(&format!("the sidecar of {} is ready", pod.name), is_ready).await;
}

/// An application in `pod` at `address`, which answers every request.
fn application(pod: &Pod, address: SocketAddr) {
    let listener = pod.within(move || TcpListener::bind(address).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\npod");
        }
    });
}

/// What a process of `pod` is answered at `target`.
fn ask_from(pod: &Pod, target: SocketAddr) -> String {
    let asked = pod.within(move || TcpStream::connect(target));
    let mut answer = String::new();
    if let Ok(mut stream) = asked {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: outside.example\r\nConnection: close\r\n\r\n");
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

/// Calls out of the pod are the sidecar's, which refuses what the mesh does not know; calls in are, too, and it refuses
/// plaintext of a node that proves nothing.
async fn is_captured(pod: &Pod) {
    for address in &pod.addresses {
        let node = if address.is_ipv4() { Families::V4 } else { Families::V6 }.gateway();
        let answer = ask_from(pod, SocketAddr::new(node, OUTSIDE_PORT));
        assert!(answer.contains("unknown_destination"), "{} to {node}: {answer}", pod.name);
        let own = SocketAddr::new(*address, APPLICATION_PORT);
        let answer = client::call(own, request(Method::GET, "web.shop", "/")).await.unwrap();
        assert_eq!(answer.status, 403, "{} at {own}", pod.name);
    }
}

const REQUIRED: &str = "capture: transparent\ncaptureRequired: true\n";

/// Runs the init container of `pod` to its end.
fn apply(test: &Test, pod: &Pod) {
    let (done, said) = Container::of(pod, &container("init", "selvedge-capture")).run(test.mesh.folder());
    assert!(done, "{said}");
}

#[test]
fn an_init_container_captures_a_pod_of_either_family_or_both() {
    in_namespace("an_init_container_captures_a_pod_of_either_family_or_both", &["runc"], async || {
        let test = Test::start().await;
        for (number, families) in [(2, Families::Both), (3, Families::V4), (4, Families::V6)] {
            let pod = test.node.pod(&format!("init-{number}"), number, families);
            application(&pod, SocketAddr::new(pod.families.any(), APPLICATION_PORT));
            apply(&test, &pod);
            let _sidecar = test.sidecar(&pod, "init", REQUIRED).start(test.mesh.folder());
            until_ready(&pod).await;
            is_captured(&pod).await;
        }
    });
}

#[test]
fn a_pod_is_not_ready_before_it_is_captured_and_says_why() {
    in_namespace("a_pod_is_not_ready_before_it_is_captured_and_says_why", &["runc"], async || {
        let test = Test::start().await;
        let pod = test.node.pod("late", 2, Families::Both);
        let sidecar = test.sidecar(&pod, "init", REQUIRED).start(test.mesh.folder());
        let waits = async || ready(&pod).await.filter(|(_, said)| said.contains(":15099 did not come to the sidecar"));
        let (status, said) = wait::until("the sidecar says why it is not ready", waits).await;
        assert!(status == 503 && said.starts_with("not ready: a connection to ") && said.contains("refused"), "{said}");
        let metrics = selvedge_tests::metrics::Metrics::at(pod.at(15020));
        assert!(metrics.text().await.contains("selvedge_captured 0"));
        // The container's runtime copies what its process prints.
        let is_logged =
            || std::future::ready(sidecar.log().contains("connections of the workload go past the sidecar"));
        wait::until_true("its log says so, too", is_logged).await;
        apply(&test, &pod);
        until_ready(&pod).await;
        metrics.until("selvedge_captured", &[], 1.0).await;
    });
}

#[test]
fn capture_without_its_right_is_refused_with_the_reason() {
    in_namespace("capture_without_its_right_is_refused_with_the_reason", &["runc"], async || {
        let test = Test::start().await;
        let pod = test.node.pod("denied", 2, Families::Both);
        let asked = container("init", "selvedge-capture");
        let restricted = container("init", "selvedge-proxy")["securityContext"].clone();
        for context in [restricted, json!({ "runAsUser": 0, "runAsGroup": 0, "capabilities": { "drop": ["ALL"] } })] {
            let mut denied = asked.clone();
            denied["securityContext"] = context;
            let (done, said) = Container::of(&pod, &denied).run(test.mesh.folder());
            assert!(
                !done && said.contains("Operation not permitted") && said.contains("needs CAP_NET_ADMIN"),
                "{said}"
            );
        }
    });
}

/// Without any right policies hold where the application listens on loopback alone, and the sidecar knows whether it does.
#[test]
fn without_capture_the_sidecar_says_whether_policies_are_enforced() {
    in_namespace("without_capture_the_sidecar_says_whether_policies_are_enforced", &["runc"], async || {
        let test = Test::start().await;
        for (number, application_at, enforced) in [(2, "0.0.0.0", false), (3, "127.0.0.1", true)] {
            let pod = test.node.pod(&format!("none-{number}"), number, Families::Both);
            let address = pod.at(APPLICATION_PORT).ip();
            let declared =
                format!("inbound:\n- {{listen: '{address}:18080', forward: '127.0.0.1:{APPLICATION_PORT}'}}\n");
            let _sidecar = test.sidecar(&pod, "none", &declared).start(test.mesh.folder());
            until_ready(&pod).await;
            application(&pod, format!("{application_at}:{APPLICATION_PORT}").parse().unwrap());
            let metrics = selvedge_tests::metrics::Metrics::at(pod.at(15020));
            let port = ["port=\"8080\""];
            metrics.until("selvedge_inbound_port_enforced", &port, f64::from(u8::from(enforced))).await;
            let config = ask_at(&pod, "127.0.0.1:15000".parse().unwrap(), "/config");
            let (said, why) = if enforced { ("enforced", "loopback only") } else { ("not enforced", "0.0.0.0:8080") };
            let inbound = &config["inbound"]["listeners"][0];
            assert_eq!((inbound["port"].as_u64(), inbound["policies"].as_str()), (Some(8080), Some(said)), "{inbound}");
            assert!(inbound["why"].as_str().unwrap().contains(why), "{inbound}");
            // Who answers for the mesh is told, too.
            let told = async || {
                let status = client::get(test.mesh.admin(), "/status").await.ok()?.json();
                let sidecars = status["sidecars"].as_array().unwrap();
                let of = sidecars.iter().find(|sidecar| sidecar["workload"] == format!("shop/{}", pod.name))?;
                of["ports"].as_array().is_some_and(|ports| ports == std::slice::from_ref(inbound)).then_some(())
            };
            wait::until("the control plane says the same", told).await;
            // It is as the sidecar says: a caller that proves nothing is refused, but not where it goes past.
            let past = client::call(pod.at(APPLICATION_PORT), request(Method::GET, "web.shop", "/")).await;
            assert_eq!(past.is_ok_and(|answer| answer.text() == "pod"), !enforced);
            let through = client::call(pod.at(18080), request(Method::GET, "web.shop", "/")).await.unwrap();
            assert_eq!(through.status, 403);
        }
    });
}

/// A kubelet that only connects sees whether the application takes connections, in each mode.
#[test]
fn a_probe_that_only_connects_fails_where_nobody_listens() {
    let name = "a_probe_that_only_connects_fails_where_nobody_listens";
    in_namespace(name, &["runc", "host-local"], async || {
        let test = Test::start().await;
        let folder = test.mesh.folder().join("cni");
        let chain = test.node.chain(&folder);
        install(&folder, "install");
        for (number, mode) in [(20, "none"), (21, "init"), (22, "cni")] {
            // With declared ports the sidecar is asked, whose port stands before that of the application.
            let (port, at) = if mode == "none" { (8443, "127.0.0.1") } else { (APPLICATION_PORT, "0.0.0.0") };
            let declared = format!("inbound: [{{listen: '[::]:{port}', forward: '127.0.0.1:{APPLICATION_PORT}'}}]\n");
            let more = if mode == "none" { &declared } else { REQUIRED };
            let name = format!("probed-{mode}");
            let pod = match mode {
                "cni" => {
                    let mut pod = test.node.bare(&name);
                    pod.take(&chain.call("ADD", &pod, &asks()).unwrap_or_else(|error| panic!("{error}")));
                    pod
                }
                _ => test.node.pod(&name, number, Families::Both),
            };
            if mode == "init" {
                apply(&test, &pod);
            }
            let probes = format!("{more}probes: [{{port: {port}, tcp: true}}]\n");
            let sidecar = test.sidecar(&pod, mode, &probes).start(test.mesh.folder());
            until_ready(&pod).await;
            // As the kubelet does, from the node.
            let probe = || TcpStream::connect(pod.at(port)).map(drop).map_err(|error| error.kind());
            for _ in 0..50 {
                assert_eq!(probe(), Err(ErrorKind::ConnectionRefused), "{mode}: nobody listens yet");
            }
            let asked = application_asked(&pod, format!("{at}:{APPLICATION_PORT}").parse().unwrap());
            wait::until_true(&format!("{mode}: the probe passes"), async || probe().is_ok()).await;
            let metrics = selvedge_tests::metrics::Metrics::at(pod.at(15020));
            metrics.until("selvedge_probes_total", &["protocol=\"tcp\"", "outcome=\"passed\""], 1.0).await;
            let mut stream = TcpStream::connect(pod.at(port)).unwrap();
            let _ = stream.write_all(b"\x01\x02\x03");
            stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "{mode}: what says something is no probe");
            assert!(asked.try_iter().all(|bytes| bytes == 0), "{mode}: a byte was passed on");
            drop(sidecar);
        }
    });
}

/// An application in `pod` at `address` that tells how many bytes each of its connections brings.
fn application_asked(pod: &Pod, address: SocketAddr) -> Receiver<usize> {
    let (tell, told) = mpsc::channel();
    let listener = pod.within(move || TcpListener::bind(address).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = tell.send(stream.unwrap().read(&mut [0; 64]).unwrap_or(0)); // the test may be over
        }
    });
    told
}

/// What the sidecar of `pod` answers to an operator inside.
fn ask_at(pod: &Pod, admin: SocketAddr, path: &str) -> Value {
    let mut stream = pod.within(move || TcpStream::connect(admin)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Installs the plugin into folders of the test, as a DaemonSet does.
fn install(folder: &Path, command: &str) -> String {
    let mut install = Command::new(binary("selvedge-cni"));
    install.arg(command).arg("--bin-dir").arg(folder.join("bin")).arg("--conf-dir").arg(folder.join("net.d"));
    let output = install.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The annotations that injection adds in the mode `cni`.
fn asks() -> Value {
    let added = injected("cni").into_iter();
    let annotations = added.filter_map(|operation| {
        let key = operation["path"].as_str()?.strip_prefix("/metadata/annotations/")?.replace("~1", "/");
        Some((key, operation["value"].clone()))
    });
    annotations.collect::<serde_json::Map<_, _>>().into()
}

/// The plugin behind the cluster's own captures the pods that ask, and a pod that asks is captured or does not start.
#[test]
fn the_plugin_captures_pods_that_ask_and_touches_no_other() {
    in_namespace("the_plugin_captures_pods_that_ask_and_touches_no_other", &["runc", "host-local"], async || {
        let test = Test::start().await;
        let folder = test.mesh.folder().join("cni");
        let chain = test.node.chain(&folder);
        install(&folder, "install");

        for (number, asked) in [(2, true), (3, false)] {
            let mut pod = test.node.bare(&format!("cni-{number}"));
            let annotations = if asked { asks() } else { json!({ "app": "web" }) };
            let result = chain.call("ADD", &pod, &annotations).unwrap_or_else(|error| panic!("{error}"));
            pod.take(&result);
            application(&pod, SocketAddr::new(pod.families.any(), APPLICATION_PORT));
            let _sidecar = test.sidecar(&pod, "init", REQUIRED).start(test.mesh.folder());
            if asked {
                until_ready(&pod).await;
                is_captured(&pod).await;
                chain.call("CHECK", &pod, &annotations).unwrap();
                let mut remove = container("init", "selvedge-capture");
                remove["args"] = json!(["remove"]);
                assert!(Container::of(&pod, &remove).run(test.mesh.folder()).0);
                let gone = chain.call("CHECK", &pod, &annotations).unwrap_err();
                assert!(gone["details"].as_str().unwrap().contains("not in force any more"), "{gone}");
            } else {
                // As where a runtime tells nothing of annotations: the sidecar waits, and nothing is captured.
                let waits = async || ready(&pod).await.filter(|(_, said)| said.contains("did not come to the sidecar"));
                assert_eq!(wait::until("the sidecar says why it is not ready", waits).await.0, 503);
                let past = client::call(pod.at(APPLICATION_PORT), request(Method::GET, "web.shop", "/")).await.unwrap();
                assert_eq!(past.text(), "pod");
                chain.call("CHECK", &pod, &annotations).unwrap();
            }
            chain.call("DEL", &pod, &annotations).unwrap();
        }
        install(&folder, "remove");
        assert!(!folder.join("bin/selvedge-cni").exists() && !chain.names().contains(&"selvedge-cni".to_owned()));
    });
}

#[test]
fn a_pod_that_asks_is_refused_where_it_cannot_be_captured_and_others_start() {
    let name = "a_pod_that_asks_is_refused_where_it_cannot_be_captured_and_others_start";
    in_namespace(name, &["host-local"], async || {
        let test = Test::start().await;
        let folder = test.mesh.folder().join("cni");
        let chain = test.node.chain(&folder);
        install(&folder, "install");
        let refused = chain
            .call("ADD", &test.node.bare("wrong"), &json!({ "selvedge.dev/capture": "--exempt-uid=root" }))
            .unwrap_err();
        assert_eq!(refused["code"], 7, "{refused}");
        assert!(refused["msg"].as_str().unwrap().contains("shop/wrong"), "{refused}");

        // The plugin's own options are broken, the disk is full, its files cannot be read, and it has no rights.
        let full = folder.join("full");
        fs::create_dir(&full).unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=4k,mode=0", "none"];
        assert!(Command::new("mount").args(mount).arg(&full).status().unwrap().success());
        let _ = fs::write(full.join("filler"), [0; 64 * 1024]);
        let plugin = |annotations: Value| {
            let mut plugin = Command::new("setpriv");
            plugin.args(["--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]);
            plugin.arg(folder.join("bin/selvedge-cni")).current_dir("/").env_clear();
            plugin.envs([("CNI_COMMAND", "ADD"), ("CNI_NETNS", "/nowhere"), ("CNI_IFNAME", "eth0")]);
            plugin.env("TMPDIR", &full).env("CNI_PATH", &full).env("HOME", &full).env("CNI_ARGS", "%%;=;");
            let mut plugin = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let handed = json!({
                "cniVersion": "0.3.1", "name": 7, "type": [], "capabilities": "broken", "kubeconfig": "/nowhere",
                "runtimeConfig": { "io.kubernetes.cri.pod-annotations": annotations }, "prevResult": { "ips": [] }
            });
            plugin.stdin.take().unwrap().write_all(handed.to_string().as_bytes()).unwrap();
            let output = plugin.wait_with_output().unwrap();
            (output.status.success(), String::from_utf8(output.stdout).unwrap())
        };
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        fs::set_permissions(test.mesh.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        for other in [json!({}), Value::Null, json!({ "config.selvedge.dev/capture": "cni" })] {
            assert_eq!(plugin(other), (true, r#"{"ips":[]}"#.to_owned()));
        }
        let (started, said) = plugin(asks());
        assert!(!started && said.contains("/nowhere cannot be entered"), "{said}");
    });
}
