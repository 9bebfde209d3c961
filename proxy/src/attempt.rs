//! The try loop: timeouts, retries within their budget, bodies that can be sent again.
//!
//! Two deadlines hold: one over all tries, which counts from the start of the request, and one for each try. Both end
//! with the response head; what streams after that may last. Which try is followed by another is decided by
//! [`selvedge_policies::attempt::retry`]; what is known only here is whether the body can be sent again.

use std::{pin::pin, time::Duration};

use http::{Method, header::CONTENT_LENGTH, request};
use selvedge_policies::{
    attempt::retry::{self, TryOutcome},
    reason::Reason,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    balance::{Ended, Picked},
    error::Error,
    exchange::Exchange,
    filter,
    heading::Heading,
    http::{
        Body, answer,
        body::Replay,
        reply,
        upgrade::{self, Tunnel, Wanted},
    },
    message::{Answered, Halt, Received},
    record,
    routed::{FREE_REPEATS, Upstream},
    telemetry::RetryOutcome,
    upstream,
};

/// The longest that a service may have a retry wait. A caller is not kept waiting for longer, and nobody comes sooner.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Tries until there is an answer to give.
pub(crate) async fn run(
    exchange: &mut Exchange,
    upstream: &Upstream<'_>,
    received: Received,
) -> Result<Answered, Halt> {
    let worker = exchange.connection.worker.clone();
    let Received { request, wanted, tunnel } = received;
    let (mut head, replay) = request.into_parts();
    if let Some(backend) = upstream.backend {
        backend.filters.change_request(&mut head.headers);
    }
    replay.sanitized_by(upstream.policies);
    let overall = upstream.deadline(exchange.started);
    if let Some(cluster) = upstream.cluster() {
        cluster.budget.deposit(worker.now());
    }
    // Boxed, as what policies change of a head is: most requests are neither repeated nor changed.
    let mut before: Option<Box<(Result<upstream::Answer, Error>, Picked)>> = None;
    loop {
        let avoid = before.as_deref().map(|(_, picked)| picked.endpoint.clone());
        let mut picked = match (upstream.pick(&worker, avoid.as_deref()), before.take()) {
            (Ok(picked), before) => {
                if let Some((tried, _)) = before.as_deref() {
                    record::resent(exchange, &ended(tried), &mut head.headers);
                    exchange.retries += 1;
                }
                picked
            }
            // Why there is no other try says less than how the last one failed.
            (Err(_), Some(before)) => {
                let (tried, picked) = *before;
                replay.settle();
                return Ok(finish(tried, picked, wanted.as_ref(), tunnel)?);
            }
            (Err(error), None) => return Err(error.into()),
        };
        exchange.endpoint = Some(picked.endpoint.clone());
        let changed = filter::on_attempt(exchange, upstream, &picked, &head).await?;
        let tried_head = changed.as_deref().unwrap_or(&head);
        let in_doubt = exchange.in_doubt.get();
        let tried = one(exchange, upstream, &picked, tried_head, &replay, wanted.as_ref(), overall).await;
        let tried = match exchange.connection.heading {
            Heading::Inbound { .. } => tried.map_err(Error::of_application),
            Heading::Outbound { .. } => tried,
        };
        let tried = if in_doubt { tried.map_err(Error::in_doubt) } else { tried };
        if tried.is_err() {
            exchange.whole_so_far(&replay)?;
        }
        let outcome = outcome(exchange, &tried, in_doubt);
        let retry_after = tried.as_ref().ok().and_then(|answer| reply::retry_after(&answer.response));
        if !replay.broke() {
            let begun = tried.as_ref().is_ok_and(|answer| reply::tells_later(&answer.response, exchange.grpc));
            keep_books(&mut picked, exchange, outcome.as_ref(), (begun, retry_after));
        }
        // Another endpoint has not asked to be left alone.
        let asked = retry_after.filter(|_| !upstream.welcomes(&worker, &picked.endpoint));
        let is_soon = asked.is_none_or(|asked| asked <= LONGEST_PAUSE);
        let again = outcome.filter(|_| wanted.is_none() && is_soon);
        let pause = again
            .and_then(|outcome| pause(exchange, upstream, &outcome, &head.method, replay.can_repeat()))
            .map(|pause| pause.max(asked.unwrap_or_default()))
            .filter(|pause| overall.is_none_or(|deadline| Instant::now() + *pause < deadline));
        count(exchange, upstream, outcome.as_ref());
        let Some(pause) = pause else {
            replay.settle();
            return Ok(finish(tried, picked, wanted.as_ref(), tunnel)?);
        };
        if let Some(span) = &mut exchange.span {
            span.pause();
        }
        before = Some(Box::new((tried, picked)));
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
}

async fn one(
    exchange: &Exchange,
    upstream: &Upstream<'_>,
    picked: &Picked,
    head: &request::Parts,
    replay: &Replay,
    wanted: Option<&Wanted>,
    overall: Option<Instant>,
) -> Result<upstream::Answer, Error> {
    exchange.request_bytes.set(0);
    let body = match wanted {
        Some(Wanted::Connect | Wanted::Stream) => Body::empty(),
        Some(Wanted::Upgrade(_)) | None => replay.body().metered(exchange.request_bytes.clone()),
    };
    // Pinned where it is made, because it is large and a timeout would move it.
    let mut sending = pin!(upstream::send(exchange, &picked.endpoint, head, body, wanted));
    let own = upstream.try_timeout().map(|limit| Instant::now() + limit);
    let deadline = match (own, overall) {
        (Some(own), Some(overall)) => own.min(overall),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return sending.await,
    };
    match timeout_at(deadline, sending.as_mut()).await {
        Ok(result) => result,
        Err(_) if overall == Some(deadline) => {
            Err(Error::new(Reason::RequestTimeout, "the overall timeout of the request passed"))
        }
        Err(_) => {
            let detail = format!("{} gave no response head in time", picked.endpoint.config.address);
            Err(Error::failed_try(Reason::AttemptTimeout, TryOutcome::Timeout, detail))
        }
    }
}

/// How a try ended, as the retry policy sees it; `None` when no other try may follow.
fn outcome(exchange: &Exchange, tried: &Result<upstream::Answer, Error>, in_doubt: bool) -> Option<TryOutcome> {
    match tried {
        // Nothing of the request has reached the application, as if the sidecar before it had taken no connection.
        Ok(answer) if !in_doubt && reply::found_nobody(&answer.response) => Some(TryOutcome::ConnectFailed),
        Ok(answer) => Some(TryOutcome::Status(reply::status(&answer.response, exchange.grpc))),
        Err(error) => error.outcome,
    }
}

/// How a try that is followed by another ended, for its span.
fn ended(tried: &Result<upstream::Answer, Error>) -> record::Ended<'_> {
    match tried {
        Ok(answer) => record::Ended::answered(&answer.response),
        Err(error) => record::Ended::failed(error),
    }
}

