//! The injector as a webhook: the API server asks `POST /inject` about every new pod that should have a sidecar, and waits.
//!
//! Guarantees: an answer depends on the pod, its namespace and the settings as they are when it is asked for, and changes
//! nothing, so that a dry run is answered like any other; one that takes too long is a refusal that says why; what proves
//! this server is signed by the authority of the mesh, and renewed with it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use selvedge_inject::policy::webhook::{PATH, TIMEOUT};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Error,
    identity::Authority,
    serve::ACCEPT_PAUSE,
    stop::{self, Stop},
    telemetry::Telemetry,
};

mod bundle;
mod certificate;
mod cluster;
mod review;

use cluster::Cluster;
use review::Review;

/// The API server keeps its connections; there are a few for each of its instances.
const CONNECTIONS: usize = 256;
/// An object of the API has 1.5 MiB at most, and a review may have it twice.
const MAX_REVIEW: usize = 4 * 1024 * 1024;
/// How long a handshake, or the content of a request, may take.
const PATIENCE: Duration = Duration::from_secs(TIMEOUT);
/// What is left of the API server's patience to say that the cluster did not answer.
const LOOK_UP: Duration = Duration::from_millis(TIMEOUT * 1000 - 500);

/// A webhook that is ready to be served.
pub(crate) struct Webhook {
    answers: Answers,
    authority: Arc<Authority>,
}

/// What an answer is made of.
struct Answers {
    cluster: Cluster,
    telemetry: Telemetry,
}

impl Webhook {
    /// One that asks this cluster, and is known by certificates of this authority.
    pub(crate) fn new(client: &kube::Client, authority: &Arc<Authority>, telemetry: &Telemetry) -> Self {
        let answers = Answers { cluster: Cluster::new(client), telemetry: telemetry.clone() };
        Self { answers, authority: Arc::clone(authority) }
    }

    /// Answers on `listener` until `stop` turns true or its sender is gone, and tells the cluster how to know this server.
    ///
    /// # Errors
    /// TLS settings that cannot be made.
    pub(crate) fn serve(self, listener: TcpListener, stop: Stop) -> Result<impl Future<Output = ()> + use<>, Error> {
        let (configs, renewing) = certificate::config(&self.authority)?;
        let telling = bundle::keep(self.answers.cluster.client().clone(), self.authority);
        Ok(async {
            let mut chores = JoinSet::new();
            chores.spawn(renewing);
            chores.spawn(telling);
            accept(listener, Arc::new(self.answers), configs, stop).await;
        })
    }
}

async fn accept(
    listener: TcpListener,
    answers: Arc<Answers>,
    configs: watch::Receiver<Arc<ServerConfig>>,
    mut stop: Stop,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(connection(socket, configs.clone(), Arc::clone(&answers), stop.clone()));
                }
                Err(e) => {
                    tracing::warn!(error = &e as &dyn std::error::Error, "the webhook could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stop::requested(&mut stop) => break,
        }
    }
    // Whoever asked gets an answer.
    let _ended = timeout(PATIENCE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(
    socket: TcpStream,
    configs: watch::Receiver<Arc<ServerConfig>>,
    answers: Arc<Answers>,
    mut stop: Stop,
) {
    let config = Arc::clone(&configs.borrow());
    let Ok(Ok(stream)) = timeout(PATIENCE, TlsAcceptor::from(config).accept(socket)).await else { return };
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(answer(&answers, request).await) }
    });
    // An idle connection is not closed: the API server might ask at that moment, and refuse a pod.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = stop::requested(&mut stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ended = connection.await;
}

async fn answer(answers: &Answers, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return page(StatusCode::NOT_FOUND, "text/plain", format!("there is only POST {PATH}\n"));
    }
    if request.method() != Method::POST {
        return page(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only POST\n".to_owned());
    }
    let body = timeout(PATIENCE, Limited::new(request.into_body(), MAX_REVIEW).collect()).await;
    let read = match body {
        Ok(Ok(body)) => Review::read(&body.to_bytes()),
        Ok(Err(_)) => Err(format!("the content is not whole, or longer than {MAX_REVIEW} bytes")),
        Err(_) => Err(format!("the content did not come within {PATIENCE:?}")),
    };
    match read {
        Ok(review) => page(StatusCode::OK, "application/json", judged(answers, &review).await.to_string()),
        Err(problem) => page(StatusCode::BAD_REQUEST, "text/plain", format!("no AdmissionReview: {problem}\n")),
    }
}

async fn judged(answers: &Answers, review: &Review) -> serde_json::Value {
    let found = timeout(LOOK_UP, answers.cluster.look_up(&review.namespace)).await;
    let found = found.unwrap_or_else(|_| Err(format!("the API server did not answer within {LOOK_UP:?}")));
    let (result, answer) = match found {
        Ok((namespace, settings)) => review.answer(&namespace, &settings),
        Err(why) => ("failed", review.refuse(&format!("the injector of Selvedge cannot look at the cluster: {why}"))),
    };
    answers.telemetry.injections.with_label_values(&[result]).inc();
    answer
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
