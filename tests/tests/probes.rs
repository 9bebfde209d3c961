//! Probes of a kubelet under STRICT: exactly what is declared passes from where probes come from, and nothing beside it.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use http::{Method, Request};
use http_body_util::Full;
use selvedge_tests::{
    client::{Connection, request},
    mesh::{Mesh, Sidecar, Workload},
    ports::Reserved,
    upstream::Upstream,
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// Where probes come from.
const PROBER: [u8; 4] = [127, 0, 0, 2];
/// From where they do not come.
const STRANGER: [u8; 4] = [127, 0, 0, 3];

const PROBES: &str = "probes:\n- {port: 8080, path: /health?full=1}\n- {port: 9090, grpc: true}\n- {port: 7070, tcp: true}\n\
                      probers: 127.0.0.2\n";

/// An application with probes at three ports, which nobody may call: there is no policy that allows anything.
struct Probed {
    api: Sidecar,
    http: Upstream,
    grpc: Upstream,
    tcp: Upstream,
    tcp_port: Reserved,
    mesh: Mesh,
}

impl Probed {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        mesh.service("shop/api", 80, 8080, "");
        mesh.write(
            "nobody.yaml",
            "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: shop}\nspec: \
             {action: ALLOW, rules: [{from: [{serviceAccounts: [shop/nobody]}]}]}\n",
        );
        let (http, grpc, tcp_port) = (Upstream::start("http").await, Upstream::start("grpc").await, Reserved::new());
        let tcp = Upstream::start_on(&tcp_port, "tcp");
        let workload = Workload::new("shop/api").serves(8080, http.address()).serves(9090, grpc.address());
        let api = mesh.sidecar(workload.serves(7070, tcp.address()).with(PROBES)).await;
        Self { api, http, grpc, tcp, tcp_port, mesh }
    }

    /// What comes back for these bytes, sent in one piece.
    async fn raw(&self, from: [u8; 4], port: u16, bytes: &str) -> String {
        raw(&self.api, from, port, bytes).await
    }
}

/// What comes back for these bytes, sent in one piece: all of it where the end is asked for, else until nothing more comes.
async fn raw(api: &Sidecar, from: [u8; 4], port: u16, bytes: &str) -> String {
    let mut stream = connect(from, api.inbound(port)).await;
    let _ = stream.write_all(bytes.as_bytes()).await;
    let patience = if bytes.contains("Connection: close") { wait::DEADLINE } else { Duration::from_secs(1) };
    let mut answer = Vec::new();
    while let Ok(Ok(1..)) = tokio::time::timeout(patience, stream.read_buf(&mut answer)).await {}
    String::from_utf8_lossy(&answer).into_owned()
}

async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

const PROBE: &str = "GET /health?full=1 HTTP/1.1\r\nHost: 10.0.0.9:8080\r\nUser-Agent: kube-probe/1.36\r\n";

