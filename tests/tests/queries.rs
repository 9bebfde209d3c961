//! The queries of the page about metrics and of the boards, asked of a real Prometheus during an outage, and the alert rules.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use http::Method;
use selvedge_tests::{
    client::{self, request},
    mesh::{Mesh, Sidecar, Workload},
    pages::Page,
    pair::{DESTINATION, HOST},
    program,
    prometheus::{Job, Prometheus},
    upstream::{Scenario, Upstream},
    wait, workspace,
};
use serde_json::Value;
use tokio::task::JoinHandle;

/// Nobody gets at `/admin`, failures in a row open the breaker of an endpoint, and what failed is tried again once.
const OBJECTS: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec: { action: DENY, rules: [{ to: [{ paths: [/admin] }] }] }
---
apiVersion: selvedge.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: api, namespace: shop }
spec:
  targetRef: { kind: Service, name: api }
  retry: { attempts: 1 }
  breaker: { consecutiveFailures: 2, openFor: 10m, maxOpen: 10m }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: api, namespace: shop }
spec:
  parentRefs: [{ kind: Service, name: api }]
  rules: [{ name: all }]
";

/// Calls of each kind in the first burst. Nothing of the kind was there before.
const BURST: u32 = 32;

struct Scene {
    web: Sidecar,
    api: Sidecar,
    _dead: Sidecar,
    upstream: Upstream,
    mesh: Mesh,
}

impl Scene {
    /// `web` may call `api`, `dead`, whose only instance has just died, `gone`, which is nowhere, and the port of a database
    /// that is nowhere either. It has called none.
    async fn start() -> Self {
        let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
        mesh.service("shop/api", 80, 8080, "http");
        mesh.service("shop/dead", 80, 8080, "http");
        mesh.service("shop/gone", 80, 8080, "http");
        mesh.service("shop/db", 5432, 5432, "tcp");
        mesh.write("objects.yaml", OBJECTS);
        let api = mesh.start_sidecar(Workload::new("shop/api").serves(8080, upstream.address()));
        let mut dead = mesh.start_sidecar(Workload::new("shop/dead").serves(8080, upstream.address()));
        let web = Workload::new("shop/web").calls(DESTINATION).calls("shop/dead:80");
        let web = web.calls("shop/gone:80").calls("shop/db:5432");
        let web = mesh.start_sidecar(web);
        api.ready().await;
        web.ready().await;
        dead.ready().await;
        dead.process().kill();
        let denied = ["policy=\"shop/no-admin\"", "action=\"denied\""];
        api.metrics().until("selvedge_policy_actions_total", &denied, 0.0).await;
        Self { web, api, _dead: dead, upstream, mesh }
    }

