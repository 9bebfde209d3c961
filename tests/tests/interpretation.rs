//! No spelling of a path or a host passes a policy that its plain form does not pass: what was judged is what the
//! service gets. Cases A1 to A11 of the catalogue in docs/testing.md, over raw sockets.

use std::net::SocketAddr;

use selvedge_tests::{
    around::{Around, talk_to_the_end},
    client,
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
";

const HIDDEN_ADMIN: [&str; 27] = [
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
];

const SECRET_HOSTS: [&str; 6] =
    ["secret.test", "SECRET.test", "secret.test.", "secret.test:80", "secret.test:443", "secret.test:080"];

struct Setting {
    recorder: Recorder,
    around: Around,
}

impl Setting {
    async fn start() -> Self {
        let recorder = Recorder::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let around = Around::start(recorder.address(), "http").await;
        around.mesh.write("policies.yaml", POLICIES);
        let entry = around.entry();
        wait::until_true("the policy is in force", || async move {
            client::get(entry, "/admin").await.is_ok_and(|answer| answer.status == 403)
        })
        .await;
        recorder.take().await;
        Self { recorder, around }
    }

    /// The status of one request, and what the service was sent for it.
    async fn ask(&self, target: &str, host: &str) -> (u16, Record) {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = talk_to_the_end(&mut self.around.connect().await, bytes.as_bytes()).await;
        let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
        (status, self.recorder.take().await)
    }
}

#[tokio::test]
async fn every_spelling_of_a_denied_path_is_refused() {
    let setting = Setting::start().await;
    let mut wrong = Vec::new();
    for target in HIDDEN_ADMIN {
        let (status, record) = setting.ask(target, HOST).await;
        if !matches!(status, 400 | 403) || !record.requests.is_empty() {
            wrong.push(format!("{target}: status {status}, {record:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} passed:\n  {}", wrong.len(), wrong.join("\n  "));
}

#[tokio::test]
async fn every_spelling_of_a_denied_host_is_refused() {
    let setting = Setting::start().await;
    let mut wrong = Vec::new();
    for host in SECRET_HOSTS {
        for target in ["/x".to_owned(), format!("http://{host}/x")] {
            let (status, record) = setting.ask(&target, host).await;
            if !matches!(status, 400 | 403) || !record.requests.is_empty() {
                wrong.push(format!("{target} with Host {host}: status {status}, {record:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} passed:\n  {}", wrong.len(), wrong.join("\n  "));
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
        let (status, record) = setting.ask(target, HOST).await;
        let sent = record.requests.first().and_then(|request| request.head.split(' ').nth(1));
        assert_eq!((status, sent), (200, Some(judged)), "{target}");
    }
}

#[tokio::test]
async fn a_stranger_gains_nothing_by_spelling_either() {
    let setting = Setting::start().await;
    let inside: SocketAddr = setting.around.api.inbound(8080);
    let bytes = format!("GET /admin HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let answer = talk_to_the_end(&mut client::connect(inside).await.unwrap(), bytes.as_bytes()).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(setting.recorder.take().await.requests.is_empty());
}
