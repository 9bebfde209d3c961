//! Scraping: gzip; the application's metrics behind the sidecar's, by identity, and by address, under STRICT; by a real Prometheus
//! where there is one.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderValue, Method, header::ACCEPT_ENCODING};
use selvedge_tests::{
    client::{self, request},
    mesh::{Mesh, Sidecar, Workload},
    prometheus::{Job, Prometheus},
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};

const METRICS: &str = "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\njobs_total{queue=\"a\"} 42\n\
                       # TYPE selvedge_xds_connected gauge\nselvedge_xds_connected 99\n";

/// An application that tells these metrics at `/stats`, and 404 elsewhere.
async fn application(metrics: &watch::Sender<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = metrics.subscribe();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let text = metrics.borrow().clone();
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let read = stream.read(&mut asked).await.unwrap_or(0);
                let answer = match asked[..read].starts_with(b"GET /stats ") {
                    true => format!(
                        "200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n{text}",
                        text.len()
                    ),
                    false => "404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                };
                let answer = answer.replacen("\r\n", "\r\nConnection: close\r\n", 1);
                let _ = stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await;
            });
        }
    });
    address
}

async fn scrape(sidecar: &Sidecar) -> String {
    sidecar.metrics().text().await
}

#[tokio::test]
async fn the_applications_metrics_stand_behind_the_sidecars_and_never_harm_them() {
    let (mesh, metrics) = (Mesh::start().await, watch::Sender::new(METRICS.to_owned()));
    let address = application(&metrics).await;
    let merged = format!("applicationMetrics: {{port: {}, path: /stats}}\n", address.port());
    let api = mesh.sidecar(Workload::new("shop/api").serves(8080, address).with(&merged)).await;
    let text = scrape(&api).await;
    assert!(text.contains("jobs_total{queue=\"a\"} 42") && text.contains("selvedge_build_info{"), "{text}");
    assert_eq!(text.matches("\nselvedge_xds_connected ").count(), 1, "{text}");
    assert!(text.contains("\nselvedge_xds_connected 1\n"), "{text}");

    metrics.send_replace("jobs_total{queue=\"a\"} 43\n<html>\n".to_owned());
    let text = scrape(&api).await;
    assert!(!text.contains("jobs_total") && text.contains("selvedge_build_info{"), "{text}");
    api.metrics().value("selvedge_application_metrics_errors_total", &["error=\"malformed\""]).await;
}

#[tokio::test]
async fn metrics_come_in_gzip_for_who_asks_for_it() {
    let mesh = Mesh::start().await;
    let sidecar = mesh.sidecar(Workload::new("shop/web")).await;
    for address in [sidecar.metrics().address(), mesh.metrics().address()] {
        let ask = async |coding: &'static str| {
            let mut asked = request(Method::GET, "localhost", "/metrics");
            asked.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(coding));
            client::call(address, asked).await.expect("metrics")
        };
        let (plain, short) = (ask("identity").await, ask("gzip").await);
        assert_eq!((plain.header("content-encoding"), short.header("content-encoding")), ("", "gzip"));
        assert!(short.body.starts_with(&[0x1f, 0x8b]), "{:?}", &short.body[..2]);
        assert!(short.body.len() * 3 < plain.body.len(), "{} of {} bytes", short.body.len(), plain.body.len());
    }
}

#[tokio::test]
async fn prometheus_scrapes_a_strict_workload_from_outside_and_inside() {
    let Some(program) = Prometheus::installed() else { return };
    let (mesh, metrics) = (Mesh::start().await, watch::Sender::new(METRICS.to_owned()));
    mesh.service("shop/api", 80, 8080, "http");
    let address = application(&metrics).await;
    let bootstrap = format!(
        "applicationMetrics: {{port: {}, path: /stats}}\nprobes: [{{port: 7070, path: /stats, from: 127.0.0.0/8}}]\n",
        address.port()
    );
    let workload = Workload::new("shop/api").serves(8080, address).serves(7070, address).with(&bootstrap);
    let api = mesh.sidecar(workload).await;
    let inside = mesh.sidecar(Workload::new("monitoring/prometheus").calls("shop/api:80")).await;
    let entry = inside.outbound("shop/api:80");
    wait::until_true("the service can be reached", || async move {
        client::get(entry, "/stats").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    let job = |name, target, path| Job { name, targets: vec![target], path };
    let jobs = [
        job("merged", api.metrics().address(), "/metrics"),
        job("refused", api.inbound(8080), "/stats"),
        job("address", api.inbound(7070), "/stats"),
        job("elsewhere", api.inbound(7070), "/metrics"),
        job("identity", entry, "/stats"),
    ];
    let prometheus = Prometheus::start(&program, mesh.folder(), &jobs);
    for job in ["merged", "address", "identity"] {
        prometheus.until(&format!("jobs_total{{job=\"{job}\"}}"), "42").await;
        prometheus.until(&format!("up{{job=\"{job}\"}}"), "1").await;
    }
    prometheus.until("selvedge_build_info{job=\"merged\"}", "1").await;
    prometheus.until("up{job=\"refused\"}", "0").await;
    prometheus.until("up{job=\"elsewhere\"}", "0").await;

    // A text that Prometheus does not understand costs nothing but itself.
    metrics.send_replace("no metrics at all\n".to_owned());
    let errors = "selvedge_application_metrics_errors_total{job=\"merged\",error=\"malformed\"} > bool 0";
    prometheus.until(errors, "1").await;
    prometheus.until("up{job=\"merged\"}", "1").await;
    prometheus.until("up{job=\"identity\"}", "0").await;
    tokio::time::timeout(Duration::from_secs(5), scrape(&api)).await.expect("in time");
}
