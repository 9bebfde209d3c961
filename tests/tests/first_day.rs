//! The first day of three Deployments in the mesh: one gets sidecars, then all, then plaintext is refused, and no request fails.
//!
//! Each pod is a network namespace with a real sidecar, real capture rules and an application; the node between them does what
//! kube-proxy does. Needs root; without it the test says so.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use selvedge_tests::{
    api_server::ApiServer,
    client,
    metrics::Metrics,
    namespace::Namespaces,
    process::{Process, binary},
    wait,
};
use serde_json::{Value, json};

const APPLICATION: &str = "SELVEDGE_TEST_CALLS";
/// The file without which no application calls anybody yet.
const BEGIN: &str = "SELVEDGE_TEST_BEGIN";

/// How long an application waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many targets an application has.
const TARGETS: usize = 7;

/// The node that all pods are on: control plane, API server, and what is outside.
const NODE: &str = "10.99.0.1";
/// The namespace of the control plane.
const SYSTEM: &str = "selvedge-system";
/// An address that the mesh knows nothing of.
const OUTSIDE: &str = "192.0.2.10";
/// Where clouds tell a machine about itself.
const METADATA: &str = "169.254.169.254";
/// The Service of the cluster's DNS.
const DNS: &str = "10.96.0.53";
/// The Deployments; each has a Service with the cluster address `10.96.0.1N`, a first pod without sidecar at `10.99.0.1N` and
/// one with at `10.99.0.2N`.
const DEPLOYMENTS: [&str; 3] = ["a", "b", "c"];

/// Runs the test named `name` again on such a node, or `body` when this is that run.
fn on_a_node<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    let setup = format!(
        "ip link set lo up
        ip addr add {NODE}/32 dev lo
        ip addr add {OUTSIDE}/32 dev lo
        ip addr add {METADATA}/32 dev lo
        echo 1 > /proc/sys/net/ipv4/ip_forward"
    );
    Namespaces::network(&setup).run(name, body);
}

/// Run in a pod: answers every request, and calls what it is told to again and again. Says of each call how it ended.
#[test]
fn is_an_application() {
    let Ok(targets) = std::env::var(APPLICATION) else { return };
    answer_at((Ipv4Addr::UNSPECIFIED, 8080).into());
    let begin = std::env::var_os(BEGIN).unwrap();
    while !Path::new(&begin).exists() {
        thread::sleep(Duration::from_millis(10));
    }
    loop {
        for target in targets.split(' ') {
            let (protocol, address) = target.split_once('/').unwrap();
            let address = address.parse().unwrap();
            let called = match protocol {
                "http" => call(address),
                "tcp" => ask(address).map_err(|e| e.to_string()),
                _ => ask_by_datagram(address).map_err(|e| e.to_string()),
            };
            match called {
                Ok(()) => println!("ok {target}"),
                Err(why) => println!("failed {target}: {why}"),
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn call(address: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
    let is_whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello");
    is_whole.then_some(()).ok_or(answer)
}

/// As a question to a DNS server goes over TCP (RFC 7766): its length, and then itself.
const QUESTION: &[u8; 14] = b"\0\x0ca question..";

fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(QUESTION)?;
    let mut answer = [0; QUESTION.len()];
    stream.read_exact(&mut answer)
}

fn ask_by_datagram(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(address)?;
    socket.send(&QUESTION[2..])?;
    socket.recv(&mut [0; 512]).map(drop)
}

/// Says again what it is asked, over UDP and TCP.
fn echo_at(address: SocketAddr) {
    let (socket, listener) = (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap());
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            // Who asked may be gone.
            let _ = socket.send_to(&question[..length], from);
        }
    });
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut question = [0; QUESTION.len()];
            let _ = stream.read_exact(&mut question).and_then(|()| stream.write_all(&question));
        }
    });
}

