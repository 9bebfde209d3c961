//! Checks that rules do what they say, by making a connection that only they can let succeed.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use super::{Backend, Capture, CaptureError, Failure};

/// Addresses for documentation (RFC 5737, RFC 3849): nothing answers there, so an answer is the redirection.
const NOWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
const PORT: u16 = 9;
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks that the rules are there and, where the host has a route, that they redirect.
pub(super) fn in_force(capture: &Capture, backend: Backend) -> Result<(), CaptureError> {
    let rules = match backend.show() {
        Ok(rules) => rules,
        Err(Failure::Missing) => return Err(CaptureError::NoTool),
        Err(Failure::Refused(output)) => return Err(CaptureError::NotInForce(output)),
    };
    if let Some(port) = missing(capture, &rules) {
        return Err(CaptureError::NotInForce(format!("no rule redirects to port {port}")));
    }
    if capture.exempt_uid == Some(rustix::process::geteuid().as_raw()) {
        return Ok(());
    }
    NOWHERE.iter().filter(|address| !is_excluded(capture, **address)).try_for_each(|address| probe(capture, *address))
}

/// The port of the two that `rules` do not redirect to.
pub(super) fn missing(capture: &Capture, rules: &str) -> Option<u16> {
    let ports = [capture.inbound_port, capture.outbound_port];
    ports.into_iter().find(|port| !rules.lines().any(|line| is_redirect(line, *port)))
}

fn is_redirect(line: &str, port: u16) -> bool {
    let mut words = line.split_ascii_whitespace();
    let target = words.next_back().map(|word| word.trim_start_matches(':'));
    target == Some(port.to_string().as_str()) && line.to_ascii_lowercase().contains("redirect")
}

fn is_excluded(capture: &Capture, address: IpAddr) -> bool {
    capture.exclude_outbound_ports.contains(&PORT) || capture.exclude_cidrs.iter().any(|cidr| cidr.contains(address))
}

/// Connects to nowhere; the sidecar's port, or a listener in its place when none runs yet, must get the connection.
fn probe(capture: &Capture, nowhere: IpAddr) -> Result<(), CaptureError> {
    let any: IpAddr = if nowhere.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let stand_in = match TcpListener::bind((any, capture.outbound_port)) {
        Ok(listener) => Some(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        Err(error) if is_no_route(&error) => return Ok(()),
        Err(error) => return Err(CaptureError::Unchecked(error)),
    };
    let target = SocketAddr::new(nowhere, PORT);
    match TcpStream::connect_timeout(&target, PATIENCE) {
        Ok(_) => {}
        Err(error) if is_no_route(&error) => return Ok(()),
        Err(error) => {
            let port = capture.outbound_port;
            return Err(CaptureError::NotInForce(format!(
                "a connection to {target} did not reach port {port}: {error}"
            )));
        }
    }
    let Some(listener) = stand_in else { return Ok(()) };
    listener.set_nonblocking(true).and_then(|()| listener.accept()).map(drop).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => CaptureError::NotInForce(format!("something else answered for {target}")),
        _ => CaptureError::Unchecked(error),
    })
}

/// The host has no way there, so the rules never see the connection.
fn is_no_route(error: &io::Error) -> bool {
    let kinds = [ErrorKind::NetworkUnreachable, ErrorKind::HostUnreachable, ErrorKind::AddrNotAvailable];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}
