//! Hands spans to a collector (OTLP), over gRPC or HTTP.
//!
//! Guarantees: a collector that is slow, gone or hostile costs no request and no memory beyond one batch and what waits in the
//! [queue](Queue); every span that it does not get is counted. A batch is sent at most [`TRIES`] times, again only after what OTLP
//! lets be sent again.

use std::time::Duration;

use selvedge_xds::proto::traces::ExportTraceServiceRequest;
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

use crate::{
    bootstrap::Bootstrap,
    config::InForce,
    telemetry::{Finished, Queue, Telemetry},
};

mod connect;
mod grpc;
mod http;
mod otlp;

use connect::Connector;
use otlp::Resource;

/// How often a batch is sent at most.
const TRIES: u32 = 5;
/// How long one sending may take, from the connection to the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before a batch is sent again, which doubles each time; by chance a half more or less.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the end of the process waits for the last spans to be taken.
const LAST: Duration = Duration::from_secs(2);
/// The longest answer of a collector that is read, in bytes.
const ANSWER: usize = 64 << 10;

/// What came of a sending.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The collector took the spans, but for so many.
    Taken {
        /// Spans that it did not take.
        rejected: u64,
    },
    /// It may be sent again.
    Again {
        /// How long the collector wants not to be asked.
        after: Option<Duration>,
        /// What went wrong.
        why: String,
    },
    /// It is not to be sent again.
    Refused(String),
}

/// How a collector is spoken to.
enum Way {
    Grpc(grpc::Client),
    Http(http::Client),
}

/// The service that exports spans.
pub(crate) struct Exporter {
    queue: Queue,
    way: Way,
    resource: Resource,
    configs: watch::Receiver<InForce>,
    ending: watch::Receiver<bool>,
    /// Dropped with it, which tells that it is done.
    _done: oneshot::Sender<()>,
    /// Whether the last batch was taken; said in the log when it changes.
    is_well: bool,
}

/// What ends an [`Exporter`] when the process ends.
pub(crate) struct Ending {
    ending: watch::Sender<bool>,
    done: oneshot::Receiver<()>,
}

impl Ending {
    /// Lets the spans that wait go out, for a bounded time.
    pub(crate) async fn finish(self) {
        self.ending.send_replace(true);
        let _ = timeout(LAST, self.done).await; // what is not taken by then is lost with the process
    }
}

impl Exporter {
    /// An exporter for the collector of the sidecar's file, with what ends it; `None` where there is none.
    pub(crate) fn new(
        bootstrap: &Bootstrap,
        telemetry: &Telemetry,
        configs: &watch::Receiver<InForce>,
    ) -> Option<(Self, Ending)> {
        let tracing = bootstrap.tracing.as_ref()?;
        let connector = Connector { collector: tracing.endpoint.clone(), configs: configs.clone() };
        let headers = tracing.headers.0.clone();
        let way = if tracing.endpoint.http {
            Way::Http(http::Client { connector, headers })
        } else {
            Way::Grpc(grpc::Client::new(connector, &headers))
        };
        let (ending, ended) = watch::channel(false);
        let (_done, done) = oneshot::channel();
        let exporter = Self {
            queue: telemetry.make_spans(tracing.sampling.into()),
            way,
            resource: Resource::of(bootstrap, tracing.service_name.clone()),
            configs: configs.clone(),
            ending: ended,
            _done,
            is_well: true,
        };
        Some((exporter, Ending { ending, done }))
    }

    /// Exports until it is ended, and then what still waits.
    pub(crate) async fn run(mut self) {
        loop {
            let is_last = tokio::select! {
                () = self.queue.due() => false,
                _ = self.ending.wait_for(|ending| *ending) => true,
            };
            loop {
                let batch = self.queue.take();
                if batch.is_empty() {
                    break;
                }
                self.export(batch).await;
            }
            if is_last {
                return;
            }
        }
    }

