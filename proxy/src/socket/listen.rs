//! Listeners: every worker has its own on the same address (`SO_REUSEPORT`), so accepting needs no lock. No other
//! process gets a share of it, and none is taken away from another process.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::keepalive;

/// Connections the kernel holds for a worker that is busy.
const BACKLOG: i32 = 1024;

/// Binds `count` listeners to one address. A port of 0 is chosen by the kernel once, for all of them.
/// `[::]` takes IPv4 too, and falls back to `0.0.0.0` on a machine without IPv6.
///
/// # Errors
/// `AddrInUse` when anybody listens there already, a second sidecar with the same file included.
pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    let mut bound = match nobody_listens(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && no_ipv6(&error) => {
            let fallback = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            nobody_listens(fallback)?;
            fallback
        }
        other => other.map(|()| address)?,
    };
    // A port that the kernel chose for a socket it would choose anew for one that listens again.
    let chosen = (bound.port() == 0).then(|| one(bound)).transpose()?;
    if let Some(chosen) = &chosen {
        bound = chosen.local_addr()?;
    }
    let listeners = (0..count).map(|_| one(bound)).collect::<io::Result<_>>()?;
    Ok((bound, listeners))
}

/// Makes a listener that somebody else has bound one like ours.
///
/// # Errors
/// Those of the system calls.
pub(crate) fn adopt(listener: &std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    keepalive::probe(listener)
}

/// Has the kernel refuse connections to `listener`, which keeps its port. What nobody has accepted is reset.
///
/// # Errors
/// That of the system call.
pub(crate) fn refuse(listener: &std::net::TcpListener) -> io::Result<()> {
    SockRef::from(listener).shutdown(Shutdown::Read)
}

/// Has the kernel take connections to `listener` again after [`refuse`].
///
/// # Errors
/// That of the system call.
pub(crate) fn take(listener: &std::net::TcpListener) -> io::Result<()> {
    SockRef::from(listener).listen(BACKLOG)
}

/// With `SO_REUSEPORT` the kernel would divide connections between us and another sidecar of the same user. Without
/// it binding fails beside a listener; beside a port that is only held, or has old connections, it does not.
fn nobody_listens(address: SocketAddr) -> io::Result<()> {
    socket(address)?.bind(&address.into())
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

fn one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    keepalive::probe(&socket)?;
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

    #[test]
    fn a_second_sidecar_gets_no_share_of_a_port() {
        let (address, listeners) = bind(([127, 0, 0, 1], 0).into(), 2).unwrap();
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        bind(address, 1).unwrap();
    }

    #[test]
    fn a_port_that_is_held_for_us_can_be_listened_on() {
        let held = socket(([127, 0, 0, 1], 0).into()).unwrap();
        held.set_reuse_port(true).unwrap();
        held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = held.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(bind(address, 2).unwrap().0, address);
    }
}
