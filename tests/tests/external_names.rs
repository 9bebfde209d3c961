//! Services outside the mesh that an application calls by name with transparent capture, while their addresses change. Needs
//! root; without it the tests say so.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::Arc,
    thread,
};

use rustls::{ServerConfig, ServerConnection, Stream, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer};
use selvedge_tests::{
    mesh::Mesh,
    namespace::Namespaces,
    nodes::{self, HUB, Node},
    program, skip, wait,
};
use tokio::sync::watch;

const API: &str = "api.pay.example";
/// A host of a service whose name server gives no answer.
const SILENT: &str = "silent.example";
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 11);
/// Where somebody else listens.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 12);

/// A name server: the address of each host; no answer at all where it has `None`.
struct NameServer(watch::Sender<Known>);

type Known = HashMap<&'static str, Option<Ipv4Addr>>;

impl NameServer {
    fn start() -> Self {
        let socket = UdpSocket::bind((HUB, 53)).unwrap();
        let (sender, known) = watch::channel(Known::new());
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let answer = Self::answer(&known.borrow(), &query[..length]);
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self(sender)
    }

    fn says(&self, host: &'static str, address: Option<Ipv4Addr>) {
        self.0.send_modify(|known| {
            known.insert(host, address);
        });
    }

    /// The answer to a query (RFC 1035 section 4): an address for type A, nothing for others.
    fn answer(known: &Known, query: &[u8]) -> Option<Vec<u8>> {
        let (mut labels, mut at) = (Vec::new(), 12);
        while query[at] > 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
            at = end;
        }
        let question = &query[12..at + 5];
        let known = known.get(&*labels.join(".")).copied();
        if known == Some(None) {
            return None;
        }
        let address = known.flatten().filter(|_| query[at + 2] == 1);
        let code = if known.is_some() { 0x80 } else { 0x83 };
        let mut answer =
            [&query[..2], &[0x81, code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0], question].concat();
        if let Some(address) = address {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            answer.extend(address.octets());
        }
        Some(answer)
    }
}

fn respond(stream: &mut (impl Read + Write), name: &str) {
    let _ = stream.read(&mut [0; 4096]);
    let length = name.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
    let _ = stream.flush();
}

/// Answers every connection to this address and port with `name`.
fn serve(address: Ipv4Addr, port: u16, respond: impl Fn(TcpStream) + Clone + Send + 'static) {
    let listener = TcpListener::bind((address, port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let respond = respond.clone();
            thread::spawn(move || respond(stream));
        }
    });
}

/// A provider at this address: HTTP on port 80, and TLS on 443 and 8443.
fn provider(address: Ipv4Addr, name: &'static str, tls: &Arc<ServerConfig>) {
    serve(address, 80, move |mut stream| respond(&mut stream, name));
    for port in [443, 8443] {
        let tls = tls.clone();
        serve(address, port, move |mut stream| {
            let mut session = ServerConnection::new(tls.clone()).unwrap();
            respond(&mut Stream::new(&mut session, &mut stream), name);
            session.send_close_notify();
            let _ = session.complete_io(&mut stream);
        });
    }
}

/// TLS for [`API`]; its certificate is written to `file`.
fn certified(file: &Path) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed([API.to_owned()]).unwrap();
    std::fs::write(file, made.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into());
    Arc::new(config.unwrap())
}

/// What the mesh knows: an address of yesterday for one service, and none that answers for the other.
const OUTSIDE: &str = "apiVersion: selvedge.dev/v1alpha1\nkind: ExternalService\nmetadata: {name: pay, namespace: shop}\nspec:\n  \
                       hosts: [api.pay.example]\n  ports: [{port: 80, appProtocol: http}, {port: 443}, {port: 8443, appProtocol: \
                       http, tls: {}}]\n  endpoints: [{address: 203.0.113.1}]\n---\napiVersion: \
                       selvedge.dev/v1alpha1\nkind: ExternalService\nmetadata: {name: silent, namespace: shop}\nspec: {hosts: \
                       [silent.example], ports: [{port: 80}], endpoints: [{address: 203.0.113.2}]}\n---\napiVersion: \
                       selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {name: ui, namespace: shop}\nspec: {serviceAccount: ui, \
                       address: 10.99.0.10}\n";

