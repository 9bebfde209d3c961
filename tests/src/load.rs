//! A load of requests that runs beside a test and remembers every failure.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Method;
use tokio::{task::JoinHandle, time::sleep};

use crate::client::{Answer, Connection, Failure, request};

/// What to send, and how.
#[derive(Clone)]
pub struct Plan {
    /// The address that connections are made to.
    pub address: SocketAddr,
    /// The `host` field, or `:authority` over HTTP/2.
    pub host: String,
    /// The path and query of every request.
    pub target: String,
    /// Over HTTP/2 instead of HTTP/1.
    pub http2: bool,
}

impl Plan {
    /// `GET target` over HTTP/1.
    pub fn new(address: SocketAddr, host: &str, target: &str) -> Self {
        Self { address, host: host.to_owned(), target: target.to_owned(), http2: false }
    }

    /// This load, over HTTP/2.
    #[must_use]
    pub fn over_http2(mut self) -> Self {
        self.http2 = true;
        self
    }
}

/// Requests that are being sent until [`Load::stop`].
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Report>>,
}

/// How all requests of a load went.
#[derive(Debug)]
pub struct Outcome {
    /// Requests with an acceptable answer.
    pub succeeded: u64,
    /// What went wrong, one line per failed request.
    pub failures: Vec<String>,
    /// Connections that callers opened in place of one that the peer had closed.
    pub reopened: u64,
}

/// How it went for one caller.
#[derive(Default)]
struct Report {
    failures: Vec<String>,
    opened: u64,
}

impl Outcome {
    /// Panics unless every request succeeded and there were at least `least`.
    pub fn assert_flawless(&self, least: u64) {
        let sample = &self.failures[..self.failures.len().min(5)];
        assert!(sample.is_empty(), "{} of {} requests failed: {sample:#?}", self.failures.len(), self.succeeded);
        assert!(self.succeeded >= least, "only {} requests were sent, wanted {least}: no load", self.succeeded);
    }

    /// Panics if the peer closed a connection.
    pub fn assert_kept_its_connections(&self) {
        assert_eq!(self.reopened, 0, "connections were closed during {} requests", self.succeeded);
    }
}

impl Load {
    /// `callers` keep one connection each and send one request after the other, a few milliseconds apart.
    /// `judge` says what is wrong with an answer, if anything.
    pub fn start(plan: &Plan, callers: usize, judge: fn(&Answer) -> Option<String>) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let caller = |_| tokio::spawn(caller(plan.clone(), stop.clone(), done.clone(), judge));
        Self { callers: (0..callers).map(caller).collect(), stop, done }
    }

    /// Requests that succeeded so far.
    pub fn succeeded(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests have succeeded.
    pub async fn progress(&self, more: u64) {
        let goal = self.succeeded() + more;
        crate::wait::until_true("the load goes on", || async move { self.succeeded() >= goal }).await;
    }

    /// Lets requests in flight finish and sends no more.
    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let (mut failures, mut reopened) = (Vec::new(), 0);
        for caller in self.callers {
            let report = caller.await.expect("a caller does not panic");
            failures.extend(report.failures);
            reopened += report.opened.saturating_sub(1);
        }
        Outcome { succeeded: self.done.load(Ordering::Relaxed), failures, reopened }
    }
}

/// `None` for status 200.
pub fn ok(answer: &Answer) -> Option<String> {
    (answer.status != 200).then(|| format!("{} {} {}", answer.status, answer.reason(), answer.text()))
}

async fn caller(
    plan: Plan,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    judge: fn(&Answer) -> Option<String>,
) -> Report {
    let (mut report, mut connection) = (Report::default(), None);
    while !stop.load(Ordering::Relaxed) {
        match one(&plan, &mut connection, &mut report.opened).await {
            Ok(answer) => match judge(&answer) {
                None => _ = done.fetch_add(1, Ordering::Relaxed),
                Some(problem) => report.failures.push(problem),
            },
            Err(error) => {
                connection = None;
                report.failures.push(error);
            }
        }
        sleep(Duration::from_millis(3)).await;
    }
    report
}

/// One request on the kept connection, or on a new one, which is counted, when the peer has closed it.
async fn one(plan: &Plan, kept: &mut Option<Connection>, opened: &mut u64) -> Result<Answer, String> {
    let usable = kept.take().filter(Connection::is_open);
    let mut connection = match usable {
        Some(connection) => connection,
        None => open(plan).await.inspect(|_| *opened += 1).map_err(|e| format!("connect: {e}"))?,
    };
    let asked = || request(Method::GET, &plan.host, &plan.target);
    let answer = match connection.call(asked()).await {
        Err(error) if plan.http2 && was_not_sent(&error) => {
            connection = open(plan).await.inspect(|_| *opened += 1).map_err(|e| format!("connect: {e}"))?;
            connection.call(asked()).await
        }
        other => other,
    };
    let answer = answer.map_err(|e| format!("call: {e:?}"))?;
    let closing = answer.header("connection").eq_ignore_ascii_case("close");
    *kept = (!closing).then_some(connection);
    Ok(answer)
}

/// Whether nothing of a request went out, because a GOAWAY came at that moment. Clients send it again (RFC 9113 section 6.8).
fn was_not_sent(error: &Failure) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
}

async fn open(plan: &Plan) -> Result<Connection, Failure> {
    if plan.http2 { Connection::open_http2(plan.address).await } else { Connection::open(plan.address).await }
}
