//! The objects of a cluster as configuration: what becomes of them in the control plane, whatever the API server does.

use std::{sync::Arc, time::Duration};

use prost::Message;
use selvedge_control_plane::{
    diagnostic::Severity,
    snapshot::Snapshot,
    source::{
        Source,
        kubernetes::{Cluster, Pace},
    },
    store::{Report, Store},
};
use selvedge_tests::api_server::{ApiServer, Watching};
use selvedge_xds::{kinds::ENDPOINTS, proto::mesh::Endpoints};
use serde_json::{Value, json};
use tokio::time::timeout;

#[path = "kubernetes/callers.rs"]
mod callers;
#[path = "kubernetes/commands.rs"]
mod commands;
#[path = "kubernetes/faults.rs"]
mod faults;
#[path = "kubernetes/identity.rs"]
mod identity;
#[path = "kubernetes/lost.rs"]
mod lost;
#[path = "kubernetes/objects.rs"]
mod objects;
#[path = "kubernetes/another_webhook.rs"]
mod another_webhook;
#[path = "kubernetes/server.rs"]
mod server;
#[path = "kubernetes/webhook.rs"]
mod webhook;
#[path = "kubernetes/webhook_life.rs"]
mod webhook_life;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where policies are listed.
const POLICIES: &str = "/apis/selvedge.dev/v1alpha1/authorizationpolicies";

/// A pace at which a test need not wait.
const QUICK: Pace = Pace {
    answer: Duration::from_secs(20),
    watch: Duration::from_secs(60),
    // Not within a test: some count lists.
    reconciliation: Duration::from_secs(600),
    doubt: Duration::from_millis(200),
    first_pause: Duration::from_millis(10),
    longest_pause: Duration::from_millis(50),
};

/// A store that is fed by the cluster behind a server.
struct Fed {
    store: Store,
    source: Source,
    snapshot: Arc<Snapshot>,
    report: Report,
}

impl Fed {
    async fn new(server: &ApiServer) -> Self {
        Self::at_pace(server, QUICK).await
    }

    async fn at_pace(server: &ApiServer, pace: Pace) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::connect(Some(&server.kubeconfig(folder.path())), std::iter::empty()).await.unwrap();
        Self::over(cluster.at_pace(pace).source())
    }

    fn over(source: Source) -> Self {
        let mut store = Store::new("mesh.local");
        store.attend(&source.name);
        Self { store, source, snapshot: Arc::default(), report: Report::default() }
    }

    /// Takes steps until the store is as `wanted`.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !wanted(self) {
                let change = self.source.changes.recv().await.expect("the source goes on");
                if self.store.take(&self.source.name, change) {
                    (self.snapshot, self.report) = self.store.commit();
                }
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("never came to pass: {what}; findings: {:#?}", self.report.findings);
        }
    }

    /// Takes steps until one more state is complete.
    async fn state(&mut self) {
        let taking = async {
            loop {
                let change = self.source.changes.recv().await.expect("the source goes on");
                if self.store.take(&self.source.name, change) {
                    (self.snapshot, self.report) = self.store.commit();
                    return;
                }
            }
        };
        timeout(PATIENCE, taking).await.expect("a complete state in time");
    }
}

/// True when an object of that name is in force.
fn has(fed: &Fed, kind: &str, name: &str) -> bool {
    fed.report.objects.iter().any(|object| object.kind == kind && object.name == name)
}

/// What is wrong, as far as it is an error.
fn problems(fed: &Fed) -> Vec<&str> {
    let errors = fed.report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| &*finding.message).collect()
}

/// Where calls of a service's port go, and as whom what is there answers.
fn endpoints(fed: &Fed, port: &str) -> Vec<(String, String)> {
    let Some(resource) = fed.snapshot.get(ENDPOINTS, port) else { return Vec::new() };
    let endpoints = Endpoints::decode(resource.body.clone()).unwrap().endpoints;
    endpoints.into_iter().map(|endpoint| (endpoint.address, endpoint.identity)).collect()
}

fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": namespace, "name": name, "labels": { "team": "a" } },
        "spec": {
            "type": "ClusterIP", "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "selector": { "app": name },
            "ports": [{ "name": "http", "port": 80, "targetPort": "web", "protocol": "TCP" }],
        },
        "status": { "loadBalancer": {} },
    })
}

fn slice(namespace: &str, service: &str, endpoints: &[(&str, Option<&str>, &str)]) -> Value {
    let endpoint = |(address, pod, state): &(&str, Option<&str>, &str)| {
        let conditions = match *state {
            "ready" => json!({ "ready": true, "serving": true, "terminating": false }),
            "terminating" => json!({ "ready": false, "serving": true, "terminating": true }),
            _ => json!({ "ready": false, "serving": false, "terminating": false }),
        };
        let mut endpoint = json!({ "addresses": [address], "conditions": conditions, "nodeName": "one" });
        if let Some(pod) = pod {
            endpoint["targetRef"] = json!({ "kind": "Pod", "namespace": namespace, "name": pod, "uid": "u" });
        }
        endpoint
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace, "name": format!("{service}-abcde"),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

fn pod(namespace: &str, name: &str, ip: &str, sidecar: bool) -> Value {
    let sidecars = if sidecar {
        json!([{ "name": "selvedge-proxy", "image": "proxy", "restartPolicy": "Always" }])
    } else {
        json!([])
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name, "labels": { "app": "web" } },
        "spec": {
            "serviceAccountName": "web",
            "nodeName": "one",
            "initContainers": sidecars,
            "containers": [{ "name": "web", "image": "web", "ports": [{ "name": "web", "containerPort": 8080 }] }],
        },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] },
    })
}

