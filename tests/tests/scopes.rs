//! What users write holds exactly where they say: for one port of a service or workload, for one workload, for a
//! namespace, for the mesh, and for those workloads alone that have every label.

use std::net::SocketAddr;

use http::Method;
use selvedge_tests::{
    client::{self, Answer, request},
    mesh::{Mesh, Sidecar, Workload},
    pair::{HOST, Pair},
    upstream::Upstream,
    wait,
};

const FIRST: &str = "shop/api:80";
const SECOND: &str = "shop/api:81";

/// `web` calls two ports of `api`, which lead to ports 8080 and 8081 of its workload.
struct Ports {
    web: Sidecar,
    api: Sidecar,
    _upstream: Upstream,
    mesh: Mesh,
}

impl Ports {
    async fn start() -> Self {
        let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
        mesh.write(
            "service.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec:\n  selector: {app: api}\n  ports:\n  \
             - {name: first, port: 80, targetPort: 8080}\n  - {name: second, port: 81, targetPort: 8081}\n",
        );
        let application = upstream.address();
        let api = Workload::new("shop/api").serves(8080, application).serves(8081, application);
        let api = mesh.start_sidecar(api);
        let web = mesh.start_sidecar(Workload::new("shop/web").calls(FIRST).calls(SECOND));
        api.ready().await;
        web.ready().await;
        let ports = Self { web, api, _upstream: upstream, mesh };
        for destination in [FIRST, SECOND] {
            ports.until(destination, "").await;
        }
        ports
    }

    async fn get(&self, destination: &str) -> Answer {
        let asked = request(Method::GET, HOST, "/");
        client::call(self.web.outbound(destination), asked).await.expect("the sidecar answers")
    }

    /// Asks until `destination` answers for `reason`; an empty one is an answer of the service.
    async fn until(&self, destination: &str, reason: &str) {
        let what = format!("{destination} answers for the reason '{reason}'");
        wait::until_true(&what, || async {
            let answer = self.get(destination).await;
            answer.reason() == reason && (reason.is_empty() == (answer.status == 200))
        })
        .await;
    }

    /// Puts `yaml` in force and looks that the second port answers for `reason` and the first one as before.
    async fn only_the_second(&self, yaml: &str, reason: &str) {
        self.mesh.write("scoped.yaml", yaml);
        self.until(SECOND, reason).await;
        for _ in 0..5 {
            assert_eq!(self.get(FIRST).await.status, 200, "{yaml}");
        }
        self.mesh.remove("scoped.yaml");
        self.until(SECOND, "").await;
    }
}

fn deny(target: &str) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: one-port, namespace: \
         shop}}\nspec: {{targetRef: {target}, action: DENY, rules: [{{}}]}}\n"
    )
}

#[tokio::test]
async fn what_is_written_for_one_port_of_a_service_leaves_the_others_alone() {
    let ports = Ports::start().await;
    ports.only_the_second(&deny("{kind: Service, name: api, port: 81}"), "policy_denied").await;
    let limit = "apiVersion: selvedge.dev/v1alpha1\nkind: RateLimit\nmetadata: {name: one-port, namespace: shop}\nspec:\n  \
                 targetRef: {kind: Service, name: api, port: 81}\n  limits: [{requests: 1, per: 1h}]\n";
    ports.only_the_second(limit, "rate_limited").await;
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: one-port, namespace: \
                 shop}\nspec:\n  parentRefs: [{kind: Service, name: api, port: 81}]\n  rules: [{matches: [{path: {type: \
                 Exact, value: /other}}]}]\n";
    ports.only_the_second(route, "no_route").await;
    ports.only_the_second(&route.replace("port: 81", "sectionName: second"), "no_route").await;
}

