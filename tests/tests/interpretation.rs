//! No spelling of a path or a host passes a policy that its plain form does not pass: what was judged is what the
//! service gets. Cases A1 to A11 of the catalogue in docs/testing.md, over raw sockets.

use std::net::SocketAddr;

use http::Method;
use selvedge_tests::{
    around::{Around, talk_to_the_end},
    client::{self, Connection, request},
    pair::HOST,
    recorder::{Record, Recorder},
    wait,
};

const POLICIES: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec:
  targetRef: { kind: Service, name: api }
  action: DENY
  rules: [{ to: [{ paths: [/admin, /admin/*] }, { hosts: [secret.test] }] }]
---
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: { name: strangers-may-call, namespace: shop }
spec: { mtls: { inbound: PERMISSIVE } }
";

const HIDDEN_ADMIN: [&str; 28] = [
    "/admin",
    "/admin/",
    "/x/../admin",
    "/./admin",
    "/admin/.",
    "/x/%2e%2e/admin",
    "/x/.%2E/admin",
    "//admin",
    "/x//../admin",
    "///admin",
    "/%2fadmin",
    "/x%2f..%2fadmin",
    "/%5cadmin",
    "\\admin",
    "/x\\..\\admin",
    "/%61dmin",
    "/adm%69n",
    "/admin%00",
    "/admin%00.png",
    "/admin%0d%0a",
    "/admin%ff",
    "/admin%c0%af",
    "/admin?x",
    "/admin#x",
    "http://api.shop/admin",
    "http://api.shop//x/%2E%2e/admin",
    "/x/..;/admin",
    "/x/.;y/admin",
];

const SECRET_HOSTS: [&str; 12] = [
    "secret.test",
    "SECRET.test",
    "secret.test.",
    "secret.test:80",
    "secret.test:443",
    "secret.test:080",
    "secret.test..",
    "secret.test...",
    "secret.test..:80",
    "secret..test",
    ".secret.test",
    "secret.test....",
];

struct Setting {
    recorder: Recorder,
    around: Around,
}

impl Setting {
    async fn start() -> Self {
        let recorder = Recorder::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let around = Around::start(recorder.address(), "http").await;
        around.mesh.write("policies.yaml", POLICIES);
        let setting = Self { recorder, around };
        for door in setting.doors() {
            wait::until_true("strangers may call, but for what is denied", || async move {
                let status = async |path| client::get(door, path).await.map(|answer| answer.status.as_u16()).ok();
                (status("/").await, status("/admin").await) == (Some(200), Some(403))
            })
            .await;
        }
        setting.recorder.take().await;
        setting
    }

    /// Where the workload beside it calls the service, and where a stranger does.
    fn doors(&self) -> [SocketAddr; 2] {
        [self.around.entry(), self.around.api.inbound(8080)]
    }

    /// The status of one request, and what the service was sent for it.
    async fn ask(&self, door: SocketAddr, target: &str, host: &str) -> (u16, Record) {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = talk_to_the_end(&mut client::connect(door).await.unwrap(), bytes.as_bytes()).await;
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
        (status, self.recorder.take().await)
    }
}

#[tokio::test]
async fn every_spelling_of_a_denied_path_is_refused() {
    let setting = Setting::start().await;
    let mut wrong = Vec::new();
    for door in setting.doors() {
        for target in HIDDEN_ADMIN {
            let (status, record) = setting.ask(door, target, HOST).await;
            if !matches!(status, 400 | 403) || !record.requests.is_empty() {
                wrong.push(format!("{target} at {door}: status {status}, {record:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} passed:\n  {}", wrong.len(), wrong.join("\n  "));
}

#[tokio::test]
async fn every_spelling_of_a_denied_host_is_refused() {
    let setting = Setting::start().await;
    let mut wrong = Vec::new();
    for door in setting.doors() {
        for host in SECRET_HOSTS {
            for target in ["/x".to_owned(), format!("http://{host}/x")] {
                let (status, record) = setting.ask(door, &target, host).await;
                if !matches!(status, 400 | 403) || !record.requests.is_empty() {
                    wrong.push(format!("{target} with Host {host} at {door}: status {status}, {record:?}"));
                }
            }
            let status = over_http2(door, host).await;
            let record = setting.recorder.take().await;
            if !matches!(status, 400 | 403) || !record.requests.is_empty() {
                wrong.push(format!(":authority {host} at {door}: status {status}, {record:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} passed:\n  {}", wrong.len(), wrong.join("\n  "));
}

/// The status of one HTTP/2 request with this authority.
async fn over_http2(door: SocketAddr, host: &str) -> u16 {
    let mut connection = Connection::open_http2(door).await.unwrap();
    connection.call(request(Method::GET, host, "/x")).await.unwrap().status.as_u16()
}

#[tokio::test]
async fn the_service_gets_the_path_that_was_judged() {
    let setting = Setting::start().await;
    for (target, judged) in [
        ("/a/./b/../c", "/a/c"),
        ("/a//b", "/a/b"),
        ("/%7Eme/%c3%a9", "/~me/%C3%A9"),
        ("/%2561dmin", "/%2561dmin"),
        ("/administrator?p=/../admin", "/administrator?p=/../admin"),
    ] {
        let (status, record) = setting.ask(setting.around.entry(), target, HOST).await;
        let sent = record.requests.first().and_then(|request| request.head.split(' ').nth(1));
        assert_eq!((status, sent), (200, Some(judged)), "{target}");
    }
}
