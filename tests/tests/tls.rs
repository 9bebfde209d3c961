//! TLS that is not the mesh's: what applications encrypt themselves, and services outside.

use std::{convert::Infallible, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
};
use selvedge_tests::{
    around::Around,
    client::{Connection, connect, request},
    mesh::{Mesh, Workload},
    wait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional, split},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};

const OPEN: &str = "open.shop.example";
const SECRET: &str = "secret.shop.example";

/// A service that speaks TLS itself.
struct Service {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl Service {
    /// Starts one with a certificate for `names`, that offers `protocols` and treats each connection with `serve`.
    async fn start<F: Future<Output = ()> + Send + 'static>(
        names: &[&str],
        protocols: &[&str],
        serve: impl Fn(TlsStream<TcpStream>) -> F + Send + Sync + 'static,
    ) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, key) = (made.cert.der().clone(), PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let handshake = acceptor.accept(socket);
                let served = async { handshake.await.ok().map(&serve) };
                if let Ok(Some(served)) = timeout(Duration::from_secs(5), served).await {
                    tokio::spawn(served);
                }
            }
        });
        Self { address, certificate, pem: made.cert.pem() }
    }

    /// One that echoes.
    async fn echo() -> Self {
        Self::start(&[OPEN, SECRET], &[], |stream| async {
            let (mut read, mut write) = split(stream);
            let _ = copy(&mut read, &mut write).await;
        })
        .await
    }

    /// One that answers every request with 200, over HTTP/2 only or HTTP/1 only.
    async fn http(name: &str, http2_only: bool) -> Self {
        let protocols: &[&str] = if http2_only { &["h2"] } else { &["http/1.1"] };
        Self::start(&[name], protocols, move |stream| async move {
            let io = TokioIo::new(stream);
            let answer = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("outside"))))
            });
            if http2_only {
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer).await;
            } else {
                let _ = http1::Builder::new().serve_connection(io, answer).await;
            }
        })
        .await
    }

    /// Whether an application that calls `entry` gets its echo over TLS with this service, asked for as `name`, when it
    /// is silent for `pause` first.
    async fn echoes(&self, entry: SocketAddr, name: &'static str, pause: Duration) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let spoken = async {
            let socket = connect(entry).await.ok()?;
            sleep(pause).await;
            let name = ServerName::try_from(name).unwrap();
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.ok()?;
            stream.write_all(b"ping").await.ok()?;
            let mut echo = [0; 4];
            stream.read_exact(&mut echo).await.ok()?;
            Some(&echo == b"ping")
        };
        wait::within("TLS works or is cut", spoken).await.unwrap_or(false)
    }
}

/// An address from which everything goes to `entry`, the first 40 bytes one by one and more of what is said first in pieces, with
/// pauses in which a caller is taken for silent.
async fn in_pieces(entry: SocketAddr) -> SocketAddr {
    const PAUSE: Duration = Duration::from_millis(50);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut mesh, mut first) = (connect(entry).await.unwrap(), vec![0; 4096]);
                mesh.set_nodelay(true).unwrap();
                let length = caller.read(&mut first).await.unwrap();
                let (slow, rest) = first[..length].split_at(40.min(length));
                for piece in slow.chunks(1).chain(rest.chunks(200)) {
                    // Who is refused may not hear it whole.
                    if mesh.write_all(piece).await.is_err() {
                        return;
                    }
                    sleep(PAUSE).await;
                }
                let _ = copy_bidirectional(&mut caller, &mut mesh).await;
            });
        }
    });
    address
}

fn policy(action: &str, host: &str) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: by-name, namespace: shop}}\n\
         spec:\n  targetRef: {{kind: Service, name: api}}\n  action: {action}\n  rules: [{{from: [{{serviceAccounts: \
         [web]}}], to: [{{hosts: [{host}]}}]}}]\n"
    )
}

