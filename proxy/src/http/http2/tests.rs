use std::{future::poll_fn, rc::Rc};

use h2::{Reason, RecvStream, SendStream, server};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{Notify, mpsc},
    task::{JoinHandle, spawn_local, yield_now},
    time::sleep,
};

use super::*;
use crate::http::{Body, Content, Windows};

mod ahead;
mod interim;

/// More than any of them takes, on a clock that stands still while somebody has something to do.
const LONG: Duration = Duration::from_secs(36_000);

type Asked = (Request<RecvStream>, server::SendResponse<Bytes>);

/// The service at the other end of a connection.
struct Called {
    asked: mpsc::UnboundedReceiver<Asked>,
    driven: JoinHandle<()>,
    finish: Rc<Notify>,
}

impl Called {
    async fn next(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }
}

fn on_worker<F: Future<Output = ()> + 'static>(future: F) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build_local(Default::default()).unwrap();
    runtime.block_on(async { timeout(LONG, future).await.expect("it comes to an end") });
}

/// A caller, and the service that it calls, which takes so many streams.
async fn pair(streams: u32) -> (Caller, Called) {
    let (near, far) = duplex(64 * 1024);
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(streams).enable_connect_protocol();
    let (caller, connection) = tokio::join!(Caller::open(near, Windows::NEAR), builder.handshake(far));
    let (tell, asked) = mpsc::unbounded_channel();
    let finish = Rc::new(Notify::new());
    let driven = spawn_local(drive(connection.unwrap(), tell, finish.clone()));
    (caller.unwrap(), Called { asked, driven, finish })
}

async fn drive(
    mut connection: server::Connection<DuplexStream, Bytes>,
    tell: mpsc::UnboundedSender<Asked>,
    finish: Rc<Notify>,
) {
    loop {
        tokio::select! {
            asked = connection.accept() => match asked {
                Some(Ok(asked)) => drop(tell.send(asked)),
                _ => return,
            },
            () = finish.notified() => connection.graceful_shutdown(),
        }
    }
}

fn request(method: Method) -> Request<()> {
    Request::builder().method(method).uri("http://ledger.bank/").body(()).unwrap()
}

fn send(caller: &Caller, request: Request<()>, body: Body) -> JoinHandle<Result<Response<Content>, Failed>> {
    let sender = caller.sender();
    spawn_local(async move { super::send(sender.turn().await?, request, body)?.await })
}

/// Sends a request on its own.
fn call(caller: &Caller, method: Method, body: Body) -> JoinHandle<Result<Response<Content>, Failed>> {
    send(caller, request(method), body)
}

fn status(code: u16) -> Response<()> {
    Response::builder().status(code).body(()).unwrap()
}

/// All that comes of a body.
async fn read(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        read.extend(data);
    }
    Ok(read)
}

/// Becomes true, if others only get their turns.
async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        yield_now().await;
    }
    panic!("it does not come");
}

