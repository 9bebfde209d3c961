use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::{JoinSet, LocalSet},
};

use super::*;
use crate::{
    config::RuntimeConfig,
    surroundings::captured::Captured,
    telemetry::{Direction, Hop, RetryOutcome, TelemetrySettings, WorkerSeen},
};

struct Desk {
    address: std::net::SocketAddr,
    ready: watch::Sender<bool>,
    surroundings: watch::Sender<Surroundings>,
    _config: watch::Sender<InForce>,
    drained: mpsc::Receiver<()>,
    left: mpsc::Receiver<Duration>,
    phase: watch::Sender<Phase>,
    telemetry: Telemetry,
}

async fn desk(scope: Scope) -> Desk {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ready, is_ready) = watch::channel(false);
    let config = Arc::new(RuntimeConfig { generation: 7, ..RuntimeConfig::default() });
    let (config_sent, config) = watch::channel(InForce { config, ..InForce::default() });
    let (drain, drained) = mpsc::channel(1);
    let telemetry = Telemetry::new(&TelemetrySettings::default()).unwrap();
    let (leave, left) = mpsc::channel(1);
    let (phases, phase) = watch::channel(Phase::Serving);
    let (surroundings, found) = watch::channel(Surroundings::default());
    let state = AdminState {
        telemetry: telemetry.clone(),
        application: None,
        created_timestamps: false,
        ready: is_ready,
        surroundings: found,
        config,
        drain,
        leave,
        phase,
    };
    tokio::spawn(serve(listener, state, scope));
    Desk { address, ready, surroundings, _config: config_sent, drained, left, phase: phases, telemetry }
}

