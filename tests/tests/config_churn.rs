//! Configuration changes under load lose no request, and no request sees two configurations.

use http::Method;
use selvedge_tests::{
    client::{self, Answer, request},
    load::{self, Load, Plan},
    pair::{HOST, Pair},
    wait,
};

/// A route that marks request and response with the same version.
fn version(number: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: mark, namespace: shop}}\nspec:\n  \
         parentRefs: [{{kind: Service, name: api}}]\n  rules:\n  - filters:\n    - type: RequestHeaderModifier\n      \
         requestHeaderModifier: {{set: [{{name: x-config, value: v{number}}}]}}\n    - type: \
         ResponseHeaderModifier\n      responseHeaderModifier: {{set: [{{name: x-config, value: v{number}}}]}}\n"
    )
}

fn one_config(answer: &Answer) -> Option<String> {
    let marked = answer.header("x-config");
    let seen = answer.text();
    let request_mark = format!("[\"x-config\",\"{marked}\"]");
    let torn =
        !marked.is_empty() && !seen.contains(&request_mark) || marked.is_empty() && seen.contains("\"x-config\"");
    load::ok(answer).or_else(|| torn.then(|| format!("response marked '{marked}', request {seen}")))
}

#[tokio::test]
async fn routes_change_under_load_and_no_request_notices() {
    let pair = Pair::start().await;
    let loads = [
        Load::start(&Plan::new(pair.entry(), HOST, "/h1"), 4, one_config),
        Load::start(&Plan::new(pair.entry(), HOST, "/h2").over_http2(), 4, one_config),
    ];
    for number in 0..20 {
        pair.mesh.write("route.yaml", &version(number));
        // Waiting for each: writes that follow each other faster are one change.
        let (pair, wanted) = (&pair, format!("v{number}"));
        wait::until_true("the next version is live", || async { pair.get("/").await.header("x-config") == wanted })
            .await;
        for load in &loads {
            load.progress(20).await;
        }
    }
    for load in loads {
        let outcome = load.stop().await;
        outcome.assert_flawless(400);
        outcome.assert_kept_its_connections();
    }
}

/// Who is not in the mesh reaches `api` in this mode, or does not.
fn mode(permissive: bool) -> String {
    let mode = if permissive { "PERMISSIVE" } else { "STRICT" };
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {{name: mode, namespace: shop}}\nspec:\n  \
         mtls: {{inbound: {mode}}}\n  accessLog: all\n"
    )
}

/// No request for `/limited/round` passes, and as many as anybody sends for everything else.
fn limit(round: usize) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: RateLimit\nmetadata: {{name: wide, namespace: shop}}\nspec:\n  \
         targetRef: {{kind: Service, name: api}}\n  limits:\n  - {{requests: 100000, per: 1s}}\n  - {{requests: 1, per: \
         1h, match: [{{paths: [/limited/{round}]}}]}}\n"
    )
}

#[tokio::test]
async fn policy_and_tls_mode_changes_close_no_connection() {
    let pair = &Pair::start().await;
    let loads = [
        Load::start(&Plan::new(pair.entry(), HOST, "/"), 4, load::ok),
        Load::start(&Plan::new(pair.entry(), HOST, "/").over_http2(), 2, load::ok),
    ];
    let between = async || pair.api.metric("selvedge_tcp_connections_opened_total", &["tls=\"mtls\""]).await;
    loads[0].progress(40).await;
    let before = between().await;
    for round in 0..8 {
        let permissive = round % 2 == 0;
        pair.mesh.write("mode.yaml", &mode(permissive));
        pair.mesh.write("limit.yaml", &limit(round));
        pair.until_status(&format!("/limited/{round}"), 429).await;
        let (plaintext, wanted) = (pair.api.inbound(8080), if permissive { 200 } else { 403 });
        wait::until_true("the mode is in force", || async move {
            client::call(plaintext, request(Method::GET, HOST, "/")).await.is_ok_and(|answer| answer.status == wanted)
        })
        .await;
        for load in &loads {
            load.progress(20).await;
        }
    }
    assert_eq!(between().await, before, "connections between the sidecars are kept");
    for load in loads {
        let outcome = load.stop().await;
        outcome.assert_flawless(100);
        outcome.assert_kept_its_connections();
    }
}
