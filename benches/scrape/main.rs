//! What a scrape costs a sidecar: CPU of the whole process for one, in every form in which its metrics can be had.
//!
//! The series are those of a caller of many services, each of which it has called. Nothing else happens meanwhile. Guarantees:
//! nothing remains when it ends.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Parser;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use selvedge_benches::{
    application,
    client::{self, Ask, Connection},
    pair::{Extent, Pair, Plan},
    run,
    spread::Spread,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

const PATIENCE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 5;

/// Name, path, and what is asked for by `Accept` and `Accept-Encoding`.
const FORMS: [(&str, &str, &str, &str); 6] = [
    ("text", "/metrics", "text/plain", ""),
    ("text, gzip", "/metrics", "text/plain", "gzip"),
    ("OpenMetrics", "/metrics", OPEN_METRICS, ""),
    ("OpenMetrics, gzip", "/metrics", OPEN_METRICS, "gzip"),
    ("as Istio's", "/metrics/istio", "text/plain", ""),
    ("as Linkerd's", "/metrics/linkerd", "text/plain", ""),
];
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

/// Measure the CPU time of a scrape of a sidecar.
#[derive(Parser)]
#[command(name = "scrape")]
struct Arguments {
    /// A fifth of the scrapes.
    #[arg(long)]
    quick: bool,
    /// Services that the sidecar calls; each adds to the series.
    #[arg(long, default_value_t = 41)]
    services: usize,
    /// Scrapes in each of five rounds, of each form.
    #[arg(long, default_value_t = 50)]
    scrapes: u32,
    /// Folder of `selvedge` and `selvedge-proxy`; that of this program when absent.
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let binaries = run::binaries(arguments.binaries.as_deref())?;
    let scrapes = if arguments.quick { arguments.scrapes.div_ceil(5) } else { arguments.scrapes };
    let folder = tempfile::Builder::new().prefix("selvedge-bench-").tempdir().context("a temporary folder")?;
    let plan = Plan {
        folder: folder.path().to_owned(),
        binaries: &binaries,
        everything: true,
        application: [application::start(false).await?, application::start(true).await?],
        extent: Extent { services: arguments.services, ..Extent::default() },
        under: &[],
    };
    run::unless_told_to_end(async {
        let mut pair = plan.start().await?;
        call_all(&mut pair).await?;
        let log = fs::read_to_string(folder.path().join("web/web.log"))?;
        let address = log.split("metrics=").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address: SocketAddr = address.context("the sidecar does not say where its metrics are")?.parse()?;
        println!("CPU of one scrape, {ROUNDS} rounds of {scrapes}:");
        for (name, path, accept, coding) in FORMS {
            let mut scraper = Scraper::connect(address).await?;
            let (content, _) = scraper.scrape(path, accept, "").await?;
            let series = String::from_utf8(content.to_vec())?.lines().filter(|line| !line.starts_with('#')).count();
            let mut sent = 0;
            let mut costs = Vec::new();
            for _ in 0..ROUNDS {
                let before = pair.sidecars[0].cpu_nanos();
                for _ in 0..scrapes {
                    let (content, fields) = scraper.scrape(path, accept, coding).await?;
                    ensure!(coding.is_empty() != fields.contains_key("content-encoding"), "{name}: another coding");
                    sent = content.len();
                }
                costs.push((pair.sidecars[0].cpu_nanos() - before) as f64 / 1e6 / f64::from(scrapes));
            }
            let Spread { least, median, greatest } = Spread::new(costs).context("no round")?;
            println!("  {name:18} {median:6.2} ms ({least:.2}-{greatest:.2}), {series} series, {} KiB", sent >> 10);
        }
        Ok(())
    })
    .await
}

/// Calls every service once, over the sidecar that is then scraped.
async fn call_all(pair: &mut Pair) -> anyhow::Result<()> {
    let start = Instant::now();
    for service in pair.services.clone() {
        while let Err(error) = client::probe(service, Ask::Http1).await {
            pair.sidecars.iter_mut().try_for_each(|sidecar| sidecar.check())?;
            ensure!(start.elapsed() < PATIENCE, "a service does not answer: {error:#}");
            sleep(Duration::from_millis(50)).await;
        }
        let (mut connection, driver) = Connection::open(service, Ask::Http1).await?;
        connection.get().await?;
        drop(connection);
        driver.await?;
    }
    Ok(())
}

/// One kept connection, as Prometheus has.
struct Scraper(SendRequest<Empty<Bytes>>);

impl Scraper {
    async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn scrape(&mut self, path: &str, accept: &str, coding: &str) -> anyhow::Result<(Bytes, HeaderMap)> {
        let request = Request::get(path).header("host", "sidecar").header("accept", accept);
        let request = if coding.is_empty() { request } else { request.header("accept-encoding", coding) };
        let answer = self.0.send_request(request.body(Empty::new())?).await?;
        ensure!(answer.status() == StatusCode::OK, "{path} is answered with {}", answer.status());
        let (head, content) = answer.into_parts();
        Ok((content.collect().await?.to_bytes(), head.headers))
    }
}
