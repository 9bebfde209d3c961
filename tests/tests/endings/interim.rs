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

/// An application that answers 103 again and again, until nobody takes it; and how many take it now.
async fn endless() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = taken.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(hint(stream, count.clone()));
        }
    });
    (address, taken)
}

async fn hint(mut stream: TcpStream, taken: Arc<AtomicUsize>) {
    if !matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {
        return;
    }
    taken.fetch_add(1, Relaxed);
    while stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    taken.fetch_sub(1, Relaxed);
}

#[tokio::test]
async fn a_service_that_announces_for_ever_runs_into_the_timeout_and_is_left() {
    let (application, taken) = endless().await;
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
