//! Ports that are free now and stay ours until a process under test listens on them.

use std::net::{Ipv4Addr, SocketAddr};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

/// A loopback port held by a socket that is bound and never listens. Sharing is allowed on it, so a process can
/// listen on the port, die and listen again, while nobody else is given it.
pub struct Reserved {
    _socket: rustix::fd::OwnedFd,
    address: SocketAddr,
}

impl Reserved {
    /// Reserves an ephemeral port of 127.0.0.1.
    pub fn new() -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_reuseaddr(&socket, true).expect("SO_REUSEADDR");
        sockopt::set_socket_reuseport(&socket, true).expect("SO_REUSEPORT");
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("an ephemeral port");
        let address = getsockname(&socket).expect("the bound address").try_into().expect("an IPv4 address");
        Self { _socket: socket, address }
    }

    /// The address to listen on and to call.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Default for Reserved {
    fn default() -> Self {
        Self::new()
    }
}