#[tokio::test]
async fn what_is_written_for_one_port_of_a_workload_leaves_the_others_alone() {
    let ports = Ports::start().await;
    ports.only_the_second(&deny("{kind: Workload, name: api, port: 8081}"), "policy_denied").await;
    let shown = client::get(ports.api.admin(), "/config").await.unwrap().json();
    assert_eq!(shown["inbound"]["ports"]["8081"]["policies"], serde_json::json!([]), "{shown:#}");
}

/// Waits until a stranger to the mesh is served at `inbound`, or refused.
async fn until_plaintext(inbound: SocketAddr, is_taken: bool) {
    let status = if is_taken { 200 } else { 403 };
    wait::until_true(&format!("plaintext is answered with {status}"), || async move {
        client::call(inbound, request(Method::GET, HOST, "/")).await.is_ok_and(|answer| answer.status == status)
    })
    .await;
}

fn mode(name: &str, namespace: &str, target: &str, mode: &str) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
         {target}\n  mtls: {{inbound: {mode}}}\n"
    )
}

#[tokio::test]
async fn of_nested_scopes_the_innermost_that_says_something_wins() {
    let pair = Pair::start().await;
    let application = pair.upstream.address();
    let beside = pair.mesh.sidecar(Workload::new("shop/beside").serves(8080, application)).await;
    let outside = pair.mesh.sidecar(Workload::new("bank/outside").serves(8080, application)).await;
    let doors = [pair.api.inbound(8080), beside.inbound(8080), outside.inbound(8080)];
    let until = async |taken: [bool; 3]| {
        for (door, is_taken) in doors.iter().zip(taken) {
            until_plaintext(*door, is_taken).await;
        }
    };
    until([false; 3]).await;
    pair.mesh.write("mesh.yaml", &mode("all", "selvedge-system", "targetRef: {kind: Mesh}", "PERMISSIVE"));
    until([true; 3]).await;
    pair.mesh.write("namespace.yaml", &mode("shop", "shop", "accessLog: all", "STRICT"));
    until([false, false, true]).await;
    pair.mesh.write("workload.yaml", &mode("api", "shop", "targetRef: {kind: Workload, name: api}", "PERMISSIVE"));
    until([true, false, true]).await;
    // What the innermost leaves out is that of the scope around it.
    for (sidecar, log) in [(&pair.api, "all"), (&beside, "all"), (&outside, "errors")] {
        let shown = client::get(sidecar.admin(), "/config").await.unwrap().json();
        assert_eq!(shown["accessLog"], log, "{shown:#}");
    }
    pair.mesh.remove("workload.yaml");
    until([false, false, true]).await;
    pair.mesh.remove("namespace.yaml");
    until([true; 3]).await;
}

#[tokio::test]
async fn a_service_has_the_workloads_that_have_every_label_of_its_selector() {
    let pair = Pair::start().await;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec:\n  selector: {app: api, tier: \
                   front}\n  ports: [{name: main, port: 80, targetPort: 8080}]\n";
    // Each has one of the labels.
    pair.mesh.write(
        "beside.yaml",
        &format!(
            "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: beside, namespace: shop, labels: {{tier: \
             front}}}}\nspec: {{serviceAccount: api, address: 127.0.0.1, ports: [{{port: 8080, dial: {}}}]}}\n",
            pair.api.inbound(8080).port()
        ),
    );
    pair.mesh.write("service-shop-api.yaml", service);
    pair.until_reason("/", "no_endpoints").await;
    let workload = |labels: &str| {
        format!(
            "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: api, namespace: shop, labels: \
             {labels}}}\nspec: {{serviceAccount: api, address: 127.0.0.1, ports: [{{port: 8080, dial: {}}}]}}\n",
            pair.api.inbound(8080).port()
        )
    };
    pair.mesh.write("workload-shop-api.yaml", &workload("{app: api, tier: front, more: is-no-matter}"));
    pair.until_status("/", 200).await;
    pair.mesh.write("workload-shop-api.yaml", &workload("{app: other, tier: front}"));
    pair.until_reason("/", "no_endpoints").await;
}