/// Answers every request at an address from now on.
fn answer_at(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) {
    // Whoever hangs up says so by what it misses.
    let mut request = [0; 4096];
    while let Ok(1..) = stream.read(&mut request) {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        if stream.write_all(answer).is_err() || request.windows(17).any(|part| part == b"Connection: close") {
            return;
        }
        request = [0; 4096];
    }
}

fn sh(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(status.success(), "{script}");
}

/// A pod: a network namespace with an address of its own, reached through the node.
struct Pod {
    name: String,
    address: String,
    network: Process,
    application: Option<Process>,
    _sidecar: Option<Process>,
}

impl Pod {
    async fn new(name: &str, address: &str, folder: &Path) -> Self {
        let network =
            Process::start(&format!("{name}-network"), Command::new("unshare").args(["-n", "sleep", "600"]), folder);
        let id = network.id();
        let own = || std::fs::read_link("/proc/self/ns/net").unwrap();
        let is_apart =
            || std::future::ready(std::fs::read_link(format!("/proc/{id}/ns/net")).is_ok_and(|ns| ns != own()));
        wait::until_true("the pod has a network of its own", is_apart).await;
        sh(&format!(
            "ip link add v{id} type veth peer name eth0 netns {id}
            ip link set v{id} up
            ip route add {address}/32 dev v{id}
            nsenter -t {id} -n sh -ec 'ip link set lo up; ip link set eth0 up; ip addr add {address}/32 dev eth0
                ip route add {NODE}/32 dev eth0; ip route add default via {NODE}'"
        ));
        Self { name: name.to_owned(), address: address.to_owned(), network, application: None, _sidecar: None }
    }

    fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.network.id().to_string(), "-n"]).arg(program);
        command
    }

    /// Starts the sidecar, and captures what comes and goes once it is ready.
    async fn inject(self, cluster: &Cluster) -> Self {
        let home = cluster.folder.path().join(&self.name);
        std::fs::create_dir_all(home.join("state")).unwrap();
        std::fs::write(home.join("token"), cluster.server.token("shop", &self.name, "selvedge").await).unwrap();
        let file = format!(
            "workload: shop/{}\ncontrolPlane: {NODE}:15010\nserviceAccountTokenFile: {home}/token\nstateDir: {home}/state\n\
             accessLogFile: {home}/access.log\ncapture: transparent\n\
             trustBundle: |\n  {bundle}\n",
            self.name,
            home = home.display(),
            bundle = cluster.bundle().await.trim().replace('\n', "\n  ")
        );
        std::fs::write(home.join("sidecar.yaml"), file).unwrap();
        let proxy = binary("selvedge-proxy");
        let mut command = self.inside(&proxy);
        command.arg("run").arg("--config").arg(home.join("sidecar.yaml"));
        let sidecar = Process::start(&format!("{}-sidecar", self.name), &mut command, &home);
        let ready: SocketAddr = format!("{}:15020", self.address).parse().unwrap();
        let is_ready = || async { client::get(ready, "/ready").await.is_ok_and(|answer| answer.status == 200) };
        wait::until_true("the sidecar is ready", is_ready).await;
        let applied = self.inside(&proxy).args(["capture", "apply"]).output().unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        Self { _sidecar: Some(sidecar), ..self }
    }

    /// Starts the application, which calls all services but its own, the API server, an address outside, that of the
    /// machine's metadata, and DNS.
    fn run(&mut self, deployment: usize, folder: &Path) {
        let others = (0..DEPLOYMENTS.len())
            .filter(|other| *other != deployment)
            .map(|other| format!("http/10.96.0.1{other}:80"));
        let around = [
            "http/10.96.0.1:443".to_owned(),
            format!("http/{OUTSIDE}:8080"),
            format!("http/{METADATA}:80"),
            format!("tcp/{DNS}:53"),
            format!("udp/{DNS}:53"),
        ];
        let targets: Vec<String> = others.chain(around).collect();
        assert_eq!(targets.len(), TARGETS);
        let mut command = self.inside(&std::env::current_exe().unwrap());
        command
            .args(["--exact", "is_an_application", "--nocapture"])
            .env(APPLICATION, targets.join(" "))
            .env(BEGIN, folder.join("begin"));
        self.application = Some(Process::start(&format!("{}-application", self.name), &mut command, folder));
    }

    /// Waits until each of its calls has succeeded that many times more. None may fail.
    async fn goes_on(&self, times: usize) {
        let Some(application) = &self.application else { return };
        let calls = || {
            let log = application.log();
            let failed: Vec<&str> = log.lines().filter(|line| line.contains("failed")).collect();
            assert!(failed.is_empty(), "calls of {} failed: {failed:#?}", self.name);
            log.lines().filter(|line| line.starts_with("ok")).count()
        };
        let before = calls();
        let goes_on = || std::future::ready(calls() >= before + TARGETS * times);
        wait::until_true(&format!("calls of {} succeed", self.name), goes_on).await;
    }

    /// Waits until the sidecar has counted such requests.
    async fn counts(&self, labels: &[&str]) {
        let metrics = Metrics::at(format!("{}:15020", self.address).parse().unwrap());
        let is_counted = || async { metrics.so_far("selvedge_requests_total", labels).await >= 1.0 };
        wait::until_true(&format!("requests with {labels:?} are counted"), is_counted).await;
    }

    fn object(&self, deployment: &str, sidecar: bool) -> Value {
        let sidecars = if sidecar {
            json!([{ "name": "selvedge-proxy", "image": "sidecar", "restartPolicy": "Always" }])
        } else {
            json!([])
        };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": "shop", "name": self.name, "labels": { "app": deployment } },
            "spec": {
                "serviceAccountName": deployment, "nodeName": "one", "initContainers": sidecars,
                "containers": [{ "name": "application", "image": "application" }],
            },
            "status": { "phase": "Running", "podIP": self.address, "podIPs": [{ "ip": self.address }] },
        })
    }
}

