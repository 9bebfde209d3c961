//! How each reason is brought about, once, and what its caller is told.

use std::{net::SocketAddr, time::Duration};

use http::{Method, StatusCode};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use selvedge_policies::reason::Reason;
use selvedge_tests::{
    around::{talk, talk_to_the_end},
    client::{self, Answer, Connection, request},
    frames::{PING, frame, hello},
    pair::HOST,
    upstream::Scenario,
    wait::{self, within},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    Told,
    setting::{SLOW, Setting, destination, port, service},
};

/// Brings `reason` about.
pub(crate) async fn provoke(setting: &Setting, reason: Reason) -> Told {
    let entry = setting.caller(reason).outbound(&destination(&service(reason)));
    let inside = || setting.called(reason).inbound(port(reason));
    let raw = async |head: &str| raw(entry, reason, head).await;
    match reason {
        Reason::PlaintextRefused => told(reason, &client::call(inside(), get()).await.unwrap()),
        Reason::DownstreamClosed => hang_up(setting, entry).await,
        Reason::CallerTimeout => raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").await,
        Reason::MalformedFraming => raw("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 4\r\n\r\nbody").await,
        Reason::UnsupportedTransferCoding => {
            raw("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n").await
        }
        Reason::MalformedHost => raw("GET / HTTP/1.1\r\nHost: a b\r\n\r\n").await,
        Reason::MalformedPath => raw("GET * HTTP/1.1\r\nHost: a\r\n\r\n").await,
        Reason::MalformedHeader => raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n").await,
        Reason::HeadersTooLarge => many_fields(entry).await,
        Reason::FrameFlood => closed(entry, &[hello(), frame(PING, 0, 0, b"8 octets").repeat(20_000)].concat()).await,
        Reason::Overloaded => crowd(entry).await,
        Reason::Draining => drain(setting, entry).await,
        Reason::NotReady => {
            until(entry, "it is served before", |answer| answer.status == 200).await;
            setting.mesh.remove("workload-shop-early.yaml");
            until_told(entry, reason).await
        }
        Reason::DetectTimeout => silence(inside()).await,
        Reason::TlsHandshakeFailed => half_a_handshake(inside()).await,
        _ => until_told(entry, reason).await,
    }
}

fn get() -> http::Request<http_body_util::Full<bytes::Bytes>> {
    request(Method::GET, HOST, "/")
}

async fn until(entry: SocketAddr, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let wanted = &wanted;
    wait::until(what, || async move { client::call(entry, get()).await.ok().filter(|answer| wanted(answer)) }).await
}

/// Asks until there is an answer for this reason, for the configuration may not have arrived.
async fn until_told(entry: SocketAddr, reason: Reason) -> Told {
    told(reason, &until(entry, &format!("the answer is {reason}"), |answer| answer.reason() == reason.code()).await)
}

/// What an answer tells of its reason.
fn told(reason: Reason, answer: &Answer) -> Told {
    assert_eq!(answer.status, StatusCode::from_u16(reason.status()).unwrap(), "{reason}: {answer:?}");
    assert_eq!(answer.json()["error"], reason.code(), "{reason}: {answer:?}");
    match answer.reason() {
        "" => Told::Code,
        code => {
            assert_eq!(code, reason.code());
            Told::Everything
        }
    }
}

/// Sends bytes on a connection that is kept open, and reads an answer of the mesh.
async fn raw(entry: SocketAddr, reason: Reason, bytes: &str) -> Told {
    let mut stream = client::connect(entry).await.unwrap();
    let answer = talk(&mut stream, bytes.as_bytes(), "}\n", 1).await.to_lowercase();
    assert!(answer.starts_with(&format!("http/1.1 {} ", reason.status())), "{answer}");
    let has = |text: String| answer.contains(&text);
    assert!(has(format!("\"error\":\"{reason}\"")), "{answer}");
    if has(format!("\r\nselvedge-reason: {reason}\r\n")) { Told::Everything } else { Told::Code }
}

