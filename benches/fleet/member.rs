//! One sidecar as the control plane sees it: a discovery stream over TLS that asks for its own view and for what it
//! calls, and acknowledges what it gets.

use std::{io, net::Ipv4Addr, net::SocketAddr, sync::Arc};

use anyhow::Context;
use futures_util::stream;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use selvedge_proxy::AggregatedDiscoveryServiceClient;
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND, TRUST_BUNDLE},
    proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
};
use tokio::{net::TcpSocket, sync::mpsc, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint, Uri},
};

/// SNI of the control plane's port.
const NAME: &str = "control-plane.selvedge-system";

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

/// An open stream, and the end of it that asks.
struct Open {
    ask: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
}

impl Member {
    /// Connects, gets everything asked for, and goes on in the background: each response with endpoints is told with
    /// the time it came.
    pub(crate) async fn start(self, told: mpsc::UnboundedSender<Instant>) -> anyhow::Result<()> {
        let mut open = self.open().await.with_context(|| format!("the stream of {}", self.workload))?;
        let mut missing = 2 * self.calls.len();
        while missing > 0 {
            let response = open.next().await?;
            if [DESTINATION, ENDPOINTS].iter().any(|kind| kind.to_string() == response.type_url) {
                missing = missing.saturating_sub(response.resources.len());
            }
        }
        tokio::spawn(async move {
            let endpoints = ENDPOINTS.to_string();
            while let Ok(response) = open.next().await {
                if response.type_url == endpoints && told.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    async fn open(&self) -> anyhow::Result<Open> {
        let (ask, mut asked) = mpsc::unbounded_channel();
        let endpoints = self.calls.iter().map(|name| format!("{name}:80")).collect();
        let wanted = [
            (TRUST_BUNDLE, vec!["mesh.local".to_owned()]),
            (INBOUND, vec![self.workload.clone()]),
            (DESTINATION, self.calls.clone()),
            (ENDPOINTS, endpoints),
        ];
        for (kind, resource_names_subscribe) in wanted {
            let node = Some(Node { id: self.workload.clone(), ..Node::default() });
            let type_url = kind.to_string();
            ask.send(DeltaDiscoveryRequest { node, type_url, resource_names_subscribe, ..Default::default() })?;
        }
        let mut service = AggregatedDiscoveryServiceClient::new(self.channel().await?);
        let outgoing = stream::poll_fn(move |cx| asked.poll_recv(cx));
        let answers = service.delta_aggregated_resources(outgoing).await?.into_inner();
        Ok(Open { ask, answers })
    }

    async fn channel(&self) -> anyhow::Result<Channel> {
        let (control_plane, address, tls) = (self.control_plane, self.address, Arc::clone(&self.tls));
        let connector = tower::service_fn(move |_: Uri| {
            let tls = Arc::clone(&tls);
            async move { connect(control_plane, address, tls).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://control-plane.selvedge-system");
        Ok(endpoint.connect_with_connector(connector).await?)
    }
}

impl Open {
    /// The next response, acknowledged.
    async fn next(&mut self) -> anyhow::Result<DeltaDiscoveryResponse> {
        let response = self.answers.message().await?.context("the control plane ended the stream")?;
        let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
        self.ask.send(DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() })?;
        Ok(response)
    }
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
