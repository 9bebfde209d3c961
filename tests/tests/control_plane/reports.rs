//! What the control plane says of itself, of objects and of sidecars.

use std::{path::Path, process::Command, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use selvedge_control_plane::{clock, identity::Grant, run, settings::Settings};
use selvedge_proxy::renew;
use selvedge_tests::{
    client::accepts,
    metrics::Metrics,
    ports::Reserved,
    process::{Process, binary},
    wait,
};
use selvedge_xds::{
    kinds::INBOUND,
    proto::mesh::{Attachment, Inbound},
    resource::Encoded,
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, sync::oneshot};

use super::kit::{
    ControlPlane, DOMAIN, Sidecar, WORKLOAD, addresses, authority, eventually, generation, get, grant, join, origin,
    service,
};

#[tokio::test]
async fn a_refusal_keeps_the_last_good_version_and_shows_in_the_status() {
    let control_plane = ControlPlane::start().await;
    control_plane.publish(|draft| service(draft, "cart", 1, "cart.shop"));
    let state = TempDir::new().unwrap();
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(control_plane.join().await));
    sidecar.want("cart.shop");
    sidecar.until("the destination", |r| generation(r, "shop/cart") == Some(1)).await;

    control_plane.publish(|draft| service(draft, "cart", 666, "cart.shop"));
    let resources = sidecar.until("the refusal", |r| r.refusal.is_some()).await;
    assert_eq!(generation(&resources, "shop/cart"), Some(1), "the last good version is in force");
    let status = eventually("the refusal in the status", async || {
        let status: serde_json::Value = serde_json::from_str(&control_plane.get("/status").await).unwrap();
        (!status["sidecars"][0]["refused"].as_array()?.is_empty()).then_some(status)
    })
    .await;
    let sidecar_status = &status["sidecars"][0];
    assert_eq!(sidecar_status["workload"], WORKLOAD);
    assert_eq!(sidecar_status["acknowledged"]["Service shop/cart"], 1);
    let refused = &sidecar_status["refused"][0];
    assert_eq!(refused["objects"]["Service shop/cart"], 666);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("Service shop/cart generation 666") && message.contains("beast"), "{message}");
    assert!(control_plane.get("/metrics").await.contains("answer=\"nack\""));

    control_plane.publish(|draft| service(draft, "cart", 3, "cart.shop"));
    sidecar.until("the repair", |r| generation(r, "shop/cart") == Some(3) && r.refusal.is_none()).await;
}

#[tokio::test]
async fn the_status_knows_which_of_several_is_refused_and_forgets_what_a_sidecar_gives_up() {
    let control_plane = ControlPlane::start().await;
    let state = TempDir::new().unwrap();
    let (address, credentials) = (control_plane.address(), control_plane.join().await);
    let sidecar = Sidecar::start_idle(address, state.path(), Some(credentials), Duration::from_secs(1));
    control_plane.publish(|draft| {
        service(draft, "web", 1, "web.shop");
        service(draft, "web-2", 666, "web-2.shop");
    });
    let sidecar_status = async || {
        let status: serde_json::Value = serde_json::from_str(&control_plane.get("/status").await).unwrap();
        status["sidecars"][0].clone()
    };
    let told = eventually("both answers", async || {
        ["web.shop", "web-2.shop"].iter().for_each(|name| sidecar.want(name));
        let told = sidecar_status().await;
        (told["acknowledged"]["Service shop/web"] == 1 && told["refused"][0].is_object()).then_some(told)
    })
    .await;
    let refused: Vec<_> = told["refused"].as_array().unwrap().iter().map(|refused| &refused["resource"]).collect();
    assert_eq!(refused, ["Destination shop/web-2"], "the name of one is the beginning of the other's");
    assert_eq!(told["acknowledged"].as_object().unwrap().len(), 1);

    eventually("nothing that nobody uses any more", async || {
        let told = sidecar_status().await;
        (told["acknowledged"].as_object()?.is_empty() && told["refused"].as_array()?.is_empty()).then_some(())
    })
    .await;
    let resources = sidecar.handle.resources.borrow();
    assert_eq!((&resources.refusal, resources.connected), (&None, true));
}

#[tokio::test]
async fn the_admin_port_answers_only_what_it_should() {
    let control_plane = ControlPlane::start().await;
    assert!(control_plane.get("/ready").await.starts_with("not ready: "));
    control_plane.publish(|_| {});
    assert_eq!(control_plane.get("/ready").await, "ready\n");
    assert_eq!(control_plane.get("/live").await, "live\n");
    let socket = tokio::net::TcpStream::connect(control_plane.admin).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let rebound = http::Request::get("/status").header("host", "evil.example").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(rebound).await.unwrap().status(), 421);
}

