//! Who calls, as the application is told: by the mesh alone, whatever a caller sends and however it spells it.

use std::{fs, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::BodyExt;
use rustls::{
    SupportedCipherSuite,
    crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    pki_types::{CertificateDer, pem::PemObject},
};
use selvedge_policies::matching::header::is_alias;
use selvedge_tests::{
    around::{Around, talk, talk_to_the_end},
    client::{self, Connection, Payload},
    mesh::{Sidecar, Workload},
    pair::{DESTINATION, HOST, Pair},
    upstream::raw::{RawUpstream, Script},
    wait,
};
use serde_json::Value;
use tokio::io::AsyncReadExt;

const CLIENT_CERT: &str = "x-forwarded-client-cert";
const WEB: &str = "spiffe://mesh.local/ns/shop/sa/web";
const GATEWAY: &str = "spiffe://mesh.local/ns/shop/sa/gateway";
const ADMIN: &str = "URI=spiffe://mesh.local/ns/shop/sa/admin";

/// Names that stand for one of the fields somewhere.
const FORGED: [&str; 6] =
    [CLIENT_CERT, "x_forwarded_client_cert", "x-forwarded_client.cert", "x-caller", "x_caller", "x.caller"];

/// A mesh policy of the namespace that says who calls like this, and lets strangers in.
fn policy(name: &str, caller_identity: &str) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{mtls: \
         {{inbound: PERMISSIVE}}, {caller_identity}}}\n"
    )
}

const TOLD: &str = "callerIdentity: {headers: {x-forwarded-client-cert: SET, x-caller: SET}}";

fn plain() -> Request<Payload> {
    client::request(Method::GET, HOST, "/").map(BodyExt::boxed_unsync)
}

/// A request with every name twice in its header section and once in its trailer section.
fn forged() -> Request<Payload> {
    let fields = || FORGED.map(|name| (HeaderName::from_static(name), HeaderValue::from_static(ADMIN))).into_iter();
    let trailers = fields().chain([(HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))]);
    let body = client::in_pieces(Bytes::from_static(b"body"), Some(trailers.collect()));
    let mut request = Request::builder().method(Method::POST).uri("/").header("host", HOST).body(body).unwrap();
    let announced = format!("x-sum, {}", FORGED.join(", ")).parse().unwrap();
    request.headers_mut().insert("trailer", announced);
    for (name, value) in fields().chain(fields()) {
        request.headers_mut().append(name, value);
    }
    request
}

/// A field and its value.
type Field = (String, String);

fn field(name: &str, value: &str) -> Field {
    (name.to_owned(), value.to_owned())
}

