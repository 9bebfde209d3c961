//! A collector that speaks OTLP as collectors do: over gRPC and over HTTP, on one port.

use std::{collections::HashMap, convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use selvedge_tests::wait;
use selvedge_xds::proto::traces::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue, Span, any_value::Value, span::SpanKind,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// The method that takes spans over gRPC, and the path that does over HTTP.
const GRPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HTTP: &str = "/v1/traces";

/// One span as it was taken.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Its trace, in hex.
    pub(crate) trace: String,
    /// Its id, in hex.
    pub(crate) id: String,
    /// Its parent in hex; empty when it has none.
    pub(crate) parent: String,
    /// Whether it is of a server.
    pub(crate) is_server: bool,
    /// All of it.
    pub(crate) span: Span,
    /// Its attributes, as text.
    pub(crate) attributes: HashMap<String, String>,
    /// Those of its resource.
    pub(crate) resource: HashMap<String, String>,
    /// The fields of the message it came in.
    pub(crate) fields: HeaderMap,
}

impl Taken {
    /// An attribute; empty when it has none of that name.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mood {
    /// It takes everything.
    Takes,
    /// It answers so many messages with this status, then takes everything.
    Fails(u32, u16),
}

struct Shared {
    taken: watch::Sender<Vec<Taken>>,
    mood: watch::Sender<Mood>,
}

/// A collector on a port of its own.
pub(crate) struct Collector {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Collector {
    /// Starts one.
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// Starts one that listens here.
    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { taken: watch::Sender::default(), mood: watch::Sender::new(Mood::Takes) });
        let served = shared.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, served.clone()));
            }
        });
        Self { address, shared, accepting }
    }

    /// The key of the sidecar's file for it, over gRPC.
    pub(crate) fn grpc(&self, more: &str) -> String {
        format!("tracing: {{endpoint: 'http://{}'{more}}}\n", self.address)
    }

    /// The key of the sidecar's file for it, over HTTP.
    pub(crate) fn http(&self, more: &str) -> String {
        format!("tracing: {{endpoint: 'http://{}{HTTP}'{more}}}\n", self.address)
    }

    /// Changes what it answers.
    pub(crate) fn becomes(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// The spans of a trace so far, the client's of each call before the server's, by when they began.
    pub(crate) fn spans(&self, trace: &str) -> Vec<Taken> {
        let mut found: Vec<Taken> =
            self.shared.taken.borrow().iter().filter(|span| span.trace == trace).cloned().collect();
        found.sort_by_key(|taken| (taken.is_server, taken.span.start_time_unix_nano));
        found
    }

    /// Waits until a trace has so many spans.
    pub(crate) async fn until(&self, trace: &str, count: usize) -> Vec<Taken> {
        let what = format!("the trace {trace} has {count} spans");
        wait::until(&what, || async { Some(self.spans(trace)).filter(|spans| spans.len() >= count) }).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let mut start = [0; 4];
    let is_http2 = stream.peek(&mut start).await.is_ok() && &start == b"PRI ";
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| answer(request, shared.clone()));
    // How a connection ends is the business of the sidecar.
    let _ = match is_http2 {
        true => http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await,
        false => http1::Builder::new().serve_connection(io, service).await,
    };
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await?.to_bytes();
    let is_grpc = head.version == http::Version::HTTP_2;
    let expected = if is_grpc { (GRPC, "application/grpc") } else { (HTTP, "application/x-protobuf") };
    assert_eq!((head.uri.path(), head.headers["content-type"].to_str().unwrap()), expected);
    let mood = *shared.mood.borrow();
    if let Mood::Fails(times @ 1.., status) = mood {
        shared.mood.send_replace(Mood::Fails(times - 1, status));
        return Ok(if is_grpc { trailers(None, status) } else { plain(status, Bytes::new()) });
    }
    if is_grpc {
        body.advance(5); // compression and length of the only message
    }
    let message = ExportTraceServiceRequest::decode(body).expect("a message as the protocol has it");
    shared.taken.send_modify(|taken| taken.extend(taken_of(message, &head.headers)));
    let answer = Bytes::from(ExportTraceServiceResponse::default().encode_to_vec());
    Ok(if is_grpc { trailers(Some(answer), 0) } else { plain(200, answer) })
}

fn taken_of(message: ExportTraceServiceRequest, fields: &HeaderMap) -> Vec<Taken> {
    let mut all = Vec::new();
    for of in message.resource_spans {
        let resource = texts(&of.resource.unwrap_or_default().attributes);
        for span in of.scope_spans.into_iter().flat_map(|of| of.spans) {
            all.push(Taken {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                is_server: span.kind() == SpanKind::Server,
                attributes: texts(&span.attributes),
                resource: resource.clone(),
                fields: fields.clone(),
                span,
            });
        }
    }
    all
}

fn texts(attributes: &[KeyValue]) -> HashMap<String, String> {
    let text = |value: &KeyValue| match value.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{}: {other:?}", value.key),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plain(status: u16, body: Bytes) -> Response<Body> {
    let builder = Response::builder().status(status).header("content-type", "application/x-protobuf");
    builder.body(Full::new(body).boxed_unsync()).unwrap()
}

/// An answer of gRPC: a message, if there is one, and the status behind it.
fn trailers(message: Option<Bytes>, status: u16) -> Response<Body> {
    let framed = message.map(|message| {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(message.len() as u32);
        frame.put(message);
        Frame::data(frame.freeze())
    });
    let status = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from(status))]);
    let frames = framed.into_iter().chain([Frame::trailers(status)]).map(Ok);
    let body = StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>())).boxed_unsync();
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}
