//! The way to a server, on which anything may happen.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1::SendRequest,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{calls::Upstream, status};
use crate::client::Failure;

type Body = UnsyncBoxBody<Bytes, Failure>;

/// A relay on a port of its own on loopback, in plain HTTP. It ends when it is dropped.
pub struct FaultyRelay {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    upstream: Upstream,
    faults: watch::Sender<Faults>,
    /// Counts up when all open connections are to be closed.
    cuts: watch::Sender<u64>,
}

/// What happens on the way, and what has been asked for.
#[derive(Clone, Debug, Default)]
struct Faults {
    /// Every request gets this status.
    failing: Option<u16>,
    /// Paths of kinds that the server seems not to know.
    unknown: Vec<String>,
    /// Paths of kinds that are refused, and with which status.
    refused: Vec<(String, u16)>,
    /// Paths whose lists are never answered.
    hanging: Vec<String>,
    /// How late every list comes.
    late: Duration,
    /// Whether every event comes twice.
    twice: bool,
    watching: Watching,
    /// What the server seems to be.
    version: Option<String>,
    /// How many lists of each path were asked for; pages after the first, and looks at one object, not counted.
    lists: Vec<String>,
    /// How many watches of each path were asked for.
    watches: Vec<String>,
    /// Where something was posted.
    posts: Vec<String>,
}

/// What a client notices of a watch: events until it ends, or why there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watching {
    /// When their time is over.
    #[default]
    InTime,
    /// At once, without an event.
    AtOnce,
    /// At once, for every version is too old.
    Expired,
    /// Before they begin: the client may list and not watch.
    Forbidden,
    /// In the middle of the first event.
    Within,
    /// After a page for people in the place of the first event.
    Garbled,
}

impl FaultyRelay {
    pub(super) async fn start(upstream: Upstream) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared { upstream, faults: watch::Sender::default(), cuts: watch::Sender::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// The address on loopback at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection that is open.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Answers every request with this status from now on; as the server does when it is `None`.
    pub fn fail(&self, status: Option<u16>) {
        self.set(|faults| faults.failing = status);
    }

    /// Seems not to know what is listed at `path` from now on.
    pub fn unlearn(&self, path: &str) {
        self.set(|faults| faults.unknown.push(path.to_owned()));
    }

    /// Forbids reading `path` from now on.
    pub fn forbid(&self, path: &str) {
        self.refuse(path, Some(403));
    }

    /// Answers whoever reads `path` with this status from now on; as the server does when it is `None`.
    pub fn refuse(&self, path: &str, status: Option<u16>) {
        self.set(|faults| {
            faults.refused.retain(|(refused, _)| refused != path);
            faults.refused.extend(status.map(|status| (path.to_owned(), status)));
        });
    }

    /// Takes lists of `path`, or no list any more, without answering.
    pub fn hang(&self, path: Option<&str>) {
        self.set(|faults| faults.hanging = path.map(str::to_owned).into_iter().collect());
    }

    /// Answers lists so much later from now on.
    pub fn delay_lists(&self, late: Duration) {
        self.set(|faults| faults.late = late);
    }

    /// Tells every event twice from now on.
    pub fn repeat_events(&self) {
        self.set(|faults| faults.twice = true);
    }

    /// Says from now on that the server is of this version, such as `1.30`.
    pub fn say_version(&self, version: &str) {
        self.set(|faults| faults.version = Some(version.to_owned()));
    }

    /// Ends watches so from now on.
    pub fn end_watches(&self, watching: Watching) {
        self.set(|faults| faults.watching = watching);
    }

    /// How often a watch of `path` was asked for.
    pub fn watches(&self, path: &str) -> usize {
        self.shared.faults.borrow().watches.iter().filter(|watched| *watched == path).count()
    }

    /// How often `path` was listed.
    pub fn lists(&self, path: &str) -> usize {
        self.shared.faults.borrow().lists.iter().filter(|listed| *listed == path).count()
    }

    /// How often something was posted to `path`.
    pub fn posts(&self, path: &str) -> usize {
        self.shared.faults.borrow().posts.iter().filter(|posted| *posted == path).count()
    }

    fn set(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.faults.send_modify(change);
    }
}

impl Drop for FaultyRelay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection of a client, and the one to the server that belongs to it.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let server = Arc::new(Mutex::new(None));
    let service = service_fn(|request| answer(Arc::clone(&shared), Arc::clone(&server), request));
    let serving = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        served = serving => drop(served),
        _ = cuts.changed() => {}
    }
}

/// What a request is, as far as faults depend on it.
struct Asked {
    path: String,
    is_watch: bool,
    is_list: bool,
    is_first_page: bool,
    /// Whether only the version is of interest.
    is_look: bool,
}

impl Asked {
    fn new<B>(request: &Request<B>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let says = |name: &str, wanted: &str| query.split('&').any(|pair| pair.split_once('=') == Some((name, wanted)));
        let is_watch = says("watch", "true") || says("watch", "1");
        let is_collection = super::kinds::at(request.uri().path()).is_some();
        Self {
            path: request.uri().path().to_owned(),
            is_watch,
            is_list: is_collection && !is_watch && request.method() == Method::GET,
            is_look: says("limit", "1"),
            is_first_page: !query.split('&').any(|pair| pair.starts_with("continue=") && pair != "continue="),
        }
    }
}

