//! Kinds and objects that are lost or odd: each costs nobody but itself.

use std::{path::PathBuf, sync::Arc};

use selvedge_control_plane::source::{Confirm, kubernetes::Cluster};
use selvedge_tests::api_server::ApiServer;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{Fed, POLICIES, QUICK, deny, has, pod, problems};

/// The double alone: a real server refuses a pod that cannot be read.
#[tokio::test]
async fn an_object_that_cannot_be_read_is_a_finding_and_keeps_nobody_else_from_being_read() {
    let server = ApiServer::double().await;
    server.put(pod("shop", "web-1", "10.1.0.5", true)).await;
    let mut odd = pod("shop", "web-2", "10.1.0.6", true);
    odd["spec"]["hostNetwork"] = json!("perhaps");
    server.put(odd.clone()).await;
    let mut fed = Fed::new(&server).await;
    let told = |fed: &Fed| problems(fed).iter().any(|problem| problem.contains("this cannot be read"));
    fed.until("the other is in force", |fed| has(fed, "Workload", "web-1") && told(fed) && fed.report.complete).await;
    server.put(pod("shop", "web-2", "10.1.0.6", true)).await;
    fed.until("it is mended", |fed| has(fed, "Workload", "web-2") && !told(fed)).await;
    server.put(odd).await;
    server.put(pod("shop", "web-3", "10.1.0.7", true)).await;
    fed.until("what it said last stays in force", |fed| told(fed) && has(fed, "Workload", "web-3")).await;
    assert!(has(&fed, "Workload", "web-2"));
    server.delete("Pod", "shop", "web-2").await;
    fed.until("it is deleted", |fed| !has(fed, "Workload", "web-2") && !told(fed)).await;
}

/// Says that something is meant to be gone; returns what was waiting for that.
async fn confirm(confirms: &mpsc::Sender<Confirm>, what: &str) -> Vec<Arc<str>> {
    let (done, confirmed) = oneshot::channel();
    confirms.send(Confirm { paths: vec![PathBuf::from(what)], done }).await.unwrap();
    confirmed.await.unwrap()
}

#[tokio::test]
async fn a_kind_that_the_cluster_has_forgotten_stays_in_force_until_that_is_confirmed() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(deny("shop", "nobody")).await;
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster::connect(Some(&server.kubeconfig(folder.path())), std::iter::empty()).await.unwrap();
        let (confirms, confirmed) = mpsc::channel(1);
        let mut fed = Fed::over(cluster.confirmed_by(confirmed).at_pace(QUICK).source());
        fed.until("it is in force", |fed| has(fed, "AuthorizationPolicy", "nobody") && fed.report.complete).await;
        server.relay().unlearn(POLICIES);
        server.relay().cut();
        let hint = "`selvedge confirm AuthorizationPolicy` when the mesh is to have none";
        let told = |fed: &Fed| fed.report.findings.iter().any(|finding| finding.hint.contains(hint));
        fed.until("it is told", told).await;
        assert!(has(&fed, "AuthorizationPolicy", "nobody"));
        assert!(confirm(&confirms, "MeshPolicy").await.is_empty(), "nothing of it waits");
        assert_eq!(confirm(&confirms, "AuthorizationPolicy").await, ["AuthorizationPolicy".into()]);
        fed.until("it goes", |fed| !has(fed, "AuthorizationPolicy", "nobody") && !told(fed)).await;
        for _ in 0..3 {
            fed.state().await;
            assert!(!told(&fed), "nothing is held any more");
        }
    }
}