/// The fields of a section that the application may take for one of `names`.
fn said(seen: &Value, section: &str, names: &[&str]) -> Vec<Field> {
    let pairs = seen[section].as_array().expect("the service says what it was asked");
    let pairs = pairs.iter().map(|pair| field(pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    let mut said: Vec<_> = pairs.filter(|(name, _)| names.iter().any(|ours| is_alias(ours, name))).collect();
    said.sort();
    said
}

async fn ask(connection: &mut Connection, request: Request<Payload>) -> Value {
    let answer = connection.call_any(request).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// A connection of each version of HTTP.
async fn both(address: SocketAddr) -> [Connection; 2] {
    [Connection::open(address).await.unwrap(), Connection::open_http2(address).await.unwrap()]
}

const NAMES: [&str; 2] = [CLIENT_CERT, "x-caller"];

/// Asks until the application is told `expected` of a caller that sends nothing of its own.
async fn until_told(address: SocketAddr, expected: &[Field]) {
    wait::until_true("the application is told as it is set", || async move {
        let Ok(mut connection) = Connection::open(address).await else { return false };
        let answer = connection.call_any(plain()).await;
        answer.is_ok_and(|answer| answer.status == 200 && said(&answer.json(), "headers", &NAMES) == expected)
    })
    .await;
}

/// SHA-256 of the certificate that a sidecar has now, in hex.
fn fingerprint(sidecar: &Sidecar) -> String {
    let text = fs::read(sidecar.home().join("state/credentials.json")).unwrap();
    let stored: Value = serde_json::from_slice(&text).unwrap();
    let pem =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", stored["chain"][0].as_str().unwrap());
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { panic!("it is one of TLS 1.3") };
    suite.common.hash_provider.hash(&certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the application is told of the caller behind this sidecar.
fn element(sidecar: &Sidecar, identity: &str) -> String {
    format!("By=spiffe://mesh.local/ns/shop/sa/api;Hash={};URI={identity}", fingerprint(sidecar))
}

fn told_of(sidecar: &Sidecar, identity: &str) -> [Field; 2] {
    [field("x-caller", identity), field(CLIENT_CERT, &element(sidecar, identity))]
}

#[tokio::test]
async fn what_a_caller_forges_is_gone_where_nothing_is_set() {
    let pair = Pair::start().await;
    let (entry, inside) = (pair.entry(), pair.api.inbound(8080));
    pair.mesh.write("policy.yaml", &policy("open", "accessLog: all"));
    until_told(inside, &[]).await;
    for mut connection in both(entry).await.into_iter().chain(both(inside).await) {
        let seen = ask(&mut connection, forged()).await;
        assert_eq!(said(&seen, "headers", &[CLIENT_CERT]), [], "{seen}");
        assert_eq!(said(&seen, "trailers", &[CLIENT_CERT]), [], "{seen}");
        assert_eq!(said(&seen, "headers", &["x-caller"]).len(), 6, "another field is the caller's own: {seen}");
        assert_eq!(said(&seen, "trailers", &["x-sum"]), [field("x-sum", "7")], "{seen}");
    }
}

#[tokio::test]
async fn the_application_is_told_who_calls_and_nobody_else_says_it() {
    let pair = Pair::start().await;
    let (entry, inside) = (pair.entry(), pair.api.inbound(8080));
    pair.mesh.write("policy.yaml", &policy("told", TOLD));
    let by_web = told_of(&pair.web, WEB);
    until_told(entry, &by_web).await;
    until_told(inside, &[]).await;
    for (address, expected) in [(entry, &by_web[..]), (inside, &[])] {
        for mut connection in both(address).await {
            for request in [plain(), forged()] {
                let is_forged = request.method() == Method::POST;
                let seen = ask(&mut connection, request).await;
                assert_eq!(said(&seen, "headers", &NAMES), expected, "{seen}");
                assert_eq!(said(&seen, "trailers", &NAMES), [], "{seen}");
                assert_eq!(said(&seen, "trailers", &["x-sum"]).len(), usize::from(is_forged), "{seen}");
            }
        }
    }
    let config: Value = client::get(pair.api.admin(), "/config").await.unwrap().json();
    assert_eq!(config["settingsFrom"]["callerIdentity.headers.x-caller"], "MeshPolicy shop/told", "{config}");
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed() {
    let pair = Pair::start().await;
    let gateway = pair.mesh.sidecar(Workload::new("shop/gateway").calls(DESTINATION)).await;
    let trusted = TOLD.replace("}}", &format!("}}, trustedProxies: ['{GATEWAY}']}}"));
    pair.mesh.write("policy.yaml", &policy("told", &trusted));
    let through = gateway.outbound(DESTINATION);
    until_told(pair.entry(), &told_of(&pair.web, WEB)).await;
    until_told(through, &told_of(&gateway, GATEWAY)).await;
    for (mut connection, mut stranger) in both(through).await.into_iter().zip(both(pair.entry()).await) {
        let seen = ask(&mut connection, forged()).await;
        let appended = format!("{ADMIN},{ADMIN},{}", element(&gateway, GATEWAY));
        let expected = [field("x-caller", ADMIN), field("x-caller", ADMIN), field(CLIENT_CERT, &appended)];
        assert_eq!(said(&seen, "headers", &NAMES), expected, "{seen}");
        assert_eq!(said(&seen, "trailers", &NAMES), [], "nobody is believed behind the content: {seen}");
        let seen = ask(&mut stranger, forged()).await;
        assert_eq!(said(&seen, "headers", &NAMES), told_of(&pair.web, WEB), "{seen}");
    }
}

#[tokio::test]
async fn connections_that_are_open_follow_the_setting_and_every_policy_names_its_fields() {
    let pair = Pair::start().await;
    let mut connections = both(pair.entry()).await;
    for connection in &mut connections {
        assert_eq!(said(&ask(connection, plain()).await, "headers", &NAMES), []);
    }
    for (setting, expected) in [
        (TOLD, &told_of(&pair.web, WEB)[..]),
        ("callerIdentity: {headers: {x-caller: REMOVE}}", &[]),
        (TOLD, &told_of(&pair.web, WEB)),
        ("accessLog: all", &[]),
    ] {
        pair.mesh.write("policy.yaml", &policy("told", setting));
        for connection in &mut connections {
            let followed = async {
                while said(&ask(connection, plain()).await, "headers", &NAMES) != expected {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            wait::within(setting, followed).await;
            let seen = ask(connection, forged()).await;
            let told = expected.iter().filter(|(name, _)| name == CLIENT_CERT).cloned().collect::<Vec<_>>();
            assert_eq!(said(&seen, "headers", &[CLIENT_CERT]), told, "{setting}: {seen}");
            assert!(connection.is_open(), "no connection is closed for it");
        }
    }
    // Two policies of one scope name a field each, and the more specific one only a third.
    pair.mesh.write("policy.yaml", &policy("told", "callerIdentity: {headers: {x-caller: SET}}"));
    pair.mesh.write("second.yaml", &policy("second", "callerIdentity: {headers: {x-forwarded-client-cert: SET}}"));
    let own = "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: own, namespace: shop}\nspec: {targetRef: \
               {kind: Workload, name: api}, callerIdentity: {headers: {x-other: REMOVE}}}\n";
    pair.mesh.write("own.yaml", own);
    until_told(pair.entry(), &told_of(&pair.web, WEB)).await;
    let other = || {
        let mut request = forged();
        request.headers_mut().insert("x_other", HeaderValue::from_static(ADMIN));
        request
    };
    let connection = &mut connections[0];
    wait::until_true("the field of the third is gone", || async {
        let mut connection = Connection::open(pair.entry()).await.unwrap();
        said(&ask(&mut connection, other()).await, "headers", &["x-other"]).is_empty()
    })
    .await;
    assert_eq!(said(&ask(connection, other()).await, "headers", &NAMES), told_of(&pair.web, WEB));
}

#[tokio::test]
async fn what_becomes_a_tunnel_is_told_and_sanitized_too() {
    let switches = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let upgrade = "GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n".to_owned();
    let connect = format!("CONNECT {HOST}:80 HTTP/1.1\r\n");
    for (reply, line, host) in [(switches, upgrade, HOST), ("HTTP/1.1 200 OK\r\n\r\n", connect, "api.shop:80")] {
        let application = RawUpstream::start(Script::replies(reply.as_bytes())).await;
        let around = Around::launch(application.address(), "http").await;
        around.mesh.write("policy.yaml", &policy("told", TOLD));
        let forged: String = FORGED.iter().map(|name| format!("{name}: {ADMIN}\r\n")).collect();
        let head = format!("{line}Host: {host}\r\n{forged}\r\n");
        let expected = format!("{CLIENT_CERT}: {}\r\n", element(&around.web, WEB));
        let (entry, told) = (around.entry(), &expected);
        wait::until_true("the application is told of an upgrade", || async {
            let mut stream = client::connect(entry).await.unwrap();
            talk_to_the_end(&mut stream, head.as_bytes()).await;
            String::from_utf8_lossy(&application.received().await).to_lowercase().contains(&told.to_lowercase())
        })
        .await;
        let received = String::from_utf8_lossy(&application.received().await).to_lowercase();
        let last = received.rsplit_once("\r\n\r\n").map_or(&*received, |(before, _)| before);
        let last = last.rsplit("\r\n\r\n").next().unwrap_or_default();
        assert!(last.contains(&format!("x-caller: {WEB}")) && !last.contains("/sa/admin"), "{last}");
        assert!(!received.contains("client-cert: uri=") && !received.contains("client_cert"), "{received}");
    }
}

#[tokio::test]
async fn policies_see_what_the_application_will() {
    let pair = Pair::start().await;
    let head = format!(
        "GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{CLIENT_CERT}: admin\r\n\r\n"
    );
    let mut tunnel = client::connect(pair.entry()).await.unwrap();
    let answer = talk(&mut tunnel, head.as_bytes(), "\r\n\r\n", 1).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let only = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: admins, namespace: \
                shop}\nspec: {action: ALLOW, rules: [{to: [{headers: [{name: x-forwarded-client-cert, value: admin}]}]}]}\n";
    pair.mesh.write("admins.yaml", only);
    pair.until_status("/", 403).await;
    let mut request = client::request(Method::GET, HOST, "/");
    request.headers_mut().insert(CLIENT_CERT, HeaderValue::from_static("admin"));
    assert_eq!(client::call(pair.entry(), request).await.unwrap().status, 403, "nobody lets himself in");
    let ended = wait::within("the end of the tunnel", tunnel.read_u8()).await;
    assert!(ended.is_err(), "nor stays by what he has said before");
}

/// Fields of the same name that an application sends in its answer are its own.
#[tokio::test]
async fn answers_are_left_alone() {
    let reply = "HTTP/1.1 200 OK\r\nX-Forwarded-Client-Cert: a\r\nContent-Length: 2\r\n\r\nok";
    let application = RawUpstream::start(Script::replies(reply.as_bytes())).await;
    let around = Around::launch(application.address(), "http").await;
    let answer = wait::until("an answer", || async {
        client::call(around.entry(), client::request(Method::GET, HOST, "/")).await.ok().filter(|a| a.status == 200)
    })
    .await;
    assert_eq!(answer.header(CLIENT_CERT), "a");
}