/// A control plane over the double of an API server, and what stands for kube-proxy.
struct Cluster {
    folder: tempfile::TempDir,
    server: ApiServer,
    _control_plane: Process,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("selvedge-first-day-").tempdir().unwrap();
        for name in ["config", "state"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let server = ApiServer::double().await;
        server.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SYSTEM } })).await;
        let mut command = Command::new(binary("selvedge"));
        command.args(["control-plane", "--kubernetes", "--listen", &format!("{NODE}:15010"), "--kubeconfig"]);
        command.arg(server.kubeconfig(folder.path()));
        command
            .arg("--config-dir")
            .arg(folder.path().join("config"))
            .arg("--state-dir")
            .arg(folder.path().join("state"));
        let control_plane = Process::start("control-plane", &mut command, folder.path());
        let admin = ([127, 0, 0, 1], 15014).into();
        let is_ready = || async { client::get(admin, "/ready").await.is_ok_and(|answer| answer.status == 200) };
        wait::until_true("the control plane is ready", is_ready).await;
        Self { folder, server, _control_plane: control_plane }
    }

    /// The trust bundle, as the injector finds it.
    async fn bundle(&self) -> String {
        let read = || async {
            let found = self.server.calls().get("InjectionConfig", SYSTEM, "selvedge-inject").await?;
            Some(found["spec"]["trustBundle"].as_str()?.to_owned())
        };
        wait::until("the trust bundle is written", read).await
    }

    /// Sends the calls of each Service where the cluster says: in the mesh by its slice, and past it as kube-proxy does.
    async fn serve(&self, pods: [&Pod; 3]) {
        let mut rules = format!("ip daddr 10.96.0.1 tcp dport 443 dnat to {NODE}:6443\n");
        for protocol in ["tcp", "udp"] {
            rules.push_str(&format!("ip daddr {DNS} {protocol} dport 53 dnat to {NODE}:53\n"));
        }
        for (n, pod) in pods.iter().enumerate() {
            let Pod { address, name, .. } = pod;
            rules.push_str(&format!("ip daddr 10.96.0.1{n} tcp dport 80 dnat to {address}:8080\n"));
            let target = json!({ "kind": "Pod", "namespace": "shop", "name": name });
            let endpoints = json!([{ "addresses": [address], "conditions": { "ready": true }, "targetRef": target }]);
            self.server.put(slice("shop", DEPLOYMENTS[n], endpoints, 8080)).await;
        }
        let chain = format!("chain pre {{\ntype nat hook prerouting priority -100;\n{rules}}}");
        let table = format!("table ip services\ndelete table ip services\ntable ip services {{\n{chain}\n}}");
        sh(&format!("nft -f - <<END\n{table}\nEND"));
    }

    /// What the control plane says of a namespace that has pods.
    async fn namespace(&self, name: &str) -> Value {
        let status: Value = client::get(([127, 0, 0, 1], 15014).into(), "/status").await.unwrap().json();
        let found = status["namespaces"].as_array().unwrap().iter().find(|found| found["namespace"] == name);
        found.unwrap_or_else(|| panic!("there is no namespace {name} in {status:#}")).clone()
    }
}

