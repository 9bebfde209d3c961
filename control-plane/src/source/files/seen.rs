//! What was read of files, so that a file that did not change is not read again.
//!
//! Guarantees: a text is used again only while its file has the same device, inode, size and times, and after it was read
//! once more when the file had had these for [`SETTLED`]: two writes within one tick of the file system's clock leave the
//! same times. No clock of this machine is compared with one of the file system's, which may be another machine's.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// Longer than a tick of any file system's clock.
const SETTLED: Duration = Duration::from_secs(3);

/// The text of a file, or why it has none.
pub(super) type Text = Result<Arc<str>, Arc<str>>;

/// What a path leads to: device and inode, and when that was made where that is known, for an inode is used again.
pub(super) type Identity = (u64, u64, Option<SystemTime>);

pub(super) fn identity(what: &fs::Metadata) -> Identity {
    (what.dev(), what.ino(), what.created().ok())
}

/// What a file was when it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stamp {
    identity: Identity,
    length: u64,
    /// Seconds and nanoseconds, of the content and of what is known of the file.
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(what: &fs::Metadata) -> Self {
        let (written, changed) = ((what.mtime(), what.mtime_nsec()), (what.ctime(), what.ctime_nsec()));
        Self { identity: identity(what), length: what.len(), written, changed }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }
}

/// The files that were read, by path.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    at: Instant,
    files: HashMap<Arc<str>, Sight>,
}

#[derive(Clone, Debug)]
struct Sight {
    stamp: Stamp,
    text: Text,
    /// Since when the stamp is known.
    since: Instant,
    /// True when the text was read long enough after that.
    is_settled: bool,
}

impl Default for Seen {
    fn default() -> Self {
        Self::now()
    }
}

impl Seen {
    /// Nothing yet of what is read now.
    pub(super) fn now() -> Self {
        Self { at: Instant::now(), files: HashMap::new() }
    }

    /// The text of the file that is still this; nothing when it has to be read.
    pub(super) fn get(&self, file: &str, stamp: &Stamp) -> Option<Text> {
        let sight = self.files.get(file).filter(|sight| sight.is_settled && sight.stamp == *stamp)?;
        Some(sight.text.clone())
    }

    /// Notes what a file has now, after `before`, and returns it; where it is the same, it is that of before.
    pub(super) fn note(&mut self, before: &Self, file: &Arc<str>, stamp: Stamp, text: Text) -> Text {
        let known = before.files.get(file);
        let text = known.filter(|known| known.text == text).map_or(text, |known| known.text.clone());
        let since = known.filter(|known| known.stamp == stamp).map_or(self.at, |known| known.since);
        let is_settled = self.at.duration_since(since) >= SETTLED;
        self.files.insert(file.clone(), Sight { stamp, text: text.clone(), since, is_settled });
        text
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::files::scan;

    /// What a scan finds, `later` than the one before it.
    async fn find(dir: &Path, seen: &mut Arc<Seen>, later: Duration) -> Vec<String> {
        tokio::time::advance(later).await;
        let found = scan::find_blocking(dir.to_owned(), Arc::clone(seen)).await.unwrap();
        *seen = found.seen;
        found.files.into_values().map(|text| text.unwrap().to_string()).collect()
    }

    /// Writes a text of the same length, with the times the file had.
    fn write_unnoticed(path: &Path, text: &str) {
        let before = fs::metadata(path).unwrap();
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), 0).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_did_not_change_is_not_read_again_and_what_did_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "1").unwrap();
        let mut seen = Arc::<Seen>::default();
        assert_eq!(find(dir.path(), &mut seen, Duration::ZERO).await, ["1"]);
        let file: Arc<str> = path.display().to_string().into();
        let is_known = |seen: &Seen| seen.get(&file, &Stamp::of(&fs::metadata(&path).unwrap())).is_some();
        assert!(!is_known(&seen), "the clock of the file system may stand still");
        find(dir.path(), &mut seen, SETTLED / 2).await;
        assert!(!is_known(&seen));
        find(dir.path(), &mut seen, SETTLED / 2).await;
        assert!(is_known(&seen));
        // What would be read is not what is told.
        Arc::make_mut(&mut seen).files.get_mut(&file).unwrap().text = Ok("from memory".into());
        assert_eq!(find(dir.path(), &mut seen, SETTLED).await, ["from memory"]);

        write_unnoticed(&path, "2");
        assert_eq!(find(dir.path(), &mut seen, SETTLED).await, ["2"], "nobody sets the time of the change itself");
        fs::write(&path, "long").unwrap();
        assert_eq!(find(dir.path(), &mut seen, SETTLED).await, ["long"]);
        fs::write(dir.path().join("draft"), "next").unwrap();
        fs::rename(dir.path().join("draft"), &path).unwrap();
        assert_eq!(find(dir.path(), &mut seen, SETTLED).await, ["next"]);
        fs::remove_file(&path).unwrap();
        assert!(find(dir.path(), &mut seen, SETTLED).await.is_empty() && seen.files.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_write_that_leaves_the_same_times_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "1").unwrap();
        let mut seen = Arc::<Seen>::default();
        find(dir.path(), &mut seen, Duration::ZERO).await;
        let file: Arc<str> = path.display().to_string().into();
        fs::write(&path, "2").unwrap();
        // As if the clock of the file system had not moved.
        Arc::make_mut(&mut seen).files.get_mut(&file).unwrap().stamp = Stamp::of(&fs::metadata(&path).unwrap());
        assert_eq!(find(dir.path(), &mut seen, SETTLED).await, ["2"]);
    }
}
