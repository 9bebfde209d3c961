//! Answers that come before the request was read, over HTTP/2 from the caller to the application.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_tests::{
    around::Around,
    client::{Connection, request},
    pair::HOST,
    wait,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// How often each row is tried.
const TRIES: usize = 5;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What is uploaded, and what has to be answered.
const ROWS: [(&str, usize, u16); 4] =
    [("/early", 5 * MIB, 413), ("/early", 128 * KIB, 413), ("/early", 0, 413), ("/late", 20 * MIB, 403)];

/// An application that speaks HTTP/2.
struct Application {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Application {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an ephemeral port");
        let address = listener.local_addr().expect("the bound address");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Answers what is uploaded for `/early` at once, for `/late` when a MiB was read. The rest is thrown away with the stream, which
/// is reset with NO_ERROR (RFC 9113 section 8.1).
async fn answer(mut asked: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, mut left) = match asked.uri().path() {
        "/early" => (StatusCode::PAYLOAD_TOO_LARGE, 0),
        "/late" => (StatusCode::FORBIDDEN, MIB),
        _ => (StatusCode::OK, 0),
    };
    while left > 0 {
        let Some(Ok(frame)) = asked.body_mut().frame().await else { break };
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
    let mut answer = Response::new(Full::new(Bytes::from_static(b"never")));
    *answer.status_mut() = status;
    Ok(answer)
}

/// Status and content of the answer to an upload of this size for `target`.
async fn upload(connection: &mut Connection, target: &str, size: usize) -> Option<(u16, Bytes)> {
    let mut asked = request(Method::POST, HOST, target);
    *asked.body_mut() = Full::new(Bytes::from(vec![b'x'; size]));
    let answer = connection.call(asked).await.ok()?;
    Some((answer.status.as_u16(), answer.body))
}

#[tokio::test]
async fn an_answer_that_an_application_of_http2_gives_early_arrives() {
    let application = Application::start().await;
    let around = Around::launch(application.address, "http2").await;
    let entry = around.entry();
    wait::until_true("a request gets through", || async move {
        let Ok(mut connection) = Connection::open_http2(entry).await else { return false };
        upload(&mut connection, "/", 0).await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    let mut connection = Connection::open_http2(entry).await.expect("a connection");
    let mut wrong = Vec::new();
    for (target, size, status) in ROWS {
        for _ in 0..TRIES {
            let told = upload(&mut connection, target, size).await;
            if told != Some((status, Bytes::from_static(b"never"))) {
                wrong.push(format!("{target}, {size} bytes: {told:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for sidecar in [&around.web, &around.api] {
        let own = ["response_code=\"413\"", "reason=\"\""];
        sidecar.metrics().until("selvedge_requests_total", &own, 3.0 * TRIES as f64).await;
    }
}
