//! The HTTP/2 connection of a sidecar (RFC 9113): a task for it, and one for each of its streams.
//!
//! Guarantees: a response is taken apart only as fast as the other end makes room for it, so nothing waits here beside what
//! its caller accounts for; a stream that is reset is dropped with all it does; who does not answer a PING is given up.
//!
//! A stream hands what it says to the connection itself: a queue between the two, and a task that empties it, would be woken for
//! each of thousands of sidecars that are told the same news.

use std::{
    future::{pending, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{sleep, timeout},
};

const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Streams of a connection at once, of all services.
const STREAMS: u32 = 4;
/// What of a request may be under way before it is read.
const WINDOW: u32 = 256 << 10;
/// Largest header section of a request.
const HEADERS: u32 = 16 << 10;

/// A connection with the streams that it carries, which end with it.
pub(super) struct Connection<T> {
    connection: h2::server::Connection<T, Bytes>,
    streams: JoinSet<()>,
    silence: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Why a connection is over before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("the other end answers no PING")]
    Silent,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Begins with the preface of the client.
    pub(super) async fn open(io: T) -> Result<Self, h2::Error> {
        let mut builder = Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        builder.max_concurrent_streams(STREAMS).max_header_list_size(HEADERS);
        let mut connection = builder.handshake(io).await?;
        let silence = Box::pin(silence(connection.ping_pong()));
        Ok(Self { connection, streams: JoinSet::new(), silence })
    }

    /// Carries streams until the connection is over; `answer` begins each. What is under way stays when this is given up and
    /// called again.
    pub(super) async fn run<S: Future<Output = ()> + Send + 'static>(
        &mut self,
        mut answer: impl FnMut(Request<Received>, SendResponse<Bytes>) -> S,
    ) -> Result<(), Broken> {
        loop {
            tokio::select! {
                // What has come is read before anybody is taken to be silent: of a thread that is late everybody's time is up.
                biased;
                request = self.connection.accept() => match request.transpose()? {
                    Some((request, respond)) => drop(self.streams.spawn(answer(request.map(Received), respond))),
                    None => return Ok(()),
                },
                Some(_) = self.streams.join_next() => {}
                () = &mut self.silence => return Err(Broken::Silent),
            }
        }
    }

    /// Takes no more streams; [`Self::run`] ends with the last of those there are.
    pub(super) fn graceful_shutdown(&mut self) {
        self.connection.graceful_shutdown();
    }
}

/// Ends when the other end leaves a PING unanswered.
async fn silence(pings: Option<PingPong>) {
    // There is one, because nobody took it before.
    let Some(mut pings) = pings else { return pending().await };
    loop {
        sleep(KEEP_ALIVE).await;
        if !matches!(timeout(KEEP_ALIVE, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// The content of a request. What is taken of it makes room for more.
#[derive(Debug)]
pub(super) struct Received(RecvStream);

impl Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Some(data) = ready!(self.0.poll_data(cx)).transpose()? else { return Poll::Ready(None) };
        // It fails where the stream is over, and then nobody needs the room.
        let _released = self.0.flow_control().release_capacity(data.len());
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Sends `data`, as the other end takes it.
pub(super) async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match stream.capacity() {
            0 => poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap_or(Err(Reason::CANCEL.into()))?,
            room => room,
        };
        if room > 0 {
            stream.send_data(data.split_to(room.min(data.len())), false)?;
        }
    }
    Ok(())
}

/// Answers with what `service` says, unless the stream is reset before.
pub(super) async fn answer<B: Body<Data = Bytes> + Unpin>(
    service: impl Future<Output = Response<B>>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let response = tokio::select! {
        response = service => response,
        _reset = poll_fn(|cx| respond.poll_reset(cx)) => return Ok(()),
    };
    let (head, mut body) = response.into_parts();
    let is_over = body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(head, ()), is_over)?;
    if is_over {
        return Ok(());
    }
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data().map_err(Frame::into_trailers) {
            Ok(data) => send(&mut stream, data).await?,
            Err(Ok(trailers)) => return stream.send_trailers(trailers),
            Err(Err(_)) => {}
        }
    }
    stream.send_data(Bytes::new(), true)
}