#[tokio::test]
async fn what_was_asked_and_said_is_counted() {
    let control_plane = ControlPlane::start().await;
    let metrics = Metrics::at(control_plane.admin);
    let certificates = "selvedge_control_plane_certificates_total";
    let (joined, renewed) = (["way=\"join\"", "result=\"issued\""], ["way=\"renew\"", "result=\"issued\""]);
    metrics.until(certificates, &[], 0.0).await;
    let first = control_plane.join().await;
    let current = renew(&control_plane.address(), WORKLOAD, &first).await.unwrap();
    renew(&control_plane.address(), WORKLOAD, &current).await.unwrap();
    join(&control_plane.address(), &control_plane.token(Grant { expires: 1, ..grant("web") })).await.unwrap_err();
    metrics.until("selvedge_control_plane_certificates_total", &joined, 1.0).await;
    metrics.until("selvedge_control_plane_certificates_total", &renewed, 2.0).await;
    // Nothing was published, so nobody is known to have the identity, and nobody is known not to.
    metrics.until("selvedge_control_plane_unborne_renewals_total", &[], 2.0).await;
    metrics.until("selvedge_control_plane_certificates_total", &["way=\"join\"", "result=\"refused\""], 1.0).await;
    metrics.until(certificates, &["way=\"renew\"", "result=\"refused\""], 0.0).await;
    let expiry = metrics.value("selvedge_control_plane_certificate_expiry_seconds", &[]).await;
    let left = expiry - clock::unix() as f64;
    assert!((3500.0..=3600.0).contains(&left), "{left} s are left of an hour");

    metrics.until("selvedge_control_plane_sidecars", &[], 0.0).await;
    control_plane.publish(|draft| service(draft, "cart", 1, "cart.shop"));
    let state = TempDir::new().unwrap();
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(current));
    sidecar.want("cart.shop");
    sidecar.until("the destination", |r| generation(r, "shop/cart") == Some(1) && !r.endpoints.is_empty()).await;
    metrics.until("selvedge_control_plane_sidecars", &[], 1.0).await;
    for kind in ["trust_bundle", "destination", "endpoints"] {
        metrics.until("selvedge_control_plane_responses_total", &[&format!("kind=\"{kind}\"")], 1.0).await;
        let acknowledged = [&format!("kind=\"{kind}\"")[..], "answer=\"ack\""];
        metrics.until("selvedge_control_plane_replies_total", &acknowledged, 1.0).await;
    }
    metrics.until("selvedge_control_plane_response_bytes_total", &[], control_plane.resource_bytes() as f64).await;
    metrics.until("selvedge_control_plane_replies_total", &["answer=\"nack\""], 0.0).await;
    let pushes = metrics.value("selvedge_control_plane_push_seconds_count", &[]).await;
    let snapshot = metrics.value("selvedge_control_plane_snapshot", &[]).await;
    control_plane.publish(|draft| service(draft, "cart", 666, "cart.shop"));
    sidecar.until("the refusal", |r| r.refusal.is_some()).await;
    metrics.until("selvedge_control_plane_replies_total", &["kind=\"destination\"", "answer=\"nack\""], 1.0).await;
    metrics.until("selvedge_control_plane_responses_total", &["kind=\"destination\""], 2.0).await;
    metrics.until("selvedge_control_plane_push_seconds_count", &[], pushes + 1.0).await;
    assert!(metrics.value("selvedge_control_plane_push_seconds_sum", &[]).await < 5.0);
    metrics.until("selvedge_control_plane_snapshot", &[], snapshot + 1.0).await;

    metrics.until("selvedge_control_plane_handshakes_refused_total", &[], 0.0).await;
    let mut stranger = tokio::net::TcpStream::connect(control_plane.address).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    metrics.until("selvedge_control_plane_handshakes_refused_total", &[], 1.0).await;
    drop(sidecar);
    metrics.until("selvedge_control_plane_sidecars", &[], 0.0).await;
}

/// The sidecar of `shop/web-1` as a process, and where its metrics are.
fn sidecar_process(control_plane: &ControlPlane, home: &Path) -> (Process, Metrics, [Reserved; 2]) {
    let ports = [Reserved::new(), Reserved::new()];
    let [admin, metrics] = ports.each_ref().map(Reserved::address);
    std::fs::write(home.join("token"), control_plane.token(grant("web"))).unwrap();
    let bootstrap = format!(
        "workload: {WORKLOAD}\ncontrolPlane: {}\njoinTokenFile: {home}/token\nstateDir: {home}/state\nadmin: \
         {admin}\nmetrics: {metrics}\n",
        control_plane.address,
        home = home.display()
    );
    std::fs::write(home.join("sidecar.yaml"), bootstrap).unwrap();
    let mut command = Command::new(binary("selvedge-proxy"));
    command.arg("run").arg("--config").arg(home.join("sidecar.yaml"));
    (Process::start("web", &mut command, home), Metrics::at(metrics), ports)
}

