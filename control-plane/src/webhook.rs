//! The injector as a webhook: the API server asks `POST /inject` about every new pod that should have a sidecar, and waits.
//!
//! Guarantees: an answer depends on the pod, its namespace and the settings as they are when it is asked for, and changes
//! nothing, so that a dry run is answered like any other; one that takes too long is a refusal that says why; what proves
//! this server is signed by the authority of the mesh, and renewed with it. Nothing proves the caller, so anybody may call:
//! places and turns are shared by addresses ([`crowd`](crate::crowd), [`fair_queue`](crate::fair_queue)), and no caller, however many
//! connections or requests it has, keeps the API server out.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
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
    crowd::{Caller, Crowd, SentAway},
    fair_queue::{FairQueue, Standing},
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

/// Connections at once. Each instance of the API server has one for each pod that is created at the moment, and keeps a few.
pub(crate) const CONNECTIONS: usize = 512;
/// How long a handshake, or the content of a request, may take.
const PATIENCE: Duration = Duration::from_secs(TIMEOUT);
/// How long a connection may be silent, or take for a head. The API server closes its own after 90 seconds, so it never asks
/// at the moment in which this ends one.
const SILENCE: Duration = Duration::from_secs(120);
/// Room for the head of a request, in bytes; the API server's has a few hundred.
const HEAD: usize = 16 * 1024;
/// An object of the API has 1.5 MiB at most, and a review may have it twice.
const MAX_REVIEW: usize = 4 * 1024 * 1024;
/// Reviews are smaller, but for the rarest.
const USUAL_REVIEW: usize = 64 * 1024;
/// Bytes of larger ones that are held at once: what bounds the memory that callers can take. Counted is what has come, so
/// who only announces much takes nothing from others.
const LARGE: usize = 64 * 1024 * 1024;
const MANY_LARGE: &str = "too many large contents at once";
/// How many reviews are looked up at once.
const LOOK_UPS: usize = 64;
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
    callers: Crowd,
    /// Those of them that send large reviews, by the bytes that have come.
    large: Crowd,
    turns: FairQueue,
}

impl Webhook {
    /// One that asks this cluster, and is known by certificates of this authority.
    pub(crate) fn new(client: &kube::Client, authority: &Arc<Authority>, telemetry: &Telemetry) -> Self {
        let answers = Answers {
            cluster: Cluster::new(client),
            telemetry: telemetry.clone(),
            callers: Crowd::new(CONNECTIONS),
            large: Crowd::new(LARGE),
            turns: FairQueue::new(LOOK_UPS),
        };
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
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let (caller, sent_away) = answers.callers.enter(peer.ip());
                    let answers = Arc::clone(&answers);
                    let visit = Visit { address: peer.ip(), caller: Arc::new(caller), answers };
                    connections.spawn(connection(socket, visit, sent_away, configs.clone(), stop.clone()));
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

/// What belongs to one connection.
#[derive(Clone)]
struct Visit {
    address: IpAddr,
    caller: Arc<Caller>,
    answers: Arc<Answers>,
}

async fn connection(
    socket: TcpStream,
    visit: Visit,
    sent_away: SentAway,
    configs: watch::Receiver<Arc<ServerConfig>>,
    stop: Stop,
) {
    let config = Arc::clone(&configs.borrow());
    tokio::select! {
        () = speak(socket, visit, config, stop) => {}
        _ = sent_away => {}
    }
}

async fn speak(socket: TcpStream, visit: Visit, config: Arc<ServerConfig>, mut stop: Stop) {
    let Ok(Ok(stream)) = timeout(PATIENCE, TlsAcceptor::from(config).accept(socket)).await else { return };
    let service = service_fn(move |request| {
        let visit = visit.clone();
        async move { Ok::<_, Infallible>(visit.answer(request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(SILENCE).max_buf_size(HEAD);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = stop::requested(&mut stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ended = connection.await;
}

impl Visit {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.caller.heard();
        if request.uri().path() != PATH {
            return page(StatusCode::NOT_FOUND, "text/plain", format!("there is only POST {PATH}\n"));
        }
        if request.method() != Method::POST {
            return page(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only POST\n".to_owned());
        }
        let read = timeout(PATIENCE, self.read(request.into_body())).await;
        let read = read.unwrap_or_else(|_| Err(format!("the content did not come within {PATIENCE:?}")));
        let (content, large) = match read {
            Ok(read) => read,
            Err(problem) => return refused(&problem),
        };
        let answer = self.review(content);
        match large {
            None => answer.await,
            Some((_place, sent_away)) => tokio::select! {
                answer = answer => answer,
                _ = sent_away => refused(MANY_LARGE),
            },
        }
    }

    /// The content of a request, and its place among the large ones if it is one: that may be needed for another.
    async fn read(&self, body: Incoming) -> Result<(BytesMut, Option<(Caller, SentAway)>), String> {
        let mut body = Limited::new(body, MAX_REVIEW);
        let (mut content, mut large) = (BytesMut::new(), None);
        loop {
            let frame = match large.as_mut() {
                None => body.frame().await,
                Some((_, sent_away)) => tokio::select! {
                    frame = body.frame() => frame,
                    _ = sent_away => return Err(MANY_LARGE.to_owned()),
                },
            };
            let Some(frame) = frame else { return Ok((content, large)) };
            let frame = frame.map_err(|_| format!("the content is not whole, or longer than {MAX_REVIEW} bytes"))?;
            content.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if content.len() > USUAL_REVIEW {
                let (place, _) = large.get_or_insert_with(|| self.answers.large.enter(self.address));
                // Who goes on is heard, so those that have stalled give way before it.
                place.takes(content.len());
            }
        }
    }

    async fn review(&self, content: BytesMut) -> Response<Full<Bytes>> {
        let read = Review::read(&content);
        drop(content);
        match read {
            Ok(review) => page(StatusCode::OK, "application/json", self.judge(&review).await.to_string()),
            Err(problem) => refused(&problem),
        }
    }

    async fn judge(&self, review: &Review) -> serde_json::Value {
        let answers = &self.answers;
        let looking_up = async {
            let _turn = answers.turns.take(self.address, Standing::Unknown).await;
            let _answered = self.caller.answered();
            answers.cluster.look_up(&review.namespace).await
        };
        let found = timeout(LOOK_UP, looking_up).await;
        let found = found.unwrap_or_else(|_| Err(format!("the API server did not answer within {LOOK_UP:?}")));
        let (result, answer) = match found {
            Ok((namespace, settings)) => review.answer(&namespace, &settings),
            Err(why) => {
                ("failed", review.refuse(&format!("the injector of Selvedge cannot look at the cluster: {why}")))
            }
        };
        answers.telemetry.injections.with_label_values(&[result]).inc();
        answer
    }
}

fn refused(problem: &str) -> Response<Full<Bytes>> {
    page(StatusCode::BAD_REQUEST, "text/plain", format!("no AdmissionReview: {problem}\n"))
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
