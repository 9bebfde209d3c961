//! The way of a real API server to webhooks: it asks a proxy for each, as it would in a cluster with an egress proxy, and
//! this proxy knows where the tests' services are.

use std::{collections::BTreeMap, net::SocketAddr, thread};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    runtime,
    sync::watch,
};

/// Where calls of `namespace/name` go.
type Routes = BTreeMap<String, SocketAddr>;

/// A proxy that outlives the runtime of the test that started it.
pub(super) struct Tunnel {
    address: SocketAddr,
    routes: watch::Sender<Routes>,
}

impl Tunnel {
    /// Starts one on a thread of its own.
    pub(super) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let (routes, known) = watch::channel(Routes::new());
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(carry(stream, known.clone()));
                }
            });
        });
        Self { address, routes }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn route(&self, service: &str, address: SocketAddr) {
        self.routes.send_modify(|routes| {
            routes.insert(service.to_owned(), address);
        });
    }

    pub(super) fn forget(&self) {
        self.routes.send_replace(Routes::new());
    }
}

async fn carry(stream: TcpStream, routes: watch::Receiver<Routes>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    // CONNECT name.namespace.svc:443 HTTP/1.1
    let host = head.split(' ').nth(1).unwrap_or_default();
    let mut labels = host.split('.');
    let service = labels.next().zip(labels.next()).map(|(name, namespace)| format!("{namespace}/{name}"));
    let address = service.and_then(|service| routes.borrow().get(&service).copied());
    let called = match address {
        Some(address) => TcpStream::connect(address).await.ok(),
        None => None,
    };
    let Some(mut called) = called else {
        let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
        return;
    };
    if stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok() {
        let _ended = copy_bidirectional(&mut stream, &mut called).await;
    }
}
