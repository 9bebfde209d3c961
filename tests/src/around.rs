//! Sidecars around an application of the test's own: `web` calls it as `api.shop` through a sidecar on each side.

use std::net::SocketAddr;

use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    client::{self, request},
    mesh::{Mesh, Sidecar, Workload},
    pair::{DESTINATION, HOST},
    wait,
};

/// The sidecars, and the control plane.
pub struct Around {
    /// The sidecar of the caller.
    pub web: Sidecar,
    /// The sidecar of the application.
    pub api: Sidecar,
    /// The control plane; last, so that it ends last.
    pub mesh: Mesh,
}

impl Around {
    /// Starts everything and waits until the application answers `GET /` with 200.
    pub async fn start(application: SocketAddr, protocol: &str) -> Self {
        let around = Self::launch(application, protocol).await;
        let entry = around.entry();
        wait::until_true("a request gets through", || async move {
            client::call(entry, request(Method::GET, HOST, "/")).await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        around
    }

    /// Starts everything and waits until the sidecars are ready; the first requests may come too early.
    pub async fn launch(application: SocketAddr, protocol: &str) -> Self {
        let mesh = Mesh::start().await;
        mesh.service("shop/api", 80, 8080, protocol);
        let api = mesh.start_sidecar(Workload::new("shop/api").serves(8080, application));
        let web = mesh.start_sidecar(Workload::new("shop/web").calls(DESTINATION));
        api.ready().await;
        web.ready().await;
        Self { web, api, mesh }
    }

    /// Where the caller sends its requests.
    pub fn entry(&self) -> SocketAddr {
        self.web.outbound(DESTINATION)
    }

    /// A connection of the caller.
    pub async fn connect(&self) -> TcpStream {
        client::connect(self.entry()).await.expect("a connection")
    }
}

/// Sends `bytes` and reads until `end` has come `times` times. Panics when the peer closes before.
pub async fn talk(stream: &mut TcpStream, bytes: &[u8], end: &str, times: usize) -> String {
    stream.write_all(bytes).await.expect("the peer reads");
    let mut text = Vec::new();
    while text.windows(end.len()).filter(|window| *window == end.as_bytes()).count() < times {
        match wait::within("an answer", stream.read_u8()).await {
            Ok(byte) => text.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8(text).expect("an answer in ASCII")
}

/// Sends `bytes` and reads until the peer closes.
pub async fn talk_to_the_end(stream: &mut TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.expect("the peer reads");
    let mut text = Vec::new();
    let _ = wait::within("the end of the connection", stream.read_to_end(&mut text)).await;
    String::from_utf8_lossy(&text).into_owned()
}
