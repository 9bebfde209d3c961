//! Answers that only announce another one (RFC 9110 section 15.2), for ever.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Method;
use selvedge_tests::{
    around::Around,
    client::{self, request},
    pair::HOST,
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// So many interim answers at once.
const MANY: usize = 100;

/// An application that answers 103 again and again, `at_once` of them, until nobody takes it; and how many take it now.
async fn endless(at_once: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = taken.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(hint(stream, at_once, count.clone()));
        }
    });
    (address, taken)
}

async fn hint(mut stream: TcpStream, at_once: usize, taken: Arc<AtomicUsize>) {
    if !matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {
        return;
    }
    taken.fetch_add(1, Relaxed);
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(at_once);
    while stream.write_all(&hints).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    taken.fetch_sub(1, Relaxed);
}

#[tokio::test]
async fn a_service_that_announces_for_ever_runs_into_the_timeout_and_is_left() {
    let (application, taken) = endless(1).await;
    let around = Around::launch(application, "http").await;
    around.mesh.write(
        "traffic.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: api, namespace: shop}\nspec:\n  \
         targetRef: {kind: Service, name: api}\n  timeouts: {backendRequest: 300ms}\n",
    );
    let entry = around.entry();
    wait::until_true("the try is given up", || async move {
        // Before the policy is there, nobody gives up.
        let call = client::call(entry, request(Method::GET, HOST, "/"));
        let answer = tokio::time::timeout(Duration::from_secs(3), call).await;
        matches!(answer, Ok(Ok(answer)) if answer.status == 504 && answer.reason() == "attempt_timeout")
    })
    .await;
    wait::until_true("the application is left", || async { taken.load(Relaxed) == 0 }).await;
}

#[tokio::test]
async fn a_service_that_announces_too_much_is_left_where_nothing_sets_a_time() {
    let (application, taken) = endless(MANY).await;
    let around = Around::launch(application, "http").await;
    let entry = around.entry();
    wait::until("it is given up", || async move {
        // The first requests may come before the sidecar knows where to.
        let call = client::call(entry, request(Method::GET, HOST, "/"));
        let answer = wait::within("an answer", call).await.ok()?;
        (answer.status == 502 && answer.reason() == "upstream_protocol_error").then_some(())
    })
    .await;
    wait::until_true("the application is left", || async { taken.load(Relaxed) == 0 }).await;
    let reason = "reason=\"upstream_protocol_error\"";
    around.api.metrics().until("selvedge_requests_total", &[reason], 1.0).await;
    let detail = wait::until("there is a line of it", async || {
        let log = around.api.access_log().into_iter();
        let line = log.rev().find(|line| line["selvedge.reason"] == "upstream_protocol_error")?;
        Some(line["selvedge.detail"].to_string())
    });
    assert!(detail.await.contains("too large"));
}
