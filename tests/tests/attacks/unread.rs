//! Answers in crumbs that a peer leaves unread: other callers use the same connection to the application.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use selvedge_tests::{
    client::{Answer, Connection, request},
    frames::hello,
    pair::{HOST, Pair},
    wait::{self, within},
};
use tokio::{io::AsyncWriteExt as _, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    stolen::{connect, older, stolen},
    wire::{big, window},
};

/// Answers that the peer leaves unread.
const UNREAD: u32 = 20;
/// Requests of others that are under way meanwhile.
const OTHERS: u32 = 8;

type Content = mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>;

/// An upload that goes on for as long as nobody drops its content.
async fn upload(mut caller: Connection) -> (Content, JoinHandle<Answer>) {
    let (content, rest) = mpsc::channel(4);
    content.send(Ok(Frame::data("a part, ".into()))).await.unwrap();
    let content_of = StreamBody::new(ReceiverStream::new(rest)).boxed_unsync();
    let asked = Request::post("/").header("host", HOST).body(content_of).unwrap();
    (content, tokio::spawn(async move { caller.call_any(asked).await.expect("it is answered") }))
}

#[tokio::test]
async fn answers_in_crumbs_that_a_peer_leaves_unread_end_nobody_elses() {
    let pair = &Pair::start_with("http2", &[]).await;
    let mut another = Connection::open_http2(pair.entry()).await.unwrap();
    let (served, connections) = (pair.upstream.served(), pair.upstream.connections());
    let mut uploads = Vec::new();
    for _ in 0..OTHERS {
        uploads.push(upload(Connection::open_http2(pair.entry()).await.unwrap()).await);
    }
    wait::until_true("the application has them", || async { pair.upstream.served() == served + OTHERS }).await;

    let peer = older(&stolen(pair.web.home()));
    let mut peer = connect(&peer, pair.api.inbound(8080)).await;
    let asked: Vec<u8> = (0..UNREAD).flat_map(big).collect();
    peer.write_all(&[hello(), window(0), asked].concat()).await.unwrap();
    peer.flush().await.unwrap();
    wait::until_true("it has the peer's", || async { pair.upstream.served() == served + OTHERS + UNREAD }).await;
    for _ in 0..100 {
        assert_eq!(another.call(request(Method::GET, HOST, "/")).await.unwrap().status, 200);
    }

    for (content, answered) in uploads {
        content.send(Ok(Frame::data("and the rest".into()))).await.unwrap();
        drop(content);
        let answer = within("the answer", answered).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.json()["bodyLength"]), (200, &20.into()), "{answer:?}");
    }
    assert_eq!(pair.upstream.connections(), connections + 1, "all of HTTP/2 use one");
}