    /// Where each kind of call begins, and for which path.
    fn calls(&self) -> [(SocketAddr, &'static str); 4] {
        let to = |destination| self.web.outbound(destination);
        [(to(DESTINATION), "/"), (to(DESTINATION), "/admin"), (to("shop/dead:80"), "/"), (to("shop/gone:80"), "/")]
    }

    async fn burst(&self) {
        for _ in 0..BURST {
            for (address, path) in &self.calls()[1..] {
                client::call(*address, request(Method::GET, HOST, path)).await.expect("the sidecar answers");
            }
            client::exchange(self.web.outbound("shop/db:5432"), b"", Duration::from_secs(10)).await;
        }
    }

    /// Calls of each kind, one after the other, from now on.
    fn traffic(&self) -> JoinHandle<()> {
        let calls = self.calls();
        tokio::spawn(async move {
            loop {
                for (address, path) in calls {
                    let _ = client::call(address, request(Method::GET, HOST, path)).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    }
}

/// The queries of the page.
fn queries() -> Vec<String> {
    let page = Page::named("docs/metrics.md").text;
    let blocks = page.split("```promql\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().trim().to_owned()).collect()
}

/// The queries of each board, with what a board is opened with for its variables.
fn boards() -> Vec<Vec<String>> {
    let folder = fs::read_dir(workspace().join("docs/monitoring/dashboards")).expect("the folder of the boards");
    let boards = folder.map(|file| fs::read_to_string(file.expect("a file").path()).expect("a board"));
    let board = |text: String| {
        let board: Value = serde_json::from_str(&text).expect("JSON");
        let panels = board["panels"].as_array().expect("panels").iter();
        let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
        let query = |target: &Value| target["expr"].as_str().expect("a query").to_owned();
        targets.map(query).map(|query| query.replace("$service", "shop/api").replace("$workload", "web")).collect()
    };
    boards.map(board).collect()
}

#[tokio::test]
async fn a_first_burst_has_a_rate_and_every_query_of_the_page_a_value_in_an_outage() {
    let Some(program) = Prometheus::installed() else { return };
    let scene = Scene::start().await;
    let job = |name, target| Job { name, targets: vec![target], path: "/metrics" };
    let jobs = [
        job("web", scene.web.metrics().address()),
        job("api", scene.api.metrics().address()),
        job("control-plane", scene.mesh.metrics().address()),
    ];
    let prometheus = Prometheus::start(&program, scene.mesh.folder(), &jobs);
    // It has looked at each series of the burst before it.
    let firsts = [
        "selvedge_policy_actions_total{job=\"api\",policy=\"shop/no-admin\",action=\"denied\"}",
        "selvedge_edge_requests_total{job=\"web\",destination_service=\"shop/api\",outcome=\"refused\"}",
        "selvedge_edge_requests_total{job=\"web\",destination_service=\"shop/gone\",outcome=\"failure\"}",
        "selvedge_edge_connections_total{job=\"web\",destination_service=\"shop/db\",outcome=\"failure\"}",
        "selvedge_reasons_total{job=\"web\",direction=\"outbound\",reason=\"no_endpoints\"}",
    ];
    for first in firsts {
        prometheus.until(first, "0").await;
    }
    scene.burst().await;
    for first in firsts {
        prometheus.until(&format!("increase({first}[5m]) > bool 0"), "1").await;
    }
    let success = "sum(rate(selvedge_edge_requests_total{destination_service=\"shop/gone\",outcome=\"success\"}[5m])) / \
                   sum(rate(selvedge_edge_requests_total{destination_service=\"shop/gone\"}[5m]))";
    prometheus.until(success, "0").await;

    // Some calls are well, and then none is.
    let traffic = scene.traffic();
    prometheus.until("sum(rate(selvedge_requests_total{tls=\"mtls\",outcome=\"success\"}[5m])) > bool 0", "1").await;
    scene.upstream.play(Scenario::Fail(u32::MAX, 503));
    let boards = boards();
    assert!(boards.len() >= 4, "{} boards", boards.len());
    let queries: Vec<String> = queries().into_iter().chain(boards.into_iter().flatten()).collect();
    assert!(queries.len() >= 30, "{} queries", queries.len());
    for query in queries {
        wait::until_true(&format!("a value of {query}"), || async {
            prometheus.ask(&query).await.is_some_and(|series| series.iter().any(|(_, value)| value != "NaN"))
        })
        .await;
    }
    traffic.abort();
}

#[test]
fn the_rules_alert_on_what_they_are_for_and_on_nothing_else() {
    let Some(promtool) = program("promtool") else { return };
    let folder = workspace().join("docs/monitoring");
    let checked =
        Command::new(promtool).args(["test", "rules", "rules.test.yaml"]).current_dir(&folder).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let [rules, tests] = ["rules.yaml", "rules.test.yaml"].map(|name| fs::read_to_string(folder.join(name)).unwrap());
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let untested: Vec<&&str> = alerts.iter().filter(|alert| !tests.contains(&format!("alertname: {alert}"))).collect();
    assert!(alerts.len() >= 10 && untested.is_empty(), "no test of {untested:?}");
}
