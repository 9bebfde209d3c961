//! `metrics-log`: a TCP line protocol appended to a file. The server speaks first, as many database and mail
//! protocols do, so a proxy in front cannot wait for the client's bytes to see what this is.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    clock,
    error::Error,
    journal::GREETING,
    server::{ACCEPT_PAUSE, Stop},
};

/// Longer lines end the connection.
const MAX_LINE: u64 = 4096;
const QUEUE: usize = 4096;
/// Lines reach the file within this time.
const FLUSH: Duration = Duration::from_millis(200);

/// What the service `metrics-log` is told at its start.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// What all services are told: where to listen, and who they are.
    #[command(flatten)]
    pub common: crate::Common,
    /// The file lines are appended to.
    #[arg(long, env = "METRICS_LOG_FILE")]
    pub file: PathBuf,
}

/// Serves until `stop`, then writes what was received and returns.
pub(crate) async fn serve(config: Config, listener: TcpListener, mut stop: Stop) -> Result<(), Error> {
    let file = OpenOptions::new().create(true).append(true).open(&config.file).await;
    let file = file.map_err(Error::io(format!("opening {}", config.file.display())))?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write(file, receiver));
    let sender = Arc::new(sender);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.wait() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (sender, mut stop) = (Arc::clone(&sender), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                result = receive(stream, &sender) => if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended");
                },
                () = stop.wait() => {}
            }
        });
    }
    drop(sender);
    writer.await.unwrap_or(Ok(())).map_err(Error::io(format!("writing {}", config.file.display())))
}

/// Reads the lines of one connection until it ends.
async fn receive(stream: TcpStream, lines: &mpsc::Sender<String>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(GREETING.as_bytes()).await?;
    let mut line = String::new();
    loop {
        line.clear();
        let read = (&mut stream).take(MAX_LINE).read_line(&mut line).await?;
        if read == 0 || !line.ends_with('\n') {
            return Ok(());
        }
        let stamped = format!("{} {}\n", clock::unix_millis(), line.trim_end());
        if lines.send(stamped).await.is_err() {
            return Ok(());
        }
    }
}

/// Appends lines to the file until every connection is gone.
async fn write(file: File, mut lines: mpsc::Receiver<String>) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    let mut tick = tokio::time::interval(FLUSH);
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => file.write_all(line.as_bytes()).await?,
                None => return file.flush().await,
            },
            _ = tick.tick() => file.flush().await?,
        }
    }
}
