//! Who may say what on the channel between control plane and sidecars: strangers, workloads with a good certificate, and
//! those whose certificate has run out.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, ServerConfig};
use selvedge_control_plane::clock;
use selvedge_proxy::{
    AggregatedDiscoveryServiceClient, CertificatesClient, Credentials, connect, explain, new_key, to_control_plane,
};
use selvedge_xds::proto::{
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse as Responses},
    mesh::SignRequest,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc::{self, UnboundedSender},
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    anonymous,
    kit::{ControlPlane, DOMAIN, PATIENCE, Sidecar, WORKLOAD, eventually, grant, join, service, workload},
};

/// A connection that proves `credentials`.
pub(super) async fn connected(control_plane: &ControlPlane, credentials: &Credentials) -> Channel {
    let tls = to_control_plane(credentials).unwrap();
    connect(&control_plane.address(), tls).await.unwrap()
}

/// A discovery stream on which nothing is asked yet; it ends with the sender.
pub(super) async fn discover(
    channel: Channel,
) -> Result<(UnboundedSender<DeltaDiscoveryRequest>, Streaming<Responses>), Status> {
    let (requests, mut queue) = mpsc::unbounded_channel();
    let queued = futures_util::stream::poll_fn(move |cx| queue.poll_recv(cx));
    let responses = AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(queued).await?;
    Ok((requests, responses.into_inner()))
}

/// Asks for a certificate in place of the one that the connection proves.
async fn renew(channel: &Channel) -> Result<(), Status> {
    let key = new_key().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().der().to_vec().into();
    let request = SignRequest { csr, workload: WORKLOAD.into(), ..SignRequest::default() };
    let signed = timeout(PATIENCE, CertificatesClient::new(channel.clone()).sign(request)).await;
    signed.expect("an answer in time").map(drop)
}

/// A server with a workload's own certificate, where sidecars would look for their control plane.
async fn impostor(credentials: &Credentials) -> String {
    let svid = &credentials.svid;
    let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert([&svid.chain[..], &credentials.roots].concat(), svid.key.clone_key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(socket).await else { continue };
            let service = service_fn(async |_| Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new())));
            let served = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            tokio::spawn(served);
        }
    });
    address
}

/// Why there is no connection to `address` with this TLS.
async fn refusal(address: &str, tls: Arc<ClientConfig>) -> String {
    let refused = connect(address, tls).await.expect_err("no connection");
    explain(&refused)
}

#[tokio::test]
async fn a_workload_does_not_pass_for_the_control_plane() {
    let control_plane = ControlPlane::start().await;
    let credentials = control_plane.join().await;
    let impostor = impostor(&credentials).await;
    connect(&impostor, anonymous::client()).await.expect("who takes any server takes this one");
    let why = refusal(&impostor, to_control_plane(&credentials).unwrap()).await;
    assert!(why.contains("sa/web', which is not a control plane's"), "{why}");
    // Nor for one who joins: the impostor knows the root whose fingerprint tokens pin.
    let token = control_plane.token(grant("web"));
    let refused = join(&impostor, &token).await.expect_err("no certificate is asked of it");
    let why = explain(&refused);
    assert!(why.contains("which is not a control plane's"), "{why}");
}

#[tokio::test]
async fn the_control_plane_of_another_trust_domain_is_not_ours_though_its_authority_is_known() {
    let (ours, theirs) =
        (ControlPlane::start().await, ControlPlane::start_with(Duration::from_secs(3600), "other.local").await);
    let (credentials, foreign) = (ours.join().await, theirs.join().await);
    let both = Credentials {
        roots: credentials.roots.iter().chain(foreign.roots.iter()).cloned().collect(),
        ..credentials.clone()
    };
    connect(&theirs.address(), to_control_plane(&foreign).unwrap()).await.expect("it is theirs");
    let why = refusal(&theirs.address(), to_control_plane(&both).unwrap()).await;
    assert!(why.contains("other.local"), "{why}");
    connect(&ours.address(), to_control_plane(&both).unwrap()).await.expect("it is ours");
}