/// Sends bytes and waits for the end, before which nothing is said that is an answer.
async fn closed(address: SocketAddr, bytes: &[u8]) -> Told {
    let mut stream = client::connect(address).await.unwrap();
    // The sidecar may close in the middle of it.
    let _ = within("the bytes are taken or refused", stream.write_all(bytes)).await;
    until_closed(&mut stream).await
}

async fn until_closed(stream: &mut TcpStream) -> Told {
    let mut said = Vec::new();
    let _ = within("the end of the connection", stream.read_to_end(&mut said)).await;
    assert!(!said.windows(5).any(|window| window == b"HTTP/"), "{:?}", String::from_utf8_lossy(&said));
    Told::Nothing
}

async fn hang_up(setting: &Setting, entry: SocketAddr) -> Told {
    let service = &setting.thinks;
    until(entry, "it is served before", |answer| answer.status == 200).await;
    service.play(Scenario::Slow(Duration::from_secs(60)));
    let before = service.served();
    let mut stream = client::connect(entry).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    wait::until_true("the service has the request", || async move { service.served() > before }).await;
    drop(stream);
    Told::Nobody
}

async fn many_fields(entry: SocketAddr) -> Told {
    let mut asked = get();
    for number in 0..101 {
        let name = http::HeaderName::try_from(format!("x-field-{number}")).unwrap();
        asked.headers_mut().insert(name, "1".parse().unwrap());
    }
    told(Reason::HeadersTooLarge, &Connection::open_http2(entry).await.unwrap().call(asked).await.unwrap())
}

/// A second connection beside one that is held.
async fn crowd(entry: SocketAddr) -> Told {
    let mut held = Connection::open(entry).await.unwrap();
    within("the first connection is served", async {
        while held.call(get()).await.unwrap().status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let told = closed(entry, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(held.call(get()).await.unwrap().status, 200, "the first is served on");
    told
}

/// An opaque connection that stays open at the deadline. A request that hangs keeps the process for the second after it,
/// in which its numbers can be read.
async fn drain(setting: &Setting, entry: SocketAddr) -> Told {
    let leaving = &setting.leaving;
    wait::until_true("the service echoes", || async move {
        client::exchange(entry, b"echo", Duration::from_millis(500)).await == b"echo"
    })
    .await;
    let hangs = leaving.outbound(&destination(SLOW));
    let before = setting.slow.served();
    let hanging = tokio::spawn(async move {
        let asked = b"GET /hang-on HTTP/1.1\r\nHost: a\r\n\r\n";
        talk_to_the_end(&mut client::connect(hangs).await.unwrap(), asked).await
    });
    let slow = &setting.slow;
    wait::until_true("a request is under way", || async move { slow.served() > before }).await;
    let mut open = client::connect(entry).await.unwrap();
    assert_eq!(talk(&mut open, b"open", "open", 1).await, "open");
    let drain = request(Method::POST, "localhost", "/drain");
    assert_eq!(client::call(leaving.admin(), drain).await.unwrap().status, 202);
    let service = format!("destination_service=\"{}\"", service(Reason::Draining));
    let labels = ["reason=\"draining\"", &service];
    let metrics = leaving.metrics();
    let counted = metrics.until("selvedge_tcp_connections_closed_total", &labels, 1.0);
    let (told, ()) = tokio::join!(until_closed(&mut open), counted);
    hanging.abort();
    told
}

/// A connection on which nobody says anything.
async fn silence(inside: SocketAddr) -> Told {
    // Until strangers may call, one would be refused for that.
    until(inside, "strangers may call", |answer| answer.status == 200).await;
    let start = Instant::now();
    let told = closed(inside, b"").await;
    assert!((10..30).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    told
}

/// A ClientHello of the mesh, and then bytes that no handshake has.
async fn half_a_handshake(inside: SocketAddr) -> Told {
    let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"selvedge-h2".to_vec()];
    let mut session = ClientConnection::new(config.into(), "api.shop".try_into().unwrap()).unwrap();
    let mut flight = Vec::new();
    session.write_tls(&mut flight).unwrap();
    flight.extend_from_slice(&[0x17, 3, 3, 0, 32]);
    flight.extend_from_slice(&[0; 32]);
    closed(inside, &flight).await
}
