//! Who calls the ports of the control plane that anybody may call, and keeps nobody else out.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use selvedge_inject::policy::webhook;
use selvedge_tests::{api_server::ApiServer, client, wait};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::webhook::{ControlPlane, has_sidecar, install, pod, settings_of_injection, until_shop};

/// More than the webhook has connections.
const CROWD: usize = 600;

/// Any pod of the cluster, which the webhook cannot tell from the API server.
struct Anybody {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Anybody {
    /// Knows the webhook as the API server does.
    async fn new(server: &ApiServer, control_plane: &ControlPlane) -> Self {
        let bundle = async || {
            let configuration = server.get("MutatingWebhookConfiguration", "", webhook::NAME).await?;
            Some(configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str()?.to_owned())
        };
        let bundle = BASE64_STANDARD.decode(wait::until("caBundle is written", bundle).await).unwrap();
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&bundle) {
            roots.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        Self { address: control_plane.webhook().await, tls }
    }

    async fn silent(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let name = webhook::host().try_into().unwrap();
        let connecting = TlsConnector::from(Arc::clone(&self.tls)).connect(name, self.silent().await);
        wait::within("a handshake", connecting).await.unwrap()
    }

    /// A connection on which the head of a review of so many bytes was sent, and this of its content.
    async fn ask(&self, bytes: usize, content: &[u8]) -> TlsStream<TcpStream> {
        let mut stream = self.connect().await;
        send(&mut stream, bytes, content).await;
        stream
    }
}

/// Sends the head of a review of so many bytes, and this of its content.
async fn send(stream: &mut TlsStream<TcpStream>, bytes: usize, content: &[u8]) {
    let head = format!("POST /inject HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // What is refused may not be read to its end.
    let _refused = stream.write_all(content).await;
    let _refused = stream.flush().await;
}

/// What is answered until the end of the connection.
async fn answer(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    // The end of one that is refused in the middle may be abrupt.
    let _ended = wait::within("an answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A review about a pod of `shop`, of exactly so many bytes.
fn review(bytes: usize) -> Vec<u8> {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "padding": "",
        "request": { "uid": "u-1", "namespace": "shop", "object": pod("shop") },
    });
    let padding = bytes - review.to_string().len();
    review["padding"] = "x".repeat(padding).into();
    review.to_string().into_bytes()
}

/// A server whose pods are injected by a webhook that runs.
async fn injecting(server: &ApiServer) -> ControlPlane {
    install(server).await;
    let control_plane = ControlPlane::start(server).await;
    server.put(settings_of_injection()).await;
    until_shop(server, "the pod gets a sidecar", |tried| tried.as_ref().is_ok_and(has_sidecar)).await;
    control_plane
}

async fn is_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    matches!(timeout(Duration::from_secs(10), stream.read(&mut [0; 1])).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn nobody_keeps_the_api_server_out_with_idle_connections() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let control_plane = injecting(&server).await;
        let anybody = Anybody::new(&server, &control_plane).await;
        let mut idle = Vec::new();
        for _ in 0..CROWD {
            // After its handshake nobody is hurried.
            idle.push(anybody.connect().await);
        }
        for _ in 0..20 {
            let injected = server.calls().try_out(&pod("shop")).await.unwrap();
            assert!(has_sidecar(&injected), "{injected:#}");
            idle.push(anybody.connect().await);
        }
        assert!(is_closed(&mut idle[0]).await, "the longest silent gives way");
    }
}

#[tokio::test]
async fn nobody_keeps_the_api_server_out_with_contents_that_do_not_end() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let control_plane = injecting(&server).await;
        let anybody = Anybody::new(&server, &control_plane).await;
        let large = review(1 << 20);
        // Again, should a busy machine have needed longer for them than they are given.
        wait::until("a whole one is answered among them, and they are refused for being late", async || {
            let mut endless = Vec::new();
            for _ in 0..20 {
                endless.push(anybody.connect().await);
            }
            let mut all = JoinSet::new();
            for mut stream in endless {
                let half = large[..large.len() / 2].to_vec();
                all.spawn(async move {
                    send(&mut stream, 2 * half.len(), &half).await;
                    answer(&mut stream).await
                });
            }
            // It comes together with them: they take what has come of them, and there is room for all.
            let whole = answer(&mut anybody.ask(large.len(), &large).await).await;
            let refused = all.join_all().await;
            let many = "too many large contents at once";
            assert!(!refused.iter().chain([&whole]).any(|answer| answer.contains(many)), "{whole} {refused:?}");
            let late = refused.iter().filter(|answer| answer.contains("the content did not come within 3s")).count();
            let answered = whole.starts_with("HTTP/1.1 200") && whole.contains("JSONPatch");
            println!("{late} for being late; the whole one: {whole:.12}");
            (answered && late == refused.len()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_review_has_four_mebibytes_at_most_and_everything_else_is_refused_with_the_reason() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let control_plane = injecting(&server).await;
        let anybody = Anybody::new(&server, &control_plane).await;
        let most = 4 << 20;
        let taken = answer(&mut anybody.ask(most, &review(most)).await).await;
        assert!(taken.starts_with("HTTP/1.1 200") && taken.contains("JSONPatch"), "{taken}");
        let refused = answer(&mut anybody.ask(most + 1, &review(most + 1)).await).await;
        assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("longer than 4194304 bytes"), "{refused}");
        let no_review = answer(&mut anybody.ask(2, b"{}").await).await;
        assert!(no_review.starts_with("HTTP/1.1 400") && no_review.contains("no AdmissionReview"), "{no_review}");
    }
}

#[tokio::test]
async fn who_does_not_end_its_handshake_is_closed_in_three_seconds() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let control_plane = injecting(&server).await;
        let anybody = Anybody::new(&server, &control_plane).await;
        let began = Instant::now();
        let mut silent = anybody.silent().await;
        assert!(is_closed(&mut silent).await);
        assert!(began.elapsed() >= Duration::from_secs(2), "it has time for a handshake: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_told_before_the_api_server_has_lost_its_patience() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let _control_plane = injecting(&server).await;
        server.relay().hang(Some("/api/v1/namespaces/shop"));
        let refused = server.calls().try_out(&pod("shop")).await.unwrap_err();
        assert!(refused.message.contains("the API server did not answer within 2.5s"), "{refused}");
        server.relay().hang(None);
        until_shop(&server, "it goes on", |tried| tried.as_ref().is_ok_and(has_sidecar)).await;
    }
}

#[tokio::test]
async fn nobody_keeps_probes_out() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let health: SocketAddr = ([127, 0, 0, 1], 0).into();
        let control_plane = ControlPlane::start_with(&server, |settings| settings.health = Some(health)).await;
        let address = control_plane.port("health").await;
        let mut silent = Vec::new();
        for _ in 0..CROWD {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let began = Instant::now();
        assert_eq!(client::get(address, "/live").await.unwrap().status, 200);
        assert!(began.elapsed() < Duration::from_secs(10), "a probe does not wait: {:?}", began.elapsed());
    }
}
