//! Policies that a user writes take effect, with one reason code in body, header, log and metric.

use http::Method;
use selvedge_control_plane::clock;
use selvedge_tests::{
    around::talk,
    client::{self, request},
    mesh::{Mesh, Workload},
    pair::{HOST, Pair},
    upstream::Upstream,
    wait,
};
use serde_json::json;
use tokio::io::AsyncReadExt;

const DENY_ADMIN: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec:
  targetRef: { kind: Service, name: api }
  action: DENY
  rules: [{ to: [{ paths: [/admin, /admin/*] }] }]
";

const ALLOW_OTHERS: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: only-billing, namespace: shop }
spec:
  targetRef: { kind: Service, name: api }
  action: ALLOW
  rules: [{ from: [{ serviceAccounts: [billing] }], to: [{ methods: [GET] }] }]
";

const LIMIT: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: RateLimit
metadata: { name: three, namespace: shop }
spec:
  targetRef: { kind: Service, name: api }
  limits: [{ requests: 3, per: 1h, key: [identity] }]
";

#[tokio::test]
async fn a_denied_request_is_answered_logged_and_counted_with_one_reason() {
    let pair = Pair::start().await;
    pair.mesh.write("deny.yaml", DENY_ADMIN);
    let denied = pair.until_status("/admin/users", 403).await;
    assert_eq!(denied.reason(), "policy_denied");
    assert_eq!(denied.json()["error"], "policy_denied", "{}", denied.text());
    assert_eq!(denied.json()["policy"], "shop/no-admin", "{}", denied.text());
    assert_eq!(pair.get("/shop").await.status, 200);
    let api = &pair.api;
    wait::until_true("the denial is logged", || async move {
        api.access_log().iter().any(|line| line.to_string().contains("policy_denied"))
    })
    .await;
    let counted = ["reason=\"policy_denied\"", "policy=\"shop/no-admin\"", "destination_service=\"shop/api\""];
    api.metrics().until("selvedge_denials_total", &counted, 1.0).await;
}

#[tokio::test]
async fn what_an_audit_policy_would_refuse_passes_and_is_counted_and_logged() {
    let pair = Pair::start().await;
    pair.mesh.write("audit.yaml", &DENY_ADMIN.replace("DENY", "AUDIT"));
    let (api, pair) = (&pair.api, &pair);
    let labels = ["policy=\"shop/no-admin\"", "source_identity=\"spiffe://mesh.local/ns/shop/sa/web\""];
    let counted = async || api.metrics().so_far("selvedge_audited_total", &labels).await;
    wait::until_true("it is counted", || async move {
        assert_eq!(pair.get("/admin/users").await.status, 200);
        counted().await > 0.0
    })
    .await;
    let before = counted().await;
    // A DENY in its place would refuse the last one for being read in different ways.
    for target in ["/admin/users", "/shop", "/admin/users", "/shop;v=1"] {
        assert_eq!(pair.get(target).await.status, 200);
    }
    api.metrics().until("selvedge_audited_total", &labels, before + 3.0).await;
    wait::until_true("it is logged", || async move {
        api.access_log()
            .iter()
            .any(|line| line["selvedge.audited"] == "shop/no-admin" && line["url.path"] == "/admin/users")
    })
    .await;
    assert!(!api.access_log().iter().any(|line| line["url.path"] == "/shop"), "{:#?}", api.access_log());
}

#[tokio::test]
async fn a_tunnel_is_judged_again_as_the_request_it_was() {
    let pair = Pair::start().await;
    let mut tunnels = Vec::new();
    for path in ["/admin/shell", "/chat;v=1", "/chat"] {
        let mut tunnel = client::connect(pair.entry()).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        assert!(talk(&mut tunnel, head.as_bytes(), "\r\n\r\n", 1).await.starts_with("HTTP/1.1 101"));
        tunnels.push(tunnel);
    }
    pair.mesh.write("deny.yaml", DENY_ADMIN);
    for tunnel in &mut tunnels[..2] {
        let cut = wait::within("the tunnel that is refused now is cut", tunnel.read_u8()).await;
        assert!(cut.is_err(), "{cut:?}");
    }
    assert_eq!(talk(&mut tunnels[2], b"still here", "here", 1).await, "still here");
    let api = &pair.api;
    wait::until_true("the log says by what", || async move {
        let (log, by) = (api.access_log(), |line: &serde_json::Value| line["selvedge.policy"] == "shop/no-admin");
        log.iter().any(|line| by(line) && line["selvedge.bytes_sent"] == 0)
            && log.iter().any(|line| line["selvedge.reason"] == "malformed_path")
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_ends_when_the_policy_that_lets_it_be_expires() {
    let pair = Pair::start().await;
    let allow = ALLOW_OTHERS.replace("billing", "web");
    pair.mesh.write("allow.yaml", &allow);
    let api = &pair.api;
    wait::until_true("the policy is in force", || async move {
        let config = client::get(api.admin(), "/config").await.unwrap().json();
        config["inbound"]["ports"]["8080"]["policies"][0]["kind"] == "AuthorizationPolicy"
    })
    .await;
    let mut tunnel = client::connect(pair.entry()).await.unwrap();
    let head = format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(talk(&mut tunnel, head.as_bytes(), "\r\n\r\n", 1).await.starts_with("HTTP/1.1 101"));
    assert_eq!(talk(&mut tunnel, b"still here", "here", 1).await, "still here");
    let expires = clock::unix() + 3;
    pair.mesh.write("allow.yaml", &format!("{allow}  expires: {}\n", wait::in_seconds(3)));
    let cut = wait::within("the policy expires and the tunnel is cut", tunnel.read_u8()).await;
    assert!(cut.is_err(), "{cut:?}");
    assert!(clock::unix() >= expires, "it is cut before");
    assert_eq!(pair.get("/chat").await.reason(), "policy_default_deny");
}

#[tokio::test]
async fn spelling_does_not_get_round_a_denial() {
    let pair = Pair::start().await;
    pair.mesh.write("deny.yaml", DENY_ADMIN);
    pair.until_status("/admin", 403).await;
    for target in ["/%61dmin", "/x/../admin", "//admin", "/./admin", "/admin/", "/shop/%2e%2e/admin", "/admin?x=1"] {
        let answer = pair.get(target).await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 403),
            "{target} passed with {}: {}",
            answer.status,
            answer.text()
        );
    }
}

#[tokio::test]
async fn with_an_allow_rule_everybody_else_is_refused() {
    let upstream = Upstream::start("api").await;
    let mesh = Mesh::start().await;
    mesh.service("shop/api", 80, 8080, "http");
    mesh.write("allow.yaml", ALLOW_OTHERS);
    let _api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address())).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls("shop/api:80")).await;
    let billing = mesh.sidecar(Workload::new("shop/billing").calls("shop/api:80")).await;
    let call = async |sidecar: &selvedge_tests::mesh::Sidecar, method| {
        let answer = client::call(sidecar.outbound("shop/api:80"), request(method, HOST, "/")).await.unwrap();
        (answer.status.as_u16(), answer.reason().to_owned())
    };
    assert_eq!(call(&billing, Method::GET).await, (200, String::new()));
    assert_eq!(call(&billing, Method::DELETE).await, (403, "policy_default_deny".to_owned()));
    assert_eq!(call(&web, Method::GET).await, (403, "policy_default_deny".to_owned()));
}

#[tokio::test]
async fn a_limit_answers_429_and_says_when_to_come_back() {
    let pair = Pair::start().await;
    pair.mesh.write("limit.yaml", LIMIT);
    let limited = pair.until_status("/", 429).await;
    assert_eq!(limited.reason(), "rate_limited");
    let seconds: u64 = limited.header("retry-after").parse().expect("Retry-After in seconds");
    assert!((1..=3600).contains(&seconds), "{seconds}");
    let counted = ["policy=\"shop/three\"", "source_workload=\"web\"", "destination_service=\"shop/api\""];
    pair.api.metrics().until("selvedge_rate_limited_total", &counted, 1.0).await;
    assert_eq!(pair.get("/").await.status, 429);
    pair.api.metrics().until("selvedge_rate_limited_total", &counted, 2.0).await;
}

#[tokio::test]
async fn a_spent_limit_stays_spent_when_another_one_is_added() {
    let pair = Pair::start().await;
    let limit = |name: &str| {
        let matches = format!("key: [identity], match: [{{ paths: [/{name}] }}]");
        LIMIT.replace("three", name).replace("key: [identity]", &matches)
    };
    pair.mesh.write("first.yaml", &limit("first"));
    pair.until_status("/first", 429).await;
    pair.mesh.write("second.yaml", &limit("second"));
    pair.until_status("/second", 429).await;
    assert_eq!(pair.get("/first").await.status, 429, "three an hour are spent");
}

#[tokio::test]
async fn a_broken_document_keeps_the_last_good_one_in_force() {
    let pair = Pair::start().await;
    pair.mesh.write("deny.yaml", DENY_ADMIN);
    pair.until_status("/admin", 403).await;
    pair.mesh.write("deny.yaml", &DENY_ADMIN.replace("action: DENY", "action: PERHAPS"));
    pair.mesh.write("limit.yaml", LIMIT);
    pair.until_status("/", 429).await;
    let answer = pair.get("/admin").await;
    assert!(matches!(answer.status.as_u16(), 403 | 429), "the refused document opened /admin: {}", answer.status);
}

#[tokio::test]
async fn what_is_in_force_can_be_read_back_and_no_key_is_shown() {
    let pair = Pair::start().await;
    pair.mesh.write("deny.yaml", DENY_ADMIN);
    pair.mesh.write("limit.yaml", LIMIT);
    let api = &pair.api;
    let config = wait::until("both policies are in force", || async {
        let config = client::get(api.admin(), "/config").await.unwrap();
        let policies = config.json()["inbound"]["ports"]["8080"]["policies"].clone();
        policies.as_array().is_some_and(|policies| policies.len() == 2).then_some(config)
    })
    .await;
    let shown = &config.json()["inbound"]["ports"]["8080"]["policies"];
    for (policy, kind, name) in [(&shown[0], "AuthorizationPolicy", "no-admin"), (&shown[1], "RateLimit", "three")] {
        assert_eq!((&policy["kind"], &policy["name"]), (&kind.into(), &name.into()), "{shown:#}");
        assert!(policy["generation"].as_u64().is_some_and(|generation| generation > 0), "{policy:#}");
    }
    assert_eq!(shown[0]["spec"]["action"], "DENY");
    assert_eq!(shown[0]["spec"]["rules"][0]["to"][0]["paths"], json!(["/admin", "/admin/*"]));
    assert_eq!(shown[1]["spec"]["limits"], json!([{"requests": 3, "per": "1h", "key": ["identity"]}]));
    let read = |name: &str| std::fs::read_to_string(api.home().join(name)).unwrap();
    let credentials: serde_json::Value = serde_json::from_str(&read("state/credentials.json")).unwrap();
    for secret in [credentials["key"].as_str().unwrap(), read("token").trim()] {
        assert!(!config.text().contains(secret), "{}", config.text());
    }
}
