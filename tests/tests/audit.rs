//! The audit log: who was refused and by which rule, who got a certificate or token, and which objects changed.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt};

use http::Method;
use selvedge_tests::{
    client::{self, request},
    mesh::{Mesh, Sidecar, Workload},
    pair::{DESTINATION, HOST, Pair},
    wait,
};
use serde_json::Value;

const NO_SECRETS: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: shop}
spec:
  targetRef: {name: api}
  action: DENY
  rules:
  - from: [{serviceAccounts: [nobody]}]
  - to: [{paths: [/secret]}]
";

const ONLY_NOBODY: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: only-nobody, namespace: shop}
spec: {targetRef: {name: api}, action: ALLOW, rules: [{from: [{serviceAccounts: [nobody]}]}]}
";

const PERMISSIVE: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: {name: permissive, namespace: shop}
spec: {mtls: {inbound: PERMISSIVE}}
";

async fn status(entry: SocketAddr, target: &str) -> u16 {
    let answer = client::call(entry, request(Method::GET, HOST, target)).await;
    answer.expect("the sidecar answers").status.as_u16()
}

/// The first line of a sidecar's audit log with these values, once it is there.
async fn line(sidecar: &Sidecar, wanted: &[(&str, &str)]) -> Value {
    first(|| sidecar.audit_log(), wanted).await
}

/// The first line of the control plane's audit log with these values, once it is there.
async fn told(mesh: &Mesh, wanted: &[(&str, &str)]) -> Value {
    first(|| mesh.audit_log(), wanted).await
}

async fn first(lines: impl Fn() -> Vec<Value>, wanted: &[(&str, &str)]) -> Value {
    let is_it = |line: &Value| wanted.iter().all(|(key, value)| line[key] == *value);
    wait::until(&format!("the audit log says {wanted:?}"), || async { lines().into_iter().find(is_it) }).await
}

