//! Where the lines of an audit log end up: a file or standard output, written by a thread of its own because a slow disk
//! blocks. A file that was moved away is begun anew, as those who rotate logs expect.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Bytes of lines that may wait to be written.
const WAITING_MAX: usize = 4 * 1024 * 1024;

enum Message {
    Line(Vec<u8>),
    Finish(mpsc::SyncSender<()>),
}

/// The way to the writer of an audit log; clones share it. The writer ends with the last clone.
///
/// ```
/// use std::time::Duration;
///
/// use selvedge_identity::audit::{Event, Happening, Trail};
///
/// let trail = Trail::open(Some("/dev/null".as_ref()), |_| ()).unwrap();
/// let made = Event::new("2026-12-01T00:00:00Z", "control-plane", Happening::TokenMade);
/// assert!(trail.record(made.line(0)) && trail.finish(Duration::from_secs(10)));
/// assert_eq!(trail.take_lost(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct Trail {
    messages: mpsc::Sender<Message>,
    counts: Arc<Counts>,
    most: usize,
}

#[derive(Debug, Default)]
struct Counts {
    /// Bytes that wait to be written.
    waiting: AtomicUsize,
    /// Lines lost that nobody has counted yet.
    lost: AtomicU64,
    /// Lines lost that no line has told of yet.
    untold: AtomicU64,
}

impl Counts {
    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.untold.fetch_add(1, Ordering::Relaxed);
    }
}

impl Trail {
    /// Opens `path` for appending, made for its owner alone where it is not there, or standard output. `failed` is told what
    /// keeps a line from being written.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread can be started.
    pub fn open(path: Option<&Path>, failed: impl Fn(&io::Error) + Send + 'static) -> io::Result<Self> {
        Self::with_room(path, failed, WAITING_MAX)
    }

    fn with_room(path: Option<&Path>, failed: impl Fn(&io::Error) + Send + 'static, most: usize) -> io::Result<Self> {
        let mut output = Output::open(path)?;
        let (messages, waiting) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let written = Arc::clone(&counts);
        thread::Builder::new().name("audit-log".into()).spawn(move || {
            for message in waiting {
                match message {
                    Message::Line(line) => {
                        written.waiting.fetch_sub(line.len(), Ordering::Relaxed);
                        let untold = written.untold.swap(0, Ordering::Relaxed);
                        if let Err(error) = output.write(told(line, untold)) {
                            written.untold.fetch_add(untold, Ordering::Relaxed);
                            written.lose();
                            failed(&error);
                        }
                    }
                    // The one who asked may have gone.
                    Message::Finish(done) => done.send(()).unwrap_or_default(),
                }
            }
        })?;
        Ok(Self { messages, counts, most })
    }

    /// Hands a line of [`Event::line`](super::Event::line) over; `false` when too much is waiting already and it is lost.
    pub fn record(&self, line: Vec<u8>) -> bool {
        let bytes = line.len();
        let waiting = self.counts.waiting.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes <= self.most && self.messages.send(Message::Line(line)).is_ok() {
            return true;
        }
        self.counts.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.counts.lose();
        false
    }

    /// Lines that were lost since the last call.
    pub fn take_lost(&self) -> u64 {
        self.counts.lost.swap(0, Ordering::Relaxed)
    }

    /// Waits until everything handed over before is written; `false` when that takes longer than `limit`. It blocks.
    pub fn finish(&self, limit: Duration) -> bool {
        let (done, finished) = mpsc::sync_channel(1);
        self.messages.send(Message::Finish(done)).is_ok() && finished.recv_timeout(limit).is_ok()
    }
}

/// The line, saying how many were lost before it.
fn told(mut line: Vec<u8>, lost: u64) -> Vec<u8> {
    if lost > 0 && line.ends_with(b"}\n") {
        line.truncate(line.len() - 2);
        line.extend_from_slice(format!(",\"lost\":{lost}}}\n").as_bytes());
    }
    line
}

enum Output {
    Standard,
    File {
        path: PathBuf,
        file: File,
        /// The last line may be there in part, so the next one begins on its own.
        is_torn: bool,
    },
}

impl Output {
    fn open(path: Option<&Path>) -> io::Result<Self> {
        path.map_or(Ok(Self::Standard), |path| {
            Ok(Self::File { path: path.to_owned(), file: append(path)?, is_torn: false })
        })
    }

    fn write(&mut self, line: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Standard => {
                let mut output = io::stdout().lock();
                output.write_all(&line)?;
                output.flush()
            }
            Self::File { path, file, is_torn } => {
                if was_moved(path, file) {
                    (*file, *is_torn) = (append(path)?, false);
                }
                if *is_torn {
                    file.write_all(b"\n")?;
                }
                *is_torn = true;
                file.write_all(&line)?;
                *is_torn = false;
                Ok(())
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Whether another file, or none, is at `path`.
fn was_moved(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(ours)) => (there.dev(), there.ino()) != (ours.dev(), ours.ino()),
        (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
        (Ok(_), Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LINE: &[u8] = b"{\"n\":1}\n";
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("audit.log"), dir.path().join("audit.log.1"));
        let trail = Trail::open(Some(&path), |_| ()).unwrap();
        assert!(trail.record(LINE.to_vec()) && trail.finish(LONG));
        fs::rename(&path, &moved).unwrap();
        for _ in 0..2 {
            assert!(trail.record(LINE.to_vec()) && trail.finish(LONG));
        }
        assert_eq!((fs::read(&moved).unwrap(), fs::read(&path).unwrap()), (LINE.to_vec(), LINE.repeat(2)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_lost_is_counted_and_told_by_the_next_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let trail = Trail::with_room(Some(&path), |_| (), LINE.len()).unwrap();
        assert!(!trail.record(LINE.repeat(2)) && !trail.record(LINE.repeat(2)), "there is no room for it");
        assert!(trail.record(LINE.to_vec()) && trail.finish(LONG));
        assert_eq!((trail.take_lost(), trail.take_lost()), (2, 0));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"n\":1,\"lost\":2}\n");
    }

    #[test]
    fn what_the_disk_does_not_take_is_lost_and_said() {
        let (said, heard) = mpsc::channel();
        let trail = Trail::open(Some("/dev/full".as_ref()), move |error| drop(said.send(error.to_string()))).unwrap();
        assert!(trail.record(LINE.to_vec()) && trail.finish(LONG));
        assert_eq!(trail.take_lost(), 1);
        assert!(heard.recv().unwrap().contains("No space left"), "it is told why");
    }
}
