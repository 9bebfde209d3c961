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

/// How often each worker thread of a process has waited and been woken up (proc(5)), in the order of their numbers.
fn switches(process: u32) -> Vec<u64> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten().map(|thread| thread.path());
    let mut workers: Vec<(String, u64)> = threads
        .filter_map(|thread| {
            let name = std::fs::read_to_string(thread.join("comm")).ok()?;
            let status = std::fs::read_to_string(thread.join("status")).ok()?;
            let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            name.starts_with("worker-").then_some((name, count.trim().parse().ok()?))
        })
        .collect();
    workers.sort();
    workers.into_iter().map(|(_, count)| count).collect()
}

#[tokio::test]
async fn several_workers_are_one_sidecar() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "");
    let api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address()).with("workers: 3\n")).await;
    let mut web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION).with("workers: 3\n")).await;
    let entry = web.outbound(DESTINATION);
    let plan = Plan::new(entry, HOST, "/");
    wait::until_true("the path stands", || selvedge_tests::client::answers(entry)).await;
    let loads = [Load::start(&plan, 6, load::ok), Load::start(&plan.clone().over_http2(), 3, load::ok)];

    let mut kept = Vec::new();
    for _ in 0..12 {
        kept.push(Connection::open(entry).await.unwrap());
    }
    mesh.write("deny.yaml", DENY);
    wait::within("every connection sees the policy", async {
        for connection in &mut kept {
            loop {
                let answer = connection.call(request(Method::GET, HOST, "/admin")).await.unwrap();
                if answer.status == 403 {
                    break;
                }
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    })
    .await;
    let (process, before) = (web.process().id(), switches(web.process().id()));
    loads[0].progress(300).await;
    let woken: Vec<u64> = switches(process).iter().zip(&before).map(|(now, before)| now - before).collect();
    let total: u64 = woken.iter().sum();
    // A worker without requests wakes up now and then, one with requests several times for each.
    let busy = woken.iter().filter(|woken| **woken * 20 > total).count();
    assert!(woken.len() == 3 && busy > 1, "how often each worker woke up: {woken:?}");
    // Every worker counts: those that are kept, and one of each caller of the load.
    let open = (kept.len() + 6 + 3) as f64;
    web.metrics().until("selvedge_tcp_connections_open", &["direction=\"outbound\""], open).await;
    for load in loads {
        load.progress(100).await;
        load.stop().await.assert_flawless(100);
    }
    drop(upstream);
    assert!(api.stop().await.success());
}

#[tokio::test]
async fn a_worker_holds_no_more_connections_than_it_may() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "");
    let api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address())).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION).with("maxConnections: 2\n")).await;
    let entry = web.outbound(DESTINATION);
    wait::until_true("the path stands", || selvedge_tests::client::answers(entry)).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let held = async || {
            let mut connection = Connection::open(entry).await.ok()?;
            // Those before may not be gone yet.
            connection.call(request(Method::GET, HOST, "/")).await.is_ok().then_some(connection)
        };
        kept.push(wait::until("a connection is held", held).await);
    }
    // Of those that came too early, while others were not gone yet.
    let before = web.metrics().so_far("selvedge_tcp_connections_closed_total", &["reason=\"overloaded\""]).await;
    let mut one_more = Connection::open(entry).await.unwrap();
    assert!(one_more.call(request(Method::GET, HOST, "/")).await.is_err(), "it is closed without an answer");
    for connection in &mut kept {
        assert_eq!(connection.call(request(Method::GET, HOST, "/")).await.unwrap().status, 200);
    }
    let refused = ["direction=\"outbound\"", "reason=\"overloaded\""];
    web.metrics().until("selvedge_tcp_connections_closed_total", &refused, before + 1.0).await;
    kept.pop();
    wait::until_true("there is room again", || selvedge_tests::client::answers(entry)).await;
    drop(api);
}
