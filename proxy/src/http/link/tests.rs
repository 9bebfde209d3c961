use http::{HeaderMap, HeaderValue, Method, Version};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::{JoinHandle, spawn_local, yield_now},
};

use super::*;
use crate::{
    frames::{Asked, Code, Stream, encode_response},
    http::{Body, Content},
};

fn on_worker<F: Future<Output = ()> + 'static>(future: F) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build_local(Default::default()).unwrap().block_on(future);
}

fn asked(headers: &HeaderMap) -> Asked<'_> {
    let (method, authority) = (&Method::GET, "ledger.bank");
    Asked { method, version: Version::HTTP_11, authority, path_and_query: "/", headers, spelling: None, becomes: None }
}

/// A caller, and the session that it calls.
fn pair() -> (Caller, Shared, JoinHandle<Option<Broken>>) {
    let (near, far) = duplex(16 * 1024);
    let called = Rc::new(RefCell::new(Session::new(false, Instant::now())));
    let driven = spawn_local(drive(far, called.clone(), || {}));
    (Caller::new(near), called, driven)
}

/// Asks for a tunnel, which is answered with `status`, and gives the answer with both ends.
async fn tunnel(caller: &Caller, called: &Shared, status: u16) -> (http::Response<Content>, Tunnel) {
    let sender = caller.sender();
    let answered = spawn_local(async move {
        let headers = HeaderMap::new();
        let asked = Asked { becomes: Some(b"websocket"), ..asked(&headers) };
        sender.send(&asked, Body::empty()).await.map(|(response, _)| response)
    });
    let arrived = loop {
        match next(called) {
            Some(arrived) => break arrived,
            None => yield_now().await,
        }
    };
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = http::StatusCode::from_u16(status).unwrap();
    let mut far = Tunnel::new(called.clone(), arrived.stream.clone());
    called.borrow_mut().answer(&arrived.stream, false, |out| encode_response(out, &parts));
    far.write_all(b"said at once").await.unwrap();
    (answered.await.unwrap().unwrap(), far)
}

/// Sends a request, and waits until it has come.
async fn call(caller: &Caller, called: &Shared, body: Body) -> (JoinHandle<Result<Vec<u8>, End>>, Rc<RefCell<Stream>>) {
    let sender = caller.sender();
    let answered = spawn_local(async move {
        let headers = HeaderMap::new();
        let (response, _) = sender.send(&asked(&headers), body).await.map_err(|Failed(end)| end)?;
        Ok(response.into_body().collect().await.unwrap().to_bytes().to_vec())
    });
    loop {
        if let Some(arrived) = called.borrow_mut().arrived() {
            return (answered, arrived.stream);
        }
        yield_now().await;
    }
}

fn answer(called: &Shared, stream: &RefCell<Stream>) {
    let (parts, ()) = http::Response::new(()).into_parts();
    called.borrow_mut().answer(stream, true, |out| encode_response(out, &parts));
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_each_way_ends_by_itself() {
    on_worker(async {
        let (caller, called, _driven) = pair();
        let (mut response, mut far) = tunnel(&caller, &called, 101).await;
        let mut near = response.body_mut().take_tunnel().unwrap();
        drop(caller); // as for a connection that nobody has called on for long
        let mut first = [0; 12];
        near.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"said at once");
        let much: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let sent = much.clone();
        let writing = spawn_local(async move {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            near
        });
        let mut came = Vec::new();
        far.read_to_end(&mut came).await.unwrap();
        assert!(came == much, "{} bytes", came.len());
        far.write_all(b"after the end of the other way").await.unwrap();
        far.shutdown().await.unwrap();
        let mut last = String::new();
        writing.await.unwrap().read_to_string(&mut last).await.unwrap();
        assert_eq!(last, "after the end of the other way");
        assert!(!called.borrow().is_busy(), "nothing is left of it");
    });
}

#[test]
fn a_tunnel_that_breaks_gives_what_came_before_and_says_that_it_broke() {
    on_worker(async {
        let (caller, called, _driven) = pair();
        let (mut response, far) = tunnel(&caller, &called, 101).await;
        let mut near = response.body_mut().take_tunnel().unwrap();
        drop(far);
        let mut came = Vec::new();
        let broken = near.read_to_end(&mut came).await.unwrap_err();
        assert_eq!((&came[..], broken.kind()), (&b"said at once"[..], std::io::ErrorKind::UnexpectedEof));
        assert!(near.write_all(b"more").await.is_err());
        assert!(!called.borrow().is_busy(), "nothing is left of it");
    });
}

#[test]
fn a_tunnel_that_nobody_takes_is_given_up() {
    on_worker(async {
        let (caller, called, _driven) = pair();
        let (response, mut far) = tunnel(&caller, &called, 101).await;
        drop(response);
        assert!(far.read(&mut [0; 10]).await.is_err());
        assert!(!called.borrow().is_busy());
    });
}

#[test]
fn a_tunnel_that_is_refused_is_a_request_like_any_other() {
    on_worker(async {
        let (caller, called, _driven) = pair();
        let (mut response, mut far) = tunnel(&caller, &called, 403).await;
        assert!(response.body_mut().take_tunnel().is_none());
        assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0, "nothing follows its head");
        far.shutdown().await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "said at once");
        assert!(!called.borrow().is_busy());
    });
}

#[test]
fn a_connection_ends_in_order_once_its_caller_and_its_requests_are_gone() {
    on_worker(async {
        let (caller, called, driven) = pair();
        let (answered, stream) = call(&caller, &called, Body::empty()).await;
        drop(caller);
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(!driven.is_finished(), "a request is under way");
        answer(&called, &stream);
        assert_eq!(answered.await.unwrap(), Ok(Vec::new()));
        assert_eq!(driven.await.unwrap(), None);
    });
}

