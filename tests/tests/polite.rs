//! What is odd but legal passes unharmed: each row is a message that some client or service sends and that no policy needs to
//! refuse. Over explicit and transparent capture, HTTP/1.1, HTTP/1.0 and HTTP/2; HAProxy and nginx stand by as witnesses where
//! they are installed, and the test says what they make of each row.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
};

use http::{HeaderName, HeaderValue, Method};
use selvedge_tests::{
    around::Around,
    client::{self, Connection, request},
    mesh::{Mesh, Workload},
    namespace::Namespaces,
    pair::{HOST, Pair},
    process::binary,
    wait::{self, DEADLINE},
};

#[path = "polite/rows.rs"]
mod rows;
#[path = "polite/witness.rs"]
mod witness;

use rows::Answer;
use witness::Witness;

/// A service that answers with the head it was sent, a line of dots and the content; or, where the path is `/r/N`, with the
/// bytes of that answer, and closes.
fn mirror(listener: TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        thread::spawn(move || {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            while let Some(asked) = next(&mut stream) {
                let number = asked.split(' ').nth(1).and_then(|target| target.strip_prefix("/r/")?.parse().ok());
                let answer = number.and_then(|number: usize| rows::answers().into_iter().nth(number));
                let raw = answer.as_ref().map_or_else(|| mirrored(&asked), |answer| answer.raw.clone());
                let lasts = answer.is_none_or(|answer| answer.keeps_connection());
                let is_sent = stream.write_all(raw.as_bytes()).is_ok();
                if !is_sent || !lasts || is_last(&asked) {
                    return;
                }
            }
        });
    }
}

/// Whether nothing follows this request on its connection.
fn is_last(asked: &str) -> bool {
    let closes = |line: &str| line.to_lowercase().starts_with("connection:") && line.to_lowercase().contains("close");
    asked.lines().any(|line| closes(line) || line.ends_with(" HTTP/1.0"))
}

/// The next request, to its end.
fn next(stream: &mut TcpStream) -> Option<String> {
    let mut got = Vec::new();
    while !is_whole(&got) {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        got.extend(byte);
    }
    Some(String::from_utf8_lossy(&got).into_owned())
}

fn mirrored(asked: &str) -> String {
    let (head, content) = asked.split_once("\r\n\r\n").unwrap();
    let seen = format!("{head}\r\n.....\r\n{content}");
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{seen}", seen.len())
}

/// Whether these bytes are a request to its end.
fn is_whole(got: &[u8]) -> bool {
    let Some(end) = got.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&got[..end]).to_lowercase();
    let content = &got[end + 4..];
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    match head.contains("transfer-encoding:") {
        true => content.ends_with(b"\r\n\r\n"),
        false => content.len() >= length.unwrap_or(0),
    }
}

/// Everything that comes back for these bytes until the connection is over.
fn talk(door: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(door).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut answer, _) = (Vec::new(), stream.write_all(bytes));
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let mut text = text.as_ref();
    // What comes before the answer (RFC 9110 section 15.2).
    while let Some((_, after)) = text.strip_prefix("HTTP/1.1 10").and_then(|interim| interim.split_once("\r\n\r\n")) {
        text = after;
    }
    text.to_owned()
}

/// What is wrong with the rows behind this door, by their names.
fn harmed(door: SocketAddr) -> Vec<String> {
    let mut wrong = Vec::new();
    for row in rows::requests() {
        wrong.extend(row.harm(&talk(door, row.sent().as_bytes())).map(|why| format!("{}: {why}", row.what)));
    }
    for (number, answer) in rows::answers().into_iter().enumerate() {
        let Answer { what, method, .. } = &answer;
        let asked = format!("{method} /r/{number} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        wrong.extend(answer.harm(&talk(door, asked.as_bytes())).map(|why| format!("answer, {what}: {why}")));
    }
    wrong
}

fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || mirror(listener));
    address
}

#[tokio::test]
async fn odd_messages_pass_the_mesh() {
    let count = rows::requests().len() + rows::answers().len();
    assert!(count >= 100, "{count} rows");
    let service = service();
    let around = Around::start(service, "http").await;
    let entry = around.entry();
    let wrong = tokio::task::spawn_blocking(move || harmed(entry)).await.unwrap();
    let direct = tokio::task::spawn_blocking(move || harmed(service)).await.unwrap();
    assert_eq!(direct, [""; 0], "without a mesh");
    for witness in Witness::installed(service).await {
        let (name, door) = (witness.name, witness.door);
        let harmed = tokio::task::spawn_blocking(move || harmed(door)).await.unwrap();
        let mut said = format!("{name} harms {} of {count}", harmed.len());
        harmed.iter().for_each(|why| write!(said, "\n  {why}").unwrap());
        println!("{said}");
    }
    assert!(wrong.is_empty(), "the mesh harms {} of {count}:\n  {}", wrong.len(), wrong.join("\n  "));
}

