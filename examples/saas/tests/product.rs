//! The product without a mesh: seven services that call each other directly.

#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use clap::Parser;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use selvedge_saas::{Running, SEEDED_PASSWORD, SEEDED_USER, Service, start};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The services by their command line, as a shell would start them.
#[derive(Parser)]
struct Command {
    #[command(subcommand)]
    service: Service,
}

async fn service(arguments: &str) -> Running {
    let words = std::iter::once("saas").chain(arguments.split_whitespace());
    start(Command::try_parse_from(words).expect("valid arguments").service).await.expect("a running service")
}

struct Product {
    ui: Running,
    metrics_log: Running,
    others: Vec<Running>,
    folder: TempDir,
}

async fn product(content_flags: &str) -> Product {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display();
    let metrics_log = service(&format!("metrics-log --file {path}/metrics.log")).await;
    let log = format!("--metrics-log {}", metrics_log.address);
    let data = service(&format!("data --database {path}/saas.db --seed {log}")).await;
    let auth = service(&format!("auth --data {} {log}", data.address)).await;
    let content = service(&format!("content --data {} {log} {content_flags}", data.address)).await;
    let reports = service(&format!("reports --data {} --auth {} {log}", data.address, auth.address)).await;
    let third_party = service("third-party").await;
    let integrations = service(&format!("integrations --third-party {} {log}", third_party.address)).await;
    let ui = service(&format!(
        "ui --auth {} --content {} --reports {} --integrations {} --ui-version v2 {log}",
        auth.address, content.address, reports.address, integrations.address
    ))
    .await;
    Product { ui, metrics_log, others: vec![data, auth, content, reports, third_party, integrations], folder }
}

async fn call(address: SocketAddr, request: http::request::Builder, body: &str) -> (http::response::Parts, String) {
    let path = request.uri_ref().expect("a path").to_string();
    let request = request.uri(format!("http://{address}{path}")).body(Full::new(Bytes::from(body.to_owned())));
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let (head, body) = client.request(request.expect("a request")).await.expect("an answer").into_parts();
    (head, String::from_utf8(body.collect().await.expect("a body").to_bytes().to_vec()).expect("text"))
}

async fn login(ui: SocketAddr, tenant: &str, password: &str) -> (StatusCode, String) {
    let body = json!({ "tenant": tenant, "user": SEEDED_USER, "password": password }).to_string();
    let (head, body) = call(ui, Request::post("/login"), &body).await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    (head.status, body["token"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_user_signs_in_reads_and_shares() {
    let product = product("").await;
    let ui = product.ui.address;
    let (status, token) = login(ui, "acme", SEEDED_PASSWORD).await;
    assert_eq!(status, StatusCode::OK);

    let bearer = format!("Bearer {token}");
    let (head, html) = call(ui, Request::get("/t/acme").header("authorization", &bearer), "").await;
    assert_eq!(head.status, StatusCode::OK, "{html}");
    assert_eq!(head.headers["x-ui-version"], "v2");
    assert!(html.contains("How we bill"), "{html}");
    assert!(html.contains("Report goes to ada@acme.example"), "nothing denies the call without a mesh: {html}");

    let (head, body) = call(ui, Request::post("/t/acme/articles/1/share").header("authorization", &bearer), "").await;
    assert_eq!((head.status, &*body), (StatusCode::CREATED, r#"{"state":"delivered","receipt":1}"#));
}

#[tokio::test]
async fn nobody_gets_in_without_the_tenants_own_session() {
    let product = product("").await;
    let ui = product.ui.address;
    assert_eq!(login(ui, "acme", "guess").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(login(ui, "nobody", SEEDED_PASSWORD).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(call(ui, Request::get("/t/acme"), "").await.0.status, StatusCode::UNAUTHORIZED);

    let (_, token) = login(ui, "acme", SEEDED_PASSWORD).await;
    let stolen = Request::get("/t/globex").header("cookie", format!("theme=dark; session={token}"));
    assert_eq!(call(ui, stolen, "").await.0.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_failing_content_fails_the_page_and_health_stays_up() {
    let product = product("--fail-percent 100").await;
    let ui = product.ui.address;
    let (_, token) = login(ui, "acme", SEEDED_PASSWORD).await;
    let page = Request::get("/t/acme").header("cookie", format!("session={token}"));
    let (head, body) = call(ui, page, "").await;
    assert_eq!(head.status, StatusCode::BAD_GATEWAY);
    assert!(body.contains("content answered 503"), "{body}");
    for service in &product.others {
        assert_eq!(call(service.address, Request::get("/healthz"), "").await.0.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn every_service_reports_to_the_log_and_stops_when_told() {
    let product = product("").await;
    let ui = product.ui.address;
    let (_, token) = login(ui, "acme", SEEDED_PASSWORD).await;
    let bearer = format!("Bearer {token}");
    call(ui, Request::get("/t/acme").header("authorization", &bearer), "").await;
    call(ui, Request::post("/t/acme/articles/1/share").header("authorization", &bearer), "").await;

    let file = product.folder.path().join("metrics.log");
    let sources = ["ui/0", "content/0", "auth/0", "data/0", "reports/0", "integrations/0"];
    let complete = async {
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if sources.iter().all(|source| text.contains(source)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), complete).await.expect("a line of every service");

    product.ui.stop().await.expect("the ui ends well");
    for service in product.others {
        service.stop().await.expect("a good end");
    }
    product.metrics_log.stop().await.expect("the log is written");
}