#[tokio::test]
async fn a_certificate_that_has_run_out_is_worth_nothing_on_a_connection_that_is_older() {
    let control_plane = ControlPlane::start_with(Duration::from_secs(8), DOMAIN).await;
    let credentials = control_plane.join().await;
    let end = credentials.svid.not_after;
    let channel = connected(&control_plane, &credentials).await;
    renew(&channel).await.expect("it is valid still");
    let (_requests, mut responses) = discover(channel.clone()).await.unwrap();
    let ended = timeout(3 * PATIENCE, responses.message()).await.expect("the stream ends with the certificate");
    let ended = ended.expect_err("it is told why");
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    assert!(ended.message().contains("has expired"), "{ended}");
    assert!(clock::unix().cast_signed() >= end, "the stream ended before the certificate did");

    let refused = eventually("the certificate is no proof any more", async || renew(&channel).await.err()).await;
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("join again with a token"), "{refused}");
}

#[tokio::test]
async fn a_signing_request_is_small() {
    let control_plane = ControlPlane::start().await;
    let channel = connected(&control_plane, &control_plane.join().await).await;
    let sign = async |length: usize| {
        let request = SignRequest { csr: vec![0; length].into(), ..SignRequest::default() };
        CertificatesClient::new(channel.clone()).sign(request).await.expect_err("it is no request").code()
    };
    assert_eq!(sign(60 * 1024).await, Code::InvalidArgument, "it is read");
    assert_eq!(sign(65 * 1024).await, Code::OutOfRange, "it is not");
}

#[tokio::test]
async fn discovery_needs_a_client_certificate() {
    let control_plane = ControlPlane::start().await;
    let channel = connect(&control_plane.address(), anonymous::client()).await.unwrap();
    let refused = discover(channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
}

#[tokio::test]
async fn strangers_do_not_keep_workloads_out() {
    let control_plane = ControlPlane::start().await;
    let address = control_plane.address;
    let mut silent = strangers(address).await;
    // Who waits for a place of theirs waits five seconds each time; a busy machine is late now and then.
    let mut times = vec![joins(&control_plane).await];
    while times.len() < 4 && !times.iter().any(is_prompt) {
        silent = strangers(address).await;
        times.push(joins(&control_plane).await);
    }
    assert!(times.iter().any(is_prompt), "who says nothing on another address held up a workload: {times:?}");
    let flooded = tokio::task::spawn_blocking(move || anonymous::flood(address)).await.unwrap();
    assert!(flooded < 1 << 20, "{flooded} bytes of PING were taken from a stranger");
    control_plane.join().await;
    drop(silent);
}

/// Many connections from another address, on which nobody says anything.
async fn strangers(address: SocketAddr) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..400 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        silent.push(socket.connect(address).await.unwrap());
    }
    silent
}

/// How long a workload takes to join.
async fn joins(control_plane: &ControlPlane) -> Duration {
    let began = Instant::now();
    timeout(3 * PATIENCE, control_plane.join()).await.expect("a certificate in time");
    began.elapsed()
}

fn is_prompt(took: &Duration) -> bool {
    *took < Duration::from_secs(3)
}

#[tokio::test]
async fn a_workload_cannot_read_the_inbound_view_of_another_identity() {
    let control_plane = ControlPlane::start().await;
    control_plane.publish(|draft| {
        workload(draft, WORKLOAD, "somebody-else");
        service(draft, "cart", 1, "cart.shop");
    });
    let state = TempDir::new().unwrap();
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(control_plane.join().await));
    sidecar.want("cart.shop");
    let resources = sidecar.until("the destination", |r| !r.destinations.is_empty()).await;
    assert_eq!(resources.inbound, None);
    let status: serde_json::Value = serde_json::from_str(&control_plane.get("/status").await).unwrap();
    let problem = status["sidecars"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("sa/somebody-else, but this sidecar proved"), "{problem}");
}

#[tokio::test]
async fn a_connection_has_two_discovery_streams_at_most_and_says_so() {
    let control_plane = ControlPlane::start().await;
    let channel = connected(&control_plane, &control_plane.join().await).await;
    let open = async || discover(channel.clone()).await;
    let streams = [open().await.unwrap(), open().await.unwrap()];
    let refused = open().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("2 discovery streams"), "{refused}");
    drop(streams);
    eventually("a place of one that ended", async || open().await.ok()).await;
}