    async fn export(&mut self, batch: Vec<Finished>) {
        let count = batch.len() as u64;
        let request = otlp::request(self.resource.attributes(&self.configs.borrow().config), batch);
        match self.deliver(&request).await {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                self.queue.counted.exported.inc_by(count - rejected);
                self.queue.counted.rejected.inc_by(rejected);
                if !std::mem::replace(&mut self.is_well, true) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(why) => {
                self.queue.counted.failed.inc_by(count);
                if std::mem::replace(&mut self.is_well, false) {
                    tracing::warn!(why, "the collector does not take spans; requests go on without them");
                }
            }
        }
    }

    /// Sends a batch until it is taken; how many of it were not.
    ///
    /// # Errors
    /// Why it was given up.
    async fn deliver(&mut self, request: &ExportTraceServiceRequest) -> Result<u64, String> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (after, why) = match timeout(PATIENCE, self.way.send(request)).await {
                Ok(Outcome::Taken { rejected }) => return Ok(rejected),
                Ok(Outcome::Refused(why)) => return Err(why),
                Ok(Outcome::Again { after, why }) => (after, why),
                Err(_) => (None, format!("no answer within {PATIENCE:?}")),
            };
            if tries == TRIES || *self.ending.borrow() || after.is_some_and(|after| after > LONGEST_PAUSE) {
                return Err(why);
            }
            let pause = PAUSE.mul_f64(2f64.powi(tries as i32 - 1) * (0.5 + fastrand::f64()));
            tokio::select! {
                () = sleep(pause.max(after.unwrap_or_default())) => {}
                _ = self.ending.wait_for(|ending| *ending) => {} // once more, now
            }
        }
    }
}

impl Way {
    async fn send(&mut self, request: &ExportTraceServiceRequest) -> Outcome {
        match self {
            Self::Grpc(client) => client.send(request).await,
            Self::Http(client) => client.send(request).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ::http::{Request, Response};
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::{body::Incoming, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::net::TcpListener;

    use super::*;
    use crate::telemetry::{
        RequestRecord, span,
        tests::{request, telemetry},
    };

    /// A collector on a port of its own that answers everything so.
    async fn collector(status: u16, answer: &'static [u8]) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(move |request: Request<Incoming>| async move {
                    request.into_body().collect().await?;
                    let body = Full::new(Bytes::from_static(answer));
                    Ok::<_, hyper::Error>(Response::builder().status(status).body(body).unwrap())
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    /// What became of three spans that waited when the sidecar ended: exported, rejected, failed.
    async fn ended(status: u16, answer: &'static [u8]) -> [u64; 3] {
        let address = collector(status, answer).await;
        let text = format!(
            "workload: shop/web-1\ncontrolPlane: 127.0.0.1:15010\nstateDir: /tmp/x\ntracing: {{endpoint: \
             'http://{address}/v1/traces'}}\n"
        );
        let bootstrap = Bootstrap::parse(&text, Path::new("sidecar.yaml")).unwrap();
        let telemetry = telemetry();
        let (configs, receiver) = watch::channel(InForce::default());
        let (exporter, ending) = Exporter::new(&bootstrap, &telemetry, &receiver).unwrap();
        let counted = exporter.queue.counted.clone();
        let worker = telemetry.worker();
        for _ in 0..3 {
            worker.request(&RequestRecord { span: Some(span::tests::span()), ..request() });
        }
        ending.ending.send_replace(true);
        exporter.run().await;
        drop(configs);
        [counted.exported, counted.rejected, counted.failed].map(|counter| counter.get())
    }

    #[tokio::test]
    async fn what_waits_at_the_end_goes_out_whatever_is_answered() {
        const PARTLY: &[u8] = &[0x0a, 0x02, 0x08, 0x02]; // two are rejected
        assert_eq!(ended(200, b"").await, [3, 0, 0]);
        assert_eq!(ended(202, b"thank you").await, [3, 0, 0]);
        assert_eq!(ended(200, PARTLY).await, [1, 2, 0]);
        assert_eq!(ended(200, &[0; 1 << 20]).await, [3, 0, 0]);
        assert_eq!(ended(404, b"").await, [0, 0, 3]);
        assert_eq!(ended(503, b"").await, [0, 0, 3]);
    }
}
