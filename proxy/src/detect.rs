//! The detect stage: which of TLS, HTTP/1, HTTP/2 or opaque bytes a connection carries.
//!
//! A declared protocol wins. Otherwise the first bytes of either side decide: when the caller is silent for a
//! moment the service is dialled, and if it speaks first the bytes are opaque, unless it speaks as a server of HTTP/2
//! does. No port list is needed.

use std::{future::ready, rc::Rc, time::Duration};

use bytes::BytesMut;
use selvedge_policies::reason::Reason;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    arrival::{Admitted, Detected, Dialled, Dialling, Spoken},
    config::AppProtocol,
    connection::{Connection, Origin},
    dial,
    error::Error,
    heading::Heading,
    http::pace::Pace,
    probes::Probes,
    record, route,
    sniff::{
        Detection, FIRST_BYTES, PATIENCE, Prefixed, RECORD_HANDSHAKE, classify,
        greeting::{self, Greeting},
        silence,
    },
    telemetry::Protocol,
};

mod probe;

/// How long both may be silent when our own application calls: clients open connections long before they use them.
const OWN_PATIENCE: Duration = Duration::from_secs(600);
/// Room for a first flight: a head as most are, or the opening of TLS with a post-quantum key. What needs no second look is
/// handed on in one piece, and the HTTP library then has no cause to double its buffer for the rest of a head.
const FIRST_FLIGHT: usize = 2 * 1024;

/// Finds out what a connection carries. `None` when neither side spoke in time, or when nothing is said on it and the
/// sidecar drains, for the application that has opened it, or has none any more; the connection is closed.
pub(crate) async fn protocol(admitted: Admitted) -> Option<Detected> {
    let Origin { worker, heading, .. } = &admitted.origin;
    let (mut drain, heading) = (worker.drain(), heading.clone());
    let left_silent = async {
        match heading {
            Heading::Outbound { .. } => Box::pin(drain.begun(&heading, &Pace::default(), false)).await,
            Heading::Inbound { .. } => drain.gone().await,
        }
    };
    let detected = async {
        let admitted = probe::answered(admitted).await?;
        whoever_speaks(admitted).await
    };
    tokio::select! {
        biased; // what has come is read before the drain is looked at
        detected = detected => detected,
        () = left_silent => None,
    }
}

async fn whoever_speaks(admitted: Admitted) -> Option<Detected> {
    let Admitted { origin, mut socket } = admitted;
    let started = Instant::now();
    if !origin.is_known() {
        Box::pin(told(&origin)).await;
    }
    let declared = match (origin.declared(), &origin.heading) {
        // What the kubelet asks in HTTP is looked at on a port of opaque bytes, too.
        (AppProtocol::Opaque, Heading::Inbound { port, .. })
            if origin.worker.may_probe(Probes::may_request, *port, origin.peer.ip()) =>
        {
            AppProtocol::Detect
        }
        (declared, _) => declared,
    };
    let calls_service = matches!(origin.heading, Heading::Outbound { .. });
    if declared == AppProtocol::Opaque && calls_service {
        let io = Prefixed::new(socket, bytes::Bytes::new());
        return Some(Detected { origin, io, spoken: Spoken::Opaque, dialling: None });
    }
    let mut first = BytesMut::new();
    let mut dialling = None;
    let mut speaks_first = matches!(declared, AppProtocol::Detect | AppProtocol::Opaque);
    let deadline = started + if calls_service { OWN_PATIENCE } else { PATIENCE };
    let spoken = loop {
        match classify(&first) {
            Detection::NeedMore if declared == AppProtocol::Opaque && is_not_tls(&first) => break Spoken::Opaque,
            Detection::NeedMore => {}
            Detection::Long if origin.may_be_opaque(declared, &first) => break Spoken::Opaque,
            Detection::Http1 | Detection::Long => break Spoken::Http1,
            Detection::Http2 => break Spoken::Http2,
            Detection::Tls(hello) => break Spoken::Tls(hello),
            Detection::Opaque => break as_declared(declared),
        }
        let is_nothing_new = first.is_empty() && dialling.is_some();
        let may_race = speaks_first && !is_nothing_new && origin.may_be_opaque(declared, &first);
        let patience = if may_race { (Instant::now() + silence(&first)).min(deadline) } else { deadline };
        match timeout_at(patience, more(&mut socket, &mut first)).await {
            Ok(true) => {}
            // It has said all that it will.
            Ok(false) if may_race && !first.is_empty() => break Spoken::Opaque,
            Ok(false) => return None,
            Err(_) if may_race => {
                match race(&origin, declared, (&mut socket, &mut first), dialling.take(), deadline).await {
                    Race::Service(service) => {
                        dialling = Some(service.arrived());
                        break Spoken::Opaque;
                    }
                    // What its caller says has to be seen; the service is dialled again when that is known.
                    Race::Requests => speaks_first = false,
                    Race::Caller(service) => dialling = service,
                    Race::Gone => return None,
                    Race::Nobody(error) => return refuse(origin, &error),
                }
            }
            Err(_) => return refuse(origin, &nobody_spoke()),
        }
    };
    let spoken = match spoken {
        // A TLS ClientHello may still be the mesh's, which is ours to terminate.
        Spoken::Http1 | Spoken::Http2 if declared == AppProtocol::Opaque => Spoken::Opaque,
        spoken => spoken,
    };
    let told = match spoken {
        Spoken::Http1 => Protocol::Http1,
        Spoken::Http2 => Protocol::Http2,
        Spoken::Tls(_) => Protocol::Tls,
        Spoken::Opaque => Protocol::Tcp,
    };
    origin.worker.telemetry.detection(started.elapsed(), told);
    Some(Detected { origin, io: Prefixed::new(socket, first.freeze()), spoken, dialling })
}

