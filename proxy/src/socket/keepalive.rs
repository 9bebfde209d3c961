//! TCP keepalive: a connection whose other machine is gone without a word ends, though nobody is to say anything on it.
//!
//! Opaque connections and tunnels may be silent for as long as they like, so silence tells nothing; two machines that
//! still know the connection answer each other's probes without troubling the applications.

use std::{io, os::fd::AsFd, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// Silence before the first probe.
const IDLE: Duration = Duration::from_secs(60);
/// Between probes.
const INTERVAL: Duration = Duration::from_secs(15);
/// Probes without an answer that end the connection.
const PROBES: u32 = 4;

/// Has the kernel probe the other end of `socket` when it is silent. Connections accepted from a listener inherit it.
///
/// # Errors
/// Those of the system calls.
pub(super) fn probe(socket: &impl AsFd) -> io::Result<()> {
    let settings = TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL).with_retries(PROBES);
    SockRef::from(socket).set_tcp_keepalive(&settings)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::socket::{Side, bind, dial};

    #[tokio::test]
    async fn accepted_and_dialled_connections_are_probed() {
        let (address, mut listeners) = bind(([127, 0, 0, 1], 0).into(), 1).unwrap();
        let listener = TcpListener::from_std(listeners.remove(0)).unwrap();
        let (dialled, accepted) = tokio::join!(dial(address, Side::Mesh), listener.accept());
        for (name, socket) in [("dialled", dialled.unwrap()), ("accepted", accepted.unwrap().0)] {
            let socket = SockRef::from(&socket);
            assert!(socket.keepalive().unwrap(), "{name}");
            assert_eq!(socket.tcp_keepalive_time().unwrap(), IDLE, "{name}");
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), INTERVAL, "{name}");
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES, "{name}");
        }
    }
}