#[test]
fn who_answers_no_ping_is_given_up_and_who_does_is_not() {
    on_worker(async {
        let (near, _nobody) = duplex(64 * 1024);
        let caller = Caller::open(near, Windows::NEAR).await.unwrap();
        let began = Instant::now();
        let failed = call(&caller, Method::GET, Body::empty()).await.unwrap().unwrap_err();
        assert!(matches!(failed, Failed::Silent), "{failed:?}");
        assert_eq!(began.elapsed().as_secs(), (SILENCE + SIGN).as_secs());
        assert!(caller.is_closed());

        let (caller, mut called) = pair(1).await;
        sleep(100 * SILENCE).await;
        assert!(!caller.is_closed());
        let answered = call(&caller, Method::GET, Body::empty());
        sleep(100 * SILENCE).await;
        called.next().await.1.send_response(status(200), true).unwrap();
        assert_eq!(answered.await.unwrap().unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn a_request_says_how_long_it_is_and_nothing_of_its_connection() {
    on_worker(async {
        let (caller, mut called) = pair(10).await;
        for (method, body, wanted) in [
            (Method::GET, Body::empty(), None),
            (Method::POST, Body::empty(), Some("0")),
            (Method::POST, Body::full("content"), Some("7")),
        ] {
            let mut request = request(method);
            request.headers_mut().insert("keep-alive", "timeout=5".parse().unwrap());
            let answered = send(&caller, request, body);
            let (asked, mut respond) = called.next().await;
            let fields: Vec<_> =
                asked.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            assert_eq!(fields, wanted.map(|length| ("content-length", length)).into_iter().collect::<Vec<_>>());
            respond.send_response(status(204), true).unwrap();
            assert!(answered.await.unwrap().unwrap().body().is_end_stream());
        }
    });
}

#[test]
fn an_answer_comes_with_its_content_and_its_trailers() {
    on_worker(async {
        let (caller, mut called) = pair(10).await;
        let answered = call(&caller, Method::GET, Body::empty());
        let (_asked, mut respond) = called.next().await;
        let head = Response::builder().header("content-length", "7").body(()).unwrap();
        respond.send_informational(status(103)).unwrap();
        let mut stream = respond.send_response(head, false).unwrap();
        let response = answered.await.unwrap().unwrap();
        assert_eq!((response.status(), response.body().size_hint().exact()), (StatusCode::OK, Some(7)));
        stream.send_data("content".into(), false).unwrap();
        stream.send_trailers(http::HeaderMap::from_iter([(http::header::ETAG, "7".parse().unwrap())])).unwrap();
        let content = response.into_body().collect().await.unwrap();
        assert_eq!(content.trailers().unwrap()["etag"], "7");
        assert_eq!(content.to_bytes(), "content");
    });
}

#[test]
fn an_answer_that_comes_early_stops_the_upload_or_does_not() {
    on_worker(async {
        let (caller, mut called) = pair(10).await;
        for reads_on in [false, true] {
            // What is uploaded comes as another answer does.
            let answered = call(&caller, Method::GET, Body::empty());
            let mut source = called.next().await.1.send_response(status(200), false).unwrap();
            source.send_data("first, ".into(), false).unwrap();
            let body = Body::incoming(answered.await.unwrap().unwrap().into_body());
            let answered = call(&caller, Method::PUT, body);
            let (asked, mut respond) = called.next().await;
            let mut answer = respond.send_response(status(403), !reads_on).unwrap();
            let response = answered.await.unwrap().unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
            if reads_on {
                source.send_data("then the rest".into(), true).unwrap();
                assert_eq!(read(asked.into_body()).await.unwrap(), b"first, then the rest");
                answer.send_data(Bytes::new(), true).unwrap();
                assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
            } else {
                drop((asked, respond, answer));
                let told = poll_fn(|cx| source.poll_reset(cx)).await.unwrap();
                assert_eq!(told, Reason::CANCEL, "nobody takes more of the upload");
            }
        }
    });
}

#[test]
fn a_request_that_is_given_up_is_reset() {
    on_worker(async {
        let (caller, mut called) = pair(10).await;
        for body in [Body::empty(), Body::full(vec![7; 3_000_000])] {
            let answered = call(&caller, Method::PUT, body);
            let (_asked, mut respond) = called.next().await;
            answered.abort();
            assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
        }
        let answered = call(&caller, Method::GET, Body::empty());
        let mut stream = called.next().await.1.send_response(status(200), false).unwrap();
        drop(answered.await.unwrap().unwrap()); // its content unread
        assert_eq!(poll_fn(|cx| stream.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    });
}

#[test]
fn a_request_that_is_given_up_while_it_waits_is_reset_or_not_sent() {
    on_worker(async {
        let (caller, mut called) = pair(1).await;
        let first = call(&caller, Method::GET, Body::empty());
        let (_asked, mut respond) = called.next().await;
        let [second, third] = [(); 2].map(|()| call(&caller, Method::PUT, Body::full("content")));
        sleep(SILENCE / 2).await;
        second.abort();
        third.abort();
        sleep(SILENCE / 2).await;
        respond.send_response(status(200), true).unwrap();
        first.await.unwrap().unwrap();
        let (_asked, mut respond) = called.next().await;
        assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
        sleep(SILENCE / 2).await;
        assert!(called.asked.is_empty());
        let answered = call(&caller, Method::GET, Body::empty());
        called.next().await.1.send_response(status(200), true).unwrap();
        answered.await.unwrap().unwrap();
    });
}

#[test]
fn requests_wait_for_their_turn_and_say_when_it_never_came() {
    on_worker(async {
        let (caller, mut called) = pair(1).await;
        let first = call(&caller, Method::GET, Body::empty());
        let (_asked, mut respond) = called.next().await;
        let [second, third, fourth] = [(); 3].map(|()| call(&caller, Method::POST, Body::full("content")));
        sleep(SILENCE / 2).await;
        assert!(called.asked.is_empty() && !second.is_finished());
        respond.send_response(status(200), true).unwrap();
        first.await.unwrap().unwrap();
        let (asked, mut respond) = called.next().await;
        assert_eq!(read(asked.into_body()).await.unwrap(), b"content");
        respond.send_response(status(200), true).unwrap();
        second.await.unwrap().unwrap();
        let _third = called.next().await;
        let fifth = call(&caller, Method::GET, Body::empty());
        sleep(SILENCE / 2).await;
        called.driven.abort();
        for (answered, sent) in [(third, true), (fourth, true), (fifth, false)] {
            let failed = answered.await.unwrap().unwrap_err();
            assert!(
                matches!(failed, Failed::Ended(ref error) if sent && error.is_io())
                    || matches!(failed, Failed::Unsent) && !sent,
                "{failed:?}"
            );
        }
        assert!(caller.is_closed());
    });
}

#[test]
fn a_peer_that_is_about_to_leave_is_asked_nothing_more_and_ends_what_it_has() {
    on_worker(async {
        let (caller, mut called) = pair(10).await;
        let answered = call(&caller, Method::GET, Body::empty());
        let (_asked, mut respond) = called.next().await;
        called.finish.notify_one();
        until(|| caller.is_closed()).await;
        let failed = call(&caller, Method::GET, Body::empty()).await.unwrap().unwrap_err();
        assert!(matches!(failed, Failed::Unsent), "{failed:?}");
        respond.send_response(status(200), true).unwrap();
        assert_eq!(answered.await.unwrap().unwrap().status(), StatusCode::OK);
        called.driven.await.unwrap();
    });
}

#[test]
fn a_connection_ends_with_its_caller_after_what_is_under_way() {
    on_worker(async {
        let (caller, mut called) = pair(10).await;
        let answered = call(&caller, Method::GET, Body::empty());
        let (_asked, mut respond) = called.next().await;
        drop(caller);
        sleep(SILENCE / 2).await;
        assert!(!called.driven.is_finished());
        respond.send_response(status(200), true).unwrap();
        assert_eq!(answered.await.unwrap().unwrap().status(), StatusCode::OK);
        drop(respond);
        called.driven.await.unwrap();
    });
}

#[test]
fn content_that_breaks_off_says_so_and_is_broken_off_for_the_same_reason() {
    on_worker(async {
        let (caller, mut called) = pair(10).await;
        for (reason, told) in [(Reason::ENHANCE_YOUR_CALM, true), (Reason::NO_ERROR, false)] {
            let answered = call(&caller, Method::GET, Body::empty());
            let mut stream = called.next().await.1.send_response(status(200), false).unwrap();
            stream.send_data("half".into(), false).unwrap();
            let body = Body::incoming(answered.await.unwrap().unwrap().into_body());
            let forwarded = call(&caller, Method::POST, body);
            let (asked, mut respond) = called.next().await;
            let half = spawn_local(read(asked.into_body()));
            sleep(SILENCE / 2).await;
            stream.send_reset(reason);
            let ended = half.await.unwrap();
            if told {
                assert_eq!(ended.unwrap_err().reason(), Some(reason));
                let failed = forwarded.await.unwrap().unwrap_err();
                let Failed::Ended(error) = failed else { panic!("{failed:?}") };
                assert_eq!(error.to_string(), format!("stream error sent by user: {}", reason.description()));
            } else {
                assert_eq!(ended.unwrap(), b"half");
                respond.send_response(status(200), true).unwrap();
                forwarded.await.unwrap().unwrap();
            }
        }
    });
}

/// Asks for a tunnel, and gives its answer with both ends.
async fn tunnel(
    caller: &Caller,
    called: &mut Called,
    head: Response<()>,
) -> (Result<Response<Content>, Failed>, RecvStream, SendStream<Bytes>) {
    let answered = call(caller, Method::CONNECT, Body::empty());
    let (asked, mut respond) = called.next().await;
    assert!(!asked.body().is_end_stream());
    let stream = respond.send_response(head, false).unwrap();
    (answered.await.unwrap(), asked.into_body(), stream)
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_each_way_ends_by_itself() {
    on_worker(async {
        let (caller, mut called) = pair(10).await;
        let (response, far, mut stream) = tunnel(&caller, &mut called, status(200)).await;
        let mut near = response.unwrap().body_mut().take_tunnel().unwrap();
        let much: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let sent = much.clone();
        let writing = spawn_local(async move {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            near
        });
        assert!(read(far).await.unwrap() == much);
        stream.send_data("after the end of the other way".into(), true).unwrap();
        let (mut near, mut last) = (writing.await.unwrap(), String::new());
        near.read_to_string(&mut last).await.unwrap();
        assert_eq!(last, "after the end of the other way");
    });
}

#[test]
fn a_tunnel_that_is_dropped_is_broken_off() {
    on_worker(async {
        let (caller, mut called) = pair(10).await;
        let (response, mut far, _stream) = tunnel(&caller, &mut called, status(200)).await;
        let mut near = response.unwrap().body_mut().take_tunnel().unwrap();
        near.write_all(b"said before").await.unwrap();
        assert_eq!(far.data().await.unwrap().unwrap(), "said before");
        drop(near);
        assert_eq!(far.data().await.unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
    });
}

#[test]
fn what_is_no_tunnel_is_an_answer_or_none() {
    on_worker(async {
        let (caller, mut called) = pair(10).await;
        let (response, _far, mut stream) = tunnel(&caller, &mut called, status(403)).await;
        stream.send_data("never".into(), true).unwrap();
        let mut response = response.unwrap();
        assert!(response.body_mut().take_tunnel().is_none());
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "never");

        let head = Response::builder().header("content-length", "5").body(()).unwrap();
        let (response, ..) = tunnel(&caller, &mut called, head).await;
        assert!(matches!(response, Err(Failed::Ended(error)) if error.reason() == Some(Reason::INTERNAL_ERROR)));
    });
}
