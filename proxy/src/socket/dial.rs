//! Connections that the capture rules recognise as the sidecar's own, so that they are not redirected back to it.
//!
//! A sidecar that may set socket marks does; one without that privilege is told by its user id, and by the source
//! address of its connections to the workload (see [`selvedge_capture`]).

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
};

use selvedge_capture::{INBOUND_MARK, INBOUND_SOURCE, OUTBOUND_MARK};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, lookup_host};

use super::keepalive;

/// Fixed at start, like the rules themselves, and the same for the whole process.
static CAPTURED: AtomicBool = AtomicBool::new(false);

/// Who is at the other end of a connection that the sidecar makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sidecar's own workload, or an address outside the mesh.
    Workload,
    /// Another sidecar (perhaps this one, when the workload calls itself), or the control plane.
    Mesh,
}

/// Says that capture rules are in force around this process. Call it before the first connection.
pub fn expect_capture() {
    CAPTURED.store(true, Ordering::Relaxed);
}

/// Connects to `address`.
///
/// # Errors
/// Those of the system calls.
pub async fn dial(address: SocketAddr, side: Side) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    keepalive::probe(&socket)?;
    if CAPTURED.load(Ordering::Relaxed) {
        exempt(&socket, address.ip(), side)?;
    }
    socket.connect(address).await
}

/// Connects to the first address of `host:port` that answers.
///
/// # Errors
/// The last one, or that there is no address.
pub(crate) async fn dial_host(host: &str, side: Side) -> io::Result<TcpStream> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
    for address in lookup_host(host).await? {
        outcome = dial(address, side).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn exempt(socket: &TcpSocket, target: IpAddr, side: Side) -> io::Result<()> {
    let mark = match side {
        Side::Workload => INBOUND_MARK,
        Side::Mesh => OUTBOUND_MARK,
    };
    match SockRef::from(socket).set_mark(mark) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            if side == Side::Workload && target.is_ipv4() && !target.is_loopback() && is_own(target) {
                socket.bind((INBOUND_SOURCE, 0).into())?;
            }
            Ok(())
        }
        outcome => outcome,
    }
}

/// Whether this host has the address: only then can a socket be bound to it.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
