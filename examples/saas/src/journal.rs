//! Sends one line per event to `metrics-log`. Never holds a request up: lines wait in a bounded queue and are
//! dropped when it is full.

use std::{io, time::Duration};

use http::uri::Authority;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    sync::mpsc,
};

/// What `metrics-log` says first, so that a sender knows whom it has reached.
pub(crate) const GREETING: &str = "METRICS-LOG 1\r\n";
const QUEUE: usize = 1024;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The sending end; cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal {
    source: String,
    lines: Option<mpsc::Sender<String>>,
}

impl Journal {
    /// Starts the sender of `source`'s lines on the current runtime. Without an address lines go nowhere.
    pub(crate) fn start(source: String, metrics_log: Option<&Authority>) -> Self {
        let lines = metrics_log.map(|address| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(deliver(address.to_string(), receiver));
            sender
        });
        Self { source, lines }
    }

    /// Records `event`, one line of text.
    pub(crate) fn record(&self, event: std::fmt::Arguments<'_>) {
        if let Some(lines) = &self.lines {
            let line = format!("{} {event}\n", self.source);
            if lines.try_send(line).is_err() {
                tracing::debug!("metrics-log is slow or away: a line was dropped");
            }
        }
    }
}

/// Delivers until every sender is gone; connects again, with growing waits, whenever the connection is lost.
async fn deliver(address: String, mut lines: mpsc::Receiver<String>) {
    let mut wait = FIRST_WAIT;
    loop {
        match send_all(&address, &mut lines, &mut wait).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "metrics-log at {address} is away"),
        }
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn send_all(address: &str, lines: &mut mpsc::Receiver<String>, wait: &mut Duration) -> io::Result<()> {
    let mut stream = BufStream::new(TcpStream::connect(address).await?);
    let mut greeting = String::new();
    stream.read_line(&mut greeting).await?;
    if greeting != GREETING {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no metrics-log greeting"));
    }
    *wait = FIRST_WAIT;
    while let Some(line) = lines.recv().await {
        stream.write_all(line.as_bytes()).await?;
        if lines.is_empty() {
            stream.flush().await?;
        }
    }
    stream.flush().await
}
