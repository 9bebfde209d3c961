//! Configuration changes under load lose no request, and no request sees two configurations.

use std::time::Duration;

use selvedge_tests::{
    client::Answer,
    load::{self, Load, Plan},
    pair::{HOST, Pair},
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
        loads[0].progress(20).await;
    }
    // The last version arrives in the end.
    let (web, wanted) = (&pair, "v19");
    selvedge_tests::wait::until_true("the last route is live", || async move {
        web.get("/").await.header("x-config") == wanted
    })
    .await;
    for load in loads {
        load.stop().await.assert_flawless(400);
    }
}

#[tokio::test]
async fn policy_and_tls_mode_changes_close_no_connection() {
    let pair = Pair::start().await;
    let load = Load::start(&Plan::new(pair.entry(), HOST, "/"), 4, load::ok);
    for round in 0..8 {
        let mode = if round % 2 == 0 { "PERMISSIVE" } else { "STRICT" };
        pair.mesh.write(
            "mode.yaml",
            &format!(
                "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {{name: mode, namespace: shop}}\nspec:\n  \
                 mtls: {{inbound: {mode}}}\n  accessLog: all\n"
            ),
        );
        pair.mesh.write(
            "limit.yaml",
            &format!(
                "apiVersion: selvedge.dev/v1alpha1\nkind: RateLimit\nmetadata: {{name: wide, namespace: shop}}\nspec:\n  \
                 targetRef: {{kind: Service, name: api}}\n  limits: [{{requests: {}, per: 1s}}]\n",
                100_000 + round
            ),
        );
        load.progress(40).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    load.stop().await.assert_flawless(300);
}