fn deny(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "AuthorizationPolicy",
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "action": "DENY", "rules": [{}] },
    })
}

#[tokio::test]
async fn services_policies_and_pods_with_a_sidecar_become_objects_of_the_mesh() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(service("shop", "web")).await;
        server.put(pod("shop", "web-1", "10.1.0.5", true)).await;
        server.put(pod("shop", "batch", "10.1.0.6", false)).await;
        server.put(deny("shop", "nobody")).await;
        let mut fed = Fed::new(&server).await;
        fed.until("all three are in force", |fed| {
            has(fed, "Service", "web") && has(fed, "Workload", "web-1") && has(fed, "AuthorizationPolicy", "nobody")
        })
        .await;
        let expected = ("10.1.0.5:8080".to_owned(), "spiffe://mesh.local/ns/shop/sa/web".to_owned());
        let plain = ("10.1.0.6:8080".to_owned(), String::new());
        assert_eq!(endpoints(&fed, "shop/web:80"), [plain, expected]);
        assert_eq!(problems(&fed), [""; 0]);
        assert!(fed.report.complete);
    }
}

#[tokio::test]
async fn a_cluster_says_where_the_calls_of_a_service_go_and_each_pod_whether_a_sidecar_is_there() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(service("shop", "web")).await;
        server
            .put(slice("shop", "web", &[("10.1.0.5", Some("meshed"), "ready"), ("10.1.0.6", Some("plain"), "ready")]))
            .await;
        server.put(pod("shop", "meshed", "10.1.0.5", true)).await;
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        let identity = "spiffe://mesh.local/ns/shop/sa/web";
        let meshed = ("10.1.0.5:8080".to_owned(), identity.to_owned());
        assert_eq!(
            endpoints(&fed, "shop/web:80"),
            std::slice::from_ref(&meshed),
            "of the other pod nobody knows what stands before it"
        );
        server.put(pod("shop", "plain", "10.1.0.6", false)).await;
        let plain = ("10.1.0.6:8080".to_owned(), String::new());
        fed.until("the other pod is known", |fed| endpoints(fed, "shop/web:80") == [meshed.clone(), plain.clone()])
            .await;
        server
            .put(slice(
                "shop",
                "web",
                &[("10.1.0.5", Some("meshed"), "terminating"), ("10.1.0.6", Some("plain"), "ready")],
            ))
            .await;
        fed.until("what ends is not called", |fed| endpoints(fed, "shop/web:80") == std::slice::from_ref(&plain)).await;
        server
            .put(slice(
                "shop",
                "web",
                &[("10.1.0.5", Some("meshed"), "terminating"), ("10.1.0.6", Some("plain"), "unready")],
            ))
            .await;
        fed.until("unless there is nothing else", |fed| endpoints(fed, "shop/web:80") == [meshed.clone()]).await;
        server.put(slice("shop", "web", &[("192.0.2.9", None, "ready")])).await;
        let outside = ("192.0.2.9:8080".to_owned(), String::new());
        fed.until("it goes to what is no pod", |fed| endpoints(fed, "shop/web:80") == [outside.clone()]).await;
    }
}

#[tokio::test]
async fn what_changes_and_what_is_deleted_takes_effect_at_once() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let mut fed = Fed::new(&server).await;
        fed.until("a cluster without objects is complete", |fed| fed.report.complete).await;
        server.put(deny("shop", "nobody")).await;
        fed.until("a policy comes", |fed| has(fed, "AuthorizationPolicy", "nobody")).await;
        server.put(pod("shop", "web-1", "10.1.0.5", true)).await;
        fed.until("a pod comes", |fed| has(fed, "Workload", "web-1")).await;
        let mut over = pod("shop", "web-1", "10.1.0.5", true);
        over["status"]["phase"] = json!("Succeeded");
        server.put(over).await;
        fed.until("a pod that is over goes", |fed| !has(fed, "Workload", "web-1")).await;
        server.delete("AuthorizationPolicy", "shop", "nobody").await;
        fed.until("a policy goes", |fed| !has(fed, "AuthorizationPolicy", "nobody")).await;
    }
}