/// Holds the process id of the neighbour.
const NEIGHBOUR: &str = "SELVEDGE_TEST_NEIGHBOUR";

/// Where the service listens in the neighbour of the namespace, which is not of the mesh.
fn outside() -> SocketAddr {
    ([10, 99, 0, 2], 8080).into()
}

/// Run by the test below in the neighbour.
#[test]
fn answers_outside() {
    if std::env::var_os(NEIGHBOUR).is_some() {
        mirror(TcpListener::bind(outside()).unwrap());
    }
}

#[test]
fn odd_messages_pass_transparent_capture() {
    let setup = format!(
        "ip link set lo up
        ip link add sv0 type veth peer name sv1
        unshare -n sh -c 'while ! ip addr show sv1 2>/dev/null | grep -q 10.99.0.2; do sleep 0.05; done; \
         {NEIGHBOUR}=1 exec \"$0\" --exact answers_outside' \"$0\" & neighbour=$!
        trap 'kill $neighbour' EXIT
        while [ \"$(readlink /proc/$neighbour/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done
        ip link set sv1 netns $neighbour
        nsenter -t $neighbour -n sh -ec 'ip link set lo up; ip link set sv1 up; ip addr add 10.99.0.2/24 dev sv1'
        ip addr add 10.99.0.1/24 dev sv0; ip link set sv0 up"
    );
    Namespaces::network(&setup).run("odd_messages_pass_transparent_capture", async || {
        let mesh = Mesh::start().await;
        mesh.write(
            "prefer.yaml",
            "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: prefer, namespace: shop}\nspec: \
             {mtls: {outbound: PREFER}}\n",
        );
        let web = mesh.sidecar(Workload::new("shop/web").captured()).await;
        let applied = Command::new(binary("selvedge-proxy")).args(["capture", "apply"]).output().unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        wait::until_true("the neighbour is reached through the sidecar", || async {
            let passed = ["direction=\"outbound\"", "response_code=\"200\""];
            let call = client::call(outside(), request(Method::GET, HOST, "/"));
            call.await.is_ok() && web.metrics().so_far("selvedge_requests_total", &passed).await > 0.0
        })
        .await;
        let wrong = tokio::task::spawn_blocking(|| harmed(outside())).await.unwrap();
        assert!(wrong.is_empty(), "{} are harmed:\n  {}", wrong.len(), wrong.join("\n  "));
    });
}

#[tokio::test]
async fn odd_requests_of_http2_pass() {
    let pair = Pair::start().await;
    let mut connection = Connection::open_http2(pair.entry()).await.unwrap();
    for method in ["PROPFIND", "get", "M-SEARCH", "!#$%&'*+-.^_`|~"] {
        let answer = connection.call(request(method.parse().unwrap(), HOST, "/x")).await.unwrap();
        assert_eq!(answer.json()["method"], method, "{}", answer.text());
    }
    for host in ["API.Shop", "api.shop.", "api.shop:80", "api.shop:080", "127.0.0.1", "[::1]:80", "a_b.shop"] {
        let answer = connection.call(request(Method::GET, host, "/x")).await.unwrap();
        assert_eq!(answer.json()["authority"], host, "{}", answer.text());
    }
    for (name, value) in [
        ("x-empty", ""),
        ("x-tabs", "a\tb"),
        ("x-list", ",, a ,,b"),
        ("x_under_score", "1"),
        ("!#$%&'*+-.^_`|~", "token"),
        ("cookie", "a=b; c=\"d\"; e"),
        ("te", "trailers"),
        ("accept", "*/*;q=0.1,"),
    ] {
        let mut asked = request(Method::GET, HOST, "/x");
        let (name, value) = (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value));
        asked.headers_mut().insert(name.clone(), value.clone());
        let answer = connection.call(asked).await.unwrap().json();
        let fields = answer["headers"].as_array().into_iter().flatten();
        let wanted = [name.as_str(), value.to_str().unwrap()];
        assert!(fields.clone().any(|field| *field == serde_json::json!(wanted)), "{wanted:?}: {answer}");
    }
}