/// What `curl` is answered, and with which status.
fn get(node: &Node, more: &[&str]) -> String {
    node.prints("curl", &[&["-s", "-m", "8", "-w", " %{http_code}"], more].concat())
}

/// Runs `body` in namespaces of its own, in which [`NameServer`] is the name server.
fn with_names<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    if !Path::new("/etc/resolv.conf").exists() {
        return skip("there is no /etc/resolv.conf to be replaced");
    }
    let setup = format!(
        "{}
        names=$(mktemp); echo nameserver {HUB} > $names
        mount --bind $names /etc/resolv.conf; rm $names
        for address in {FIRST} {SECOND} {OTHER}; do ip addr add $address/32 dev hub; done",
        nodes::bridge()
    );
    Namespaces { new: &["-n", "-m"], needs: &["nft"], setup: &setup }.run(name, body);
}

#[test]
fn a_service_outside_is_called_by_name_wherever_its_name_leads_and_nobody_is_believed_who_only_says_it() {
    let name = "a_service_outside_is_called_by_name_wherever_its_name_leads_and_nobody_is_believed_who_only_says_it";
    with_names(name, async || {
        if program("curl").is_none() {
            return;
        }
        let mesh = Mesh::start_on(HUB, &[]).await;
        let certificate = mesh.folder().join("outside.pem");
        let tls = certified(&certificate);
        for (address, name) in [(FIRST, "first"), (SECOND, "second"), (OTHER, "other")] {
            provider(address, name, &tls);
        }
        let (names, certificate) = (NameServer::start(), certificate.display().to_string());
        mesh.write("shop.yaml", OUTSIDE);
        let mut ui = Node::start(10, mesh.folder()).await;
        ui.sidecar(&mesh, "shop/ui", "shop/ui", &format!("externalRootsFile: {certificate}\n")).await;
        let ui = &ui;

        let urls = [80, 8443].map(|port| format!("http://{API}:{port}/"));
        let secret = format!("https://{API}/");
        let calls = [vec![&*urls[0]], vec![&*urls[1]], vec!["--cacert", &certificate, &secret]];
        let everywhere = async |wanted: &str| {
            for call in &calls {
                let what = format!("{call:?} is answered: {wanted}");
                wait::until_true(&what, || async { get(ui, call) == wanted }).await;
            }
        };
        names.says(API, Some(FIRST));
        everywhere("first 200").await;
        let by_name = ["direction=\"outbound\"", "destination_service=\"shop/pay\""];
        assert!(ui.metrics().value("selvedge_requests_total", &by_name).await >= 2.0);
        assert!(ui.metrics().value("selvedge_tcp_received_bytes_total", &by_name).await > 0.0);
        names.says(API, Some(SECOND));
        everywhere("second 200").await;

        // A name server that is silent costs only who calls that name, and not for long.
        names.says(SILENT, None);
        let silent = [format!("{SILENT}:80:{OTHER}"), format!("http://{SILENT}/")];
        for _ in 0..3 {
            let answer = get(ui, &["--resolve", &silent[0], &silent[1]]);
            assert!(answer.contains("unknown_destination") && answer.ends_with(" 503"), "{answer}");
        }
        names.says(API, Some(FIRST));
        everywhere("first 200").await;

        let forged = [format!("{API}:80:{OTHER}"), format!("{API}:443:{OTHER}")];
        let plain = ["--resolve", &*forged[0], &*urls[0]];
        let answer = get(ui, &plain);
        assert!(answer.contains("unknown_destination") && answer.ends_with(" 503"), "{answer}");
        assert_eq!(get(ui, &["--cacert", &certificate, "--resolve", &forged[1], &secret]), " 000");
        let counted = ui.metrics().value("selvedge_requests_total", &by_name).await;
        mesh.write(
            "open.yaml",
            "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: open, namespace: shop}\nspec: {mtls: \
             {outbound: PREFER}}\n",
        );
        wait::until_true("what is not believed passes by its address", || async { get(ui, &plain) == "other 200" })
            .await;
        let passed = ["direction=\"outbound\"", "destination_service=\"passthrough\"", "response_code=\"200\""];
        assert!(ui.metrics().value("selvedge_requests_total", &passed).await >= 1.0);
        assert_eq!(ui.metrics().value("selvedge_requests_total", &by_name).await, counted);
    });
}
