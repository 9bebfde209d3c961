//! Bytes both ways between two streams, each way with an end of its own.
//!
//! How a way ends is data, too: protocols whose end of data is the end of the connection would take a broken transfer for a
//! whole one. And no error overtakes bytes that came before it: a stream that takes no more may have said something that is to
//! be passed on.

use std::{
    future::poll_fn,
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read at a time.
const CHUNK: usize = 8 * 1024;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Party {
    Caller,
    Service,
}

/// Who broke the connection off, and whether the other had said its last word by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) by: Party,
    pub(super) was_over: bool,
}

/// How one way has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With the end of what there was to say, which was passed on.
    Finished,
    /// Whoever speaks has broken it off.
    Broken,
    /// Whoever listens takes no more.
    Unheard,
}

/// Carries until both ways have ended; who broke it off, if anybody did. Bytes that were read before are passed on first.
pub(super) async fn carry<C, S>(caller: &mut C, service: &mut S) -> Option<Broken>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut asking, mut answering) = (Way::default(), Way::default());
    // Who takes no more while it still speaks has broken off: that its last word came is the system's doing.
    let mut deaf = None;
    poll_fn(|cx| {
        let asked = asking.poll(cx, caller, service);
        let answered = answering.poll(cx, service, caller);
        deaf = deaf.or(match (asked, answered) {
            (Some(End::Unheard), None) => Some(Party::Service),
            (None, Some(End::Unheard)) => Some(Party::Caller),
            _ => None,
        });
        let broken = |by, other: Option<End>| Some(Broken { by, was_over: other == Some(End::Finished) });
        match (asked, answered) {
            (Some(End::Broken), other) => Poll::Ready(broken(Party::Caller, other)),
            (other, Some(End::Broken)) => Poll::Ready(broken(Party::Service, other)),
            (Some(End::Unheard), Some(End::Finished)) if deaf.is_none() => Poll::Ready(broken(Party::Service, None)),
            (Some(_), Some(_)) => Poll::Ready(deaf.map(|by| Broken { by, was_over: false })),
            _ => Poll::Pending,
        }
    })
    .await
}

/// One way of the two.
#[derive(Default)]
struct Way {
    buffer: Box<[u8]>,
    /// The part of the buffer that was read and is to be written.
    held: Range<usize>,
    /// Something was written that may not have been sent.
    unsent: bool,
    /// Nothing more comes.
    said: bool,
    end: Option<End>,
}

impl Way {
    /// Goes on as far as it can; how it has ended, once it has.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Option<End> {
        if self.end.is_none()
            && let Poll::Ready(end) = self.go_on(cx, from, to)
        {
            self.end = Some(end);
            self.buffer = Box::default();
        }
        self.end
    }

    fn go_on(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<End> {
        loop {
            while !self.held.is_empty() {
                match ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.held.clone()])) {
                    Ok(written @ 1..) => (self.held.start, self.unsent) = (self.held.start + written, true),
                    Ok(_) | Err(_) => return Poll::Ready(End::Unheard),
                }
            }
            if self.said {
                let told = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                return Poll::Ready(if told.is_ok() { End::Finished } else { End::Unheard });
            }
            match self.read(cx, from) {
                Poll::Ready(Ok(())) => self.said = self.held.is_empty(),
                read => {
                    // What waits to be sent is sent while nothing comes, and before it is told that nothing will.
                    if self.unsent {
                        match Pin::new(&mut *to).poll_flush(cx) {
                            Poll::Ready(Ok(())) => self.unsent = false,
                            Poll::Ready(Err(_)) => return Poll::Ready(End::Unheard),
                            Poll::Pending => {}
                        }
                    }
                    return if read.is_ready() { Poll::Ready(End::Broken) } else { Poll::Pending };
                }
            }
        }
    }

    /// Reads what is to be written next.
    fn read(&mut self, cx: &mut Context<'_>, from: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; CHUNK].into();
        }
        let mut read = ReadBuf::new(&mut self.buffer);
        let result = Pin::new(from).poll_read(cx, &mut read);
        self.held = 0..read.filled().len();
        result
    }
}
