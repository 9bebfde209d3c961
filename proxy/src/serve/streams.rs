//! HTTP/2 streams whose callers do not read: flow control holds the answer back, and with it a place at the service.

use std::{future::poll_fn, pin::pin, rc::Rc, task::Poll, time::Duration};

use crate::{
    connection::Connection,
    http::pace::{Deadline, Polled},
};

/// hyper's executor for the streams of one HTTP/2 connection.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    connection: Rc<Connection>,
    limit: Duration,
}

impl Streams {
    /// Gives up streams of `connection` that its peer leaves unread for `limit`.
    pub(super) const fn new(connection: Rc<Connection>, limit: Duration) -> Self {
        Self { connection, limit }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(read_in_time(future, self.connection.clone(), self.limit));
    }
}

/// Runs a stream to its end, or drops it, which resets it, when its caller leaves the answer unread for `limit`.
async fn read_in_time(stream: impl Future<Output = ()>, connection: Rc<Connection>, limit: Duration) {
    let mut stream = pin!(stream);
    let mut answered = false;
    let mut reader = Deadline::default();
    poll_fn(|cx| {
        connection.polled.set(Polled::Held);
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let polled = connection.polled.get();
        if polled != Polled::Held {
            answered = true;
            reader.clear();
        }
        if !answered || polled == Polled::Waits {
            return Poll::Pending;
        }
        reader.start(limit);
        let given_up = reader.poll(cx);
        if given_up.is_ready() {
            connection.polled.set(Polled::GivenUp); // until this stream has been dropped
        }
        given_up
    })
    .await;
}
