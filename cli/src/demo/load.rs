//! The people: a few users per tenant who sign in, read pages, and now and then share an article.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use selvedge_saas::{SEEDED_PASSWORD, SEEDED_TENANTS, SEEDED_USER, ui};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::network;

const USERS_PER_TENANT: u32 = 2;
/// One request in so many shares an article.
const SHARE_EVERY: u32 = 5;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts to get through at all.
const KNOCK: Duration = Duration::from_millis(25);

/// The answer to one request, as its sender saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// What was asked for came, or the product said in its own words that it comes later.
    pub(super) success: bool,
    /// The page came from the new version of `ui`; `None` when no version is known.
    pub(super) canary: Option<bool>,
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) successes: u64,
    pub(super) versioned: u64,
    pub(super) canary: u64,
}

impl Counts {
    /// Counts one more.
    pub(super) fn add(&mut self, sample: Sample) {
        self.requests += 1;
        self.successes += u64::from(sample.success);
        self.versioned += u64::from(sample.canary.is_some());
        self.canary += u64::from(sample.canary == Some(true));
    }

    /// What was counted since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            successes: self.successes - before.successes,
            versioned: self.versioned - before.versioned,
            canary: self.canary - before.canary,
        }
    }
}

/// The people, on a thread of their own.
pub(super) struct Load {
    /// Resolves when a first page came through.
    pub(super) first: oneshot::Receiver<()>,
    /// What they see.
    pub(super) samples: mpsc::UnboundedReceiver<Sample>,
    go: oneshot::Sender<()>,
}

impl Load {
    /// Knocks at `entrance`, seen from a network namespace if one is named, until a page comes, and then waits.
    pub(super) fn start(entrance: SocketAddr, namespace: Option<String>, rate: f64) -> anyhow::Result<Self> {
        let (came, first) = oneshot::channel();
        let (sender, samples) = mpsc::unbounded_channel();
        let (go, started) = oneshot::channel();
        let people = async move {
            first_page(entrance).await;
            if came.send(()).is_ok() && started.await.is_ok() {
                let _users = users(entrance, rate, &sender);
                sender.closed().await;
            }
        };
        std::thread::Builder::new().name("load".into()).spawn(move || {
            if let Err(error) = live(namespace.as_deref(), people) {
                eprintln!("selvedge demo: no load: {error:#}");
            }
        })?;
        Ok(Self { first, samples, go })
    }

    /// Lets them browse; returns what they see. They stop when it is dropped.
    pub(super) fn go(self) -> mpsc::UnboundedReceiver<Sample> {
        // The thread waits for this; were it gone, there would be no samples.
        let _ = self.go.send(());
        self.samples
    }
}

fn live(namespace: Option<&str>, people: impl Future<Output = ()>) -> anyhow::Result<()> {
    if let Some(namespace) = namespace {
        network::enter(namespace)?;
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(people);
    Ok(())
}

/// Returns when a page came through.
async fn first_page(entrance: SocketAddr) {
    let mut user = User::new(entrance, SEEDED_TENANTS[0]);
    while !user.page().await.is_ok_and(|response| response.status().is_success()) {
        user.connection = None;
        sleep(KNOCK).await;
    }
}

/// Sends `rate` requests a second to `entrance` for as long as the set lives.
fn users(entrance: SocketAddr, rate: f64, samples: &mpsc::UnboundedSender<Sample>) -> JoinSet<()> {
    let users = USERS_PER_TENANT * u32::try_from(SEEDED_TENANTS.len()).unwrap_or(1);
    let period = Duration::from_secs_f64(f64::from(users) / rate);
    let mut tasks = JoinSet::new();
    for number in 0..users {
        let tenant = SEEDED_TENANTS[number as usize % SEEDED_TENANTS.len()];
        let (samples, start) = (samples.clone(), period.mul_f64(f64::from(number) / f64::from(users)));
        tasks.spawn(async move {
            sleep(start).await;
            browse(User::new(entrance, tenant), period, samples).await;
        });
    }
    tasks
}

async fn browse(mut user: User, period: Duration, samples: mpsc::UnboundedSender<Sample>) {
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1_u32.. {
        tick.tick().await;
        let answer = if number.is_multiple_of(SHARE_EVERY) { user.share().await } else { user.page().await };
        let sample = match answer {
            Ok(response) => Sample { success: response.status().is_success(), canary: canary(&response) },
            Err(_) => {
                user.connection = None;
                Sample { success: false, canary: None }
            }
        };
        if samples.send(sample).is_err() {
            return;
        }
    }
}

fn canary<B>(response: &Response<B>) -> Option<bool> {
    response.headers().get(ui::VERSION).map(|version| version == "v2")
}

/// One person with one connection.
struct User {
    entrance: SocketAddr,
    tenant: &'static str,
    token: Option<String>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl User {
    const fn new(entrance: SocketAddr, tenant: &'static str) -> Self {
        Self { entrance, tenant, token: None, connection: None }
    }

    async fn page(&mut self) -> anyhow::Result<Response<Bytes>> {
        let path = format!("/t/{}", self.tenant);
        self.signed_in("GET", &path).await
    }

    async fn share(&mut self) -> anyhow::Result<Response<Bytes>> {
        let path = format!("/t/{}/articles/1/share", self.tenant);
        self.signed_in("POST", &path).await
    }

    /// Sends a request with a session, signing in first where there is none.
    async fn signed_in(&mut self, method: &str, path: &str) -> anyhow::Result<Response<Bytes>> {
        if self.token.is_none() {
            self.token = Some(self.sign_in().await?);
        }
        let bearer = format!("Bearer {}", self.token.as_deref().unwrap_or_default());
        let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, bearer);
        let response = self.send(request.body(Full::default())?).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.token = None;
        }
        Ok(response)
    }

    async fn sign_in(&mut self) -> anyhow::Result<String> {
        let body = serde_json::json!({ "tenant": self.tenant, "user": SEEDED_USER, "password": SEEDED_PASSWORD });
        let response = self.send(Request::post("/login").body(Full::from(body.to_string()))?).await?;
        let reply: serde_json::Value = serde_json::from_slice(response.body()).context("reading the session")?;
        Ok(reply["token"].as_str().context("no session was granted")?.to_owned())
    }

    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("ui.saas"));
        timeout(TIMEOUT, self.exchange(request)).await?
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        let mut sender = match self.connection.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        sender.ready().await?;
        let response: Response<Incoming> = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        self.connection = Some(sender);
        Ok(Response::from_parts(head, body))
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.entrance).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
