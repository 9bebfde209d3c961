//! Every byte of a body arrives, in its place, in both directions: whatever its length, however it is cut, and again when
//! it is sent again.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use selvedge_tests::{
    around::talk,
    client::{self, Answer, Connection, Payload, in_pieces, request},
    pair::{HOST, Pair},
    pattern::{self, assert_same},
    upstream::Upstream,
};
use tokio::io::AsyncWriteExt;

/// Around the sizes of frames, buffers and what is kept for another try, and one that goes a way of its own.
const LENGTHS: [usize; 12] =
    [1, 9, 4095, 4096, 4097, 16_384, 16_385, 65_535, 65_536, 65_537, 262_145, 3 * 1024 * 1024 + 17];

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// At once, with its length.
    Whole,
    /// In pieces, of a length that nobody is told.
    Pieces,
    /// The same with a trailer.
    Trailed,
}

impl Shape {
    const ALL: [Self; 3] = [Self::Whole, Self::Pieces, Self::Trailed];

    fn of(self, body: Bytes) -> Payload {
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from(body.len()))]);
        match self {
            Self::Whole => Full::new(body).boxed_unsync(),
            Self::Pieces => in_pieces(body, None),
            Self::Trailed => in_pieces(body, Some(trailers)),
        }
    }
}

/// A connection of each version.
async fn connections(pair: &Pair) -> [(&'static str, Connection); 2] {
    let entry = pair.entry();
    [("HTTP/1", Connection::open(entry).await.unwrap()), ("HTTP/2", Connection::open_http2(entry).await.unwrap())]
}

async fn upload(connection: &mut Connection, shape: Shape, body: &Bytes) -> Answer {
    let asked = Request::post("/up").header("host", HOST).header("trailer", "x-sum").body(shape.of(body.clone()));
    connection.call_any(asked.unwrap()).await.unwrap()
}

/// What the service was sent since the last call.
fn assert_arrived(what: &str, upstream: &Upstream, wanted: &[&Bytes]) {
    let bodies = upstream.take_bodies();
    assert_eq!(bodies.len(), wanted.len(), "{what}");
    for (body, wanted) in bodies.iter().zip(wanted) {
        assert_same(what, body, wanted);
    }
}

#[tokio::test]
async fn uploads_arrive_byte_for_byte() {
    let pair = Pair::start().await;
    for (version, mut connection) in connections(&pair).await {
        for (shape, length) in Shape::ALL.iter().flat_map(|shape| LENGTHS.map(|length| (*shape, length))) {
            let (what, body) = (format!("{version}, {shape:?} {length}"), pattern::bytes(7, length));
            let seen = upload(&mut connection, shape, &body).await.json();
            assert_arrived(&what, &pair.upstream, &[&body]);
            let trailers = if shape == Shape::Trailed { format!("[[\"x-sum\",\"{length}\"]]") } else { "[]".into() };
            assert_eq!(seen["trailers"].to_string(), trailers, "{what}");
        }
        assert!(connection.is_open(), "{version}");
    }
}

#[tokio::test]
async fn downloads_arrive_byte_for_byte() {
    let pair = Pair::start().await;
    for (version, mut connection) in connections(&pair).await {
        for length in LENGTHS {
            let wanted = pattern::bytes(length as u64, length);
            for path in ["bytes", "pieces"] {
                let mut asked = request(Method::GET, HOST, &format!("/{path}/{length}"));
                asked.headers_mut().insert("te", HeaderValue::from_static("trailers"));
                let answer = connection.call(asked).await.unwrap();
                let what = format!("{version}, /{path}/{length}");
                assert_same(&what, &answer.body, &wanted);
                let sum = answer.trailers.get("x-sum").map(|sum| sum.to_str().unwrap().to_owned());
                assert_eq!(sum, (path == "pieces").then(|| length.to_string()), "{what}");
            }
        }
        assert!(connection.is_open(), "{version}");
    }
}

#[tokio::test]
async fn bodies_of_requests_that_share_a_connection_are_not_mixed() {
    let pair = Pair::start().await;
    let sent = (0..20_u64).map(|number| {
        let entry = pair.entry();
        async move {
            let mut connection = Connection::open_http2(entry).await.unwrap();
            let body = pattern::bytes(number, 200_000 + number as usize);
            for shape in Shape::ALL {
                upload(&mut connection, shape, &body).await;
            }
        }
    });
    futures_util::future::join_all(sent).await;
    let mut bodies = pair.upstream.take_bodies();
    bodies.sort_by_key(Bytes::len);
    assert_eq!(bodies.len(), 60);
    for (index, body) in bodies.iter().enumerate() {
        let number = index as u64 / 3;
        assert_same(&format!("body {number}"), body, &pattern::bytes(number, 200_000 + number as usize));
    }
}

#[tokio::test]
async fn a_tunnel_carries_every_byte() {
    let pair = Pair::start().await;
    let stream = &mut client::connect(pair.entry()).await.unwrap();
    let head = format!("GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(talk(stream, head.as_bytes(), "\r\n\r\n", 1).await.starts_with("HTTP/1.1 101"));
    let sent = pattern::bytes(11, 400_000);
    for piece in pattern::pieces(sent) {
        stream.write_all(&piece).await.unwrap();
        client::expect_bytes(stream, &piece).await;
    }
}
