//! `selvedge-proxy leave`: tells the running sidecar that its workload leaves the mesh.
//!
//! It is the preStop hook of the sidecar in a pod, whose image has no shell. The kubelet runs it at the moment at which it
//! tells the application to end, and ends the sidecar not before it has returned, so it returns in bounded time: when
//! callers have been told, which is at once where there are none.

use std::{io, net::SocketAddr, time::Duration};

use selvedge_policies::duration::Span;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::bootstrap::{BootstrapError, Source};

/// How often it is asked whether callers have been told.
const LOOK: Duration = Duration::from_millis(100);
/// How much longer than callers have to hear of it everything may take.
const SLACK: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const ANSWER: u64 = 4096;

/// The arguments of `selvedge-proxy leave`.
#[derive(Debug, clap::Args)]
pub struct Command {
    #[command(flatten)]
    bootstrap: Source,
    /// How long callers have to hear of it from the control plane before they are told on their connections.
    #[arg(long = "for", value_name = "SPAN", default_value = "5s")]
    hearing: Span,
}

/// Why a workload could not leave.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// The sidecar's file names no sidecar.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The admin port is chosen by the kernel, and nobody has written it down.
    #[error("the sidecar's admin port is not known: `portsFile` is not there yet; is the sidecar running?")]
    NoPort,
    /// Nobody answers at the admin port.
    #[error("the sidecar does not answer at its admin port {admin}; is it running?")]
    Unreachable {
        /// The admin port.
        admin: SocketAddr,
        /// What the system says of it.
        source: io::Error,
    },
    /// The sidecar answers something else.
    #[error("what answers at the sidecar's admin port {admin} cannot leave: {answer}")]
    Refused {
        /// The admin port.
        admin: SocketAddr,
        /// The first line of the answer.
        answer: String,
    },
    /// Callers were not told in time.
    #[error("the sidecar was told and has not told its callers after {0:?}")]
    TooLong(Duration),
    /// The operating system refused a runtime.
    #[error("cannot start")]
    System(#[source] io::Error),
}

impl Command {
    /// Tells the sidecar and waits until it has told its callers.
    ///
    /// # Errors
    /// There is no sidecar, or it does not do as it is told.
    pub fn run(&self) -> Result<(), LeaveError> {
        let bootstrap = self.bootstrap.load()?;
        let admin = bootstrap.own_port("admin", bootstrap.admin).ok_or(LeaveError::NoPort)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(LeaveError::System)?.block_on(async {
            let at_most = self.hearing.0 + SLACK;
            timeout(at_most, leave(admin, self.hearing)).await.unwrap_or(Err(LeaveError::TooLong(at_most)))
        })
    }
}

async fn leave(admin: SocketAddr, hearing: Span) -> Result<(), LeaveError> {
    let mut is_told = false;
    loop {
        match ask(admin, hearing).await {
            Ok(answer) if answer.contains(" 200 ") => return Ok(()),
            Ok(answer) if answer.contains(" 202 ") => is_told = true,
            Ok(answer) => return Err(LeaveError::Refused { admin, answer }),
            // It has ended meanwhile.
            Err(_) if is_told => return Ok(()),
            Err(source) => return Err(LeaveError::Unreachable { admin, source }),
        }
        sleep(LOOK).await;
    }
}

/// The first line of the answer.
async fn ask(admin: SocketAddr, hearing: Span) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("POST /leave?for={hearing} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER).read_to_string(&mut answer).await?;
    let line = answer.lines().next().filter(|line| line.starts_with("HTTP/1.1 "));
    line.map(str::to_owned).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Gives each of these answers to one caller, and then none any more.
    async fn sidecar(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 256];
                let read = stream.read(&mut asked).await.unwrap();
                assert!(asked[..read].starts_with(b"POST /leave?for=1s500ms HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn it_returns_when_callers_have_been_told_or_the_sidecar_has_ended() {
        let span = Span::from_millis(1500);
        let told: &[&str] =
            &["HTTP/1.1 202 Accepted\r\n\r\n", "HTTP/1.1 202 Accepted\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"];
        leave(sidecar(told).await, span).await.unwrap();
        leave(sidecar(&told[..2]).await, span).await.unwrap();
        let refused = leave(sidecar(&["HTTP/1.1 404 Not Found\r\n\r\n"]).await, span).await.unwrap_err();
        assert!(refused.to_string().contains("404 Not Found"), "{refused}");
        let nobody = leave(sidecar(&[]).await, span).await.unwrap_err();
        assert!(nobody.to_string().contains("is it running?"), "{nobody}");
    }
}
