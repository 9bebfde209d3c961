//! How calls end, in four words at both ends, and that each word is there before anything of its kind has happened.

use std::{net::SocketAddr, time::Duration};

use http::Method;
use selvedge_tests::{
    around::Around,
    client::{self, Connection, request},
    load::{Load, Plan},
    mesh::{Mesh, Workload},
    pair::{DESTINATION, HOST, Pair},
    upstream::Scenario,
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// An application that breaks the answer to `/half` off, answers `/failing` with 500, `/silent` never, and all else with 200;
/// it says whether it was asked for what it does not answer.
async fn application() -> (SocketAddr, watch::Receiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (silent, is_silent) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, silent.clone()));
        }
    });
    (address, is_silent)
}

async fn serve(mut stream: TcpStream, silent: watch::Sender<bool>) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => asked.push(byte),
            Err(_) => return,
        }
    }
    let answer = match String::from_utf8_lossy(&asked).split(' ').nth(1) {
        Some("/half") => "200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        Some("/failing") => "500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        Some("/silent") => {
            silent.send_replace(true);
            let _ = stream.read_u8().await;
            return;
        }
        _ => "200 OK\r\nContent-Length: 2\r\n\r\nok",
    };
    let answer = answer.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
}

const DENY: &str = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: no, namespace: shop}\n\
                    spec: {action: DENY, rules: [{to: [{paths: [/denied]}]}]}\n";

const OUTCOMES: [&str; 4] = ["success", "failure", "refused", "cancelled"];

/// Labels of what ended in this way between `web` and `api`.
fn edge(outcome: &str) -> [String; 3] {
    [
        format!("outcome=\"{outcome}\""),
        "destination_service=\"shop/api\"".into(),
        "source_identity=\"spiffe://mesh.local/ns/shop/sa/web\"".into(),
    ]
}

#[tokio::test]
async fn a_call_has_the_same_outcome_at_both_ends() {
    let (address, mut is_silent) = application().await;
    let around = Around::start(address, "http").await;
    around.mesh.write("deny.yaml", DENY);
    let entry = around.entry();
    let asks = async |path: &str| client::call(entry, request(Method::GET, HOST, path)).await.ok();
    let status = async |path: &str| asks(path).await.map(|answer| answer.status.as_u16());
    wait::until_true("calls pass and are denied", || async {
        status("/whole").await == Some(200) && status("/denied").await == Some(403)
    })
    .await;
    let sidecars = [&around.web, &around.api];
    let mut before = Vec::new();
    for sidecar in sidecars {
        for outcome in OUTCOMES {
            let labels = edge(outcome);
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            before.push(sidecar.metrics().so_far("selvedge_edge_requests_total", &labels).await);
        }
    }
    assert_eq!(status("/whole").await, Some(200));
    assert_eq!(status("/failing").await, Some(500));
    assert_eq!(status("/denied").await, Some(403));
    assert!(asks("/half").await.is_none(), "the answer breaks off");
    let mut gone = Connection::open(entry).await.unwrap();
    tokio::select! {
        answer = gone.send(request(Method::GET, HOST, "/silent")) => panic!("nobody answers: {answer:?}"),
        asked = wait::within("the application is asked", is_silent.wait_for(|silent| *silent)) => drop(asked.unwrap()),
    }
    drop(gone);
    let more = [1.0, 2.0, 1.0, 1.0];
    for (sidecar, before) in sidecars.iter().zip(before.chunks(OUTCOMES.len())) {
        for ((outcome, more), before) in OUTCOMES.iter().zip(more).zip(before) {
            let labels = edge(outcome);
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            sidecar.metrics().until("selvedge_edge_requests_total", &labels, before + more).await;
        }
    }
    let broken = ["outcome=\"failure\"", "response_code=\"200\"", "reason=\"upstream_reset\""];
    around.web.metrics().until("selvedge_requests_total", &broken, 1.0).await;
}

#[tokio::test]
async fn what_may_be_called_is_there_at_zero_and_its_first_failure_counts() {
    let mesh = Mesh::start().await;
    mesh.service("shop/api", 80, 8080, "http");
    mesh.service("shop/store", 6000, 6000, "tcp");
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION).calls("shop/store:6000")).await;
    let metrics = web.metrics();
    let [api, store] = ["api", "store"].map(|name| format!("destination_service=\"shop/{name}\""));
    for outcome in OUTCOMES.map(|outcome| format!("outcome=\"{outcome}\"")) {
        metrics.until("selvedge_edge_requests_total", &[&api, &outcome], 0.0).await;
        metrics.until("selvedge_edge_connections_total", &[&store, &outcome], 0.0).await;
    }
    metrics.until("selvedge_policy_actions_total", &["policy=\"\"", "action=\"denied\""], 0.0).await;
    let nobody = ["direction=\"outbound\"", "reason=\"no_endpoints\""];
    metrics.until("selvedge_reasons_total", &nobody, 0.0).await;
    metrics.absent("selvedge_requests_total", &[]).await;

    let answer = client::call(web.outbound(DESTINATION), request(Method::GET, HOST, "/")).await.unwrap();
    assert_eq!(answer.reason(), "no_endpoints");
    client::exchange(web.outbound("shop/store:6000"), b"", Duration::from_secs(10)).await;
    for (outcome, count) in [("failure", 1.0), ("success", 0.0)] {
        let outcome = format!("outcome=\"{outcome}\"");
        metrics.until("selvedge_edge_requests_total", &[&api, &outcome], count).await;
        metrics.until("selvedge_edge_connections_total", &[&store, &outcome], count).await;
    }
    metrics.until("selvedge_reasons_total", &nobody, 2.0).await;
    metrics.until("selvedge_requests_total", &["outcome=\"failure\"", "tls=\"\""], 1.0).await;
}

#[tokio::test]
async fn a_flood_of_denials_hides_no_other_refusal_from_the_log() {
    let pair = Pair::start().await;
    pair.mesh.write("deny.yaml", DENY);
    pair.until_status("/denied", 403).await;
    let flood = Plan::new(pair.entry(), HOST, "/denied");
    let flood = Load::start(&flood, 4, |answer| (answer.status != 403).then(|| answer.text()));
    wait::until_true("lines are left out", || async {
        pair.api.metrics().value("selvedge_access_log_suppressed_lines_total", &[]).await > 0.0
    })
    .await;
    pair.upstream.play(Scenario::Close);
    assert_eq!(pair.get("/").await.reason(), "upstream_reset");
    wait::until_true("it is in the log", || async {
        pair.api.access_log().iter().any(|line| line["selvedge.reason"] == "upstream_reset")
    })
    .await;
    flood.stop().await.assert_flawless(50);
}
