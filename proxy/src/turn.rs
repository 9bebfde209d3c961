//! Turns: the tasks of a worker share one thread, so one that always finds something to do lets others go on by itself.

use std::{
    pin::pin,
    task::{Context, Poll},
};

use tokio::task::yield_now;

/// Ends the turn of the task of `cx`, which goes on when every other one that can has had its turn and sockets and timers
/// have been looked at. A task that only wakes itself has sixty turns before that.
pub(crate) fn end<T>(cx: &mut Context<'_>) -> Poll<T> {
    // The first time it is never ready, and has the task woken whether or not it is still there then.
    let _ = pin!(yield_now()).poll(cx);
    Poll::Pending
}
