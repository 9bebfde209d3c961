//! No spelling of a path or a host passes a policy that its plain form does not pass, and what passes goes on as it was
//! sent. Cases A1 to A11 of the catalogue in docs/testing.md, over raw sockets.

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
  rules:
    - to:
        - { paths: [/admin, /admin/*] }
        - { hosts: [secret.test] }
        - { methods: [DELETE] }
        - { headers: [{ name: x-role, value: admin }] }
---
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: { name: strangers-may-call, namespace: shop }
spec: { mtls: { inbound: PERMISSIVE } }
";

const HIDDEN_ADMIN: [&str; 36] = [
    "/admin",
    "/ADMIN",
    "/%41dmin",
    "/admin;x=1",
    "/admin;",
    "/admin;/x",
    "/x/../admin;y/users",
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
    "/admin%3Fx",
    "/admin%23x",
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

#[tokio::test]
async fn every_spelling_of_a_denied_method_or_field_is_refused_and_others_are_not() {
    let setting = Setting::start().await;
    let mut wrong = Vec::new();
    for (method, fields, passes) in [
        ("DELETE", "", false),
        ("delete", "", false),
        ("Delete", "", false),
        ("GET", "X-ROLE: admin", false),
        ("GET", "X_Role: admin", false),
        ("GET", "x.role: admin", false),
        ("GET", "X-Role: user, admin", false),
        ("GET", "X-Role: ,admin ,", false),
        ("GET", "X-Role: user\r\nX-Role: admin", false),
        ("GET", "X-Role: user\r\nX_Role: guest,admin", false),
        ("GET", "Host: secret.test:", false),
        ("GET", "Host: SECRET.test.:", false),
        ("UNDELETE", "", true),
        ("GET", "X-Role: user", true),
        ("GET", "X-Role: administrator, sub-admin", true),
        ("GET", "XRole: admin", true),
    ] {
        for door in setting.doors() {
            let host = if fields.starts_with("Host") { String::new() } else { format!("Host: {HOST}\r\n") };
            let bytes = format!("{method} /x HTTP/1.1\r\n{host}{fields}\r\nConnection: close\r\n\r\n")
                .replace("\r\n\r\nC", "\r\nC");
            let answer = talk_to_the_end(&mut client::connect(door).await.unwrap(), bytes.as_bytes()).await;
            let arrived = setting.recorder.take().await.requests.len();
            let expected = if passes { ("HTTP/1.1 200", 1) } else { ("HTTP/1.1 403", 0) };
            if (answer.get(..12).unwrap_or_default(), arrived) != expected {
                wrong.push(format!("{method} with '{fields}' at {door}: {arrived} arrived, {answer}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n  {}", wrong.len(), wrong.join("\n  "));
}

#[tokio::test]
async fn a_host_reaches_the_service_as_it_was_spelt() {
    let setting = Setting::start().await;
    for host in ["API.Shop", "api.shop.", "api.shop:", "api.shop:080", "[0:0::1]:80", "xn--bcher-kva.shop"] {
        for door in setting.doors() {
            let (status, record) = setting.ask(door, "/x", host).await;
            let sent = record
                .requests
                .first()
                .and_then(|request| request.head.lines().find(|line| line.starts_with("Host: ")));
            assert_eq!((status, sent), (200, Some(&*format!("Host: {host}"))), "at {door}");
        }
    }
}

/// The status of one HTTP/2 request with this authority.
async fn over_http2(door: SocketAddr, host: &str) -> u16 {
    let mut connection = Connection::open_http2(door).await.unwrap();
    connection.call(request(Method::GET, host, "/x")).await.unwrap().status.as_u16()
}

/// What the service was asked for, and the status.
async fn asked(setting: &Setting, target: &str) -> (u16, String) {
    let (status, record) = setting.ask(setting.around.entry(), target, HOST).await;
    let sent = record.requests.first().and_then(|request| request.head.split(' ').nth(1));
    (status, sent.unwrap_or_default().to_owned())
}

/// Says in a policy what becomes of ambiguous paths, and waits until that is in force: `probe` is asked for as `expected`.
async fn set(setting: &Setting, word: &str, probe: &str, expected: (u16, &str)) {
    let policy = format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {{ name: paths, namespace: shop }}\nspec: {{ \
         targetRef: {{ kind: Service, name: api }}, ambiguousPaths: {word} }}\n"
    );
    setting.around.mesh.write("paths.yaml", &policy);
    wait::until_true("what becomes of paths is in force", || async move {
        let (status, sent) = asked(setting, probe).await;
        (status, sent.as_str()) == expected
    })
    .await;
}

#[tokio::test]
async fn where_policies_look_at_paths_what_may_be_read_in_two_ways_is_refused_rewritten_or_passed() {
    let setting = Setting::start().await;
    let plain = [
        "/%7Eme/%c3%a9",
        "/%2561dmin",
        "/@scope/%40pkg",
        "/administrator?p=/../admin",
        "/b?q=a//b;c%2fd%zz",
        "/.well-known/x/",
    ];
    let odd = [
        ("/a/./b/../c", Some("/a/c")),
        ("/a//b?c=//d", Some("/a/b?c=//d")),
        ("/x/%2e%2e/y", Some("/y")),
        ("/logs//", Some("/logs/")),
        ("/api/queues/%2F/q", None),
        ("/a;v=1/b", None),
        ("/%0A", None),
        ("/caf%E9", None),
        ("/100%", None),
    ];
    for target in plain {
        assert_eq!(asked(&setting, target).await, (200, target.to_owned()));
    }
    for (target, _) in odd {
        assert_eq!(asked(&setting, target).await, (400, String::new()), "{target}");
    }
    let api = &setting.around.api;
    wait::until_true("the refusal is logged with both forms", || async move {
        api.access_log().iter().any(|line| {
            line["selvedge.path_sent"] == "/x/%2e%2e/y"
                && line["url.path"] == "/y"
                && line["selvedge.reason"] == "malformed_path"
        })
    })
    .await;

    set(&setting, "rewrite", "/z/../y", (200, "/y")).await;
    for (target, rewritten) in odd {
        let expected = rewritten.map_or((400, String::new()), |rewritten| (200, rewritten.to_owned()));
        assert_eq!(asked(&setting, target).await, expected, "{target}");
    }
    assert_eq!(asked(&setting, "/x/../admin").await.0, 403);

    set(&setting, "pass", "/z/../y", (200, "/z/../y")).await;
    for target in odd.map(|(target, _)| target).into_iter().chain(plain) {
        assert_eq!(asked(&setting, target).await, (200, target.to_owned()));
    }
    assert_eq!(asked(&setting, "/x/../admin").await.0, 403, "the canonical form is judged");
}
