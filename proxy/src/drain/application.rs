//! Whether the application still lives, as far as its sidecar can see: somewhere it takes connections.

use std::{io, net::SocketAddr, sync::OnceLock, time::Duration};

use tokio::time::timeout;

use crate::socket::{Side, dial};

/// Addresses that are remembered. A workload that seems to have more (somebody tries all its ports) is never thought
/// gone.
const MOST: usize = 256;
/// How long a connection may take. An application that is too busy to take one is there.
const BUSY: Duration = Duration::from_secs(1);

/// The addresses at which the application is called, in the order in which they were first. A place is taken once and for
/// all, so workers need no lock to take one.
#[derive(Debug)]
pub(crate) struct Application([OnceLock<SocketAddr>; MOST]);

impl Default for Application {
    /// One that is called nowhere yet.
    fn default() -> Self {
        Self([const { OnceLock::new() }; MOST])
    }
}

impl Application {
    /// An application that is known to be called at `addresses`.
    pub(crate) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let application = Self::default();
        addresses.into_iter().for_each(|address| application.called(address));
        application
    }

    /// Notes where it is called.
    pub(crate) fn called(&self, address: SocketAddr) {
        // Its own place, or the first that is free and that no other worker takes at this moment.
        self.0.iter().find(|place| *place.get_or_init(|| address) == address);
    }

    /// True when it takes a connection at none of its addresses any more. One that is called nowhere, which only makes
    /// calls, is never known to be gone.
    pub(crate) async fn is_gone(&self) -> bool {
        let addresses: Vec<_> = self.0.iter().map_while(OnceLock::get).copied().collect();
        if addresses.is_empty() || addresses.len() >= MOST {
            return false;
        }
        for address in addresses {
            if is_there(timeout(BUSY, dial(address, Side::Workload)).await) {
                return false;
            }
        }
        true
    }
}

/// What cannot be asked, for want of a descriptor for instance, is not known to be gone.
fn is_there<T, E>(asked: Result<io::Result<T>, E>) -> bool {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    match asked {
        Ok(Err(e)) => !matches!(e.kind(), ConnectionRefused | AddrNotAvailable | HostUnreachable | NetworkUnreachable),
        Ok(Ok(_)) | Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn it_is_gone_when_it_takes_no_connection_anywhere() {
        let listeners = [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("[::1]:0").await.unwrap()];
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let application = Application::new([addresses[0]]);
        application.called(addresses[1]);
        let [first, second] = listeners;
        assert!(!application.is_gone().await);
        drop(first);
        assert!(!application.is_gone().await, "the other one is there");
        drop(second);
        assert!(application.is_gone().await);
    }

    #[tokio::test]
    async fn what_is_called_nowhere_or_everywhere_is_never_known_to_be_gone() {
        assert!(!Application::default().is_gone().await);
        let scanned = Application::new([([127, 0, 0, 1], 1).into()]);
        assert!(scanned.is_gone().await);
        (1..=u16::MAX).for_each(|port| scanned.called(([127, 0, 0, 1], port).into()));
        assert!(scanned.0.iter().all(|place| place.get().is_some()));
        assert!(!scanned.is_gone().await);
    }
}
