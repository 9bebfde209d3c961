//! Where this host listens for TCP. The kernel is asked for listening sockets alone (`sock_diag(7)`), which costs the same
//! however many connections there are; one that does not answer has lists of all sockets as files (`proc_net_tcp`).

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustix::{io::Errno, net::netlink::SOCK_DIAG};

use crate::netlink::{LIST, Socket, message};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// The bit of `TCP_LISTEN`.
const LISTENING: u32 = 1 << 10;
/// `inet_diag_sockid`, where nothing is asked for.
const ANY: [u8; 48] = [0; 48];

/// Where somebody listens in the network namespace of the calling thread; nowhere, when nothing tells.
pub fn listeners() -> Vec<SocketAddr> {
    asked().unwrap_or_else(|_| read())
}

fn asked() -> Result<Vec<SocketAddr>, Errno> {
    let kernel = Socket::open(SOCK_DIAG)?;
    let mut found = Vec::new();
    for family in FAMILIES {
        let request = [&[family, TCP, 0, 0][..], &LISTENING.to_ne_bytes(), &ANY].concat();
        found.extend(kernel.list(&message(BY_FAMILY, LIST, 0, &request))?.iter().filter_map(|told| address(told)));
    }
    Ok(found)
}

/// The own address in an `inet_diag_msg`.
fn address(told: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(told.get(4..6)?.try_into().ok()?);
    let bytes: [u8; 16] = told.get(8..24)?.try_into().ok()?;
    let [a, b, c, d, ..] = bytes;
    let address: IpAddr =
        if told[0] == FAMILIES[0] { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(bytes).into() };
    Some(SocketAddr::new(address.to_canonical(), port))
}

fn read() -> Vec<SocketAddr> {
    let tables =
        ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().filter_map(listener)).collect()
}

/// The address of a line of `/proc/net/tcp` or `tcp6` (proc(5)) whose state is `TCP_LISTEN`.
fn listener(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, state) = (words.next()?, words.nth(1)?);
    // Behind the address stand a colon and four digits.
    let (address, port) = local.split_at_checked(local.len().checked_sub(5)?)?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => Ipv6Addr::from(<[u8; 16]>::try_from([word(0)?, word(8)?, word(16)?, word(24)?].concat()).ok()?).into(),
        _ => return None,
    };
    let port = u16::from_str_radix(port.strip_prefix(':')?, 16).ok()?;
    (state == "0A").then(|| SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        net::{TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    use super::*;

    /// What one test closes, a child that another starts holds open until it has become its program.
    fn becomes(true_later: impl Fn() -> bool) -> bool {
        (0..3000).any(|_| {
            let is_true = true_later();
            if !is_true {
                thread::sleep(Duration::from_millis(10));
            }
            is_true
        })
    }

    /// Both ways are held against the same sockets, but where this kernel does not know the first.
    #[test]
    fn this_host_is_seen_to_listen_where_it_does() {
        let ways: [fn() -> Option<Vec<SocketAddr>>; 2] = [|| asked().ok(), || Some(read())];
        for (n, way) in ways.into_iter().enumerate() {
            if way().is_none() {
                let _told = writeln!(io::stderr(), "skipped: this kernel does not tell which sockets listen");
                continue;
            }
            let tells = |address| way().unwrap().contains(&address);
            let v4 = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            assert!(becomes(|| !tells(v4)), "way {n}: it was closed");
            for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0", "127.0.0.6:0", "[::ffff:127.0.0.1]:0"] {
                let Ok(listener) = TcpListener::bind(address) else { continue };
                let at = listener.local_addr().unwrap();
                assert!(tells(SocketAddr::new(at.ip().to_canonical(), at.port())), "way {n}: {address}");
            }
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(!tells(caller.local_addr().unwrap()), "way {n}: a connection is no listener");
        }
    }

    #[test]
    fn what_is_no_listener_is_left_out() {
        for bad in ["", "0: 0100007F:1F90 00000000:0000 01", "0: 0100007F 0 0A", "0: 01:1F90 0 0A", "0: x:y z 0A"] {
            assert_eq!(listener(bad), None, "{bad}");
        }
        assert_eq!((address(&[]), address(&[2; 23])), (None, None));
    }
}
