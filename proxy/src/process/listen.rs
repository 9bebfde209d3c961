//! Listeners: every worker has its own on the same address (`SO_REUSEPORT`), so accepting needs no lock.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel holds for a worker that is busy.
const BACKLOG: i32 = 1024;

/// Binds `count` listeners to one address. A port of 0 is chosen by the kernel once, for all of them.
/// `[::]` takes IPv4 too, and falls back to `0.0.0.0` on a machine without IPv6.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    let mut bound = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let listener = match one(bound) {
            Err(error) if bound.ip() == Ipv6Addr::UNSPECIFIED && no_ipv6(&error) => {
                one(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), bound.port()))?
            }
            other => other?,
        };
        bound = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok((bound, listeners))
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_port_the_kernel_chose() {
        let (address, listeners) = bind(([127, 0, 0, 1], 0).into(), 3).unwrap();
        assert_ne!(address.port(), 0);
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
    }
}