#[tokio::test]
async fn the_access_log_holds_what_its_mode_says() {
    let pair = Pair::start().await;
    pair.mesh
        .write("deny.yaml", &deny("{kind: Workload, name: api}").replace("[{}]", "[{to: [{paths: [/denied/*]}]}]"));
    pair.until_reason("/denied/0", "policy_denied").await;
    let (api, pair) = (&pair.api, &pair);
    let set = async |mode: &str| {
        let policy = "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: log, namespace: shop}\nspec: \
                      {accessLog: ";
        pair.mesh.write("log.yaml", &format!("{policy}{mode}}}\n"));
        wait::until_true(&format!("accessLog {mode} is in force"), || async move {
            client::get(api.admin(), "/config").await.unwrap().json()["accessLog"] == mode
        })
        .await;
    };
    for mode in ["off", "errors", "all"] {
        set(mode).await;
        for kind in ["denied", "served"] {
            pair.get(&format!("/{kind}/{mode}")).await;
        }
    }
    // Lines keep their order: when the last one is there, all are that will be.
    let logged = async || {
        let lines = api.access_log();
        let paths = lines.iter().filter_map(|line| line["url.path"].as_str().map(str::to_owned));
        let paths: Vec<String> = paths.filter(|path| path != "/denied/0" && path.len() > 1).collect();
        paths.last().is_some_and(|path| path == "/served/all").then_some(paths)
    };
    let paths = wait::until("the last request is logged", logged).await;
    assert_eq!(paths, ["/denied/errors", "/denied/all", "/served/all"]);
}

#[tokio::test]
async fn a_policy_for_the_whole_mesh_refuses_all_but_what_it_leaves_out() {
    let pair = Pair::start().await;
    let wide = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: all, namespace: \
                selvedge-system}\nspec: {targetRef: {kind: Mesh}, action: DENY, rules: [{to: [{notPaths: [/open]}]}]}\n";
    pair.mesh.write("wide.yaml", wide);
    let refused = pair.until_reason("/", "policy_denied").await;
    assert_eq!(refused.json()["policy"], "selvedge-system/all", "{}", refused.text());
    assert_eq!(pair.get("/open").await.status, 200);
    assert_eq!(pair.get("/Open").await.reason(), "policy_denied", "only what is certain is spared");
    pair.mesh.write("wide.yaml", &wide.replace("DENY", "ALLOW").replace("notPaths", "paths"));
    let refused = pair.until_reason("/", "policy_default_deny").await;
    let nearest =
        "No ALLOW rule matches: the nearest is rules[0] of selvedge-system/all, of which 'to' does not match.";
    assert_eq!(refused.json()["detail"], nearest, "{}", refused.text());
    assert_eq!(pair.get("/open").await.status, 200);
    pair.mesh.remove("wide.yaml");
    pair.until_status("/", 200).await;
}

#[tokio::test]
async fn what_a_posture_of_deny_would_refuse_is_noted_before_it_does() {
    let pair = Pair::start().await;
    let posture = |word: &str| {
        format!(
            "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {{name: try, namespace: shop}}\nspec: \
             {{defaultPosture: {word}}}\n"
        )
    };
    pair.mesh.write("posture.yaml", &posture("audit"));
    let (api, pair) = (&pair.api, &pair);
    let labels = ["policy=\"defaultPosture\"", "source_identity=\"spiffe://mesh.local/ns/shop/sa/web\""];
    wait::until_true("it is counted", || async move {
        assert_eq!(pair.get("/").await.status, 200);
        api.metrics().so_far("selvedge_audited_total", &labels).await > 0.0
    })
    .await;
    wait::until_true("it is logged", || async move {
        api.access_log().iter().any(|line| line["selvedge.audited"] == "defaultPosture")
    })
    .await;
    pair.mesh.write("posture.yaml", &posture("deny"));
    let refused = pair.until_reason("/", "policy_default_deny").await;
    assert_eq!(refused.json()["detail"], "No ALLOW policy covers this, and the default posture is deny.");
}