/// Application TLS to a port with this `appProtocol`.
async fn judged_by_server_name(protocol: &str) {
    let service = Service::echo().await;
    let around = Around::launch(service.address, protocol).await;
    let (service, entry, at_once) = (&service, around.entry(), Duration::ZERO);
    let passes = |name| service.echoes(entry, name, at_once);
    wait::until_true("application TLS passes", || passes(OPEN)).await;
    assert!(passes(SECRET).await);

    around.mesh.write("policy.yaml", &policy("ALLOW", OPEN));
    wait::until_true("a name that no ALLOW rule has is refused", || async move { !passes(SECRET).await }).await;
    for pause in [at_once, Duration::from_millis(300)] {
        assert!(service.echoes(entry, OPEN, pause).await, "the other one passes, silent for {pause:?} first");
    }
    around.mesh.write("policy.yaml", &policy("DENY", OPEN));
    wait::until_true("a name that a DENY rule has is refused", || async move { !passes(OPEN).await }).await;
    let slow = in_pieces(entry).await;
    assert!(!service.echoes(slow, OPEN, at_once).await, "also when its ClientHello comes byte by byte");
    assert!(service.echoes(slow, SECRET, at_once).await, "and the other one passes then");
    for pause in [at_once, Duration::from_millis(300)] {
        assert!(service.echoes(entry, SECRET, pause).await, "the other one passes, silent for {pause:?} first");
    }

    let api = &around.api;
    for (name, reason) in [(SECRET, "policy_default_deny"), (OPEN, "policy_denied")] {
        wait::until_true("the log has the name and the reason", || async move {
            let lines = api.access_log();
            lines.iter().any(|line| line["tls.client.server_name"] == name && line.to_string().contains(reason))
        })
        .await;
    }
    let labels = ["direction=\"inbound\"", "protocol=\"tls\"", "tls=\"mtls\""];
    // It is counted as TLS of the application inside that of the mesh, and as nothing else.
    assert!(api.metric("selvedge_tcp_received_bytes_total", &labels).await > 0.0);
    api.metrics().absent("selvedge_requests_total", &[]).await;
}

#[tokio::test]
async fn tls_of_the_application_is_judged_by_its_server_name() {
    judged_by_server_name("").await;
}

#[tokio::test]
async fn so_it_is_on_a_port_that_is_declared() {
    judged_by_server_name("tls").await;
}

fn outside(name: &str, protocol: &str, service: SocketAddr) -> String {
    format!(
        "apiVersion: selvedge.dev/v1alpha1\nkind: ExternalService\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         hosts: [{name}.example]\n  ports: [{{name: https, port: 443, appProtocol: {protocol}, tls: {{serverName: \
         {name}.example}}}}]\n  endpoints: [{{address: {}, port: {}}}]\n",
        service.ip(),
        service.port()
    )
}

/// What `entry` answers to a request for `host`: status and reason.
async fn ask(entry: SocketAddr, host: &str, http2: bool) -> (u16, String) {
    let connection = if http2 { Connection::open_http2(entry).await } else { Connection::open(entry).await };
    let answer = connection.unwrap().call(request(Method::GET, host, "/")).await.unwrap();
    (answer.status.as_u16(), answer.reason().to_owned())
}

#[tokio::test]
async fn the_http_version_is_agreed_on_with_a_service_outside() {
    let (modern, old) = (Service::http("modern.example", true).await, Service::http("old.example", false).await);
    let mesh = Mesh::start().await;
    let roots = mesh.folder().join("roots.pem");
    std::fs::write(&roots, format!("{}{}", modern.pem, old.pem)).unwrap();
    mesh.write("modern.yaml", &outside("modern", "grpc", modern.address));
    mesh.write("old.yaml", &outside("old", "http", old.address));
    let web = Workload::new("shop/web").calls("shop/modern:443").calls("shop/old:443");
    let web = mesh.sidecar(web.with(&external_roots(&roots))).await;
    let (modern, old) = (web.outbound("shop/modern:443"), web.outbound("shop/old:443"));
    wait::until_true("the services are known", || async move {
        ask(modern, "modern.example", true).await.0 == 200 && ask(old, "old.example", false).await.0 == 200
    })
    .await;
    assert_eq!(ask(modern, "modern.example", false).await.0, 200, "the version of the service is spoken to it");
    assert_eq!(ask(old, "old.example", true).await, (503, "upstream_tls_failed".to_owned()));
    assert_eq!(ask(old, "old.example", false).await.0, 200);
}

fn external_roots(file: &Path) -> String {
    format!("externalRootsFile: {}\n", file.display())
}