fn is_not_tls(first: &[u8]) -> bool {
    first.first().is_some_and(|byte| *byte != RECORD_HANDSHAKE)
}

/// What bytes of no known protocol are taken for. On a port declared as HTTP they are malformed HTTP, which the http
/// stage refuses; as opaque bytes they would pass it by.
const fn as_declared(declared: AppProtocol) -> Spoken {
    match declared {
        AppProtocol::Http => Spoken::Http1,
        AppProtocol::Http2 => Spoken::Http2,
        AppProtocol::Detect | AppProtocol::Opaque => Spoken::Opaque,
    }
}

/// Waits for what the control plane says of where it leads, for as long as a request does: a port that is declared is not
/// guessed at because it was never called before.
async fn told(origin: &Origin) {
    let connection = Connection::new(origin.clone(), None, Protocol::Tcp);
    let mut snapshot = origin.worker.snapshot();
    // Whoever dials meets the same answer, and says what is wrong.
    let _ = route::resolve(&connection, &mut snapshot).await;
}

/// Reads some more of the first flight. False at the end of the stream or past any sensible length.
async fn more(socket: &mut TcpStream, first: &mut BytesMut) -> bool {
    first.reserve(FIRST_FLIGHT);
    first.len() < FIRST_BYTES && matches!(socket.read_buf(first).await, Ok(read) if read > 0)
}

enum Race {
    /// The caller has spoken. With the service's side, on its way or there, unless it has left.
    Caller(Option<Dialling>),
    /// The service said something that is not HTTP.
    Service(Dialled),
    /// The service has sent what a server of HTTP/2 sends at once, or what is in force for it looks into requests.
    Requests,
    /// The caller closed the connection without a word.
    Gone,
    /// Nobody spoke in time, or the service cannot be reached.
    Nobody(Error),
}

/// Dials the service, unless it was, gives it what the caller has said, and waits for more of either side. What it was given
/// is not given to it again; should the caller turn out to speak HTTP or the mesh's TLS, it is dialled anew.
async fn race(
    origin: &Origin,
    declared: AppProtocol,
    (socket, first): (&mut TcpStream, &mut BytesMut),
    dialling: Option<Dialling>,
    deadline: Instant,
) -> Race {
    let begin = || dial::begin(&Rc::new(Connection::new(origin.clone(), None, Protocol::Tcp)));
    let mut dialling = dialling.unwrap_or_else(begin);
    let mut service = tokio::select! {
        spoke = more(socket, first) => return if spoke { Race::Caller(Some(dialling)) } else { Race::Gone },
        service = &mut dialling => service,
        () = sleep_until(deadline) => return Race::Nobody(nobody_spoke()),
    };
    if service.is_ok() && !origin.may_be_opaque(declared, first) {
        return Race::Requests; // it may have become known only by now
    }
    let mut greeting = BytesMut::new();
    let heard = match &mut service {
        Ok(service) => match service.stream.write_ahead(first).await {
            Ok(()) => tokio::select! {
                spoke = more(socket, first) => Heard::Caller(spoke),
                greeted = greeting::read(&mut service.stream, &mut greeting) => Heard::Service(greeted),
                () = sleep_until(deadline) => return Race::Nobody(nobody_spoke()),
            },
            Err(_) => Heard::Service(Greeting::NeedMore),
        },
        Err(_) => Heard::Service(Greeting::NeedMore),
    };
    match (heard, service) {
        // Who breaks off may be a sidecar that lets no opaque bytes pass, and requests perhaps.
        (Heard::Caller(false) | Heard::Service(Greeting::End), Ok(service)) if !first.is_empty() => {
            Race::Service(service.having_said(&greeting))
        }
        (Heard::Caller(false), _) => Race::Gone,
        (Heard::Caller(true), Ok(service)) => Race::Caller(Some(service.having_said(&greeting).arrived())),
        (Heard::Service(Greeting::Http2), Ok(_)) if declared == AppProtocol::Detect => Race::Requests,
        (Heard::Service(Greeting::Http2 | Greeting::Opaque), Ok(service)) => {
            Race::Service(service.having_said(&greeting))
        }
        (_, service) => without(service.err(), socket, first, deadline).await,
    }
}

enum Heard {
    /// Whether the caller has spoken, or left.
    Caller(bool),
    Service(Greeting),
}

/// Only a slow caller of HTTP can still make something of a service that has left, or is not to be had for this reason.
async fn without(refused: Option<Error>, socket: &mut TcpStream, first: &mut BytesMut, deadline: Instant) -> Race {
    match timeout_at(deadline.min(Instant::now() + PATIENCE), more(socket, first)).await {
        Ok(true) => Race::Caller(refused.map(|error| -> Dialling { Box::pin(ready(Err(error))) })),
        Ok(false) => Race::Gone,
        Err(_) => Race::Nobody(refused.unwrap_or_else(nobody_spoke)),
    }
}

fn nobody_spoke() -> Error {
    Error::new(Reason::DetectTimeout, "neither side said in time what it speaks; the port has no appProtocol")
}

fn refuse(origin: Origin, error: &Error) -> Option<Detected> {
    record::connection_refused(&Rc::new(Connection::new(origin, None, Protocol::Tcp)), error);
    None
}