fn service(namespace: &str, name: &str, address: &str, port: u16, selector: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": namespace, "name": name },
        "spec": {
            "clusterIP": address, "clusterIPs": [address], "selector": selector,
            "ports": [{ "name": "main", "port": port, "targetPort": 8080, "protocol": "TCP" }],
        },
    })
}

fn slice(namespace: &str, service: &str, endpoints: Value, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": format!("{service}-1"), "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{ "name": "main", "port": port, "protocol": "TCP" }],
    })
}

#[test]
fn one_of_three_deployments_gets_sidecars_then_all_then_plaintext_is_refused_and_no_call_fails() {
    on_a_node("one_of_three_deployments_gets_sidecars_then_all_then_plaintext_is_refused_and_no_call_fails", first_day);
}

/// What every cluster has: the API server and DNS, each behind a Service.
async fn around(cluster: &Cluster) {
    let mut kubernetes = service("default", "kubernetes", "10.96.0.1", 443, json!({}));
    kubernetes["spec"].as_object_mut().unwrap().remove("selector");
    cluster.server.put(kubernetes).await;
    cluster.server.put(slice("default", "kubernetes", json!([{ "addresses": [NODE] }]), 6443)).await;
    cluster.server.put(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "kube-system", "name": "kube-dns" },
        "spec": {
            "clusterIP": DNS, "clusterIPs": [DNS],
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
            ],
        },
    })).await;
    let mut servers = slice("kube-system", "kube-dns", json!([{ "addresses": [NODE] }]), 53);
    servers["ports"] = json!([
        { "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
    ]);
    cluster.server.put(servers).await;
}

