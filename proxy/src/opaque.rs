//! Bytes that are not HTTP, or not any more: the same mTLS, identity policy and counts, without looking inside.

use std::rc::Rc;

use bytes::BytesMut;
use selvedge_policies::reason::Reason;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use tokio_util::either::Either;

use crate::{
    arrival::{Dialled, Identified, ServerStream},
    cluster::pool::Held,
    connection::Connection,
    dial,
    error::Error,
    exchange::Tunnelled,
    filter,
    heading::Heading,
    http::upgrade::Tunnel,
    judge::{self, admitted, still_admitted},
    record::{self, Opened},
    sniff::Prefixed,
    socket::{End, Observed, Observer, reset},
    telemetry::Flow,
};

mod both_ways;

use both_ways::Party;

/// Relays a connection until both sides are done.
pub(crate) async fn relay(identified: Identified) {
    let Identified { connection, mut io, dialling } = identified;
    let (mut first, dialling) = (BytesMut::new(), dialling.unwrap_or_else(|| dial::begin(&connection)));
    let dialled = dial::while_there(&connection, &mut io, &mut first, dialling).await;
    let Dialled { stream: mut service, picked, audited } = match dialled {
        Ok(dialled) => dialled,
        Err(error) => {
            reset_caller(&io).await;
            return record::connection_refused(&connection, &error);
        }
    };
    let opened = record::connection_opened(&connection, Some(&picked.endpoint)).audited(audited);
    let judged = judge::ended(&connection, |config, port| still_admitted(&connection, config, &port.policies));
    let mut caller = Prefixed::new(io, first);
    let over = join(opened, &connection, (&mut caller, &mut service), judged).await;
    if over.resets(Party::Caller) {
        reset_caller(caller.get_ref()).await;
    }
    if over.resets(Party::Service)
        && let Either::Left(socket) = service.get_ref()
    {
        reset(socket).await;
    }
}

/// Has the caller's connection end as one that was broken off. Between sidecars that is told by TLS that ends without
/// `close_notify`, behind what was sent.
async fn reset_caller(io: &ServerStream) {
    if let Either::Left(plain) = io {
        reset(plain.get_ref()).await;
    }
}

/// How a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// Both sides have said all they had to say.
    Whole,
    /// One side has broken it off.
    Broken(Party),
    /// It may not be any more.
    Cut,
}

impl Over {
    /// Whether this side is to be told that it was broken off.
    fn resets(self, side: Party) -> bool {
        match self {
            Self::Whole => false,
            Self::Broken(by) => by != side,
            Self::Cut => true,
        }
    }
}

/// Relays what an upgrade or CONNECT has become, until both sides are done or the request it was made of may not be any
/// more.
pub(crate) async fn tunnel(
    opened: Opened,
    connection: Rc<Connection>,
    tunnelled: Option<Tunnelled>,
    ((caller, service), _held): ((Tunnel, Tunnel), Option<Held>),
) {
    let (Some(caller), Some(service)) = tokio::join!(caller.open(), service.open()) else {
        return opened.closed(0, 0, None);
    };
    let judged = judge::ended(&connection, |config, port| {
        admitted(&connection, config)?;
        match &tunnelled {
            Some(tunnelled) => filter::on_open_tunnel(&connection, tunnelled, port),
            None => Ok(()),
        }
    });
    let (mut caller, mut service) = (caller, service);
    join(opened, &connection, (&mut caller, &mut service), judged).await;
}

/// Carries bytes both ways, and counts them as they pass, until both sides are done or `ended` says why they have to be.
/// An application that is gone hears nothing any more, so its last word is the end of both.
async fn join(
    opened: Opened,
    connection: &Connection,
    (caller, service): (&mut (impl AsyncRead + AsyncWrite + Unpin), &mut (impl AsyncRead + AsyncWrite + Unpin)),
    ended: impl Future<Output = Error>,
) -> Over {
    let own = Rc::new(Flow::default());
    let [told_caller, told_service] = [(); 2].map(|()| Rc::new(Notify::new()));
    let mut caller = Observed::new(caller, Counted([own.clone(), opened.flow()]));
    let mut caller = Observed::new(&mut caller, LastWord(told_caller.clone()));
    let mut service = Observed::new(service, LastWord(told_service.clone()));
    let mut drain = connection.worker.drain();
    let last_word = async {
        drain.gone().await;
        match connection.heading {
            Heading::Inbound { .. } => told_caller.notified().await,
            Heading::Outbound { .. } => told_service.notified().await,
        }
    };
    let ended = tokio::select! {
        biased; // what may not be any more says nothing more
        ended = ended => Err(ended),
        broken = both_ways::carry(&mut caller, &mut service) => Ok(broken),
        () = last_word => Ok(None),
    };
    let (received, sent) = own.total();
    match ended {
        Err(ended) => {
            opened.cut(received, sent, &ended);
            Over::Cut
        }
        Ok(broken) => {
            // Who breaks off after the other's last word has mostly had all it wanted.
            let reason = broken.filter(|broken| !broken.was_over).map(|broken| match broken.by {
                Party::Caller => Reason::DownstreamClosed,
                Party::Service => Reason::UpstreamReset,
            });
            opened.closed(received, sent, reason);
            broken.map_or(Over::Whole, |broken| Over::Broken(broken.by))
        }
    }
}

/// Tells when the other side has said its last word, and it has been passed on.
struct LastWord(Rc<Notify>);

impl Observer for LastWord {
    fn read(&mut self, _: &[u8]) -> Result<(), End> {
        Ok(())
    }

    fn written(&mut self, _: &[u8]) {}

    fn finished(&mut self) {
        self.0.notify_one();
    }
}

/// Counts what passes at that moment: for the connection itself, whose log line has the sums even when it breaks, and
/// for the metrics of all that are like it, which must not wait for the end of one that is open for days.
struct Counted([Rc<Flow>; 2]);

impl Observer for Counted {
    fn read(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.0.iter().for_each(|flow| flow.received(bytes.len() as u64));
        Ok(())
    }

    fn written(&mut self, bytes: &[u8]) {
        self.0.iter().for_each(|flow| flow.sent(bytes.len() as u64));
    }
}
