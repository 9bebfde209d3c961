//! Loopback ports that are ours from the moment they are named, and who is connected to them.

use std::{
    fs, io,
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

/// How many connections are open to these ports.
///
/// # Errors
/// The kernel does not list connections.
pub fn connections(ports: &[u16]) -> io::Result<usize> {
    let list = fs::read_to_string("/proc/net/tcp")?;
    Ok(list.lines().filter_map(connected_to).filter(|port| ports.contains(port)).count())
}

/// The remote port of an established connection in a line of `/proc/net/tcp` (proc_net_tcp of the kernel's documents).
fn connected_to(line: &str) -> Option<u16> {
    const ESTABLISHED: &str = "01";
    let mut words = line.split_whitespace().skip(2);
    // Eight digits of the address and a colon come first.
    let port = words.next()?.get(9..)?;
    (words.next()? == ESTABLISHED).then(|| u16::from_str_radix(port, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_are_counted_once_and_while_they_are_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = [listener.local_addr().unwrap().port()];
        assert_eq!(connections(&ports).unwrap(), 0, "a listener is no connection");
        let open = [(); 2].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        assert_eq!(connections(&ports).unwrap(), 2);
        drop(open);
        assert_eq!(connections(&ports).unwrap(), 0);
    }
}
