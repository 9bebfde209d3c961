//! The application's metrics behind the sidecar's own (`applicationMetrics`), for whoever scrapes from outside the mesh.
//!
//! Guarantees: they cost a scrape a bounded time and bounded memory, and never one of the sidecar's own series. What is
//! missing is counted with the reason.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};

use super::exposition;
use crate::{
    bootstrap::ApplicationMetrics,
    socket::{Side, dial},
    telemetry::Telemetry,
};

/// The longest that the application may take over its metrics. Prometheus waits for ten seconds by default.
const TIME: Duration = Duration::from_secs(5);
/// The most that is taken of them, in bytes.
const BYTES: usize = 8 << 20;
/// The Prometheus text format, which is what can be put behind another.
const ACCEPT: &str = "text/plain;version=0.0.4";

/// Where the application tells its metrics. One scrape at a time asks there, so that many cost no more memory than one.
#[derive(Clone, Debug)]
pub(crate) struct Application {
    at: ApplicationMetrics,
    turn: Arc<Semaphore>,
}

/// Why there are no metrics of the application in a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Unreachable,
    Timeout,
    Status,
    TooLarge,
    Malformed,
}

impl Missing {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
        }
    }
}

impl Application {
    /// An application that tells its metrics there.
    pub(crate) fn new(at: ApplicationMetrics) -> Self {
        Self { at, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Its metrics, to be put behind the sidecar's; empty when there are none to be had, which is counted. `own` is the
    /// address by which the pod was called.
    pub(super) async fn metrics(&self, own: Option<IpAddr>, telemetry: &Telemetry) -> String {
        let scraped = timeout(TIME, self.scrape(own)).await.unwrap_or(Err(Missing::Timeout));
        scraped.unwrap_or_else(|missing| {
            telemetry.application_metrics_missing(missing.as_str());
            String::new()
        })
    }

    async fn scrape(&self, own: Option<IpAddr>) -> Result<String, Missing> {
        let _turn = self.turn.acquire().await;
        let stream = self.connect(own).await.ok_or(Missing::Unreachable)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| Missing::Unreachable)?;
        let connection = tokio::spawn(connection);
        let answered = ask(&mut sender, &self.at).await;
        connection.abort(); // a scrape keeps nothing open
        let text = String::from_utf8(answered?.to_vec()).map_err(|_| Missing::Malformed)?;
        exposition::foreign(&text).ok_or(Missing::Malformed)
    }

    /// On loopback, where most applications listen too, or at the pod's own address.
    async fn connect(&self, own: Option<IpAddr>) -> Option<TcpStream> {
        for address in [Some(Ipv4Addr::LOCALHOST.into()), own].into_iter().flatten() {
            if let Ok(stream) = dial(SocketAddr::new(address, self.at.port), Side::Workload).await {
                return Some(stream);
            }
        }
        None
    }
}

async fn ask(sender: &mut http1::SendRequest<Empty<Bytes>>, at: &ApplicationMetrics) -> Result<Bytes, Missing> {
    let request = Request::get(&*at.path)
        .header(header::HOST, format!("localhost:{}", at.port))
        .header(header::ACCEPT, ACCEPT)
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| Missing::Unreachable)?;
    let response = sender.send_request(request).await.map_err(|_| Missing::Unreachable)?;
    if response.status() != StatusCode::OK {
        return Err(Missing::Status);
    }
    let body = Limited::new(response.into_body(), BYTES).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| match error.is::<LengthLimitError>() {
        true => Missing::TooLarge,
        false => Missing::Unreachable,
    })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::telemetry::TelemetrySettings;

    /// An application that gives this answer to everybody, and then says no more.
    async fn answering(answer: Vec<u8>) -> Application {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut asked = [0; 512];
                    let read = stream.read(&mut asked).await.unwrap();
                    assert!(asked[..read].starts_with(b"GET /stats?all HTTP/1.1\r\n"));
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.read(&mut asked).await;
                });
            }
        });
        Application::new(ApplicationMetrics { port, path: "/stats?all".into() })
    }

    fn ok(text: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into()
    }

    #[tokio::test]
    async fn what_the_application_tells_is_taken_and_what_is_missing_is_counted() {
        let telemetry = Telemetry::new(&TelemetrySettings::default()).unwrap();
        let told = answering(ok("# TYPE jobs counter\njobs 3\nselvedge_xds_connected 7")).await;
        assert_eq!(told.metrics(None, &telemetry).await, "# TYPE jobs counter\njobs 3\n");
        let cases = [
            (ok("jobs three\n"), "malformed"),
            (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(), "status"),
            (b"SSH-2.0\r\n".to_vec(), "unreachable"),
            (format!("HTTP/1.1 200 OK\r\n\r\n{}", "jobs 3\n".repeat(BYTES / 7 + 1)).into(), "too_large"),
        ];
        for (answer, error) in cases {
            assert_eq!(answering(answer).await.metrics(None, &telemetry).await, "");
            let counted = format!("selvedge_application_metrics_errors_total{{error=\"{error}\"}} 1");
            assert!(telemetry.render().await.contains(&counted), "{counted}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_that_says_nothing_costs_a_bounded_time() {
        let telemetry = Telemetry::new(&TelemetrySettings::default()).unwrap();
        let silent = answering(Vec::new()).await;
        let began = tokio::time::Instant::now();
        let scrapes = [silent.metrics(None, &telemetry), silent.metrics(None, &telemetry)];
        let [first, second] = scrapes;
        tokio::join!(first, second);
        assert_eq!(began.elapsed(), TIME, "also for who waits for another");
        let counted = "selvedge_application_metrics_errors_total{error=\"timeout\"} 2";
        assert!(telemetry.render().await.contains(counted));
    }
}
