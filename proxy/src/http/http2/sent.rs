//! A request under way.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderValue, Method, Request, Response, header::CONTENT_LENGTH};
use http_body::Body as _;
use tokio::task::spawn_local;

use super::{Failed, Peer, Tunnel, caller::Turn, content, pump::Pump};
use crate::{
    frames,
    http::{Body, Content, hop},
};

/// Its answer, when it is there. Of one that comes before the request was sent, the rest goes on being sent for as long as the
/// peer takes it.
pub(crate) struct Sent<'a> {
    /// Kept until the stream is open.
    turn: Option<Turn<'a>>,
    answer: ResponseFuture,
    rest: Rest,
    peer: Rc<Peer>,
}

/// What follows the head of a request. Boxed, because most have nothing.
enum Rest {
    Nothing,
    Content(Box<Pump>),
    Tunnel(SendStream<Bytes>),
}

/// Sends a request, and gives what becomes of it. Dropped before its answer is there, it is given up.
///
/// # Errors
/// It is no request.
pub(crate) fn send(mut turn: Turn<'_>, mut request: Request<()>, body: Body) -> Result<Sent<'_>, Failed> {
    prepare(&mut request, &body);
    let becomes = *request.method() == Method::CONNECT;
    let ends = !becomes && body.is_end_stream();
    let (answer, stream) = turn.open(request, ends)?;
    let rest = match (becomes, ends) {
        (true, _) => Rest::Tunnel(stream),
        (false, true) => Rest::Nothing,
        (false, false) => Rest::Content(Box::new(Pump::new(stream, body))),
    };
    let peer = turn.peer();
    Ok(Sent { turn: Some(turn), answer, rest, peer })
}

/// Takes out of a head what belongs to a connection of HTTP/1 (RFC 9113 section 8.2.2), which policies may have set, and has it
/// say how long the content is where that is known.
fn prepare(request: &mut Request<()>, body: &Body) {
    if hop::look(request.headers()).of_connection {
        // What it names wrongly stays.
        let _ = hop::strip(request.headers_mut());
    }
    let by_itself = !matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT);
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0 || by_itself) {
        request.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}

impl Sent<'_> {
    /// What comes with the head of an answer.
    fn answered(&mut self, response: Response<RecvStream>) -> Result<Response<Content>, Failed> {
        let length = frames::announced(response.headers()).ok().flatten();
        let peer = self.peer.clone();
        match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Tunnel(mut stream) if response.status().is_success() => {
                if length.is_some_and(|length| length > 0) {
                    // The library would hold the tunnel to that length, which means nothing (RFC 9110 section 9.3.6).
                    stream.send_reset(Reason::INTERNAL_ERROR);
                    return Err(Failed::Ended(Reason::INTERNAL_ERROR.into()));
                }
                return Ok(response.map(|rest| Content::Stream(Some(Box::new(Tunnel::new(stream, rest, peer))))));
            }
            Rest::Content(mut pump) => drop(spawn_local(poll_fn(move |cx| pump.poll(cx)))),
            Rest::Nothing | Rest::Tunnel(_) => {}
        }
        Ok(response.map(|rest| Content::Http2(content::Content::new(rest, length, peer))))
    }
}

impl Future for Sent<'_> {
    type Output = Result<Response<Content>, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(turn) = &mut this.turn {
            ready!(turn.poll_open(cx));
            this.turn = None;
        }
        if let Rest::Content(pump) = &mut this.rest
            && pump.poll(cx).is_ready()
        {
            this.rest = Rest::Nothing;
        }
        let answer = ready!(Pin::new(&mut this.answer).poll(cx));
        Poll::Ready(match answer {
            Ok(response) => {
                this.peer.hear();
                this.answered(response)
            }
            Err(_) if this.peer.silent.get() => Err(Failed::Silent),
            Err(error) => Err(Failed::Ended(error)),
        })
    }
}
