//! The audit log: who was refused and by which rule.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt};

use http::Method;
use selvedge_tests::{
    client::{self, request},
    mesh::{Sidecar, Workload},
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

async fn status(entry: SocketAddr, target: &str) -> u16 {
    let answer = client::call(entry, request(Method::GET, HOST, target)).await;
    answer.expect("the sidecar answers").status.as_u16()
}

/// The first line of the audit log with these values, once it is there.
async fn line(sidecar: &Sidecar, wanted: &[(&str, &str)]) -> Value {
    let is_it = |line: &Value| wanted.iter().all(|(key, value)| line[key] == *value);
    wait::until(&format!("the audit log says {wanted:?}"), || async { sidecar.audit_log().into_iter().find(is_it) })
        .await
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
