//! Ports that are free now and stay ours until a process under test listens on them, and ports that take nobody.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};
use tokio::time::timeout;

/// A port held by a socket that is bound and never listens. Sharing is allowed on it, so a process can
/// listen on the port, die and listen again, while nobody else is given it.
pub struct Reserved {
    _socket: rustix::fd::OwnedFd,
    address: SocketAddr,
}

impl Reserved {
    /// Reserves an ephemeral port of 127.0.0.1.
    pub fn new() -> Self {
        Self::on(Ipv4Addr::LOCALHOST)
    }

    /// Reserves an ephemeral port of this address of the machine.
    pub fn on(address: Ipv4Addr) -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_reuseaddr(&socket, true).expect("SO_REUSEADDR");
        sockopt::set_socket_reuseport(&socket, true).expect("SO_REUSEPORT");
        bind(&socket, &SocketAddr::from((address, 0))).expect("an ephemeral port");
        let address = getsockname(&socket).expect("the bound address").try_into().expect("an IPv4 address");
        Self { _socket: socket, address }
    }

    /// The address to listen on and to call.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens there, for as long as the value lives.
    pub fn listen(&self) -> tokio::net::TcpListener {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseport(true).expect("SO_REUSEPORT");
        socket.bind(self.address).expect("the port is ours");
        socket.listen(1024).expect("nobody else listens")
    }
}

impl Default for Reserved {
    fn default() -> Self {
        Self::new()
    }
}

/// A port of which the queue of new connections is full: connecting to it takes for ever.
pub struct Crowded {
    address: SocketAddr,
    _listener: tokio::net::TcpListener,
    _waiting: Vec<tokio::net::TcpStream>,
}

impl Crowded {
    /// Fills the queue of an ephemeral port.
    pub async fn start() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("an ephemeral port");
        let listener = socket.listen(1).expect("a short queue");
        let address = listener.local_addr().expect("the bound address");
        let mut waiting = Vec::new();
        // Whoever finds it full is kept waiting by the kernel, which takes a first SYN for lost.
        while let Ok(stream) = timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address)).await {
            waiting.push(stream.expect("a place in the queue"));
        }
        Self { address, _listener: listener, _waiting: waiting }
    }

    /// The address that takes no connection.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
