//! Protocols that are not HTTP cross the mesh unseen and unharmed, whoever speaks first, under the same identity
//! policy and in the same metrics.

use std::{fs, io, net::SocketAddr, path::Path, process::Command, time::Duration};

use http::Method;
use selvedge_control_plane::clock;
use selvedge_tests::{
    client::{self, Connection, expect_bytes, request},
    mesh::{Mesh, Sidecar, Workload},
    pattern,
    ports::Reserved,
    process::Process,
    program,
    upstream::{
        Upstream,
        raw::{RawUpstream, Script},
    },
    wait::{self, within},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const DESTINATION: &str = "shop/store:6000";

/// A caller and a workload that serves `application` as opaque TCP.
struct Opaque {
    web: Sidecar,
    store: Sidecar,
    mesh: Mesh,
}

impl Opaque {
    async fn start(application: SocketAddr, protocol: &str) -> Self {
        let mesh = Mesh::start().await;
        mesh.service("shop/store", 6000, 6000, protocol);
        let store = mesh.start_sidecar(Workload::new("shop/store").serves(6000, application));
        let web = mesh.start_sidecar(Workload::new("shop/web").calls(DESTINATION));
        store.ready().await;
        web.ready().await;
        Self { web, store, mesh }
    }

    fn entry(&self) -> SocketAddr {
        self.web.outbound(DESTINATION)
    }

    /// Waits until a connection through the mesh answers `hello` with `wanted`.
    async fn until_answered(&self, hello: &[u8], wanted: &[u8]) {
        let entry = self.entry();
        wait::until_true("the opaque path answers", || async move {
            client::exchange(entry, hello, Duration::from_millis(500)).await.starts_with(wanted)
        })
        .await;
    }
}

#[tokio::test]
async fn bytes_pass_unchanged_in_both_directions_until_both_sides_are_done() {
    let upstream = RawUpstream::start(Script::echo()).await;
    let opaque = Opaque::start(upstream.address(), "tcp").await;
    opaque.until_answered(b"\x00\x01ping", b"\x00\x01ping").await;
    let mut stream = client::connect(opaque.entry()).await.unwrap();
    let block = pattern::bytes(1, 9_000);
    let (mut read, mut write) = stream.split();
    let echoed = async {
        let mut all = Vec::new();
        read.read_to_end(&mut all).await.map(|_| all)
    };
    let sent = async {
        write.write_all(&block).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (echoed, ()) = wait::within("the echo", async { tokio::join!(echoed, sent) }).await;
    pattern::assert_same("what came back", &echoed.unwrap(), &block);
    let received = upstream.received().await;
    pattern::assert_same("what was sent", &received[received.len() - block.len()..], &block);
}

#[tokio::test]
async fn a_server_that_speaks_first_needs_no_declaration() {
    let upstream = RawUpstream::start(Script::greets(b"220 mail ready\r\n")).await;
    let opaque = Opaque::start(upstream.address(), "").await;
    opaque.until_answered(b"", b"220 mail ready\r\n").await;
    let mut stream = client::connect(opaque.entry()).await.unwrap();
    expect_bytes(&mut stream, b"220 mail ready\r\n").await;
    stream.write_all(b"NOOP\r\n").await.unwrap();
    expect_bytes(&mut stream, b"NOOP\r\n").await;
}

/// Connects to `entry` and says nothing until the service has been dialled and has had the time to greet.
async fn ahead_of_time(entry: SocketAddr, service: &Upstream) -> Connection {
    let before = service.connections();
    let stream = client::connect(entry).await.unwrap();
    wait::until_true("the service is dialled", || async { service.connections() > before }).await;
    tokio::time::sleep(Duration::from_millis(100)).await; // with less the test would show less, not fail
    Connection::over_http2(stream).await.unwrap()
}

#[tokio::test]
async fn requests_to_a_service_of_http2_that_greets_are_requests() {
    let service = Upstream::start_http2("store").await;
    let opaque = Opaque::start(service.address(), "").await;
    opaque.mesh.write(
        "policies.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: store, namespace: shop}\nspec:\n  \
         targetRef: {kind: Workload, name: store}\n  mtls: {inbound: PERMISSIVE}\n---\n\
         apiVersion: selvedge.dev/v1alpha1\nkind: RateLimit\nmetadata: {name: one, namespace: shop}\nspec:\n  \
         targetRef: {kind: Service, name: store}\n  limits: [{requests: 1, per: 1h, match: [{paths: [/limited]}]}]\n",
    );
    let ask = |target: &'static str| request(Method::GET, "store.shop", target);
    for entry in [opaque.entry(), opaque.store.inbound(6000)] {
        wait::until_true("the limit is in force", || async {
            let Ok(mut caller) = Connection::open_http2(entry).await else { return false };
            caller.call(ask("/limited")).await.is_ok_and(|answer| answer.status == 429)
        })
        .await;
        let mut caller = ahead_of_time(entry, &service).await;
        assert_eq!(caller.call(ask("/limited")).await.unwrap().status, 429, "{entry}");
        assert_eq!(caller.call(ask("/other")).await.unwrap().status, 200, "{entry}");
    }
}

#[tokio::test]
async fn identity_policy_and_metrics_cover_opaque_connections() {
    let upstream = RawUpstream::start(Script::echo()).await;
    let opaque = Opaque::start(upstream.address(), "tcp").await;
    opaque.until_answered(b"ping", b"ping").await;
    let mut open = client::connect(opaque.entry()).await.unwrap();
    open.write_all(b"stay").await.unwrap();
    expect_bytes(&mut open, b"stay").await;
    opaque.mesh.write(
        "deny.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: no-web, namespace: shop}\nspec:\n  \
         targetRef: {kind: Service, name: store}\n  action: DENY\n  rules: [{from: [{serviceAccounts: [web]}], to: \
         [{ports: [6000]}]}]\n",
    );
    let entry = opaque.entry();
    wait::until_true("the denial is in force", || async move {
        client::exchange(entry, b"ping", Duration::from_millis(500)).await.is_empty()
    })
    .await;
    let cut = wait::within("the connection that was open before is cut", open.read_u8()).await;
    assert!(cut.is_err(), "{cut:?}");
    let metrics = opaque.store.metrics();
    metrics.until("selvedge_tcp_connections_open", &["direction=\"inbound\""], 0.0).await;
    let denied = ["reason=\"policy_denied\"", "policy=\"shop/no-web\"", "protocol=\"tcp\"", "tls=\"mtls\""];
    let before = metrics.value("selvedge_denials_total", &denied).await;
    assert!(client::exchange(entry, b"ping", Duration::from_secs(5)).await.is_empty());
    metrics.until("selvedge_denials_total", &denied, before + 1.0).await;
}

#[tokio::test]
async fn bytes_are_counted_as_they_pass_and_once() {
    let upstream = RawUpstream::start(Script::echo()).await;
    let opaque = &Opaque::start(upstream.address(), "tcp").await;
    opaque.until_answered(b"ping", b"ping").await;
    let counted = async |metric: &str, sidecar: &Sidecar| {
        let text = sidecar.metrics().text().await;
        let series = text.lines().filter(|line| line.starts_with(&format!("{metric}{{")));
        let value = |line: &str| {
            assert!(line.contains("destination_service=\"shop/store\""), "the service has no name: {line}");
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        series.map(value).sum::<f64>()
    };
    let metrics = ["selvedge_tcp_received_bytes_total", "selvedge_tcp_sent_bytes_total"];
    let settled = async |closed: f64| {
        wait::until_true("the connections are over", async || {
            counted("selvedge_tcp_connections_closed_total", &opaque.store).await >= closed
                && counted("selvedge_tcp_connections_closed_total", &opaque.web).await >= closed
        })
        .await;
    };
    let first = f64::from(upstream.connections());
    settled(first).await;
    let all = async || {
        let mut all = Vec::new();
        for sidecar in [&opaque.web, &opaque.store] {
            all.extend([counted(metrics[0], sidecar).await, counted(metrics[1], sidecar).await]);
        }
        all
    };
    let before = all().await;
    let grown = async || all().await.iter().zip(&before).map(|(now, before)| now - before).collect::<Vec<f64>>();
    let mut pooled = client::connect(opaque.entry()).await.unwrap();
    for sum in [4.0, 8.0] {
        pooled.write_all(b"ping").await.unwrap();
        expect_bytes(&mut pooled, b"ping").await;
        assert_eq!(grown().await, [sum; 4], "while the connection is open");
    }
    drop(pooled);
    settled(first + 1.0).await;
    assert_eq!(grown().await, [8.0; 4], "its end counts nothing twice");
}

#[tokio::test]
async fn a_refused_connection_says_what_it_was_for_and_why() {
    let upstream = RawUpstream::start(Script::echo()).await;
    let mesh = Mesh::start().await;
    mesh.service("shop/store", 6000, 6000, "tcp");
    let store = mesh.sidecar(Workload::new("shop/store").serves(6000, upstream.address())).await;
    let nowhere = "shop/nowhere:6001";
    let web = mesh.sidecar(Workload::new("shop/web").calls(nowhere)).await;
    assert!(client::exchange(web.outbound(nowhere), b"\0ping", Duration::from_secs(5)).await.is_empty());
    assert!(client::exchange(store.inbound(6000), b"\0plain", Duration::from_secs(5)).await.is_empty());
    for (sidecar, reason, service, port, detail) in [
        (&web, "unknown_destination", "shop/nowhere", 6001, "shop/nowhere: "),
        (&store, "plaintext_refused", "shop/store", 6000, ""),
    ] {
        let line = wait::until("the refusal is logged", || async {
            sidecar.access_log().into_iter().find(|line| line["selvedge.reason"] == reason)
        })
        .await;
        assert_eq!((&line["selvedge.service"], &line["server.port"]), (&service.into(), &port.into()), "{line}");
        let told = line["selvedge.detail"].as_str().unwrap_or_default();
        assert!(!told.is_empty() && told.starts_with(detail), "{line}");
        let labels = [format!("destination_service=\"{service}\""), format!("reason=\"{reason}\"")];
        let labels = labels.each_ref().map(String::as_str);
        sidecar.metrics().until("selvedge_tcp_connections_closed_total", &labels, 1.0).await;
    }
}

#[tokio::test]
async fn an_open_connection_ends_when_the_policy_that_lets_it_be_expires() {
    let upstream = RawUpstream::start(Script::echo()).await;
    let opaque = Opaque::start(upstream.address(), "tcp").await;
    opaque.until_answered(b"ping", b"ping").await;
    let allow = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: for-now, namespace: \
                 shop}\nspec:\n  targetRef: {kind: Service, name: store}\n  action: ALLOW\n  rules: [{from: \
                 [{serviceAccounts: [web]}]}]\n";
    opaque.mesh.write("allow.yaml", allow);
    let store = &opaque.store;
    wait::until_true("the policy is in force", || async move {
        let config = client::get(store.admin(), "/config").await.unwrap().json();
        config["inbound"]["ports"]["6000"]["policies"][0]["kind"] == "AuthorizationPolicy"
    })
    .await;
    let mut open = client::connect(opaque.entry()).await.unwrap();
    open.write_all(b"stay").await.unwrap();
    expect_bytes(&mut open, b"stay").await;
    let expires = clock::unix() + 3;
    opaque.mesh.write("allow.yaml", &format!("{allow}  expires: {}\n", wait::in_seconds(3)));
    let end = wait::within("the policy expires and the connection is cut", open.read_u8()).await;
    assert!(end.is_err(), "{end:?}");
    assert!(clock::unix() >= expires, "it is cut before");
    wait::until_true("the log says why", || async move {
        store.access_log().iter().any(|line| line.to_string().contains("policy_default_deny"))
    })
    .await;
}

#[tokio::test]
async fn http_on_a_port_that_is_declared_tcp_is_opaque() {
    let upstream = Upstream::start("store").await;
    let opaque = Opaque::start(upstream.address(), "tcp").await;
    let hello = b"GET /x HTTP/1.1\r\nHost: store\r\nUpgrade: h2c\r\nConnection: close, upgrade\r\n\r\n";
    opaque.until_answered(hello, b"HTTP/1.1 101").await;
    let received = "selvedge_tcp_received_bytes_total";
    let before = opaque.store.metric(received, &["protocol=\"tcp\""]).await;
    opaque.until_answered(hello, b"HTTP/1.1 101").await;
    opaque.store.metrics().until(received, &["protocol=\"tcp\""], before + hello.len() as f64).await;
    for sidecar in [&opaque.web, &opaque.store] {
        assert!(sidecar.metric(received, &["protocol=\"tcp\""]).await > 0.0);
        sidecar.metrics().absent("selvedge_requests_total", &[]).await;
    }
}

#[tokio::test]
async fn a_connection_goes_to_another_instance_where_one_takes_none() {
    let upstream = RawUpstream::start(Script::echo()).await;
    let opaque = Opaque::start(upstream.address(), "tcp").await;
    opaque.until_answered(b"ping", b"ping").await;
    let twin = Workload::new("shop/store-2").runs_as("store").backs("store").serves(6000, upstream.address());
    let twin = opaque.mesh.sidecar(twin).await;
    let (called, entry) = (&twin, opaque.entry());
    wait::until_true("the second instance is called", || async move {
        client::exchange(entry, b"ping", Duration::from_millis(50)).await;
        called.metrics().so_far("selvedge_tcp_received_bytes_total", &[]).await >= 4.0
    })
    .await;
    drop(twin);
    for _ in 0..20 {
        let mut stream = client::connect(entry).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        expect_bytes(&mut stream, b"ping").await;
    }
}

#[tokio::test]
async fn a_real_redis_works_through_two_sidecars() {
    let Some(redis) = program("redis-server") else { return };
    let (port, folder) = (Reserved::new(), tempfile::tempdir().unwrap());
    let mut command = Command::new(redis);
    command.args(["--port", &port.address().port().to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
    let _server = Process::start("redis", command.arg(folder.path()), folder.path());
    wait::until_true("redis listens", || client::accepts(port.address())).await;
    let opaque = Opaque::start(port.address(), "").await;
    opaque.until_answered(b"PING\r\n", b"+PONG").await;
    let mut stream = client::connect(opaque.entry()).await.unwrap();
    for number in 0..200 {
        let value = format!("{number:05}");
        stream.write_all(format!("SET key{number} {value}\r\nGET key{number}\r\n").as_bytes()).await.unwrap();
        expect_bytes(&mut stream, format!("+OK\r\n$5\r\n{value}\r\n").as_bytes()).await;
    }
}

#[tokio::test]
async fn a_real_postgresql_works_through_two_sidecars() {
    let (Some(initdb), Some(postgres), Some(psql)) = (program("initdb"), program("postgres"), program("psql")) else {
        return;
    };
    let (port, folder) = (Reserved::new(), tempfile::tempdir().unwrap());
    let Some(user) = database_user(folder.path()) else { return };
    let data = folder.path().join("data");
    let run_as = |program: &Path| match &user {
        Some(name) => {
            let mut command = Command::new("runuser");
            command.args(["-u", name, "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    let made = run_as(&initdb).args(["-A", "trust", "-U", "tester", "-D"]).arg(&data).output().unwrap();
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    let mut command = run_as(&postgres);
    command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-F", "-c", "unix_socket_directories=", "-p"]);
    let mut server = Process::start("postgres", command.arg(port.address().port().to_string()), folder.path());
    wait::until_true("postgres listens", || client::accepts(port.address())).await;
    let opaque = Opaque::start(port.address(), "").await;
    let entry = opaque.entry();
    let query = |sql: &str| {
        let mut command = tokio::process::Command::new(&psql);
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &entry.port().to_string(),
            "-U",
            "tester",
            "-d",
            "postgres",
            "-Atc",
            sql,
        ]);
        command
    };
    let answered = || async { query("select 41 + 1").output().await.is_ok_and(|output| output.stdout == b"42\n") };
    wait::until_true("PostgreSQL answers a query", answered).await;
    let rows = query("select sum(n) from generate_series(1, 100000) n").output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&rows.stdout), "5000050000\n");
    server.terminate();
    server.ended().await;
}

/// PostgreSQL refuses to run as root: the system's own user then, who must own `folder`. `None` is a skip.
fn database_user(folder: &Path) -> Option<Option<String>> {
    if !rustix::process::getuid().is_root() {
        return Some(None);
    }
    let owned = Command::new("chown").arg("postgres").arg(folder).output().is_ok_and(|output| output.status.success());
    let switched = Command::new("runuser").args(["-u", "postgres", "--", "true"]).output();
    if !owned || !switched.is_ok_and(|output| output.status.success()) {
        selvedge_tests::skip("root cannot run PostgreSQL and there is no user postgres");
        return None;
    }
    fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Some(Some("postgres".to_owned()))
}

/// Both ends of a connection through the mesh to a service that a test plays itself.
async fn both_ends(opaque: &Opaque, service: &TcpListener) -> (TcpStream, TcpStream) {
    let mut caller = client::connect(opaque.entry()).await.unwrap();
    caller.write_all(b"\0hello").await.unwrap();
    let (mut service, _) = within("the connection", service.accept()).await.unwrap();
    expect_bytes(&mut service, b"\0hello").await;
    (caller, service)
}

/// How reading ends, and what was read before.
async fn end_of(stream: &mut TcpStream) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut read = Vec::new();
    let end = within("an end", stream.read_to_end(&mut read)).await;
    (read, end.err().map(|error| error.kind()))
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

#[tokio::test]
async fn a_connection_ends_as_the_other_side_has_ended_it() {
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut opaque = Opaque::start(service.local_addr().unwrap(), "tcp").await;
    let closed = async |opaque: &Opaque, reason: &str| {
        let labels = ["protocol=\"tcp\"", &format!("reason=\"{reason}\"")];
        let of =
            async |sidecar: &Sidecar| sidecar.metrics().so_far("selvedge_tcp_connections_closed_total", &labels).await;
        (of(&opaque.web).await, of(&opaque.store).await)
    };

    let (mut caller, mut end) = both_ends(&opaque, &service).await;
    caller.shutdown().await.unwrap();
    assert_eq!(end_of(&mut end).await, (Vec::new(), None), "the caller had no more to say");
    end.write_all(b"bye").await.unwrap();
    drop(end);
    assert_eq!(end_of(&mut caller).await, (b"bye".to_vec(), None), "nor had the service");
    wait::until_true("it counts as one that ended well", || async { closed(&opaque, "").await == (1.0, 1.0) }).await;

    let (mut caller, mut end) = both_ends(&opaque, &service).await;
    end.write_all(b"half of it").await.unwrap();
    expect_bytes(&mut caller, b"half of it").await;
    reset(end);
    assert_eq!(end_of(&mut caller).await, (Vec::new(), Some(io::ErrorKind::ConnectionReset)), "the service broke off");
    wait::until_true("the service is blamed", || async { closed(&opaque, "upstream_reset").await == (1.0, 1.0) }).await;

    let (mut caller, mut end) = both_ends(&opaque, &service).await;
    caller.write_all(b"half of it").await.unwrap();
    expect_bytes(&mut end, b"half of it").await;
    reset(caller);
    assert_eq!(end_of(&mut end).await, (Vec::new(), Some(io::ErrorKind::ConnectionReset)), "the caller broke off");
    wait::until_true("the caller is blamed", || async { closed(&opaque, "downstream_closed").await == (1.0, 1.0) })
        .await;

    // A service that answers and closes before it has read: what it said arrives, whatever else breaks.
    let (mut caller, mut end) = both_ends(&opaque, &service).await;
    end.write_all(&pattern::bytes(1, 9_000)).await.unwrap();
    drop(end);
    let _ = caller.write_all(&[0; 100_000]).await;
    let (said, _) = end_of(&mut caller).await;
    pattern::assert_same("what was said before", &said, &pattern::bytes(1, 9_000));

    let (mut caller, _end) = both_ends(&opaque, &service).await;
    opaque.store.process().kill();
    assert_eq!(end_of(&mut caller).await.1, Some(io::ErrorKind::ConnectionReset), "the called sidecar is gone");
}

#[tokio::test]
async fn a_service_that_takes_no_connection_is_no_service_that_has_nothing_to_say() {
    let port = Reserved::new();
    let opaque = Opaque::start(port.address(), "tcp").await;
    let ended = || async {
        let mut caller = client::connect(opaque.entry()).await.ok()?;
        caller.write_all(b"hello").await.ok()?;
        let (said, end) = end_of(&mut caller).await;
        assert!(said.is_empty());
        (end == Some(io::ErrorKind::ConnectionReset)).then_some(())
    };
    wait::until("the connection is reset", ended).await;
}
