//! One sidecar as the control plane sees it: a discovery stream over TLS that asks for its own view and for what it
//! calls, and acknowledges what it gets.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock},
};

use anyhow::Context;
use prost::Message;
use rustls::{ClientConfig, pki_types::ServerName};
use selvedge_decide::capabilities::capabilities;
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND, TRUST_BUNDLE},
    plaintext::Seen,
    proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
};
use tokio::{net::TcpSocket, sync::mpsc, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::wire::Call;

/// SNI of the control plane's port.
const NAME: &str = "control-plane.selvedge-system";
const PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// What every sidecar says of itself at first, as a request that says nothing else: encoded once, because it is long. Messages
/// that follow one another are one message.
static UNDERSTOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut metadata = capabilities().to_metadata();
    Seen::default().add_to(&mut metadata);
    let node = Some(Node { metadata: Some(metadata), ..Node::default() });
    DeltaDiscoveryRequest { node, ..DeltaDiscoveryRequest::default() }.encode_to_vec()
});

/// What a sidecar is and asks for.
pub(crate) struct Member {
    /// Where the control plane listens.
    pub(crate) control_plane: SocketAddr,
    /// Its own address.
    pub(crate) address: Ipv4Addr,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) workload: String,
    /// `namespace/name` of the services it calls.
    pub(crate) calls: Vec<String>,
}

/// What has to be known of a response to acknowledge it.
#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

impl Member {
    /// Connects, gets everything asked for, and goes on in the background: each response with endpoints is told with
    /// the time it came.
    pub(crate) async fn start(self, told: mpsc::UnboundedSender<Instant>) -> anyhow::Result<()> {
        let mut call = self.open().await.with_context(|| format!("the stream of {}", self.workload))?;
        let mut missing = 2 * self.calls.len();
        while missing > 0 {
            let message = call.next().await.context("the stream ended")?;
            let response = DeltaDiscoveryResponse::decode(&*message)?;
            if [DESTINATION, ENDPOINTS].iter().any(|kind| kind.to_string() == response.type_url) {
                missing = missing.saturating_sub(response.resources.len());
            }
            acknowledge(&mut call, Head { type_url: response.type_url, nonce: response.nonce });
        }
        tokio::spawn(async move {
            let endpoints = ENDPOINTS.to_string();
            while let Ok(message) = call.next().await {
                let at = Instant::now();
                let Ok(head) = Head::decode(&*message) else { return };
                let is_news = head.type_url == endpoints;
                acknowledge(&mut call, head);
                if is_news && told.send(at).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    async fn open(&self) -> anyhow::Result<Call> {
        let mut call = Call::new(connect(self.control_plane, self.address, Arc::clone(&self.tls)).await?, NAME, PATH);
        let endpoints = self.calls.iter().map(|name| format!("{name}:80")).collect();
        let wanted = [
            (TRUST_BUNDLE, vec!["mesh.local".to_owned()]),
            (INBOUND, vec![self.workload.clone()]),
            (DESTINATION, self.calls.clone()),
            (ENDPOINTS, endpoints),
        ];
        let mut node = Some(Node { id: self.workload.clone(), ..Node::default() });
        for (kind, resource_names_subscribe) in wanted {
            let (node, type_url) = (node.take(), kind.to_string());
            let is_first = node.is_some();
            let request = DeltaDiscoveryRequest { node, type_url, resource_names_subscribe, ..Default::default() };
            let mut message = request.encode_to_vec();
            if is_first {
                message.extend_from_slice(&UNDERSTOOD);
            }
            call.send(&message);
        }
        Ok(call)
    }
}

fn acknowledge(call: &mut Call, head: Head) {
    let Head { type_url, nonce: response_nonce } = head;
    call.send(&DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() }.encode_to_vec());
}

async fn connect(
    to: SocketAddr,
    from: Ipv4Addr,
    tls: Arc<ClientConfig>,
) -> io::Result<TlsStream<tokio::net::TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.set_nodelay(true)?;
    let stream = socket.connect(to).await?;
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    TlsConnector::from(tls).connect(name, stream).await
}