fn keep_books(
    picked: &mut Picked,
    exchange: &Exchange,
    outcome: Option<&TryOutcome>,
    (begun, retry_after): (bool, Option<Duration>),
) {
    match outcome {
        Some(TryOutcome::Refused) => {}
        Some(TryOutcome::ConnectFailed) => {
            picked.endpoint.leave_alone(exchange.connection.worker.now());
            picked.record(&exchange.connection.worker, Ended::Failed);
        }
        Some(TryOutcome::Status(_)) if begun => picked.record(&exchange.connection.worker, Ended::Begun),
        Some(TryOutcome::Status(status)) => {
            picked.record(&exchange.connection.worker, Ended::Answered(*status, retry_after));
        }
        _ => picked.record(&exchange.connection.worker, Ended::Failed),
    }
}

/// How long to wait before the next try; `None` when there is none, as there cannot be when the body is not `replayable`.
fn pause(
    exchange: &Exchange,
    upstream: &Upstream<'_>,
    outcome: &TryOutcome,
    method: &Method,
    replayable: bool,
) -> Option<Duration> {
    let worker = &exchange.connection.worker;
    let untouched = matches!(outcome, TryOutcome::Refused | TryOutcome::ConnectFailed);
    if replayable && untouched && upstream.may_repeat(outcome) && exchange.retries < FREE_REPEATS {
        return Some(Duration::ZERO);
    }
    let (policy, idempotent) = (upstream.traffic.and_then(|traffic| traffic.retry.as_ref()), method.is_idempotent());
    let again = match policy {
        Some(policy) => policy.should_retry(exchange.retries, outcome, idempotent),
        None => retry::lost(outcome, idempotent) && upstream.may_repeat(outcome) && exchange.retries < FREE_REPEATS,
    };
    if !again {
        return None;
    }
    if !replayable {
        worker.telemetry.retry(&exchange.service, RetryOutcome::NotReplayable);
        return None;
    }
    let allowed = upstream.cluster().is_none_or(|cluster| cluster.budget.withdraw(worker.now()));
    if !allowed {
        worker.telemetry.retry(&exchange.service, RetryOutcome::OverBudget);
    }
    let backoff =
        || policy.map_or(Duration::ZERO, |policy| worker.chance(|chance| policy.backoff(exchange.retries, chance)));
    allowed.then(backoff)
}

/// Counts a try that was a retry. An answer that the policy has repeated is a failure also when it is the last one.
fn count(exchange: &Exchange, upstream: &Upstream<'_>, outcome: Option<&TryOutcome>) {
    if exchange.retries > 0 {
        let policy = upstream.traffic.and_then(|traffic| traffic.retry.as_ref());
        let outcome = match outcome {
            Some(status @ TryOutcome::Status(_)) if !policy.is_some_and(|policy| policy.names(status)) => {
                RetryOutcome::Success
            }
            _ => RetryOutcome::Failure,
        };
        exchange.connection.worker.telemetry.retry(&exchange.service, outcome);
    }
}

fn finish(
    tried: Result<upstream::Answer, Error>,
    picked: Picked,
    wanted: Option<&Wanted>,
    tunnel: Option<Tunnel>,
) -> Result<Answered, Error> {
    let upstream::Answer { mut response, held, spelling } = tried?;
    let accepted = wanted.is_some_and(|wanted| upgrade::accepted(&response, wanted));
    let tunnel = tunnel.filter(|_| accepted).map(|caller| (caller, Tunnel::of_response(&mut response)));
    if tunnel.is_none() && response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        let detail = "the endpoint switched protocols, which it was not asked for";
        return Err(Error::new(Reason::UpstreamProtocolError, detail));
    }
    let (mut parts, body) = response.into_parts();
    answer::canonical(&mut parts).map_err(|detail| Error::new(Reason::UpstreamProtocolError, detail))?;
    if tunnel.is_some() {
        parts.headers.remove(CONTENT_LENGTH); // what follows is no content (RFC 9110 section 9.3.6)
    }
    Ok(Answered { parts, body: Body::incoming(body), held: Some((picked, held)), spelling, tunnel })
}
