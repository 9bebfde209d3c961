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
    record,
    sniff::{
        Detection, FIRST_BYTES, PATIENCE, Prefixed, classify,
        greeting::{self, Greeting},
    },
    telemetry::Protocol,
};

mod probe;

/// How long a caller may be silent before the service is given the chance to speak first.
const SILENCE: Duration = Duration::from_millis(10);
/// How long both may be silent when our own application calls: clients open connections long before they use them.
const OWN_PATIENCE: Duration = Duration::from_secs(600);
/// Finds out what a connection carries. `None` when neither side spoke in time, or when nothing is said on it and the
/// sidecar drains, for the application that has opened it, or has none any more; the connection is closed.
pub(crate) async fn protocol(admitted: Admitted) -> Option<Detected> {
    let Origin { worker, heading, .. } = &admitted.origin;
    let (mut drain, heading) = (worker.drain(), heading.clone());
    let left_silent = async {
        match heading {
            Heading::Outbound { .. } => Box::pin(drain.begun(&heading, &Pace::default())).await,
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
            Detection::NeedMore => {}
            Detection::Http1 => break Spoken::Http1,
            Detection::Http2 => break Spoken::Http2,
            Detection::Tls(hello) => break Spoken::Tls(hello),
            Detection::Opaque => break as_declared(declared),
        }
        let may_dial = first.is_empty() && dialling.is_none() && speaks_first;
        let patience = if may_dial { Instant::now() + SILENCE } else { deadline };
        match timeout_at(patience, more(&mut socket, &mut first)).await {
            Ok(true) => {}
            Ok(false) => return None,
            Err(_) if may_dial => match race(&origin, declared, &mut socket, &mut first, deadline).await {
                Race::Service(service) => {
                    dialling = Some(service.arrived());
                    break Spoken::Opaque;
                }
                // What its caller says has to be seen; the service is dialled again when that is known.
                Race::Http2 => speaks_first = false,
                Race::Caller(service) => dialling = service,
                Race::Gone => return None,
                Race::Nobody(error) => return refuse(origin, &error),
            },
            Err(_) => return refuse(origin, &silence()),
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

/// What bytes of no known protocol are taken for. On a port declared as HTTP they are malformed HTTP, which the http
/// stage refuses; as opaque bytes they would pass it by.
const fn as_declared(declared: AppProtocol) -> Spoken {
    match declared {
        AppProtocol::Http => Spoken::Http1,
        AppProtocol::Http2 => Spoken::Http2,
        AppProtocol::Detect | AppProtocol::Opaque => Spoken::Opaque,
    }
}

/// Reads some more of the first flight. False at the end of the stream or past any sensible length.
async fn more(socket: &mut TcpStream, first: &mut BytesMut) -> bool {
    first.len() < FIRST_BYTES && matches!(socket.read_buf(first).await, Ok(read) if read > 0)
}

enum Race {
    /// The caller has spoken. With the service's side, on its way or there, unless it has left.
    Caller(Option<Dialling>),
    /// The service said something that is not HTTP.
    Service(Dialled),
    /// The service has sent what a server of HTTP/2 sends at once.
    Http2,
    /// The caller closed the connection without a word.
    Gone,
    /// Nobody spoke in time, or the service cannot be reached.
    Nobody(Error),
}

/// Dials the service and waits for the first bytes of either side.
async fn race(
    origin: &Origin,
    declared: AppProtocol,
    socket: &mut TcpStream,
    first: &mut BytesMut,
    deadline: Instant,
) -> Race {
    let mut dialling = dial::begin(&Rc::new(Connection::new(origin.clone(), None, Protocol::Tcp)));
    let mut service = tokio::select! {
        spoke = more(socket, first) => return if spoke { Race::Caller(Some(dialling)) } else { Race::Gone },
        service = &mut dialling => service,
        () = sleep_until(deadline) => return Race::Nobody(silence()),
    };
    let mut greeting = BytesMut::new();
    let heard = match &mut service {
        Ok(service) => tokio::select! {
            spoke = more(socket, first) => Heard::Caller(spoke),
            greeted = greeting::read(&mut service.stream, &mut greeting) => Heard::Service(greeted),
            () = sleep_until(deadline) => return Race::Nobody(silence()),
        },
        Err(_) => Heard::Service(Greeting::NeedMore),
    };
    match (heard, service) {
        (Heard::Caller(false), _) => Race::Gone,
        (Heard::Caller(true), Ok(service)) => Race::Caller(Some(service.having_said(greeting).arrived())),
        (Heard::Service(Greeting::Http2), Ok(_)) if declared == AppProtocol::Detect => Race::Http2,
        (Heard::Service(Greeting::Http2 | Greeting::Opaque), Ok(service)) => {
            Race::Service(service.having_said(greeting))
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
        Err(_) => Race::Nobody(refused.unwrap_or_else(silence)),
    }
}

fn silence() -> Error {
    Error::new(Reason::DetectTimeout, "neither side spoke in time")
}

fn refuse(origin: Origin, error: &Error) -> Option<Detected> {
    record::connection_refused(&Rc::new(Connection::new(origin, None, Protocol::Tcp)), error);
    None
}
