//! Loopback ports that are ours from the moment they are named.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};

/// A port held by a socket that never listens; a process that shares addresses can listen on it.
pub struct Port {
    _held: Socket,
    /// The loopback address to listen on.
    pub address: SocketAddr,
}

impl Port {
    /// A free port of 127.0.0.1.
    pub fn free() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { _held: socket, address })
    }

    /// The number of the port.
    pub fn number(&self) -> u16 {
        self.address.port()
    }
}