#[cfg(test)]
mod tests {
    use h2::client::{ResponseFuture, SendRequest};
    use tokio::{
        io::DuplexStream,
        sync::{mpsc, oneshot},
    };

    use super::*;

    const LONG: usize = 1 << 20;

    type Client = h2::client::Connection<DuplexStream>;

    /// A client that makes room for 1 000 bytes, and a connection that carries what `answer` makes.
    async fn connected() -> (SendRequest<Bytes>, Client, Connection<DuplexStream>) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let mut client = h2::client::Builder::new();
        client.initial_window_size(1000);
        let (client, server) = tokio::join!(client.handshake(theirs), Connection::open(ours));
        let (calls, client) = client.unwrap();
        (calls, client, server.unwrap())
    }

    fn call(calls: &mut SendRequest<Bytes>) -> (ResponseFuture, SendStream<Bytes>) {
        calls.send_request(Request::new(()), false).unwrap()
    }

    #[tokio::test]
    async fn a_response_goes_out_as_the_client_makes_room_for_it() {
        let (taken, mut told) = mpsc::unbounded_channel();
        let (mut calls, client, mut connection) = connected().await;
        tokio::spawn(client);
        let serve = connection.run(move |_, mut respond: SendResponse<Bytes>| {
            let taken = taken.clone();
            async move {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                send(&mut stream, vec![7; LONG].into()).await.unwrap();
                taken.send(()).unwrap();
                stream.send_data(Bytes::new(), true).unwrap();
            }
        });
        let client = async {
            let (response, _request) = call(&mut calls);
            let mut body = response.await.unwrap().into_body();
            let mut read = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                assert!(data.iter().all(|byte| *byte == 7));
                read += data.len();
                if read <= LONG / 2 {
                    assert!(told.try_recv().is_err(), "half of it was not read, and none of that waits here");
                }
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            assert_eq!(read, LONG);
            told.recv().await.unwrap();
        };
        tokio::select! { result = serve => panic!("the connection ended: {result:?}"), () = client => {} }
    }

    #[tokio::test]
    async fn a_stream_that_is_reset_is_dropped_with_all_it_does() {
        let (mut calls, client, mut connection) = connected().await;
        tokio::spawn(client);
        let (dropped, gone) = oneshot::channel::<()>();
        let mut dropped = Some(dropped);
        let serve = connection.run(|_, respond| {
            let held = dropped.take();
            async move {
                let service = async move {
                    let _held = held;
                    pending::<Response<tonic::body::Body>>().await
                };
                answer(service, respond).await.unwrap();
            }
        });
        let client = async {
            let (_response, mut request) = call(&mut calls);
            request.send_data(Bytes::from_static(b"begun"), false).unwrap();
            request.send_reset(Reason::CANCEL);
            gone.await.unwrap_err();
        };
        tokio::select! { result = serve => panic!("the connection ended: {result:?}"), () = client => {} }
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_no_ping_is_given_up_and_who_does_is_not() {
        for is_there in [true, false] {
            let (_calls, client, mut connection) = connected().await;
            let answers = async { if is_there { client.await.unwrap() } else { pending().await } };
            let given_up = tokio::select! {
                () = answers => panic!("the client ended"),
                result = connection.run(|_, _| pending()) => matches!(result, Err(Broken::Silent)),
                () = sleep(10 * KEEP_ALIVE) => false,
            };
            assert_eq!(given_up, !is_there);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_waits_to_be_read_is_an_answer() {
        let (_calls, client, mut connection) = connected().await;
        tokio::spawn(client);
        let carry = timeout(KEEP_ALIVE + KEEP_ALIVE / 2, connection.run(|_, _| pending::<()>()));
        assert!(carry.await.is_err(), "it is asked whether it is there");
        for _ in 0..3 {
            // Nobody polls the connection, as on a thread that has too much to do.
            sleep(3 * KEEP_ALIVE).await;
            let carry = timeout(KEEP_ALIVE / 2, connection.run(|_, _| pending::<()>()));
            assert!(carry.await.is_err(), "it has answered, and the answer was not read");
        }
    }
}
