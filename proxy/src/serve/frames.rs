//! The end that is called.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, header::CONTENT_LENGTH, request};
use http_body::Body as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_local,
    time::timeout,
};

use crate::{
    budget::Budget,
    connection::Connection,
    frames::{self, Arrived, Broken, Code, Session, Stream},
    http::{
        Body, Content,
        case::Spelling,
        link::{self, Pump, Shared, drive},
        pace::{Deadline, Polled},
        told::{Size, Told},
        upgrade,
    },
};

/// How long a peer may open streams after it was asked not to.
const HEARING: Duration = Duration::from_secs(10);

/// Serves requests that come on `io` until the connection is over; from when `finish` is ready the peer is asked to open no
/// more. A peer that leaves an answer unread for `patience` loses it. Why the connection was ended, if the peer broke the
/// rules of the wire.
pub(crate) async fn serve<T, F, A>(
    io: T,
    connection: &Rc<Connection>,
    patience: Duration,
    finish: impl Future<Output = ()>,
    request: F,
) -> Option<Broken>
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Told, Request<Content>) -> A,
    A: Future<Output = Result<Response<Body>, Infallible>> + 'static,
{
    let session = Session::called_by(connection.ledger.account(&Budget::KNOWN));
    let session = Rc::new(RefCell::new(session));
    let take = || {
        while let Some(arrived) = next(&session) {
            begin(&session, arrived, connection, patience, &request);
        }
    };
    let silent = super::silent(|| session.borrow().has_begun());
    let mut driven = pin!(drive(io, session.clone(), take));
    tokio::select! {
        biased; // what has come is read before anything else is looked at
        broken = driven.as_mut() => broken,
        () = silent => Some(Broken::SILENCE),
        () = finish => {
            session.borrow_mut().go_away();
            if let Ok(broken) = timeout(HEARING, driven.as_mut()).await {
                return broken;
            }
            session.borrow_mut().refuse();
            driven.await
        }
    }
}

fn next(session: &Shared) -> Option<Arrived> {
    session.borrow_mut().arrived()
}

/// Has a request answered by a task of its own.
fn begin<F, A>(session: &Shared, arrived: Arrived, connection: &Rc<Connection>, patience: Duration, request: &F)
where
    F: Fn(Told, Request<Content>) -> A,
    A: Future<Output = Result<Response<Body>, Infallible>> + 'static,
{
    let Arrived { stream, head } = arrived;
    if stream.borrow().is_over() {
        return; // it was given up before anybody looked
    }
    let sent = head.len();
    match read(session, &stream, head) {
        Ok((parts, told, content)) => {
            let tunnels = told.becomes.is_some().then(|| parts.method.clone());
            let asked = Request::from_parts(parts, content);
            let spelling = told.spelling.and_then(Spelling::believed);
            let told = Told { version: Some(told.version), spelling, size: Size::of(&asked).sent_as(sent) };
            // Boxed: a task moves its future several times.
            let answering = Box::pin(request(told, asked));
            spawn_local(answer(session.clone(), stream, answering, connection.clone(), patience, tunnels));
        }
        Err(_) => {
            let mut session = session.borrow_mut();
            session.ignore(&stream);
            session.reset(&stream, Code::Malformed);
        }
    }
}

/// The head of a request, and what follows it.
fn read(
    session: &Shared,
    stream: &Rc<RefCell<Stream>>,
    head: Bytes,
) -> Result<(request::Parts, frames::Told, Content), Broken> {
    let (mut parts, told) = frames::request(head)?;
    let (session, stream) = (session.clone(), stream.clone());
    let content = match &told.becomes {
        None if parts.method == Method::CONNECT => return Err(Broken("a tunnel that is none")),
        None => Content::Frames(link::Content::of_request(session, stream, &parts.headers)?),
        Some(protocols) if upgrade::hear(&mut parts, told.version, protocols) => {
            Content::Tunnel(Some(Box::new(link::Tunnel::new(session, stream))))
        }
        Some(_) => return Err(Broken("protocols that nobody may switch to")),
    };
    Ok((parts, told, content))
}

/// Sends the answer, once it is there. If it accepts what `tunnels` asks for, by its method, its stream is the tunnel's from
/// then on.
async fn answer<A>(
    session: Shared,
    stream: Rc<RefCell<Stream>>,
    mut answering: Pin<Box<A>>,
    connection: Rc<Connection>,
    patience: Duration,
    tunnels: Option<Method>,
) where
    A: Future<Output = Result<Response<Body>, Infallible>>,
{
    let response = poll_fn(|cx| {
        if stream.borrow().is_over() {
            return Poll::Ready(None);
        }
        let polled = answering.as_mut().poll(cx);
        if polled.is_pending() {
            stream.borrow_mut().watch_writer(cx);
        }
        polled.map(Result::ok)
    })
    .await;
    drop(answering);
    // Whoever asked has gone; with what was asked for them it is recorded so.
    let Some(response) = response else { return };
    let (mut parts, body) = response.into_parts();
    if let (false, Some(length)) = (body.is_end_stream(), body.size_hint().exact()) {
        parts.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    if tunnels.is_some_and(|method| link::accepts(&method, parts.status)) && !stream.borrow().is_ignored() {
        return session.borrow_mut().answer(&stream, false, |out| frames::encode_response(out, &parts));
    }
    let ends = body.is_end_stream();
    session.borrow_mut().answer(&stream, ends, |out| frames::encode_response(out, &parts));
    if !ends {
        send(&session, &stream, body, &connection, patience).await;
    }
    session.borrow_mut().answered(&stream);
}

/// Sends the content of an answer, and gives its reader up when it reads none of it for `patience`.
async fn send(session: &Shared, stream: &Rc<RefCell<Stream>>, body: Body, connection: &Connection, patience: Duration) {
    let mut pump = Pump::new(session.clone(), stream.clone(), body);
    let mut reader = Deadline::default();
    let mut left = 0;
    let read = poll_fn(|cx| {
        if pump.poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        let held = pump.held();
        if held == 0 || held != left {
            reader.clear();
        }
        left = held;
        if held == 0 {
            return Poll::Pending;
        }
        reader.start(patience);
        reader.poll(cx).map(|()| false)
    })
    .await;
    if !read {
        connection.polled.set(Polled::GivenUp); // until this stream's answer has been dropped
        session.borrow_mut().reset(stream, Code::Cancelled);
        drop(pump);
        connection.polled.set(Polled::Held);
    }
}
