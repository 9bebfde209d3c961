//! Ends a TCP connection as one that was broken off, behind what was sent.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

/// How long a reader may take for what was written to it before the connection is reset.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(5);

/// Has `socket` end with a reset when it is dropped. What was written and not sent would be lost with that, so the network is
/// given the time to take it.
pub(crate) async fn reset(socket: &TcpStream) {
    let deadline = Instant::now() + PATIENCE;
    // From now on the socket is writable when all was sent.
    let tells = SockRef::from(socket).set_tcp_notsent_lowat(1).is_ok();
    while tells && !is_writable(socket) && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    let _ = socket.set_zero_linger(); // a socket that is gone has nothing to reset
}

fn is_writable(socket: &TcpStream) -> bool {
    let mut ask = [PollFd::new(socket, PollFlags::OUT)];
    // Nothing more can be sent where nothing can be asked.
    poll(&mut ask, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_err() || !ask[0].revents().is_empty()
}
