//! A sidecar with several workers is one sidecar: each of them serves, learns what changes, and ends with the others.

use http::Method;
use selvedge_tests::{
    client::{Connection, request},
    load::{self, Load, Plan},
    mesh::{Mesh, Workload},
    pair::{DESTINATION, HOST},
    upstream::Upstream,
    wait,
};

const DENY: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec:
  targetRef: { kind: Service, name: api }
  action: DENY
  rules: [{ to: [{ paths: [/admin] }] }]
";

#[tokio::test]
async fn several_workers_are_one_sidecar() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "");
    let api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address()).with("workers: 3\n")).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION).with("workers: 3\n")).await;
    let entry = web.outbound(DESTINATION);
    let plan = Plan::new(entry, HOST, "/");
    wait::until_true("the path stands", || selvedge_tests::client::answers(entry)).await;
    let loads = [Load::start(&plan, 6, load::ok), Load::start(&plan.clone().over_http2(), 3, load::ok)];

    let mut kept = Vec::new();
    for _ in 0..12 {
        kept.push(Connection::open(entry).await.unwrap());
    }
    mesh.write("deny.yaml", DENY);
    for connection in &mut kept {
        loop {
            let answer = connection.call(request(Method::GET, HOST, "/admin")).await.unwrap();
            if answer.status == 403 {
                break;
            }
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    let (web, before) = (&web, kept.len() as f64);
    wait::until_true("every worker counts", || async move {
        web.metric("selvedge_tcp_connections_open", &["direction=\"outbound\""]).await >= before
    })
    .await;
    for load in loads {
        load.progress(100).await;
        load.stop().await.assert_flawless(100);
    }
    assert!(api.stop().await.success());
}
