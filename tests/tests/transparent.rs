//! Transparent capture around a real sidecar, in network namespaces of its own. Needs root; without it the test says so.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    process::Command,
};

use http::Method;
use selvedge_tests::{
    client::{self, Answer, request},
    load::{self, Load, Plan},
    mesh::{Mesh, Workload},
    namespace::Namespaces,
    process::binary,
    program, wait,
};

/// Holds the process id of the neighbour.
const NEIGHBOUR: &str = "SELVEDGE_TEST_NEIGHBOUR";
const OUTSIDE: &str = "SELVEDGE_TEST_OUTSIDE";

/// Where something that is not of the mesh listens, in the neighbour of the namespace.
fn outside() -> SocketAddr {
    ([10, 99, 0, 2], 8080).into()
}

/// Runs the test named `name` again in a new network namespace with a neighbour, or `body` when this is that run.
fn in_namespace<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    let setup = format!(
        "ip link set lo up
        ip link add sv0 type veth peer name sv1
        {OUTSIDE}=1 unshare -n \"$0\" --exact answers_outside & neighbour=$!
        trap 'kill $neighbour' EXIT
        while [ \"$(readlink /proc/$neighbour/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done
        ip link set sv1 netns $neighbour
        nsenter -t $neighbour -n sh -ec 'ip link set lo up; ip link set sv1 up; ip addr add 10.99.0.2/24 dev sv1'
        ip addr add 10.99.0.1/24 dev sv0; ip link set sv0 up
        export {NEIGHBOUR}=$neighbour"
    );
    Namespaces::network(&setup).run(name, body);
}

/// Run by [`in_namespace`] in the neighbour: answers every request.
#[test]
fn answers_outside() {
    if std::env::var_os(OUTSIDE).is_none() {
        return;
    }
    answer(TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, outside().port())).unwrap(), "outside");
}

/// Answers every request with this text, for ever.
fn answer(listener: TcpListener, text: &'static str) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let _ = stream.read(&mut [0; 4096]);
            let length = text.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}");
            let _ = stream.write_all(answer.as_bytes());
        });
    }
}

/// What the neighbour gets for `GET path` from this port here: the status and the text. 000 when nobody listens.
fn asked_from_outside(port: u16, path: &str) -> String {
    let mut curl = Command::new("nsenter");
    curl.args(["-t", &std::env::var(NEIGHBOUR).unwrap(), "-n", "curl", "-s", "-m", "5", "-w", " %{http_code}"]);
    let output = curl.arg(format!("http://10.99.0.1:{port}{path}")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

async fn call_outside() -> Option<Answer> {
    client::call(outside(), request(Method::GET, "outside.example", "/")).await.ok()
}

#[test]
fn what_the_mesh_does_not_know_is_called_in_plaintext_where_the_mode_prefers_mtls() {
    in_namespace("what_the_mesh_does_not_know_is_called_in_plaintext_where_the_mode_prefers_mtls", async || {
        let until = async |what: &str, status: u16| {
            let answered = async || call_outside().await.filter(|answer| answer.status == status);
            wait::until(what, answered).await
        };
        until("the neighbour can be reached", 200).await;
        let mesh = Mesh::start().await;
        let web = mesh.sidecar(Workload::new("shop/web").captured()).await;
        let applied = Command::new(binary("selvedge-proxy")).args(["capture", "apply"]).output().unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        assert_eq!(until("REQUIRE refuses it", 503).await.reason(), "unknown_destination");

        let prefer = "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: prefer, namespace: \
                      shop}\nspec: {mtls: {outbound: PREFER}}\n";
        mesh.write("prefer.yaml", prefer);
        assert_eq!(until("PREFER passes it through", 200).await.text(), "outside");
        let plaintext = ["direction=\"outbound\"", "response_code=\"200\"", "tls=\"none\""];
        web.metrics().until("selvedge_requests_total", &plaintext, 1.0).await;

        mesh.remove("prefer.yaml");
        until("and no more when the policy is gone", 503).await;
    });
}

#[test]
fn a_captured_sidecar_is_replaced_under_load_and_nothing_fails() {
    if program("curl").is_none() {
        return;
    }
    in_namespace("a_captured_sidecar_is_replaced_under_load_and_nothing_fails", async || {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || answer(listener, "application"));
        let mesh = Mesh::start().await;
        mesh.write(
            "open.yaml",
            "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: open, namespace: shop}\nspec: {mtls: \
             {inbound: PERMISSIVE, outbound: PREFER}}\n",
        );
        let mut web = mesh.sidecar(Workload::new("shop/web").captured()).await;
        let applied = Command::new(binary("selvedge-proxy")).args(["capture", "apply"]).output().unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        let passes = async || call_outside().await.is_some_and(|answer| answer.status == 200);
        wait::until_true("calls pass through", passes).await;
        wait::until_true("calls come in", async || asked_from_outside(port, "/") == "application 200").await;
        let load = Load::start(&Plan::new(outside(), "outside.example", "/"), 3, load::ok);
        for _ in 0..2 {
            let mut old = web.replace();
            assert!(old.ended().await.success(), "{}", old.log());
            load.progress(20).await;
            assert_eq!(asked_from_outside(port, "/"), "application 200");
        }
        load.stop().await.assert_flawless(60);
        assert!(
            web.metric("selvedge_requests_total", &["direction=\"outbound\""]).await > 0.0,
            "they came to the new one"
        );
    });
}

/// As on a node with a bridge: the kubelet asks from the gateway of the pod, which is no address of its node.
#[test]
fn a_kubelet_behind_the_gateway_probes_and_nobody_passes_while_the_sidecar_is_away() {
    let name = "a_kubelet_behind_the_gateway_probes_and_nobody_passes_while_the_sidecar_is_away";
    if program("curl").is_none() {
        return;
    }
    in_namespace(name, async || {
        let added = Command::new("ip").args(["route", "add", "default", "via", "10.99.0.2"]).status().unwrap();
        assert!(added.success());
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || answer(listener, "application"));
        let mesh = Mesh::start().await;
        let probes = format!("probes: [{{port: {port}, path: /health}}]\n");
        let mut web = mesh.sidecar(Workload::new("shop/web").captured().with(&probes)).await;
        let applied = Command::new(binary("selvedge-proxy")).args(["capture", "apply"]).output().unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));

        assert_eq!(asked_from_outside(port, "/health"), "application 200");
        let refused = asked_from_outside(port, "/admin");
        assert!(refused.ends_with(" 403") && !refused.contains("application"), "{refused}");
        web.metrics().until("selvedge_probes_total", &["outcome=\"passed\""], 1.0).await;

        web.process().kill();
        for path in ["/health", "/admin"] {
            assert_eq!(asked_from_outside(port, path), " 000", "nobody listens where it is redirected to");
        }
        assert!(call_outside().await.is_none(), "and nothing gets out");
        web.restart();
        web.ready().await;
        assert_eq!(asked_from_outside(port, "/health"), "application 200");
        assert!(asked_from_outside(port, "/admin").ends_with(" 403"));
    });
}
