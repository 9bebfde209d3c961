//! Where a redirected connection was going before it was redirected.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// The destination the client asked for, as netfilter's connection tracking remembers it (`SO_ORIGINAL_DST`,
/// `IP6T_SO_ORIGINAL_DST`). `None` when the connection was not redirected: the kernel knows no other destination, or
/// names the very address that accepted it.
pub fn original_dst(stream: &TcpStream) -> Option<SocketAddr> {
    let local = stream.local_addr().ok()?;
    let socket = SockRef::from(stream);
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(at) if at.ip().to_ipv4_mapped().is_some() => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    let original = canonical(original.ok()?.as_socket()?);
    (original != canonical(local)).then_some(original)
}

/// IPv4 in its own form, as it is when a socket for both families accepted it as IPv4-mapped IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
