//! What a connection speaks is told from any start of it: whoever waits after some bytes gets an answer as if the mesh were not
//! there, and nobody passes by a policy by waiting.

use std::{net::SocketAddr, time::Duration};

use selvedge_tests::{
    client,
    mesh::{Mesh, Sidecar, Workload},
    pair::{HOST, Pair},
    upstream::raw::{RawUpstream, Script},
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

#[path = "detection/greetings.rs"]
mod greetings;

/// What clients of protocols other than HTTP begin with.
const OPENINGS: &[(&str, &[u8])] = &[
    ("ZooKeeper, four-letter word", b"ruok"),
    ("ZooKeeper, another", b"stat"),
    ("Redis, inline", b"PING\r\n"),
    ("Redis, inline command", b"SET key value\r\n"),
    ("Redis, RESP", b"*1\r\n$4\r\nPING\r\n"),
    ("Redis, HELLO", b"HELLO 3 AUTH default secret\r\n"),
    ("memcached, get", b"get foo bar\r\n"),
    ("memcached, set", b"set foo 0 60 3\r\nbar\r\n"),
    ("memcached, meta", b"mg foo v t\r\n"),
    ("memcached, binary", b"\x80\x00\x00\x03\0\0\0\0\0\0\0\x03foo"),
    ("SMTP", b"EHLO client.test\r\n"),
    ("LMTP", b"LHLO client.test\r\n"),
    ("POP3", b"USER anna\r\nPASS secret\r\n"),
    ("IMAP", b"a001 LOGIN anna secret\r\n"),
    ("ManageSieve", b"AUTHENTICATE \"PLAIN\"\r\n"),
    ("NNTP", b"MODE READER\r\n"),
    ("FTP", b"USER anonymous\r\n"),
    ("SSH", b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n"),
    ("PostgreSQL, SSLRequest", b"\0\0\0\x08\x04\xd2\x16\x2f"),
    ("PostgreSQL, startup", b"\0\0\0\x22\0\x03\0\0user\0anna\0database\0shop\0\0"),
    ("MySQL, handshake response", b"\x20\0\0\x01\x85\xa6\xff\x01\0\0\0\x01\x2d\0\0\0"),
    ("SQL Server, prelogin", b"\x12\x01\0\x2f\0\0\x01\0\0\0\x1a\0\x06"),
    ("Oracle, TNS connect", b"\0\x3a\0\0\x01\0\0\0\x01\x38\x01\x2c"),
    ("MongoDB, OP_MSG", b"\x21\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0"),
    ("Cassandra, OPTIONS", b"\x04\0\0\0\x05\0\0\0\0"),
    ("Kafka, ApiVersions", b"\0\0\0\x14\0\x12\0\0\0\0\0\x01\0\x05adminx"),
    ("AMQP 0-9-1", b"AMQP\0\0\x09\x01"),
    ("AMQP 1.0, SASL", b"AMQP\x03\x01\0\0"),
    ("MQTT, CONNECT", b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04anna"),
    ("STOMP", b"CONNECT\naccept-version:1.2\nhost:shop\n\n\0"),
    ("STOMP, after heart-beats", b"\n\nSTOMP\naccept-version:1.2\n\n\0"),
    ("NATS", b"CONNECT {\"verbose\":false}\r\nPING\r\n"),
    ("NATS, publish", b"PUB shop.orders 5\r\nhello\r\n"),
    ("NSQ", b"  V2"),
    ("beanstalkd", b"put 0 0 60 5\r\nhello\r\n"),
    ("Gearman, admin", b"status\r\n"),
    ("LDAP, bind", b"0\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0"),
    ("Kerberos over TCP", b"\0\0\0\x4a\x6a\x48\x30\x46"),
    ("DNS over TCP", b"\0\x1d\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04shop"),
    ("SIP", b"OPTIONS sip:anna@shop.test SIP/2.0\r\n"),
    ("RTSP", b"DESCRIBE rtsp://shop.test/a RTSP/1.0\r\n"),
    ("PROXY protocol 1", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
    ("PROXY protocol 2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"),
    ("Graphite", b"shop.requests 1 1700000000\n"),
    ("statsd over TCP", b"shop.requests:1|c\n"),
    ("collectd, plain", b"LISTVAL\n"),
    ("InfluxDB line protocol", b"cpu,host=a value=1 1700000000\n"),
    ("syslog", b"<34>1 2026-12-01T00:00:00Z a b - - - hello\n"),
    ("syslog, octet counting", b"23 <34>1 - a b - - - hello"),
    ("Fluentd forward", b"\x93\xa3tag\xce\0\0\0\0\x80"),
    ("GELF", b"{\"version\":\"1.1\"}\0"),
    ("JSON lines", b"{\"hello\":\"world\"}\n"),
    ("Thrift, framed", b"\0\0\0\x11\x80\x01\0\x01\0\0\0\x04ping"),
    ("XMPP", b"<?xml version='1.0'?><stream:stream to='shop'>"),
    ("IRC", b"NICK anna\r\nUSER anna 0 * :Anna\r\n"),
    ("VNC", b"RFB 003.008\n"),
    ("RDP", b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0"),
    ("Telnet negotiation", b"\xff\xfb\x1f\xff\xfd\x03"),
    ("Finger", b"anna\r\n"),
    ("Gopher", b"/docs\r\n"),
    ("WHOIS", b"shop.test\r\n"),
    ("Ident", b"6193, 23\r\n"),
    ("rsync", b"@RSYNCD: 31.0\n"),
    ("git", b"0032git-upload-pack /shop.git\0host=shop.test\0"),
    ("Subversion", b"( 2 ( edit-pipeline svndiff1 ) 20:svn://shop.test/ )"),
    ("CVS pserver", b"BEGIN AUTH REQUEST\n"),
    ("printer (LPD)", b"\x02queue\n"),
    ("BitTorrent", b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0"),
    ("ADB", b"CNXN\0\0\0\x01\0\0\x10\0"),
    ("a word", b"hello"),
    ("the start of a method", b"GET"),
    ("an empty line", b"\n"),
];

/// A service whose port has this `appProtocol`, or of which nothing is said, and its caller.
struct Plain {
    web: Sidecar,
    _store: Sidecar,
    _service: RawUpstream,
    _mesh: Mesh,
}

impl Plain {
    async fn start(protocol: &str) -> Self {
        let service = RawUpstream::start(Script::echo()).await;
        let mesh = Mesh::start().await;
        mesh.service("shop/store", 6000, 6000, protocol);
        let store = mesh.sidecar(Workload::new("shop/store").serves(6000, service.address())).await;
        let web = mesh.sidecar(Workload::new("shop/web").calls("shop/store:6000")).await;
        let plain = Self { web, _store: store, _service: service, _mesh: mesh };
        let entry = plain.entry();
        wait::until_true("the service echoes", || async move {
            client::exchange(entry, b"\0\0\0", Duration::from_millis(500)).await == b"\0\0\0"
        })
        .await;
        plain
    }

    fn entry(&self) -> SocketAddr {
        self.web.outbound("shop/store:6000")
    }
}

/// How long it took until these bytes came back from a service that echoes, while nothing else was said.
async fn echoed(entry: SocketAddr, bytes: &[u8]) -> Option<Duration> {
    let mut stream = client::connect(entry).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let began = Instant::now();
    stream.write_all(bytes).await.ok()?;
    let mut back = vec![0; bytes.len()];
    timeout(Duration::from_secs(60), stream.read_exact(&mut back)).await.ok()?.ok()?;
    (back == bytes).then(|| began.elapsed())
}

/// What may be the start of TLS or of the preface of HTTP/2 has longer.
fn is_start_of_more(bytes: &[u8]) -> bool {
    bytes[0] == 0x16 || b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".starts_with(bytes)
}

#[tokio::test]
async fn whoever_waits_after_any_start_of_any_protocol_is_heard() {
    let (plain, told) = tokio::join!(Plain::start(""), Plain::start("tcp"));
    let (entry, places) = (plain.entry(), std::sync::Arc::new(Semaphore::new(24)));
    // Where nothing has to be told, the same takes what it takes on a machine that is as busy.
    let calm = told.entry();
    let mut all = JoinSet::new();
    let tls: (&str, &[u8]) = ("the start of TLS", b"\x16\x03");
    for (name, opening) in OPENINGS.iter().copied().chain([tls]) {
        for cut in 1..=opening.len() {
            let places = places.clone();
            all.spawn(async move {
                // Those that take seconds hold nobody up.
                let _place = if is_start_of_more(&opening[..cut]) { None } else { places.acquire_owned().await.ok() };
                let without = echoed(calm, &opening[..cut]).await;
                (name, &opening[..cut], without, echoed(entry, &opening[..cut]).await)
            });
        }
    }
    let (mut took, mut calm) = (Vec::new(), Vec::new());
    while let Some(one) = all.join_next().await {
        let (name, bytes, without, after) = one.unwrap();
        let (cut, is_start) = (bytes.len(), is_start_of_more(bytes));
        let mut after = after.unwrap_or_else(|| panic!("{name}, cut after {cut} bytes, got no answer"));
        // Longer than any silence that is waited for twice would be another fault.
        let most = Duration::from_secs(if is_start { 30 } else { 5 });
        if after > most {
            // A fault is there the second time, too.
            after = echoed(entry, bytes).await.unwrap_or_else(|| panic!("{name}, cut after {cut} bytes"));
        }
        assert!(after < most, "{name} at {cut}: {after:?}");
        took.extend((!is_start).then_some(after));
        calm.extend(without.filter(|_| !is_start));
    }
    took.sort();
    calm.sort();
    let (median, without) = (took[took.len() / 2], calm[calm.len() / 2]);
    println!("{} starts, median {median:?}, {without:?} as tcp, slowest {:?}", took.len(), took.last());
    // Both sidecars wait 10 ms each at most: ten times that, beside what else takes its time.
    assert!(median < Duration::from_millis(200) + 3 * without, "{median:?}, {without:?} as tcp");
}

#[tokio::test]
async fn a_long_line_of_another_protocol_and_one_that_ends_with_the_connection_pass() {
    let plain = Plain::start("").await;
    for bytes in [&[b'A'; 9_000][..], &[&b"SET key "[..], &[b'v'; 9_000]].concat(), &[b'\0'; 5_000]] {
        assert!(echoed(plain.entry(), bytes).await.is_some(), "{} bytes", bytes.len());
    }
    let mut stream = client::connect(plain.entry()).await.unwrap();
    stream.write_all(b"ruok").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"ruok");
}

/// Sends `bytes` in pieces, `pause` after each of the first `pieces` bytes, and reads what is answered until the end.
async fn slowly(entry: SocketAddr, bytes: &[u8], pieces: usize, pause: Duration) -> String {
    let mut stream = TcpStream::connect(entry).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in &bytes[..pieces] {
        stream.write_all(&[*byte]).await.unwrap();
        sleep(pause).await;
    }
    stream.write_all(&bytes[pieces..]).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> Vec<u8> {
    let head = "x-forwarded-client-cert: URI=spiffe://mesh.local/ns/shop/sa/forged\r\nConnection: close\r\n";
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{head}\r\n").into_bytes()
}

#[tokio::test]
async fn a_long_start_of_a_request_is_a_request() {
    let pair = Pair::start().await;
    let long = "a".repeat(5_000);
    for (blank, target) in [
        ("\r\n".repeat(2_100), "/".to_owned()),
        (String::new(), format!("/?{long}")),
        (String::new(), format!("HTTP://{HOST}/?{long}")),
    ] {
        let request = [blank.as_bytes(), &get(&target)].concat();
        let answer = slowly(pair.entry(), &request, 0, SLOW).await;
        assert!(answer.starts_with("HTTP/1.1 ") && !answer.contains("forged"), "{target:.20}: {answer}");
    }
}

/// Longer than a caller is waited for where nothing looks into requests.
const SLOW: Duration = Duration::from_millis(30);

#[tokio::test]
async fn a_request_that_begins_slowly_is_a_request() {
    let pair = Pair::start().await;
    for pieces in [1, 3, 4, 6, 14] {
        let answer = slowly(pair.entry(), &get("/slow"), pieces, SLOW).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "after {pieces}: {answer}");
        assert!(!answer.contains("forged"), "who calls is said by the mesh alone: {answer}");
    }
    let labels = ["destination_service=\"shop/api\"", "response_code=\"200\""];
    let counted = pair.web.metrics().so_far("selvedge_requests_total", &labels).await;
    assert!(counted >= 5.0, "{counted}");
}

#[tokio::test]
async fn nobody_passes_by_a_policy_by_waiting() {
    for (name, policy, refused) in [
        (
            "a DENY",
            "kind: AuthorizationPolicy\nmetadata: {name: one, namespace: shop}\nspec: {targetRef: {kind: Service, name: api}, \
             action: DENY, rules: [{to: [{paths: [/admin]}]}]}\n",
            "HTTP/1.1 403",
        ),
        (
            "a limit",
            "kind: RateLimit\nmetadata: {name: one, namespace: shop}\nspec: {targetRef: {kind: Service, name: api}, limits: \
             [{requests: 1, per: 3600s, burst: 1, key: [identity]}]}\n",
            "HTTP/1.1 429",
        ),
        (
            "a route",
            "kind: HTTPRoute\nmetadata: {name: one, namespace: shop}\nspec: {parentRefs: [{kind: Service, group: '', name: api, \
             port: 80}], rules: [{matches: [{path: {value: /open}}], backendRefs: [{name: api, port: 80}]}]}\n",
            "HTTP/1.1 404",
        ),
    ] {
        let pair = Pair::start().await;
        let version = if name == "a route" { "gateway.networking.k8s.io/v1" } else { "selvedge.dev/v1alpha1" };
        pair.mesh.write("policy.yaml", &format!("apiVersion: {version}\n{policy}"));
        let status = refused.rsplit(' ').next().unwrap().parse().unwrap();
        pair.until_status("/admin", status).await;
        let before = pair.upstream.targets().len();
        let request = get("/admin");
        // The one is just beyond the silence after which the service is dialled.
        for (pieces, pause) in [1, 2, 4, 10, 18].into_iter().flat_map(|n| [(n, SLOW), (n, Duration::from_millis(11))]) {
            let answer = slowly(pair.entry(), &request, pieces, pause).await;
            assert!(answer.starts_with(refused), "{name}, after {pieces} with {pause:?}: {answer}");
        }
        let answer = slowly(pair.entry(), &request, 30, Duration::from_millis(50)).await;
        assert!(answer.starts_with(refused), "{name}, byte by byte: {answer}");
        assert_eq!(pair.upstream.targets().len(), before, "{name}: nothing came to the application");
    }
}
