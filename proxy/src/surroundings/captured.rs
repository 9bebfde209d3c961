//! Whether connections made around this sidecar come to it. Its own are exempt from the rules, but for those to the
//! addresses of [`CHECK`]: the rules redirect them to the outbound port, which answers with words of its own.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use selvedge_capture::CHECK;
use socket2::SockRef;
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

/// What the outbound port says to who asks.
const ANSWER: &[u8] = b"selvedge: captured\n";
/// The sidecar answers itself at once, unless the machine is very busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether connections come to this sidecar that do not know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Captured {
    /// Nobody said that they must.
    #[default]
    NotRequired,
    /// They must, and it has not been found out yet, or why they do not.
    Not(Arc<str>),
    /// They do.
    Yes,
}

impl Captured {
    /// What is told while nothing was found out.
    pub(crate) fn unknown() -> Self {
        Self::Not("it is being found out whether connections of the workload come to the sidecar".into())
    }
}

/// True for a connection that only asks whether it comes here.
pub(crate) fn is_question(original: SocketAddr) -> bool {
    CHECK.contains(&original)
}

/// Says that it did. The socket is new, so its buffer has room.
pub(crate) fn answer(socket: &TcpStream) {
    let _ = SockRef::from(socket).send(ANSWER); // who asks and hangs up wants no answer
}

/// Asks at every address of this host's families.
///
/// # Errors
/// Why connections do not come here, for people.
pub(crate) async fn look() -> Result<(), String> {
    look_at(&CHECK).await
}

async fn look_at(addresses: &[SocketAddr]) -> Result<(), String> {
    let mut answered = false;
    for address in addresses {
        let told =
            |what: &dyn std::fmt::Display| format!("a connection to {address} did not come to the sidecar: {what}");
        match timeout(PATIENCE, ask(*address)).await {
            Ok(Ok(said)) if said == ANSWER => answered = true,
            Ok(Ok(_)) => return Err(told(&"something else answered")),
            Ok(Err(error)) if is_absent(&error) => {}
            Ok(Err(error)) => return Err(told(&error)),
            Err(_) => return Err(told(&"nothing answered in time")),
        }
    }
    if answered { Ok(()) } else { Err("this host has no loopback address to find it out at".into()) }
}

async fn ask(address: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = TcpStream::connect(address).await?;
    let mut said = Vec::new();
    socket.take(64).read_to_end(&mut said).await?;
    Ok(said)
}

/// The host has no addresses of this family.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::NetworkUnreachable | ErrorKind::Unsupported)
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn listener() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[tokio::test]
    async fn the_sidecar_knows_its_own_answer_and_no_other() {
        let (address, ours) = listener().await;
        let (other, theirs) = listener().await;
        let absent: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = ours.accept().await {
                answer(&socket);
            }
        });
        tokio::spawn(async move {
            while let Ok((socket, _)) = theirs.accept().await {
                drop(socket);
            }
        });
        look_at(&[address]).await.unwrap();
        let found = look_at(&[address, other]).await.unwrap_err();
        assert!(found.contains(&other.to_string()), "{found}");
        if ask(absent).await.is_err_and(|error| is_absent(&error)) {
            look_at(&[absent, address]).await.unwrap();
            assert!(look_at(&[absent]).await.unwrap_err().contains("no loopback address"));
        }
        let (closed, _) = listener().await;
        assert!(look_at(&[address, closed]).await.unwrap_err().contains("refused"));
    }
}
