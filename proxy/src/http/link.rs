//! A connection between two sidecars that carries frames ([`crate::frames`]): who drives it, who calls on it, and who answers.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, Sleep, sleep, timeout},
};

use crate::frames::{Broken, End, Session};

mod caller;
mod content;
mod pump;
mod tunnel;
#[cfg(test)]
mod tests;

pub(crate) use caller::{Caller, Failed, Sender};
pub(crate) use content::Content;
pub(crate) use pump::Pump;
pub(crate) use tunnel::{Tunnel, accepts};

/// A peer that says nothing for so long while something is under way is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(20);
/// How long it has to give one.
const SIGN: Duration = Duration::from_secs(10);
/// How long the end of a connection may take that has ended in order.
const FAREWELL: Duration = Duration::from_secs(5);
/// Bytes read at once: what a TLS record holds.
const READ: usize = 16 * 1024;

/// One end of a connection, as all that happens on it shares it.
pub(crate) type Shared = Rc<RefCell<Session>>;

/// Reads and writes until the session is over; `arrived` is told when requests may have come. The end of a connection that
/// did not end in order is how its streams end.
pub(crate) async fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    mut io: T,
    session: Shared,
    mut arrived: impl FnMut(),
) -> Option<Broken> {
    let mut alive = pin!(Alive::new());
    let ended = poll_fn(|cx| {
        session.borrow_mut().driven_by(cx);
        loop {
            let wrote = write(&mut io, &session, cx);
            if let Poll::Ready(Err(_)) = wrote {
                // What has come all the same counts.
                while let Poll::Ready(Ok(())) = read(&mut io, &session, cx) {}
                return Poll::Ready(Err(Ended::Lost));
            }
            if session.borrow().is_over() && wrote.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if session.borrow().is_stuffed() {
                break;
            }
            match read(&mut io, &session, cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
            arrived();
        }
        alive.as_mut().poll(&session, cx).map(Err)
    })
    .await;
    let broken = match ended {
        Ok(()) => None,
        Err(Ended::Lost) => {
            session.borrow_mut().cut(End::Lost);
            None
        }
        Err(Ended::Broken(broken)) => {
            session.borrow_mut().cut(End::Broken(broken.0));
            Some(broken)
        }
    };
    if session.borrow().is_lost() {
        return None;
    }
    // Whether or not the peer can still be told that nothing follows. Boxed: its buffer would weigh on every connection.
    let _ = timeout(FAREWELL, Box::pin(farewell(&mut io))).await;
    broken
}

/// Says that nothing follows, and reads until the peer says so too: a socket that is closed with something unread takes back
/// what it has not sent.
async fn farewell<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T) {
    let mut buffer = [0; 1024];
    if io.shutdown().await.is_ok() {
        while io.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    }
}

enum Ended {
    Lost,
    Broken(Broken),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

fn write<T: AsyncWrite + Unpin>(io: &mut T, session: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let session = &mut *session.borrow_mut();
    while !session.output().is_empty() {
        let written = ready!(Pin::new(&mut *io).poll_write(cx, session.output()))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        session.written(written);
    }
    Pin::new(io).poll_flush(cx)
}

/// Reads once. The end of the stream is an error: whoever leaves in order has said so, and then nobody reads.
fn read<T: AsyncRead + Unpin>(io: &mut T, session: &Shared, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
    let mut buffer = [const { MaybeUninit::<u8>::uninit() }; READ];
    let mut buffer = ReadBuf::uninit(&mut buffer);
    ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
    if buffer.filled().is_empty() {
        return Poll::Ready(Err(Ended::Lost));
    }
    session.borrow_mut().receive(buffer.filled())?;
    Poll::Ready(Ok(()))
}

/// Finds out whether the peer still lives, while it owes something. It costs no timer while nothing is under way.
struct Alive {
    timer: Option<Pin<Box<Sleep>>>,
    asked: bool,
}

impl Alive {
    const fn new() -> Self {
        Self { timer: None, asked: false }
    }

    /// Ready when it does not.
    fn poll(mut self: Pin<&mut Self>, session: &Shared, cx: &mut Context<'_>) -> Poll<Ended> {
        if !session.borrow().is_busy() && self.timer.is_none() {
            return Poll::Pending;
        }
        loop {
            let timer = self.timer.get_or_insert_with(|| {
                session.borrow_mut().heard(); // what was said before is no answer
                Box::pin(sleep(SILENCE))
            });
            ready!(timer.as_mut().poll(cx));
            let mut session = session.borrow_mut();
            let (heard, busy) = (session.heard(), session.is_busy());
            if !heard && self.asked && busy {
                return Poll::Ready(Ended::Lost);
            }
            self.asked = !heard && busy;
            if self.asked {
                session.ping();
                cx.waker().wake_by_ref(); // to have it written
            }
            drop(session);
            let asked = self.asked;
            match &mut self.timer {
                Some(timer) if busy => timer.as_mut().reset(Instant::now() + if asked { SIGN } else { SILENCE }),
                timer => *timer = None,
            }
            if !busy {
                return Poll::Pending;
            }
        }
    }
}
