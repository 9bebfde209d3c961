//! A policy's question to a service of the mesh: one request over a pooled HTTP/1 connection, bounded in time and size.
//! It speaks HTTP/1.1 and nothing else, so a service that takes HTTP/2 alone, as gRPC does, cannot be asked; inside the mesh
//! both sidecars carry it as they carry any other HTTP/1.1.
//!
//! The service is one that the sidecar calls as any other: balanced, over the transport that the control plane named (mTLS
//! inside the mesh, what its object says outside), with the endpoint's books kept, of its silence too. It is asked for when
//! it is not known yet. Nothing is asked twice: whether that would do harm only the policy knows.

use std::{pin::pin, rc::Rc};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header::HOST};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use selvedge_policies::{
    attempt::retry::TryOutcome,
    verdict::{Question, Reply, Unanswered},
};
use tokio::time::Instant;

use super::paused;
use crate::{
    balance::{self, Ended, Picked},
    cluster::{Cluster, Snapshot},
    error::Error,
    http::Body,
    worker::Worker,
};

/// What the service says before `end`, and before the drain is over.
pub(super) async fn ask(worker: &Worker, question: Question, end: Instant) -> Result<Reply, Unanswered> {
    let request = request(&question)?;
    let mut late = pin!(paused(worker, end));
    let (cluster, snapshot) = tokio::select! {
        known = known(worker, &question) => known,
        () = &mut late => return Err(Unanswered::Late),
    };
    let mut picked = balance::pick(worker, &cluster, None).map_err(failed)?;
    let replied = tokio::select! {
        replied = exchange(worker, &picked, &snapshot, request, question.at_most) => replied,
        () = &mut late => Err(Unanswered::Late),
    };
    let ended = replied.as_ref().map_or(Ended::Failed, |reply| Ended::Answered(reply.status.as_u16(), None));
    picked.record(worker, ended);
    replied
}

/// The service's endpoints, waited for until the control plane has told of them.
async fn known(worker: &Worker, question: &Question) -> (Rc<Cluster>, Rc<Snapshot>) {
    let service = question.to.service.to_string();
    worker.used(&service);
    let mut configs = worker.configs();
    let mut snapshot = worker.refresh(&mut configs);
    loop {
        if let Some(cluster) = snapshot.config.link(&question.to).and_then(|link| snapshot.cluster(link)) {
            return (cluster.clone(), snapshot);
        }
        worker.want(&service);
        if configs.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        snapshot = worker.refresh(&mut configs);
    }
}

async fn exchange(
    worker: &Worker,
    picked: &Picked,
    snapshot: &Snapshot,
    request: Request<Body>,
    at_most: usize,
) -> Result<Reply, Unanswered> {
    let endpoint = &picked.endpoint;
    let leased = endpoint.pool.http1(&endpoint.config, &snapshot.trust).await;
    let mut lease = leased.map_err(|error| {
        if error.outcome == Some(TryOutcome::ConnectFailed) {
            endpoint.leave_alone(worker.now());
        }
        failed(error)
    })?;
    let sent = lease.sender.send_request(request).await;
    let (parts, body) = sent.map_err(|error| Unanswered::Failed(error.to_string()))?.into_parts();
    let content =
        Limited::new(body, at_most).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
            true => Unanswered::TooLong(at_most),
            false => Unanswered::Failed(error.to_string()),
        })?;
    lease.give_back();
    Ok(Reply { status: parts.status, headers: parts.headers, body: content.to_bytes().to_vec() })
}

fn request(question: &Question) -> Result<Request<Body>, Unanswered> {
    let service = &question.to.service;
    let host = format!("{}.{}:{}", service.name(), service.namespace(), question.to.port);
    let uri: Uri = question.path.parse().map_err(|_| Unanswered::Failed(format!("'{}' is no path", question.path)))?;
    let host = HeaderValue::from_str(&host).map_err(|error| Unanswered::Failed(error.to_string()))?;
    let mut request = Request::new(Body::full(Bytes::from(question.body.clone())));
    *request.method_mut() = question.method.clone();
    *request.uri_mut() = uri;
    request.headers_mut().clone_from(&question.headers);
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

fn failed(error: Error) -> Unanswered {
    Unanswered::Failed(error.to_string())
}