#[tokio::test]
async fn a_probe_passes_from_where_probes_come_from_without_a_policy() {
    let probed = Probed::start().await;
    let answer = probed.raw(PROBER, 8080, &format!("{PROBE}Connection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("served-by: http"), "{answer}");
    let passed = ["protocol=\"http1\"", "outcome=\"passed\""];
    probed.api.metrics().until("selvedge_probes_total", &passed, 1.0).await;
    let marked = ["route=\"probe\"", "response_code=\"200\"", "tls=\"none\""];
    probed.api.metrics().until("selvedge_requests_total", &marked, 1.0).await;

    let answer = probed.raw(STRANGER, 8080, &format!("{PROBE}Connection: close\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("plaintext_refused"), "{answer}");
    assert!(answer.contains("127.0.0.3") && answer.contains("config.selvedge.dev/probers"), "{answer}");
    let refused = ["protocol=\"http1\"", "outcome=\"refused\""];
    probed.api.metrics().until("selvedge_probes_total", &refused, 1.0).await;
    assert_eq!(probed.http.targets(), ["/health?full=1"]);
    // Whoever reads the log is told from where they are taken, too.
    let log = || async {
        let lines = probed.api.access_log();
        let detail = lines.iter().rev().find_map(|line| line["selvedge.detail"].as_str().map(str::to_owned));
        detail.filter(|detail| detail.contains("127.0.0.3 came to port 8080") && detail.contains("from 127.0.0.2"))
    };
    wait::until("the log says why", log).await;
    drop(probed.mesh);
}

#[tokio::test]
async fn a_prober_reaches_nothing_else() {
    let probed = Probed::start().await;
    let attempts = [
        "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /%68ealth?full=1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /admin/../health?full=1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /health/../admin?full=1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET http://a/health?full=1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /health?full=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\nGET /admin HTTP/1.1\r\nHost: smuggled\r\n"
            .to_owned(),
        "GET /health?full=1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n".to_owned(),
        "POST /health?full=1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_owned(),
        "\u{1}\u{2}not HTTP at all\r\n\r\n".to_owned(),
    ];
    for attempt in &attempts {
        let answer = probed.raw(PROBER, 8080, attempt).await;
        assert!(!answer.contains(" 200 "), "{attempt}: {answer}");
    }
    assert_eq!((probed.http.served(), probed.http.connections()), (0, 0), "{:?}", probed.http.targets());

    // Behind a probe on the same connection everything is judged by itself.
    let pipelined = format!("{PROBE}\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n{PROBE}Connection: close\r\n\r\n");
    let answer = probed.raw(PROBER, 8080, &pipelined).await;
    assert_eq!((answer.matches("HTTP/1.1 200").count(), answer.matches("HTTP/1.1 403").count()), (2, 1), "{answer}");
    assert_eq!(probed.http.targets(), ["/health?full=1"; 2]);

    let mut http2 = Connection::over_http2(connect(PROBER, probed.api.inbound(8080)).await).await.unwrap();
    let answer = http2.call(request(Method::GET, "a", "/health?full=1")).await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(probed.http.served(), 2);
}

#[tokio::test]
async fn a_grpc_probe_calls_the_health_check_and_no_other_method() {
    let probed = Probed::start().await;
    let call = |path: &'static str| {
        let body = Full::from(&b"\0\0\0\0\0"[..]);
        let call = Request::post(path).header("host", "10.0.0.9:9090").header("content-type", "application/grpc");
        call.header("te", "trailers").body(body).unwrap()
    };
    let mut prober = Connection::over_http2(connect(PROBER, probed.api.inbound(9090)).await).await.unwrap();
    let answer = prober.call(call("/grpc.health.v1.Health/Check")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.trailers.get("grpc-status").map(|status| status.as_bytes()), Some(&b"0"[..]), "{answer:?}");
    for path in ["/grpc.health.v1.Health/Watch", "/shop.Api/Delete", "/grpc.health.v1.Health/Check/"] {
        let answer = prober.call(call(path)).await.unwrap();
        assert_eq!(answer.header("grpc-status"), "7", "{path}: {answer:?}");
    }
    let mut stranger = Connection::over_http2(connect(STRANGER, probed.api.inbound(9090)).await).await.unwrap();
    let answer = stranger.call(call("/grpc.health.v1.Health/Check")).await.unwrap();
    assert_eq!(answer.header("grpc-status"), "7", "{answer:?}");
    assert_eq!(probed.grpc.targets().len(), 1, "{:?}", probed.grpc.targets());
}

#[tokio::test]
async fn a_probe_that_only_connects_is_answered_by_a_connection_of_the_sidecars_own() {
    let mut probed = Probed::start().await;
    drop(connect(PROBER, probed.api.inbound(7070)).await);
    let tcp = |outcome: &'static str| ["protocol=\"tcp\"", outcome];
    probed.api.metrics().until("selvedge_probes_total", &tcp("outcome=\"passed\""), 1.0).await;
    assert_eq!((probed.tcp.connections(), probed.tcp.served()), (1, 0));
    for said in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\u{1}\u{2}\u{3}"] {
        let answer = probed.raw(PROBER, 7070, said).await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    drop(connect(STRANGER, probed.api.inbound(7070)).await);
    assert_eq!((probed.tcp.connections(), probed.tcp.served()), (1, 0), "no byte and nobody else gets through");

    // A kubelet does nothing but connect, and where nobody listens that has to fail.
    let entry = probed.api.inbound(7070);
    for _ in 0..2 {
        drop(std::mem::replace(&mut probed.tcp, Upstream::start("another").await));
        wait::until_true("the prober is refused", async || refused(PROBER, entry).await).await;
        for _ in 0..50 {
            assert!(refused(PROBER, entry).await && refused(STRANGER, entry).await);
        }
        probed.tcp = Upstream::start_on(&probed.tcp_port, "tcp");
        wait::until_true("the prober is taken", async || !refused(PROBER, entry).await).await;
    }
}

/// Whether nobody takes a connection there.
async fn refused(from: [u8; 4], to: SocketAddr) -> bool {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    match socket.connect(to).await {
        Ok(_) => false,
        // The latter of a connection that was taken in the moment before.
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset), "{error}");
            true
        }
    }
}

#[tokio::test]
async fn a_probe_does_not_wait_for_the_control_plane() {
    let mut mesh = Mesh::start().await;
    mesh.kill_control_plane();
    let application = Upstream::start("http").await;
    let workload = Workload::new("shop/api").serves(8080, application.address()).with(PROBES);
    let api = mesh.start_sidecar(workload);
    let entry = api.inbound(8080);
    wait::until_true("the sidecar listens", || async move { TcpStream::connect(entry).await.is_ok() }).await;
    let mut stream = connect(PROBER, entry).await;
    stream.write_all(format!("{PROBE}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await;
    assert!(read.is_ok() && answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!api.is_ready().await, "there is no configuration yet");
}

#[tokio::test]
async fn the_first_addresses_of_its_nodes_pod_networks_may_probe_a_pod() {
    let mesh = Mesh::start().await;
    let node = |network: &str| {
        let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: one}}\nspec: {{podCIDRs: [{network}]}}\n");
        mesh.write("node.yaml", &node);
    };
    node("127.0.5.0/24");
    mesh.write(
        "strict.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: strict, namespace: shop}\nspec: {mtls: \
         {inbound: STRICT}}\n",
    );
    let application = Upstream::start("http").await;
    let workload = Workload::new("shop/api").serves(8080, application.address()).on_node("one");
    let api = mesh.sidecar(workload.with("probes: [{port: 8080, path: /health}]\n")).await;
    let probe =
        async |from| raw(&api, from, 8080, "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let (first, of_another) = ([127, 0, 5, 1], [127, 0, 6, 1]);
    assert!(probe(first).await.starts_with("HTTP/1.1 200"));
    let refused = probe(of_another).await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("127.0.6.1 is not among"), "{refused}");
    node("127.0.6.0/24");
    wait::until_true("the other address may probe", async || probe(of_another).await.starts_with("HTTP/1.1 200")).await;
    assert!(probe(first).await.starts_with("HTTP/1.1 403"));
}
