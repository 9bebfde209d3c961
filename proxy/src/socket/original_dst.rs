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
    elsewhere(original.ok()?.as_socket()?, local)
}

/// `original`, unless it is the very address that accepted the connection.
fn elsewhere(original: SocketAddr, local: SocketAddr) -> Option<SocketAddr> {
    let original = canonical(original);
    (original != canonical(local)).then_some(original)
}

/// IPv4 in its own form, as it is when a socket for both families accepted it as IPv4-mapped IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn the_address_that_accepted_a_connection_is_no_destination_of_it() {
        for (original, local, expected) in [
            ("10.0.0.2:80", "10.0.0.1:15006", Some("10.0.0.2:80")),
            ("10.0.0.1:80", "10.0.0.1:15006", Some("10.0.0.1:80")),
            ("10.0.0.1:15006", "10.0.0.1:15006", None),
            ("10.0.0.1:15006", "[::ffff:10.0.0.1]:15006", None),
            ("10.0.0.2:15006", "[::ffff:10.0.0.1]:15006", Some("10.0.0.2:15006")),
            ("[fd00::1]:15006", "[fd00::1]:15006", None),
            ("[fd00::2]:80", "[fd00::1]:15006", Some("[fd00::2]:80")),
        ] {
            let found = elsewhere(original.parse().unwrap(), local.parse().unwrap());
            assert_eq!(found, expected.map(|address| address.parse().unwrap()), "{original} at {local}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_nobody_redirected_has_no_other_destination() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let target = if address.starts_with("127") { ("127.0.0.1", port) } else { ("::1", port) };
            let (_caller, accepted) = tokio::join!(TcpStream::connect(target), listener.accept());
            assert_eq!(original_dst(&accepted.unwrap().0), None, "{address}");
        }
    }
}