async fn first_day() {
    for address in [format!("{NODE}:6443"), format!("{OUTSIDE}:8080"), format!("{METADATA}:80")] {
        answer_at(address.parse().unwrap());
    }
    echo_at(format!("{NODE}:53").parse().unwrap());
    let cluster = Cluster::start().await;
    let folder = cluster.folder.path();
    around(&cluster).await;
    let mut plain = Vec::new();
    for (n, name) in DEPLOYMENTS.iter().enumerate() {
        cluster.server.put(service("shop", name, &format!("10.96.0.1{n}"), 80, json!({ "app": name }))).await;
        let pod = Pod::new(&format!("{name}-plain"), &format!("10.99.0.1{n}"), folder).await;
        cluster.server.put(pod.object(name, false)).await;
        plain.push(pod);
    }
    cluster.serve([&plain[0], &plain[1], &plain[2]]).await;
    for (n, pod) in plain.iter_mut().enumerate() {
        pod.run(n, folder);
    }
    for pod in &plain {
        let address = format!("{}:8080", pod.address).parse().unwrap();
        wait::until_true("the application answers", || client::answers(address)).await;
    }
    std::fs::write(folder.join("begin"), "").unwrap();
    for pod in &plain {
        pod.goes_on(10).await;
    }
    let mut meshed = Vec::new();
    for (n, name) in DEPLOYMENTS.iter().enumerate() {
        let pod = Pod::new(&format!("{name}-meshed"), &format!("10.99.0.2{n}"), folder).await;
        cluster.server.put(pod.object(name, true)).await;
        let mut pod = pod.inject(&cluster).await;
        pod.run(n, folder);
        pod.goes_on(10).await;
        meshed.push(pod);
        let now = |n: usize| meshed.get(n).unwrap_or(&plain[n]);
        cluster.serve([now(0), now(1), now(2)]).await;
        for pod in plain.iter().chain(&meshed) {
            pod.goes_on(10).await;
        }
        if n == 0 {
            half_way(&cluster, &meshed[0]).await;
        }
    }
    for pod in &mut plain {
        pod.application = None;
        cluster.server.delete("Pod", "shop", &pod.name).await;
    }
    for pod in &meshed {
        pod.goes_on(10).await;
        pod.counts(&["direction=\"inbound\"", "tls=\"mtls\""]).await;
    }
    all_there(&cluster).await;
    cluster.server.put(json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "MeshPolicy", "metadata": { "namespace": "shop", "name": "strict" },
        "spec": { "mtls": { "inbound": "STRICT" } },
    })).await;
    for pod in &meshed {
        let address = format!("{}:8080", pod.address).parse().unwrap();
        let is_refused = || async { !client::get(address, "/").await.is_ok_and(|answer| answer.status == 200) };
        wait::until_true("plaintext is refused", is_refused).await;
    }
    for pod in &meshed {
        pod.goes_on(50).await;
    }
}

/// One Deployment has a sidecar: what goes past the mesh is counted, and it is known who keeps the namespace from being strict.
async fn half_way(cluster: &Cluster, meshed: &Pod) {
    let passed =
        ["direction=\"outbound\"", "destination_service=\"passthrough\"", "response_code=\"200\"", "tls=\"none\""];
    meshed.counts(&passed).await;
    let api_server = ["direction=\"outbound\"", "destination_service=\"default/kubernetes\"", "tls=\"none\""];
    meshed.counts(&api_server).await;
    let callers = ["shop/b-plain (10.99.0.11)", "shop/c-plain (10.99.0.12)"];
    let is_told = || async {
        let shop = cluster.namespace("shop").await;
        assert_eq!((&shop["canBeStrict"], &shop["withoutSidecar"]), (&json!(false), &json!(3)));
        callers.iter().all(|caller| shop["plaintextCallers"].as_array().unwrap().contains(&json!(caller)))
    };
    wait::until_true("who calls in plaintext is told by name", is_told).await;
}

/// Every pod has a sidecar that is connected. That nobody calls in plaintext any more only time can tell.
async fn all_there(cluster: &Cluster) {
    let shop = || cluster.namespace("shop");
    wait::until_true("it is known since when the sidecars look", || async { shop().await["observedSeconds"] != 0 })
        .await;
    let shop = shop().await;
    assert_eq!(
        (&shop["pods"], &shop["sidecars"], &shop["withoutSidecar"]),
        (&json!(3), &json!(3), &json!(0)),
        "{shop:#}"
    );
    let because: Vec<&str> = shop["because"].as_array().unwrap().iter().map(|why| why.as_str().unwrap()).collect();
    let [callers, time] = because[..] else { panic!("{because:?}") };
    assert!(callers.contains("called in plaintext") && time.contains("600 are asked for"), "{because:?}");
    assert_eq!(shop["canBeStrict"], false);
}
