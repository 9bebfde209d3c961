//! The threads that serve sidecars, each with a runtime of its own; or the one that runs the control plane.
//!
//! Guarantees: a connection stays on the thread it was given to, so that of what it holds nothing moves between processors
//! and its streams wake nobody elsewhere. News wake each thread once, however many streams it has, and the thread wakes
//! them: to wake a thousand tasks of another runtime is a thousand locks and system calls.

use std::{convert::Infallible, io, sync::Arc, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::{oneshot, watch},
};

use super::push::Published;

/// All of them. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Threads {
    all: Vec<Thread>,
    last: usize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Thread {
    /// Spawns on it.
    pub(super) handle: Handle,
    /// What is to be pushed, for the streams of this thread.
    pub(super) published: watch::Receiver<Arc<Published>>,
    /// It ends when this is gone; nothing of the one that runs the control plane.
    _lives: Option<oneshot::Sender<Infallible>>,
}

impl Threads {
    /// Starts so many, for streams that are told what is `published`. Without any the present one takes all.
    pub(super) fn start(count: usize, published: &watch::Receiver<Arc<Published>>) -> io::Result<Self> {
        let mut all: Vec<Thread> =
            (0..count).map(|number| Thread::start(number, published.clone())).collect::<io::Result<_>>()?;
        if all.is_empty() {
            all.push(Thread { handle: Handle::current(), published: published.clone(), _lives: None });
        }
        Ok(Self { all, last: 0 })
    }

    /// The one whose turn it is.
    pub(super) fn next(&mut self) -> Option<&Thread> {
        self.last = (self.last + 1) % self.all.len();
        self.all.get(self.last)
    }
}

impl Thread {
    fn start(number: usize, mut published: watch::Receiver<Arc<Published>>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (sender, here) = watch::channel(Arc::clone(&published.borrow_and_update()));
        let (lives, ended) = oneshot::channel();
        let relay = async move {
            while published.changed().await.is_ok() {
                let newest = Arc::clone(&published.borrow_and_update());
                sender.send_replace(newest);
            }
        };
        let run = move || {
            runtime.spawn(relay);
            let _gone: Result<Infallible, _> = runtime.block_on(ended);
        };
        thread::Builder::new().name(format!("sidecars-{number}")).spawn(run)?;
        Ok(Self { handle, published: here, _lives: Some(lives) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::snapshot::{Draft, Snapshot};

    #[tokio::test]
    async fn connections_are_spread_over_the_threads_and_each_thread_hears_the_news() {
        let published = |snapshot| Arc::new(Published::new(snapshot, &Snapshot::default()));
        let (sender, receiver) = watch::channel(published(Arc::default()));
        let count = 3;
        let mut threads = Threads::start(count, &receiver).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..count {
            let Thread { handle, published, .. } = threads.next().unwrap();
            let mut published = published.clone();
            waiting.push(handle.spawn(async move {
                published.changed().await.unwrap();
                let number = published.borrow().snapshot.number();
                (thread::current().name().map(str::to_owned), number)
            }));
        }
        sender.send_replace(published(Arc::new(Draft::after(&Snapshot::default()).finish().unwrap())));
        let mut names = BTreeSet::new();
        for heard in waiting {
            let (name, number) = heard.await.unwrap();
            assert_eq!(number, 1);
            names.insert(name);
        }
        assert_eq!(names.len(), count);
        let mut published = threads.next().unwrap().published.clone();
        drop(sender);
        // Until whoever publishes is gone.
        while published.changed().await.is_ok() {}
    }
}