impl Desk {
    async fn ask(&self, request: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn status(&self, line: &str) -> u16 {
        let answer = self.ask(&format!("{line} HTTP/1.1\r\nHost: localhost:1\r\n\r\n")).await;
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn readiness_follows_its_switch() {
    let desk = desk(Scope::Metrics).await;
    assert_eq!((desk.status("GET /ready").await, desk.status("GET /live").await), (503, 200));
    desk.ready.send(true).unwrap();
    assert_eq!(desk.status("GET /ready").await, 200);
}

#[tokio::test]
async fn who_waits_for_capture_is_told_so() {
    let desk = desk(Scope::Metrics).await;
    let ask = async || desk.ask("GET /ready HTTP/1.1\r\nHost: 10.0.0.1:15020\r\n\r\n").await;
    assert!(ask().await.ends_with("\r\n\r\nnot ready\n"));
    desk.surroundings.send_modify(|found| found.captured = Captured::Not("no rules are here".into()));
    assert!(ask().await.ends_with("\r\n\r\nnot ready: no rules are here\n"));
    desk.surroundings.send_modify(|found| found.captured = Captured::Yes);
    assert!(ask().await.ends_with("\r\n\r\nnot ready\n"), "for another reason");
}

#[tokio::test]
async fn the_metrics_port_shows_metrics_and_nothing_that_matters() {
    let desk = desk(Scope::Metrics).await;
    let answer = desk.ask("GET /metrics HTTP/1.1\r\nHost: 10.0.0.1:15020\r\n\r\n").await;
    assert!(answer.contains("selvedge_build_info{") && answer.contains("version=0.0.4"), "{answer}");
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, is_open) in [
        (prometheus, true),
        ("application/openmetrics-text", true),
        ("text/plain, application/openmetrics-text;q=0.5", false),
        ("application/openmetrics-text;q=0", false),
        ("*/*", false),
    ] {
        let answer = desk.ask(&format!("GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n")).await;
        let kind = if is_open { "openmetrics-text; version=1.0.0" } else { "text/plain; version=0.0.4" };
        assert!(answer.contains(kind) && answer.ends_with("# EOF\n") == is_open, "{accept}: {answer}");
    }
    let view = desk.ask("GET /metrics/istio HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(view.starts_with("HTTP/1.1 200") && view.contains("version=0.0.4"), "{view}");
    assert_eq!((desk.status("GET /metrics/linkerd").await, desk.status("POST /metrics/linkerd").await), (200, 405));
    for line in ["GET /config", "POST /drain", "POST /leave", "GET /", "GET /metrics/../config", "GET /metrics/envoy"] {
        assert_eq!(desk.status(line).await, 404, "{line}");
    }
}

#[tokio::test]
async fn a_drain_wants_post_and_happens_once() {
    let mut desk = desk(Scope::Admin).await;
    assert_eq!(desk.status("GET /drain").await, 405);
    assert!(desk.drained.try_recv().is_err());
    assert_eq!((desk.status("POST /drain").await, desk.status("POST /drain").await), (202, 202));
    assert!(desk.drained.try_recv().is_ok() && desk.drained.try_recv().is_err());
    let from_a_page = "POST /drain HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test\r\n\r\n";
    assert!(desk.ask(from_a_page).await.starts_with("HTTP/1.1 403"));
    assert!(desk.drained.try_recv().is_err());
}

#[tokio::test]
async fn who_leaves_is_told_when_callers_have_heard() {
    let mut desk = desk(Scope::Admin).await;
    assert_eq!((desk.status("GET /leave").await, desk.status("POST /leave?for=5").await), (405, 400));
    assert_eq!(desk.status("POST /leave?soon").await, 400);
    assert!(desk.left.try_recv().is_err());
    assert_eq!((desk.status("POST /leave?for=1m").await, desk.status("POST /leave").await), (202, 202));
    assert_eq!(desk.left.try_recv(), Ok(Duration::from_secs(60)));
    assert!(desk.left.try_recv().is_err(), "and not twice");
    desk.phase.send_replace(Phase::Leaving);
    assert_eq!(desk.status("POST /leave").await, 202);
    assert_eq!(desk.left.try_recv(), Ok(crate::drain::LEAVE));
    desk.phase.send_replace(Phase::Draining);
    assert_eq!(desk.status("POST /leave").await, 200);
}

#[tokio::test]
async fn the_admin_port_shows_the_configuration_to_loopback_names_only() {
    let desk = desk(Scope::Admin).await;
    for host in ["localhost", "127.0.0.1:15000", "[::1]:15000", "LOCALHOST:1"] {
        let answer = desk.ask(&format!("GET /config HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"generation\": 7"), "{host}: {answer}");
    }
    for bad in
        ["Host: evil.test", "Host: localhost.evil.test", "Host: localhost\r\nHost: evil.test", "Host: 10.0.0.1", "X: y"]
    {
        let answer = desk.ask(&format!("GET /config HTTP/1.1\r\n{bad}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{bad}: {answer}");
    }
    let absolute = desk.ask("GET http://evil.test/config HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(absolute.starts_with("HTTP/1.1 403"), "{absolute}");
}

#[tokio::test]
async fn head_has_no_body_and_other_methods_are_refused() {
    let desk = desk(Scope::Metrics).await;
    let head = desk.ask("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    let post = desk.ask("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405") && post.contains("allow: GET, HEAD"), "{post}");
}

/// What each worker counts while it is scraped.
const EVENTS: u32 = 1_000;

/// A worker that is busy for up to two milliseconds whenever it is asked. The receiver hears when it has counted all.
fn busy_worker(telemetry: Telemetry, seed: u64) -> oneshot::Receiver<()> {
    let (done, counted) = oneshot::channel();
    std::thread::spawn(move || {
        fastrand::seed(seed);
        let work = async move {
            let worker = telemetry.worker();
            drop(telemetry); // whose end is the worker's
            let flushes = tokio::task::spawn_local(worker.clone().serve_flushes(|| {
                std::thread::sleep(Duration::from_micros(fastrand::u64(..2_000)));
                WorkerSeen::default()
            }));
            for _ in 0..EVENTS {
                worker.retry("shop/web", RetryOutcome::Success);
                worker.connection_opened(Direction::Inbound, Hop::Mtls);
                sleep(Duration::from_micros(500)).await;
            }
            let _ = done.send(());
            flushes.await.unwrap();
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(LocalSet::new().run_until(work));
    });
    counted
}

/// How a scraper ends its scrape.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Fin,
    Rst,
    HalfClose,
    Timeout,
}

/// Scrapes, and leaves after `patience`.
async fn scrape(address: std::net::SocketAddr, ending: Ending, patience: Duration) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    match ending {
        Ending::Timeout => drop(timeout(patience, socket.read_to_end(&mut answer)).await),
        Ending::Fin => sleep(patience).await,
        Ending::Rst => {
            sleep(patience).await;
            socket.set_zero_linger().unwrap();
        }
        Ending::HalfClose => {
            sleep(patience).await;
            // The answer may have come, and the end of the connection with it.
            let _ = socket.shutdown().await;
            let _ = socket.read_to_end(&mut answer).await;
        }
    }
}

#[tokio::test]
async fn scrapes_that_end_early_cost_no_count() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let desk = desk(Scope::Metrics).await;
    let workers = [1, 2].map(|n| busy_worker(desk.telemetry.clone(), seed.wrapping_add(n)));
    for _ in 0..125 {
        let mut scrapes = JoinSet::new();
        for _ in 0..8 {
            let ending = [Ending::Fin, Ending::Rst, Ending::HalfClose, Ending::Timeout][chance.usize(..4)];
            scrapes.spawn(scrape(desk.address, ending, Duration::from_micros(chance.u64(..6_000))));
        }
        timeout(HEAD_LIMIT, scrapes.join_all()).await.expect("a scrape that is over");
    }
    for counted in workers {
        counted.await.unwrap();
    }
    let text = desk.telemetry.render().await;
    let retries = "selvedge_retries_total{destination_service=\"shop/web\",outcome=\"success\"}";
    for series in [retries, "selvedge_tcp_connections_open{direction=\"inbound\"}"] {
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(series)).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert!(lines[0].ends_with(&format!(" {}", 2 * EVENTS)), "{lines:?}");
    }
}
