//! From a cluster to one endpoint for one try: asks the balancing policy and keeps the endpoint's books.

use std::{rc::Rc, time::Duration};

use selvedge_policies::{facts::Moment, reason::Reason};

use crate::{
    cluster::{Cluster, endpoint::Endpoint},
    error::Error,
    worker::Worker,
};

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With an answer of this status, which may say for how long its sender wants to be left alone.
    Answered(u16, Option<Duration>),
    /// With an answer of gRPC that says behind its content how it ended.
    Begun,
    /// With a connection for opaque bytes.
    Connected,
    /// With neither: it failed, or its time passed.
    Failed,
}

/// An endpoint that was picked. While it lives the endpoint counts one more request in flight.
#[derive(Debug)]
pub(crate) struct Picked {
    /// The endpoint that gets the try.
    pub endpoint: Rc<Endpoint>,
    began: Moment,
    /// Whether it is the probe that decides the endpoint's breaker.
    probe: bool,
    recorded: bool,
}

/// Picks an endpoint for one try; another one than `avoid` where there is a choice. An endpoint that took no
/// connection a moment ago is picked only when there is no other but the one to avoid, with which it is worse yet.
pub(crate) fn pick(worker: &Worker, cluster: &Cluster, avoid: Option<&Endpoint>) -> Result<Picked, Error> {
    let now = worker.now();
    let refuse = |reason: Reason, why: &str| Err(Error::new(reason, format!("{}: {why}", cluster.config.name)));
    if cluster.endpoints.is_empty() {
        let why = cluster.config.nowhere.as_deref();
        return refuse(Reason::NoEndpoints, why.unwrap_or(Reason::NoEndpoints.summary()));
    }
    let picked = worker.chance(|chance| {
        let mut among = [(avoid, true), (avoid, false), (None, false)].into_iter();
        among.find_map(|(avoid, reachable)| cluster.pick(now, avoid, reachable, chance))
    });
    match picked {
        Some(endpoint) => Ok(Picked::new(endpoint, now)),
        None => refuse(Reason::BreakerOpen, Reason::BreakerOpen.summary()),
    }
}

impl Picked {
    /// Begins a try on `endpoint`.
    pub(crate) fn new(endpoint: Rc<Endpoint>, now: Moment) -> Self {
        let probe = endpoint.begin(now);
        Self { endpoint, began: now, probe, recorded: false }
    }

    /// An answer that had [begun](Ended::Begun) ends as well as this status of HTTP says, or well.
    pub(crate) fn ended(&self, status: Option<u16>, now: Moment) {
        self.endpoint.answered(status.is_some_and(is_refusal), None, now);
    }

    /// The try is over: how feeds the breaker and the share of refusals, the time to the response head the latency average.
    pub(crate) fn record(&mut self, worker: &Worker, ended: Ended) {
        self.recorded = true;
        let now = worker.now();
        let (ok, well, served) = match ended {
            Ended::Answered(status, retry_after) => {
                self.endpoint.answered(is_refusal(status), retry_after, now);
                (!self.endpoint.is_failure(status), status < 500, !is_refusal(status))
            }
            Ended::Begun | Ended::Connected => (true, true, true),
            Ended::Failed => (false, false, false),
        };
        let took = Duration::from_nanos(now.nanos.saturating_sub(self.began.nanos));
        match ended {
            Ended::Failed => self.endpoint.hung(took, now),
            Ended::Answered(..) | Ended::Begun | Ended::Connected => self.endpoint.took(took, served, now),
        }
        self.endpoint.fared(well, now);
        worker.chance(|chance| self.endpoint.record(ok, self.probe, now, chance));
    }
}

/// Whether an answer of this status says that this endpoint did not want the request, or could not serve it: another one may.
const fn is_refusal(status: u16) -> bool {
    matches!(status, 403 | 429 | 500..)
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoint.end();
        if self.probe && !self.recorded {
            self.endpoint.abandon();
        }
    }
}