#[test]
fn who_says_nothing_is_found_out_while_a_request_waits_and_left_alone_otherwise() {
    on_worker(async {
        let (near, far) = duplex(16 * 1024); // nobody is there
        let caller = Caller::new(near);
        sleep(Duration::from_secs(3600)).await;
        assert!(!caller.is_closed(), "nobody waits for anything");
        let began = Instant::now();
        let headers = HeaderMap::new();
        let Failed(end) = caller.sender().send(&asked(&headers), Body::empty()).await.unwrap_err();
        let took = began.elapsed();
        assert!(end == End::Lost && took >= SILENCE && took <= SILENCE + 2 * SIGN, "{end:?} after {took:?}");
        drop(far);
    });
}

#[test]
fn a_service_may_take_its_time_while_its_sidecar_lives() {
    on_worker(async {
        let (caller, called, _driven) = pair();
        let (answered, stream) = call(&caller, &called, Body::empty()).await;
        sleep(Duration::from_secs(3600)).await;
        answer(&called, &stream);
        assert_eq!(answered.await.unwrap(), Ok(Vec::new()));
    });
}

#[test]
fn a_request_whose_caller_goes_is_given_up() {
    on_worker(async {
        let (caller, called, _driven) = pair();
        let (answered, stream) = call(&caller, &called, Body::empty()).await;
        answered.abort();
        while !stream.borrow().is_over() {
            yield_now().await;
        }
        assert!(!called.borrow().is_busy());
    });
}

#[test]
fn a_head_that_is_too_large_is_told_at_once_and_nothing_else_suffers() {
    on_worker(async {
        let (caller, called, _driven) = pair();
        let value = HeaderValue::from_bytes(&vec![b'x'; 100_000]).unwrap();
        let large = HeaderMap::from_iter([(http::header::COOKIE, value)]);
        let Failed(end) = caller.sender().send(&asked(&large), Body::empty()).await.unwrap_err();
        assert_eq!(end, End::Reset(Code::TooLarge));
        let (answered, stream) = call(&caller, &called, Body::full("content")).await;
        answer(&called, &stream);
        assert_eq!(answered.await.unwrap(), Ok(Vec::new()));
    });
}

#[test]
fn an_answer_that_is_sent_when_the_connection_may_end_comes_whole() {
    on_worker(async {
        let (near, far) = duplex(512);
        let called = Rc::new(RefCell::new(Session::new(false, Instant::now())));
        spawn_local(drive(far, called.clone(), || {}));
        let caller = Caller::new(near);
        let (answered, stream) = call(&caller, &called, Body::empty()).await;
        drop(caller);
        let (parts, ()) = http::Response::new(()).into_parts();
        called.borrow_mut().answer(&stream, false, |out| encode_response(out, &parts));
        let mut pump = Pump::new(called, stream, Body::full(vec![7; 200_000]));
        poll_fn(|cx| pump.poll(cx)).await;
        assert_eq!(answered.await.unwrap().map(|content| content.len()), Ok(200_000));
    });
}

#[test]
fn who_reads_nothing_is_not_read_either() {
    on_worker(async {
        let (near, far) = duplex(16 * 1024);
        let called = Rc::new(RefCell::new(Session::new(false, Instant::now())));
        let answering = called.clone();
        let answer_all = move || {
            while let Some(arrived) = next(&answering) {
                answering.borrow_mut().reset(&arrived.stream, Code::Malformed);
            }
        };
        spawn_local(drive(far, called.clone(), answer_all));
        let (_reader, mut writer) = tokio::io::split(near);
        let mut opened = 0_u32;
        let began = Instant::now();
        loop {
            let [a, b, c, d] = (opened + 1).to_be_bytes();
            if writer.write_all(&[0, 0, 0, 0x81, a, b, c, d]).await.is_err() {
                break;
            }
            opened += 1;
            assert!(called.borrow().output().len() < 2 << 20, "after {opened} requests");
        }
        assert!(opened < 300_000 && began.elapsed() < Duration::from_secs(60), "{opened} in {:?}", began.elapsed());
    });
}

fn next(session: &Shared) -> Option<crate::frames::Arrived> {
    session.borrow_mut().arrived()
}

#[test]
fn a_request_that_announces_more_than_it_has_is_no_request() {
    on_worker(async {
        let (caller, called, _driven) = pair();
        let (_answered, stream) = call(&caller, &called, Body::empty()).await;
        let length =
            |text: &'static str| HeaderMap::from_iter([(http::header::CONTENT_LENGTH, HeaderValue::from_static(text))]);
        for text in ["5", "18446744073709551616", "+1", "x"] {
            let content = super::Content::of_request(called.clone(), stream.clone(), &length(text));
            assert!(content.is_err(), "{text}");
        }
        assert!(super::Content::of_request(called, stream, &length("0")).is_ok());
    });
}

#[test]
fn a_peer_that_breaks_the_rules_loses_the_connection() {
    on_worker(async {
        let (mut near, far): (DuplexStream, _) = duplex(16 * 1024);
        let called = Rc::new(RefCell::new(Session::new(false, Instant::now())));
        let driven = spawn_local(drive(far, called, || {}));
        near.write_all(&[0, 0, 0, 0, 0, 0, 0, 9]).await.unwrap();
        assert!(driven.await.unwrap().is_some());
    });
}
