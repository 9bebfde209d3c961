//! The life of a pod: a sidecar that is told that its application is gone, or leaves, costs nobody a request.

use std::time::Duration;

use http::Method;
use selvedge_tests::{
    around::talk,
    client::{self, Connection, expect_bytes, request},
    mesh::{Mesh, Sidecar, Workload},
    pair::{DESTINATION, HOST, Pair},
    process::binary,
    upstream::{Scenario, Upstream},
    wait,
};
use tokio::{io::AsyncWriteExt, net::TcpListener, time::Instant};

/// How soon a sidecar ends whose application is gone. Tests wait ten times as long.
const END: Duration = Duration::from_secs(1);

/// As the injector writes it.
const GONE: &str = "sigterm: applicationGone\n";

/// Checks a measured time against ten times its goal, and says what it was.
fn assert_within(what: &str, took: Duration, goal: Duration) {
    println!("{what}: {took:?}, goal {goal:?}");
    assert!(took < goal * 10, "{what} took {took:?}, more than ten times {goal:?}");
}

#[tokio::test]
async fn a_job_that_was_never_called_is_followed_at_once() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "http");
    let _api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address())).await;
    let mut job = mesh.sidecar(Workload::new("shop/job").calls(DESTINATION).with(GONE)).await;
    let entry = job.outbound(DESTINATION);
    wait::until_true("the service can be reached", || client::answers(entry)).await;
    // A pool's connections, idle when their process ended. A network would close them; here the peer just stays.
    let idle = [Connection::open(entry).await.unwrap(), Connection::open_http2(entry).await.unwrap()];
    let start = Instant::now();
    job.process().terminate();
    assert!(job.process().ended().await.success());
    assert_within("the end of a job's sidecar", start.elapsed(), END);
    drop(idle);
}

#[tokio::test]
async fn what_is_in_flight_when_the_application_is_gone_is_still_answered() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "http");
    let mut api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address()).with(GONE)).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION)).await;
    let entry = web.outbound(DESTINATION);
    wait::until_true("the service can be reached", || client::answers(entry)).await;
    upstream.play(Scenario::Slow(Duration::from_millis(1500)));
    let (called, served) = (&upstream, upstream.served());
    let call = tokio::spawn(async move {
        client::call(entry, request(Method::GET, HOST, "/")).await.map_err(|error| error.to_string())
    });
    wait::until_true("the request is under way", || async move { called.served() > served }).await;
    api.process().terminate();
    let inbound = api.inbound(8080);
    wait::until_true("no new connection is taken", || async move { !client::accepts(inbound).await }).await;
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let start = Instant::now();
    assert!(api.process().ended().await.success());
    assert_within("the end after the last answer", start.elapsed(), END);
}

/// Runs the preStop hook of a sidecar; how long it took.
async fn leave(sidecar: &Sidecar, arguments: &[&str]) -> Duration {
    let mut command = tokio::process::Command::new(binary("selvedge-proxy"));
    let text = std::fs::read_to_string(sidecar.home().join("sidecar.yaml")).unwrap();
    command.arg("leave").args(arguments).env("SELVEDGE_CONFIG", text);
    let start = Instant::now();
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    start.elapsed()
}

#[tokio::test]
async fn who_leaves_is_not_ready_goes_on_serving_and_tells_callers_later() {
    let pair = Pair::start().await;
    let mut caller = Connection::open(pair.entry()).await.unwrap();
    let mut own = Connection::open_http2(pair.entry()).await.unwrap();
    let hook = async { leave(&pair.api, &["--for", "2s"]).await };
    let meanwhile = async {
        wait::until_true("readiness is off", || async { !pair.api.is_ready().await }).await;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            let answer = caller.call(request(Method::GET, HOST, "/")).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (took, ()) = tokio::join!(hook, meanwhile);
    assert!((2..10).contains(&took.as_secs()), "{took:?}");
    // The calls of the application that leaves go on, on the connection that it has.
    leave(&pair.web, &["--for", "1s"]).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(own.is_open());
    assert_eq!(own.call(request(Method::GET, HOST, "/")).await.unwrap().status, 200);
}

#[tokio::test]
async fn who_was_never_called_leaves_at_once() {
    let mesh = Mesh::start().await;
    let job = mesh.sidecar(Workload::new("shop/job").with(GONE)).await;
    assert_within("leaving of a workload that nobody calls", leave(&job, &[]).await, Duration::from_millis(400));
    assert!(!job.is_ready().await);
    let output = std::process::Command::new(binary("selvedge-proxy"))
        .args(["leave", "--config-env", "SELVEDGE_NO_SUCH_VARIABLE"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("$SELVEDGE_NO_SUCH_VARIABLE"), "{message}");
}

#[tokio::test]
async fn an_open_connection_to_an_application_that_is_gone_does_not_hold_up_the_end() {
    let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mesh = Mesh::start().await;
    mesh.service("shop/api", 80, 8080, "tcp");
    let serving = Workload::new("shop/api").serves(8080, application.local_addr().unwrap()).with(GONE);
    let mut gone = mesh.sidecar(serving).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION)).await;
    let entry = web.outbound(DESTINATION);
    // A client of a database keeps its connection, and does not look at it before it has something to ask.
    let mut client = client::connect(entry).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let (mut served, _) = wait::within("the application is called", application.accept()).await.unwrap();
    expect_bytes(&mut served, b"hello").await;
    served.write_all(b"bye").await.unwrap();
    drop((served, application));
    let start = Instant::now();
    gone.process().terminate();
    assert!(gone.process().ended().await.success());
    assert_within("the end with a connection that its caller keeps", start.elapsed(), END);
    assert_eq!(talk(&mut client, b"", "bye", 1).await, "bye", "what it said last has come");
}
