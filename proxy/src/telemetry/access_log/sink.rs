//! Where access log lines end up: standard output or a file, written by a thread of its own because a full pipe
//! or a slow disk blocks.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    thread,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// The longest a process that ends waits for whoever reads its log.
pub(in crate::telemetry) const FINISH_LIMIT: Duration = Duration::from_secs(2);

/// Batches that may wait to be written: with full ones about 1 MiB.
const WAITING_MAX: usize = 64;

#[derive(Debug)]
enum Message {
    Lines(Vec<u8>),
    Finish(oneshot::Sender<()>),
}

/// The way to the writer thread; clones share it. The thread ends with the last clone.
#[derive(Clone, Debug)]
pub(in crate::telemetry) struct Sink {
    messages: mpsc::Sender<Message>,
}

impl Sink {
    /// Opens `path` for appending, or standard output.
    pub(in crate::telemetry) fn open(path: Option<&Path>) -> io::Result<Self> {
        let output: Box<dyn Write + Send> = match path {
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
            None => Box::new(io::stdout()),
        };
        let (messages, waiting) = mpsc::channel(WAITING_MAX);
        thread::Builder::new().name("access-log".into()).spawn(move || write_all(output, waiting))?;
        Ok(Self { messages })
    }

    /// Hands `lines` over; `false` when too much is waiting already and they are dropped.
    pub(super) fn send(&self, lines: Vec<u8>) -> bool {
        self.messages.try_send(Message::Lines(lines)).is_ok()
    }

    /// Returns when everything handed over before is written, or cannot be in a reasonable time.
    pub(in crate::telemetry) async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        let wait = async {
            if self.messages.send(Message::Finish(done)).await.is_ok() {
                // An error means that the thread has ended and nothing is left to wait for.
                let _ = finished.await;
            }
        };
        if timeout(FINISH_LIMIT, wait).await.is_err() {
            tracing::warn!("the last access log lines are lost: nobody reads them");
        }
    }
}

fn write_all(mut output: Box<dyn Write + Send>, mut waiting: mpsc::Receiver<Message>) {
    while let Some(message) = waiting.blocking_recv() {
        match message {
            Message::Lines(lines) => {
                if let Err(error) = output.write_all(&lines).and_then(|()| output.flush()) {
                    tracing::warn!(%error, "access log lines could not be written");
                }
            }
            Message::Finish(done) => {
                // The one who asked may have gone.
                let _ = done.send(());
            }
        }
    }
}