#[tokio::test]
async fn a_sidecar_counts_what_it_refuses_and_says_why_until_it_is_mended() {
    let control_plane = ControlPlane::start().await;
    let home = TempDir::new().unwrap();
    let with_policy = |generation, action: &str| {
        let document = format!("{{\"action\":\"{action}\",\"rules\":[{{}}]}}");
        let policy =
            Attachment { origin: origin("AuthorizationPolicy", "no", generation), document, ..Attachment::default() };
        let identity = grant("web").identity.to_string();
        let inbound = Inbound {
            workload: WORKLOAD.into(),
            identity: identity.clone(),
            policies: vec![policy],
            ..Inbound::default()
        };
        control_plane.publish(|draft| {
            draft.put(Encoded::new(INBOUND, WORKLOAD, Vec::new(), &inbound), false);
            draft.set_identity(WORKLOAD, Some(identity));
        });
    };
    with_policy(1, "DENY");
    let (_process, metrics, _ports) = sidecar_process(&control_plane, home.path());
    let listens = || async { accepts(metrics.address()).await };
    wait::until_true("the sidecar listens", listens).await;
    metrics.until("selvedge_xds_connected", &[], 1.0).await;
    metrics.until("selvedge_config_refused_total", &[], 0.0).await;
    metrics.absent("selvedge_config_last_error_info", &[]).await;
    with_policy(2, "PERHAPS");
    metrics.until("selvedge_config_last_error_info", &[], 1.0).await;
    assert!(metrics.text().await.contains("PERHAPS"), "it says why: {}", metrics.text().await);
    metrics.until("selvedge_config_refused_total", &[], 1.0).await;
    with_policy(3, "DENY");
    eventually("no error any more", async || {
        (!metrics.text().await.contains("selvedge_config_last_error_info{")).then_some(())
    })
    .await;
    metrics.until("selvedge_config_refused_total", &[], 1.0).await;
}

const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: cart, namespace: shop }
spec:
  clusterIP: 10.0.0.1
  selector: { app: cart }
  ports: [{ name: http, port: 80, targetPort: 8080 }]
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: { name: cart-1, namespace: shop, labels: { app: cart } }
spec: { serviceAccount: cart, address: 192.0.2.1, ports: [{ port: 8080 }] }
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: { name: web-1, namespace: shop, labels: { app: web } }
spec: { serviceAccount: web, address: 192.0.2.2 }
"#;

#[tokio::test]
async fn what_is_saved_in_the_directory_reaches_the_sidecar_and_the_status_says_so() {
    let directory = TempDir::new().unwrap();
    let (config, state, ports) =
        (directory.path().join("mesh"), directory.path().join("state"), directory.path().join("ports.json"));
    std::fs::create_dir(&config).unwrap();
    let save = |text: &str| std::fs::write(config.join("shop.yaml"), text).unwrap();
    save(SHOP);
    let loopback = ([127, 0, 0, 1], 0).into();
    let settings = Settings {
        listen: loopback,
        admin: loopback,
        ports_file: Some(ports.clone()),
        config_dir: Some(config.clone()),
        audit_log: Some("/dev/null".into()),
        ..Settings::new(&state)
    };
    let (_stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(run::run(settings, async { drop(stopped.await) }));
    let bound = addresses(&ports).await;
    let address = bound.0.to_string();
    let token = authority(&state, DOMAIN).create_token(&grant("web")).unwrap();
    let mut sidecar = Sidecar::start(address.clone(), &directory.path().join("web"), join(&address, &token).await.ok());
    sidecar.want("10.0.0.1:80");
    let resources = sidecar.until("everything", |r| !r.destinations.is_empty() && r.inbound.is_some()).await;
    assert_eq!(resources.endpoints["shop/cart:80"].value.endpoints[0].address, "192.0.2.1:8080");

    save(&SHOP.replace("10.0.0.1", "10.0.0.2"));
    sidecar.until("the alias to be gone", |r| r.absent.contains("10.0.0.1:80")).await;
    save(&format!("{SHOP}        oops"));
    eventually("the complaint", async || get(bound.1, "/status").await.contains("\"current\": false").then_some(()))
        .await;
    save(SHOP);
    let service = eventually("the status", async || {
        let status: serde_json::Value = serde_json::from_str(&get(bound.1, "/status").await).unwrap();
        let objects = status["objects"].as_array()?.clone();
        objects.into_iter().find(|o| o["kind"] == "Service" && o["sidecars"]["current"] == 1)
    })
    .await;
    assert_eq!((&service["name"], &service["acceptedGeneration"]), (&"cart".into(), &3.into()));
    running.abort();
}