#[tokio::test]
async fn objects_of_one_name_in_two_namespaces_are_two() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(deny("office", "nobody")).await;
        server.put(deny("shop", "nobody")).await;
        let mut fed = Fed::new(&server).await;
        let namespaces = |fed: &Fed| {
            let policies = fed.report.objects.iter().filter(|object| object.kind == "AuthorizationPolicy");
            policies.map(|object| object.namespace.clone()).collect::<Vec<_>>()
        };
        fed.until("both are in force", |fed| namespaces(fed) == ["office", "shop"]).await;
        server.delete("AuthorizationPolicy", "shop", "nobody").await;
        fed.until("the other stays", |fed| namespaces(fed) == ["office"]).await;
    }
}

#[tokio::test]
async fn an_api_server_that_is_away_takes_nothing_away_and_what_happened_meanwhile_is_found() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(deny("shop", "stays")).await;
        server.put(deny("shop", "goes")).await;
        let mut fed = Fed::new(&server).await;
        fed.until("both are in force", |fed| has(fed, "AuthorizationPolicy", "goes") && fed.report.complete).await;
        server.relay().fail(Some(503));
        server.relay().cut();
        fed.until("it is told", |fed| {
            fed.report
                .findings
                .iter()
                .any(|finding| finding.message.contains("the API server does not tell of AuthorizationPolicy"))
        })
        .await;
        assert!(has(&fed, "AuthorizationPolicy", "goes") && has(&fed, "AuthorizationPolicy", "stays"));
        server.delete("AuthorizationPolicy", "shop", "goes").await;
        server.put(deny("shop", "comes")).await;
        // What happened while nobody watched is forgotten, so only a complete list can tell.
        server.relay().end_watches(Watching::Expired);
        server.relay().fail(None);
        fed.until("the new one comes and the old one goes", |fed| {
            has(fed, "AuthorizationPolicy", "comes") && !has(fed, "AuthorizationPolicy", "goes")
        })
        .await;
        server.relay().end_watches(Watching::InTime);
        fed.until("all is well", |fed| problems(fed).is_empty()).await;
        assert!(has(&fed, "AuthorizationPolicy", "stays"));
    }
}

/// The double alone: a real server does not lose its objects without telling of it.
#[tokio::test]
async fn a_list_that_lost_everything_after_an_error_is_believed_only_when_a_newer_one_says_the_same() {
    let server = ApiServer::double().await;
    server.put(deny("shop", "nobody")).await;
    let mut fed = Fed::new(&server).await;
    fed.until("it is in force", |fed| has(fed, "AuthorizationPolicy", "nobody") && fed.report.complete).await;
    server.only_double().lose_everything();
    server.relay().cut();
    fed.until("it is told", |fed| {
        problems(fed).iter().any(|problem| problem.contains("has lost every AuthorizationPolicy"))
    })
    .await;
    let lists = server.relay().lists(POLICIES);
    fed.until("lists of one and the same revision, which say nothing new however many there are", |fed| {
        assert!(has(fed, "AuthorizationPolicy", "nobody"));
        server.relay().lists(POLICIES) >= lists + 2
    })
    .await;
    let ticking = async {
        loop {
            server.tick().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = ticking => {}
        () = fed.until("it is believed", |fed| !has(fed, "AuthorizationPolicy", "nobody")) => {}
    }
}

/// The double alone: a real server does not lose its objects without telling of it.
#[tokio::test]
async fn a_list_that_lost_everything_and_has_it_again_takes_nothing_away() {
    let server = ApiServer::double().await;
    server.put(deny("shop", "nobody")).await;
    let slow = Pace { doubt: Duration::from_secs(1), ..QUICK };
    let mut fed = Fed::at_pace(&server, slow).await;
    fed.until("it is in force", |fed| has(fed, "AuthorizationPolicy", "nobody") && fed.report.complete).await;
    server.only_double().lose_everything();
    server.relay().cut();
    fed.until("it is told", |fed| !problems(fed).is_empty()).await;
    server.put(deny("shop", "nobody")).await;
    fed.until("all is well", |fed| {
        assert!(has(fed, "AuthorizationPolicy", "nobody"));
        problems(fed).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_kind_that_the_cluster_does_not_know_has_no_objects_and_one_that_is_forbidden_keeps_the_mesh_from_ready() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.relay().unlearn("/apis/gateway.networking.k8s.io/v1/httproutes");
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        server.relay().forbid("/api/v1/pods");
        let mut fed = Fed::new(&server).await;
        fed.state().await;
        fed.until("the reason is told", |fed| {
            problems(fed).iter().any(|problem| problem.contains("may not list and watch /api/v1/pods"))
        })
        .await;
        assert!(!fed.report.complete);
    }
}

#[tokio::test]
async fn very_many_objects_come_page_by_page() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        for n in 0..1_203 {
            server.put(deny("shop", &format!("nobody-{n}"))).await;
        }
        let mut fed = Fed::new(&server).await;
        fed.until("all are in force", |fed| fed.report.complete).await;
        let policies = fed.report.objects.iter().filter(|object| object.kind == "AuthorizationPolicy");
        assert_eq!(policies.count(), 1_203);
        assert_eq!(server.relay().lists(POLICIES), 1);
    }
}
