//! What a caller's sidecar and its application are told of what happened at the called side.

use http::Method;
use selvedge_tests::{
    around::{Around, talk_to_the_end},
    client::{self, Answer, request},
    mesh::Sidecar,
    pair::{HOST, Pair},
    ports::Reserved,
    wait,
};

/// The line in which a sidecar says that a request for `path` ended for `reason`.
async fn line(sidecar: &Sidecar, path: &str, reason: &str) -> serde_json::Value {
    wait::until("the request is logged", || async {
        let of_it = |line: &serde_json::Value| line["url.path"] == path && line["selvedge.reason"] == reason;
        sidecar.access_log().into_iter().find(of_it)
    })
    .await
}

#[tokio::test]
async fn the_callers_line_has_the_detail_and_the_policy_of_the_called_side() {
    let pair = Pair::start().await;
    pair.mesh.write(
        "deny.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: no-admin, namespace: shop}\n\
         spec:\n  targetRef: {kind: Service, name: api}\n  action: DENY\n  rules: [{to: [{paths: [/admin]}]}]\n",
    );
    let answer = pair.until_status("/admin", 403).await;
    assert_eq!(answer.headers.keys().filter(|name| name.as_str().starts_with("selvedge-")).count(), 1, "{answer:?}");
    let [called, caller] =
        [line(&pair.api, "/admin", "policy_denied").await, line(&pair.web, "/admin", "policy_denied").await];
    for key in ["selvedge.policy", "selvedge.detail"] {
        assert!(called[key].as_str().is_some_and(|text| !text.is_empty()), "{called}");
        assert_eq!(called[key], caller[key], "{caller}");
    }
}

/// Asks until the answer has this reason.
async fn until_reason(around: &Around, reason: &str) -> Answer {
    let entry = around.entry();
    wait::until(&format!("the answer says {reason}"), || async move {
        let answer = client::call(entry, request(Method::GET, HOST, "/told")).await.ok()?;
        (answer.reason() == reason).then_some(answer)
    })
    .await
}

#[tokio::test]
async fn where_an_application_listens_is_not_told_to_its_callers() {
    let nobody = Reserved::new();
    let around = Around::launch(nobody.address(), "http").await;
    let answer = until_reason(&around, "application_unreachable").await;
    assert!(answer.text().contains("the application") && !answer.text().contains("127.0.0.1"), "{}", answer.text());
    let line = line(&around.web, "/told", "application_unreachable").await;
    assert_eq!(line["selvedge.detail"], answer.json()["detail"], "{line}");
}

#[tokio::test]
async fn an_endpoint_that_takes_connections_and_speaks_no_tls_is_called_that() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = mute.local_addr().unwrap().port();
    let pair = Pair::start().await;
    pair.mesh.write(
        "workload-shop-api.yaml",
        &format!(
            "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: api, namespace: shop, labels: {{app: \
             api}}}}\nspec: {{serviceAccount: api, address: 127.0.0.1, ports: [{{port: 8080, dial: {port}}}]}}\n"
        ),
    );
    let answer = pair.until_reason("/", "upstream_tls_failed").await;
    assert!(answer.text().contains("took the connection, and no TLS came back"), "{}", answer.text());
}

#[tokio::test]
async fn a_chunk_that_is_none_is_the_callers_fault() {
    let pair = Pair::start().await;
    let mut stream = client::connect(pair.entry()).await.unwrap();
    let head = format!("POST /chunks HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n");
    let answer = talk_to_the_end(&mut stream, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("malformed_framing"), "{answer}");
    assert_eq!(line(&pair.web, "/chunks", "malformed_framing").await["http.response.status_code"], 400);
}