#[tokio::test]
async fn a_flood_of_one_caller_hides_no_denial_of_another_and_every_line_names_the_rule() {
    let pair = Pair::start().await;
    pair.mesh.write("no-secrets.yaml", NO_SECRETS);
    pair.until_status("/secret", 403).await;
    for _ in 0..300 {
        assert_eq!(pair.get("/secret").await.status, 403);
    }
    let other = pair.mesh.sidecar(Workload::new("shop/other").calls(DESTINATION)).await;
    wait::until_true("the other caller is answered", || async {
        status(other.outbound(DESTINATION), "/").await == 200
    })
    .await;
    assert_eq!(status(other.outbound(DESTINATION), "/secret").await, 403);
    for caller in ["web", "other"] {
        let subject = format!("spiffe://mesh.local/ns/shop/sa/{caller}");
        let denied = line(&pair.api, &[("event", "denied"), ("subject", &subject)]).await;
        for (key, value) in [
            ("reporter", "shop/api"),
            ("object", "shop/api"),
            ("reason", "policy_denied"),
            ("page", "docs/codes/policy_denied.md"),
            ("policy", "shop/no-secrets"),
            ("rule", "rules[1]"),
            ("path", "/secret"),
            ("address", "127.0.0.1"),
        ] {
            assert_eq!(denied[key], value, "{denied}");
        }
        assert!(denied["request_id"].is_string() && denied["time"].is_string(), "{denied}");
    }
    let left_out = pair.api.metric("selvedge_audit_events_total", &["result=\"left_out\""]).await;
    assert!(left_out > 0.0, "a flood is not written in full, and that is counted");
    for caller in [&pair.web, &other] {
        assert_eq!(caller.audit_log(), [Value::Null; 0], "who decides writes");
    }
    let mode = fs::metadata(pair.api.home().join("audit.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn who_is_let_in_by_no_rule_or_comes_without_an_identity_is_in_the_audit_log() {
    let pair = Pair::start().await;
    pair.mesh.write("only-nobody.yaml", ONLY_NOBODY);
    pair.until_reason("/", "policy_default_deny").await;
    let denied = line(&pair.api, &[("reason", "policy_default_deny")]).await;
    assert!(denied["detail"].as_str().unwrap().contains("rules[0] of shop/only-nobody"), "{denied}");
    assert_eq!(denied.get("rule"), None, "no rule has denied it: {denied}");

    assert_eq!(status(pair.api.inbound(8080), "/").await, 403);
    let stranger = line(&pair.api, &[("reason", "plaintext_refused")]).await;
    assert_eq!((stranger.get("subject"), &stranger["address"]), (None, &"127.0.0.1".into()), "{stranger}");

    pair.mesh.write("only-nobody.yaml", &NO_SECRETS.replace("DENY", "AUDIT").replace("no-secrets", "only-nobody"));
    pair.until_status("/secret", 200).await;
    let audited = line(&pair.api, &[("event", "would_be_denied")]).await;
    assert_eq!((&audited["policy"], &audited["rule"]), (&"shop/only-nobody".into(), &"rules[1]".into()), "{audited}");
}

#[tokio::test]
async fn certificates_and_tokens_are_in_the_audit_log_whoever_gets_none_too() {
    let mut pair = Pair::start().await;
    let identity = "spiffe://mesh.local/ns/shop/sa/web";
    let issued = told(&pair.mesh, &[("event", "certificate_issued"), ("object", "shop/web")]).await;
    for (key, value) in
        [("subject", identity), ("way", "token"), ("address", "127.0.0.1"), ("reporter", "control-plane")]
    {
        assert_eq!(issued[key], value, "{issued}");
    }
    for key in ["serial", "expires", "token"] {
        assert!(issued[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {issued}");
    }

    // Without what it has got it comes with a token that was used for another key.
    pair.web.restart_without_state();
    let refused = told(&pair.mesh, &[("event", "certificate_refused"), ("object", "shop/web")]).await;
    assert!(refused["detail"].as_str().unwrap().contains("used already"), "{refused}");
    assert_eq!((refused.get("subject"), &refused["address"]), (None, &"127.0.0.1".into()), "it has proven nothing");
    assert_eq!(refused["token"], issued["token"], "the two are of one token");
    let written = pair.mesh.metrics().value("selvedge_control_plane_audit_events_total", &["result=\"written\""]).await;
    assert!(written >= 2.0, "{written} events are counted");

    let file = pair.mesh.folder().join("audit.log");
    let file = file.to_str().unwrap();
    let token = pair.mesh.selvedge(&["token", "create", "--identity", "shop/late", "--audit-log", file]);
    let made = told(&pair.mesh, &[("event", "token_made")]).await;
    assert_eq!(made["token"], token.split('.').nth(1).unwrap());
    assert_eq!((&made["identity"], &made["way"]), (&"spiffe://mesh.local/ns/shop/sa/late".into(), &"command".into()));
    assert!(made["subject"].as_str().unwrap().starts_with("uid "), "{made}");
    let secret = token.split('.').nth(2).unwrap();
    assert!(!fs::read_to_string(file).unwrap().contains(secret), "what is a secret stays one");
}

#[tokio::test]
async fn a_change_of_an_object_says_what_it_opens_and_closes_and_where_it_is_written() {
    let mesh = Mesh::start().await;
    let object = "AuthorizationPolicy shop/only-nobody";
    mesh.write("only-nobody.yaml", ONLY_NOBODY);
    let accepted = told(&mesh, &[("event", "object_accepted"), ("object", object)]).await;
    assert_eq!(accepted["closes"], "what no ALLOW rule matches", "{accepted}");
    assert!(accepted["source"].as_str().unwrap().contains("only-nobody.yaml:"), "{accepted}");
    assert!(accepted["subject"].as_str().unwrap().starts_with("uid "), "{accepted}");

    mesh.write("only-nobody.yaml", &ONLY_NOBODY.replace("[nobody]", "[nobody, web]"));
    let changed = told(&mesh, &[("event", "object_changed"), ("object", object)]).await;
    assert_eq!(changed["opens"], "ALLOW rules[0] is another", "{changed}");
    assert_eq!((changed.get("closes"), &changed["generation"]), (None, &2.into()), "{changed}");

    mesh.write("permissive.yaml", PERMISSIVE);
    let settings = told(&mesh, &[("event", "object_accepted"), ("object", "MeshPolicy shop/permissive")]).await;
    assert_eq!(settings["opens"], "calls to what it covers without mTLS", "{settings}");

    mesh.remove("only-nobody.yaml");
    let removed = told(&mesh, &[("event", "object_removed"), ("object", object)]).await;
    assert!(removed["opens"].as_str().unwrap().contains("its default posture is allow"), "{removed}");
}