type Server = Arc<Mutex<Option<SendRequest<Incoming>>>>;

async fn answer(shared: Arc<Shared>, server: Server, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let asked = Asked::new(&request);
    let faults = shared.faults.borrow().clone();
    if asked.is_watch {
        shared.faults.send_modify(|faults| faults.watches.push(asked.path.clone()));
    } else if faults.hanging.contains(&asked.path) {
        std::future::pending::<()>().await;
    }
    if request.method() == Method::POST {
        shared.faults.send_modify(|faults| faults.posts.push(asked.path.clone()));
    }
    if let Some(code) = refused(&faults, &asked) {
        return Ok(failure(code));
    }
    if let Some((major, minor)) =
        faults.version.as_deref().and_then(|version| version.split_once('.')).filter(|_| asked.path == "/version")
    {
        let version = json!({
            "major": major, "minor": minor, "gitVersion": format!("v{major}.{minor}.0"), "gitCommit": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        });
        return Ok(json_answer(StatusCode::OK, version.to_string()));
    }
    match faults.watching {
        Watching::AtOnce if asked.is_watch => return Ok(events("")),
        Watching::Expired if asked.is_watch => {
            let event = json!({ "type": "ERROR", "object": status::failure(410, "the relay says: too old") });
            return Ok(events(&format!("{event}\n")));
        }
        _ => {}
    }
    if asked.is_list {
        if asked.is_first_page && !asked.is_look {
            shared.faults.send_modify(|faults| faults.lists.push(asked.path.clone()));
        }
        sleep(faults.late).await;
    }
    let response = forward(&shared.upstream, &server, request).await?;
    Ok(match faults.watching {
        _ if !asked.is_watch || !response.status().is_success() => response.map(boxed),
        Watching::Within => response.map(|body| instead(body, |line| vec![line.slice(..line.len() / 2)])),
        Watching::Garbled => {
            response.map(|body| instead(body, |_| vec![Bytes::from_static(b"<html>try again</html>\n")]))
        }
        _ if faults.twice => response.map(|body| lines(body, |line| Told::GoesOn(vec![line.clone(), line]))),
        _ => response.map(boxed),
    })
}

fn refused(faults: &Faults, asked: &Asked) -> Option<u16> {
    match faults.failing {
        Some(status) => Some(status),
        None if faults.unknown.contains(&asked.path) => Some(404),
        None if asked.is_watch && faults.watching == Watching::Forbidden => Some(403),
        None => faults.refused.iter().find(|(path, _)| *path == asked.path).map(|(_, status)| *status),
    }
}

async fn forward(
    upstream: &Upstream,
    server: &Server,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Failure> {
    let mut server = server.lock().await;
    let open = match server.as_mut().filter(|open| !open.is_closed()) {
        Some(_) => server.as_mut().expect("it is open"),
        None => server.insert(upstream.open().await?),
    };
    open.ready().await?;
    Ok(open.send_request(request).await?)
}

fn boxed(body: Incoming) -> Body {
    body.map_err(Failure::from).boxed_unsync()
}

/// What becomes of one line.
enum Told {
    /// This, and then those after it.
    GoesOn(Vec<Bytes>),
    /// This, and nothing after it.
    Ends(Vec<Bytes>),
}

/// The lines of `body` up to the first event about an object, and what `told` makes of that; nothing after it.
fn instead(body: Incoming, told: fn(Bytes) -> Vec<Bytes>) -> Body {
    let is_mark = |line: &Bytes| line.windows(10).any(|part| part == b"\"BOOKMARK\"");
    lines(body, move |line| if is_mark(&line) { Told::GoesOn(vec![line]) } else { Told::Ends(told(line)) })
}

/// What `told` makes of every line of `body`, as soon as it is whole.
fn lines(mut body: Incoming, told: impl Fn(Bytes) -> Told + Send + 'static) -> Body {
    let (lines, receiver) = mpsc::channel::<Result<Frame<Bytes>, Failure>>(1);
    tokio::spawn(async move {
        let mut rest = BytesMut::new();
        while let Some(Ok(frame)) = body.frame().await {
            rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (parts, ends) = match told(rest.split_to(end + 1).freeze()) {
                    Told::GoesOn(parts) => (parts, false),
                    Told::Ends(parts) => (parts, true),
                };
                for part in parts {
                    if lines.send(Ok(Frame::data(part))).await.is_err() {
                        return;
                    }
                }
                if ends {
                    return;
                }
            }
        }
    });
    StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync()
}

fn events(text: &str) -> Response<Body> {
    json_answer(StatusCode::OK, text.to_owned())
}

fn failure(code: u16) -> Response<Body> {
    let status = StatusCode::from_u16(code).expect("a status");
    json_answer(status, status::failure(code, &format!("the relay says {status}")).to_string())
}

fn json_answer(status: StatusCode, text: String) -> Response<Body> {
    let never = |never: Infallible| match never {};
    let mut answer = Response::new(Full::new(Bytes::from(text)).map_err(never).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}
