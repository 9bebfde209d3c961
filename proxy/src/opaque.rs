//! Bytes that are not HTTP, or not any more: the same mTLS, identity policy and counts, without looking inside.

use std::{io, rc::Rc};

use bytes::BytesMut;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use selvedge_policies::reason::Reason;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};

use crate::{
    arrival::{Dialled, Identified},
    connection::Connection,
    dial,
    error::Error,
    exchange::Tunnelled,
    filter,
    heading::Heading,
    judge::{self, admitted, still_admitted},
    record::{self, Opened},
    sniff::Prefixed,
    socket::{End, Observed, Observer},
    telemetry::Flow,
};

/// Relays a connection until both sides are done.
pub(crate) async fn relay(identified: Identified) {
    let Identified { connection, mut io, dialling } = identified;
    let (mut first, dialling) = (BytesMut::new(), dialling.unwrap_or_else(|| dial::begin(&connection)));
    let dialled = dial::while_there(&connection, &mut io, &mut first, dialling).await;
    let Dialled { stream, picked, audited } = match dialled {
        Ok(dialled) => dialled,
        Err(error) => return record::connection_refused(&connection, &error),
    };
    let opened = record::connection_opened(&connection, Some(&picked.endpoint)).audited(audited);
    let judged = judge::ended(&connection, |config, policies| still_admitted(&connection, config, policies));
    join(opened, &connection, (Prefixed::new(io, first), stream), judged).await;
}

/// Relays what an upgrade or CONNECT has become, until both sides are done or the request it was made of may not be any
/// more.
pub(crate) async fn tunnel(
    opened: Opened,
    connection: Rc<Connection>,
    tunnelled: Option<Tunnelled>,
    (caller, service): (OnUpgrade, OnUpgrade),
) {
    let (Ok(caller), Ok(service)) = tokio::join!(caller, service) else { return opened.closed(0, 0, None) };
    let judged = judge::ended(&connection, |config, policies| {
        admitted(&connection, config)?;
        match &tunnelled {
            Some(tunnelled) => filter::on_open_tunnel(&connection, tunnelled, policies),
            None => Ok(()),
        }
    });
    join(opened, &connection, (TokioIo::new(caller), TokioIo::new(service)), judged).await;
}

/// Carries bytes both ways, and counts them as they pass, until both sides are done or `ended` says why they have to be.
/// An application that is gone hears nothing any more, so its last word is the end of both.
async fn join(
    opened: Opened,
    connection: &Connection,
    (caller, service): (impl AsyncRead + AsyncWrite + Unpin, impl AsyncRead + AsyncWrite + Unpin),
    ended: impl Future<Output = Error>,
) {
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
        copied = tokio::io::copy_bidirectional(&mut caller, &mut service) => Ok(copied.err()),
        () = last_word => Ok(None),
    };
    let (received, sent) = own.total();
    match ended {
        Err(ended) => opened.cut(received, sent, &ended),
        Ok(broken) => {
            let reset = broken.filter(|e| e.kind() == io::ErrorKind::ConnectionReset);
            opened.closed(received, sent, reset.map(|_| Reason::UpstreamReset));
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
