//! A directory of YAML files, watched.
//!
//! Events only say where something happened; what happened is found by reading that, or the whole directory again, and
//! comparing contents. An editor that writes a temporary file and renames it, or a mounted Kubernetes ConfigMap that swaps
//! its `..data` link, is therefore one change. What is gone or empty has a moment to come back. Where the kernel tells
//! nothing (network file systems), a slow poll finds out.
//!
//! What is saved in a burst is told together when the burst is over. One file that is moved to its place whole is told at
//! once, as far as it has every object that it had: it is not being written, and nothing is gone for a moment that moved to
//! a file which is saved next.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Change, Changes, Confirm, Confirms, Document, Held, Source, Unread};
use crate::model::ObjectId;

mod absent;
mod glance;
mod parse;
mod scan;
mod seen;
mod tree;
mod watch;
mod yaml;

use absent::{Absences, Told};
use glance::Plain;
use scan::{Folders, Found};
use seen::Seen;
use watch::{Wake, Watch, Where};

pub use absent::{DELETED_AFTER, Known};
pub use parse::{parse, parse_of};
pub use scan::{MAX_FILE_BYTES, Scan, read};
pub(super) use tree::Node;

/// The name of this source.
pub const NAME: &str = "files";

/// A burst of events is over when nothing happened for this long.
const QUIET: Duration = Duration::from_millis(50);
/// A directory that never rests is read this often all the same.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// A file that is gone has this long to come back: some programs replace a file by removing it first.
const ABSENCE: Duration = Duration::from_millis(100);
/// How often the directory is read without any event.
const POLL: Duration = Duration::from_secs(5);

/// All that a directory says now, as its watch would tell it.
///
/// # Errors
/// Why the directory cannot be listed.
pub fn once(dir: &Path) -> Result<Vec<Change>, Arc<str>> {
    let document = |(origin, text): (Arc<str>, Result<Arc<str>, Arc<str>>)| {
        let text = text.map_err(|why| Unread { why, held: Held::Lost });
        Document { origin, text }.put()
    };
    Ok(read(dir)?.into_iter().map(document).collect())
}

/// What one file says now, or a text that is read from somewhere and called by that name.
///
/// # Errors
/// Why it cannot be read.
pub fn one(name: &str, text: impl std::io::Read) -> std::io::Result<Change> {
    let text = scan::read_text(text)?.map_err(|why| Unread { why, held: Held::Lost });
    Ok(Document { origin: name.into(), text }.put())
}

/// The files below a directory that are passed over although their names end as one of YAML does but for `.txt`, as some
/// programs add it.
pub fn misnamed(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| !scan::is_hidden(path)) {
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "txt") && scan::is_yaml(&path.with_extension("")) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A directory to be watched.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    poll: Duration,
    known: Known,
    confirms: Confirms,
}

impl Files {
    /// The directory `dir`, of which these files are known already. What is absent by accident is held until `confirms`
    /// says that it is meant.
    pub fn new(dir: impl Into<PathBuf>, known: Known, confirms: Confirms) -> Self {
        Self { dir: dir.into(), poll: POLL, known, confirms }
    }

    /// Reads it this often without any event.
    #[must_use]
    pub fn polled(self, poll: Duration) -> Self {
        Self { poll, ..self }
    }

    /// The directory as a source.
    pub fn source(self) -> Source {
        Source { name: NAME.into(), changes: self.watch() }
    }

    /// Watches it and everything below it until the receiver is dropped. The first state is sent at once.
    pub fn watch(self) -> Changes {
        let (changes, receiver) = mpsc::channel(64);
        tokio::spawn(follow(self, changes));
        receiver
    }
}

/// Watches a directory of which nothing is known yet, and nobody confirms anything.
pub fn watch(dir: impl Into<PathBuf>) -> Changes {
    Files::new(dir, Known::new(), mpsc::channel(1).1).watch()
}

/// Follows the directory until nobody listens any more.
async fn follow(files: Files, changes: mpsc::Sender<Change>) {
    let Files { dir, poll, known, mut confirms } = files;
    let (wake, mut woken) = Wake::new();
    let mut watcher = Watch::new(wake.clone());
    let mut state = State::new(dir, known);
    let mut is_event = false;
    loop {
        while woken.try_recv().is_ok() {}
        let happened = if is_event { wake.take() } else { Where::Everywhere };
        let looked = match state.glance(happened, &changes).await {
            Ok(true) => Ok(()),
            Ok(false) => state.look(&changes).await.map(|folders| watcher.renew(folders)),
            Err(Closed) => Err(Closed),
        };
        if looked.is_err() {
            return;
        }
        // A directory that is not there cannot be watched.
        let poll = if state.unavailable.is_some() { poll.min(IMPATIENCE) } else { poll };
        let poll_at = Instant::now() + poll;
        let due = state.absences.due().map_or(poll_at, |due| due.min(poll_at));
        match until_due(due, (&mut woken, &wake), &mut confirms, &mut state, &changes).await {
            Ok(event) => is_event = event,
            Err(Closed) => return,
        }
    }
}

/// Waits until the directory has to be looked at again; true when that is because of events. What need not wait is told
/// meanwhile.
async fn until_due(
    due: Instant,
    (woken, wake): (&mut mpsc::Receiver<()>, &Wake),
    confirms: &mut Confirms,
    state: &mut State,
    changes: &mpsc::Sender<Change>,
) -> Result<bool, Closed> {
    let mut burst: Option<Burst> = None;
    loop {
        let over = burst.as_ref().map(|burst| burst.over);
        tokio::select! {
            Some(()) = woken.recv() => {
                let burst = burst.get_or_insert_with(Burst::new);
                burst.goes_on();
                if let Some(path) = wake.arrived().filter(|_| !std::mem::replace(&mut burst.has_told, true)) {
                    state.replace(path, changes).await?;
                }
            }
            () = sleep_until(over.map_or(due, |over| over.min(due))) => return Ok(over.is_some_and(|over| over <= due)),
            Some(confirm) = confirms.recv() => return state.confirm(confirm, changes).await.map(|()| false),
            () = changes.closed() => return Err(Closed),
        }
    }
}

/// Events that follow one another.
struct Burst {
    latest: Instant,
    /// When it is over, unless something happens until then.
    over: Instant,
    /// True once a file was told before the end.
    has_told: bool,
}

impl Burst {
    fn new() -> Self {
        let now = Instant::now();
        Self { latest: now + IMPATIENCE, over: now + QUIET, has_told: false }
    }

    fn goes_on(&mut self) {
        self.over = (Instant::now() + QUIET).min(self.latest);
    }
}

/// What was told of a directory.
struct State {
    dir: PathBuf,
    absences: Absences,
    told: Option<Arc<Told>>,
    /// Why it cannot be listed, when that was told.
    unavailable: Option<Arc<str>>,
    plain: Plain,
    /// What was read of it last.
    seen: Arc<Seen>,
}

/// Nobody listens any more, or nobody could be told.
struct Closed;

impl State {
    fn new(dir: PathBuf, known: Known) -> Self {
        let (absences, plain) = (Absences::new(known), Plain::default());
        Self { dir, absences, told: None, unavailable: None, plain, seen: Arc::default() }
    }

    /// Tells what a file says now that was moved to its place, as far as it has every object that it had. What else
    /// happened, a [glance](Self::glance) finds out.
    async fn replace(&mut self, path: PathBuf, changes: &mpsc::Sender<Change>) -> Result<(), Closed> {
        let Some(told) = self.told.as_mut().filter(|_| self.unavailable.is_none()) else { return Ok(()) };
        let (dir, plain, before) = (self.dir.clone(), std::mem::take(&mut self.plain), Arc::clone(told));
        let read = move || {
            let found = plain.glance(&dir, &BTreeSet::from([path]));
            let change = found.as_ref().and_then(|found| replaced(&before, found));
            (found, change, plain)
        };
        let (found, change);
        (found, change, self.plain) = tokio::task::spawn_blocking(read).await.map_err(|_| Closed)?;
        let (Some(found), Some(change)) = (found, change) else { return Ok(()) };
        if !self.absences.glance(&found) {
            return Ok(());
        }
        Arc::make_mut(told).extend(found.into_iter().map(|(origin, text)| (origin, Ok(text))));
        send(changes, vec![change, Change::Complete]).await
    }

    /// Reads only where something happened, and tells what changed there. False when the whole directory has to be read.
    async fn glance(&mut self, happened: Where, changes: &mpsc::Sender<Change>) -> Result<bool, Closed> {
        let (Where::At(paths), None) = (happened, &self.unavailable) else { return Ok(false) };
        let paths = paths.into_keys().collect();
        let (dir, plain) = (self.dir.clone(), std::mem::take(&mut self.plain));
        let glance = tokio::task::spawn_blocking(move || (plain.glance(&dir, &paths), plain)).await;
        let found;
        (found, self.plain) = glance.map_err(|_| Closed)?;
        let (Some(found), Some(told)) = (found, self.told.as_mut().map(Arc::make_mut)) else { return Ok(false) };
        if !self.absences.glance(&found) {
            return Ok(false);
        }
        let mut news = Vec::new();
        for (origin, text) in found {
            let text = Ok(text);
            if told.get(&origin) != Some(&text) {
                news.push(Document { origin: origin.clone(), text: text.clone() });
                told.insert(origin, text);
            }
        }
        if !news.is_empty() {
            let put = move || news.into_iter().map(Document::put).collect();
            let mut steps: Vec<Change> = tokio::task::spawn_blocking(put).await.map_err(|_| Closed)?;
            steps.push(Change::Complete);
            send(changes, steps).await?;
        }
        Ok(true)
    }

    /// Reads the directory, tells what changed, and returns the folders to be watched.
    async fn look(&mut self, changes: &mpsc::Sender<Change>) -> Result<Folders, Closed> {
        let mut found = read_settled(&self.dir, Arc::clone(&self.seen), self.told.as_deref()).await;
        if found.is_err() && self.unavailable.is_none() {
            tokio::time::sleep(ABSENCE).await;
            found = read_settled(&self.dir, Arc::clone(&self.seen), self.told.as_deref()).await;
        }
        let (steps, folders) = match found {
            Ok(found) => {
                let told = Arc::new(self.absences.judge(found.files, Instant::now()));
                let (before, now) = (self.told.clone(), Arc::clone(&told));
                // A panic in there is told by the source that ends.
                let steps = tokio::task::spawn_blocking(move || steps(before.as_deref(), &now)).await;
                let mut steps = steps.map_err(|_| Closed)?;
                // That it can be read again is news, also when it has what it had.
                if self.unavailable.take().is_some() && steps.is_empty() {
                    steps.push(Change::Complete);
                }
                self.told = Some(told);
                self.seen = found.seen;
                self.plain = Plain::new(&self.dir, &found.folders, found.has_links);
                (steps, found.folders)
            }
            Err(reason) => {
                self.absences.lose();
                let is_news = self.unavailable.as_ref() != Some(&reason);
                let steps = vec![self.unlisted(&reason), Change::Complete];
                self.unavailable = Some(reason);
                (if is_news { steps } else { Vec::new() }, Folders::new())
            }
        };
        send(changes, steps).await?;
        Ok(folders)
    }

    /// Says that the directory cannot be listed.
    fn unlisted(&self, reason: &str) -> Change {
        let origin: Arc<str> = self.dir.display().to_string().into();
        let hint = format!("expected a directory, or `selvedge confirm {origin}` when the mesh is to have none");
        let reason = format!("{reason}, so what its files said last stays in force: {hint}").into();
        Change::Unavailable { origin, reason }
    }

    /// Tells what is missing there as gone.
    async fn confirm(&mut self, confirm: Confirm, changes: &mpsc::Sender<Change>) -> Result<(), Closed> {
        let mut confirmed = self.absences.confirm(&confirm.paths);
        if let Some(told) = self.told.as_mut().map(Arc::make_mut) {
            let is_confirmed = |origin: &Arc<str>, text: &Result<_, Unread>| {
                text.is_err() && absent::is_within(origin, &confirm.paths) || confirmed.contains(origin)
            };
            let gone: Vec<Arc<str>> =
                told.extract_if(.., |origin, text| is_confirmed(origin, text)).map(|(origin, _)| origin).collect();
            confirmed.extend(gone);
            confirmed.sort();
            confirmed.dedup();
        }
        for origin in &confirmed {
            tracing::info!(%origin, "what is missing there is confirmed as meant");
        }
        let mut steps: Vec<Change> = confirmed.iter().cloned().map(Change::Confirmed).collect();
        if !steps.is_empty() {
            match &self.unavailable {
                // What was confirmed is not everything while more is held that could not be looked at.
                Some(reason) if self.absences.is_holding() => steps.push(self.unlisted(reason)),
                // The mesh is to have nothing; that the directory cannot be listed is told again after this.
                _ => self.unavailable = None,
            }
            steps.push(Change::Complete);
        }
        send(changes, steps).await?;
        // Whoever asked may be gone.
        confirm.done.send(confirmed).ok();
        Ok(())
    }
}

/// Reads the directory. A file that had content and has none, or is not there, is most likely being written right now, so
/// it gets time before its objects are taken for removed.
async fn read_settled(dir: &Path, seen: Arc<Seen>, told: Option<&Told>) -> Result<Found, Arc<str>> {
    let found = scan::find_blocking(dir.to_owned(), seen).await?;
    let before = told.into_iter().flatten().filter(|(_, text)| text.as_ref().is_ok_and(|text| !yaml::is_empty(text)));
    let grace = before.filter_map(|(origin, _)| match found.files.get(origin) {
        None => Some(ABSENCE),
        Some(now) => now.as_ref().is_ok_and(|text| yaml::is_empty(text)).then_some(IMPATIENCE),
    });
    let Some(grace) = grace.max() else { return Ok(found) };
    tokio::time::sleep(grace).await;
    scan::find_blocking(dir.to_owned(), found.seen).await
}

/// The step that says what a file says now, when that is news and it has every object that it had.
fn replaced(told: &Told, found: &BTreeMap<Arc<str>, Arc<str>>) -> Option<Change> {
    let (origin, text) = found.first_key_value()?;
    let reading = |text: &Arc<str>| parse(&Document { origin: Arc::clone(origin), text: Ok(Arc::clone(text)) });
    let before = told.get(origin)?.as_ref().ok().filter(|before| *before != text)?;
    let (before, now) = (reading(before), reading(text));
    let has = |id: &ObjectId| now.objects.iter().any(|candidate| candidate.object.id == *id);
    let is_whole = before.is_sound() && now.is_sound() && before.objects.iter().all(|was| has(&was.object.id));
    is_whole.then(|| Change::Put(Arc::clone(origin), now))
}

async fn send(changes: &mpsc::Sender<Change>, steps: Vec<Change>) -> Result<(), Closed> {
    for step in steps {
        changes.send(step).await.map_err(|_| Closed)?;
    }
    Ok(())
}

/// What leads from the state that was told to the one found; nothing when they are the same.
fn steps(told: Option<&Told>, found: &Told) -> Vec<Change> {
    let none = Told::new();
    let before = told.unwrap_or(&none);
    let put = found.iter().filter(|(origin, text)| before.get(*origin) != Some(text));
    let mut steps: Vec<Change> =
        put.map(|(origin, text)| Document { origin: origin.clone(), text: text.clone() }.put()).collect();
    steps.extend(before.keys().filter(|origin| !found.contains_key(*origin)).cloned().map(Change::Remove));
    if told.is_none() || !steps.is_empty() {
        steps.push(Change::Complete);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_removed_to_be_replaced_is_never_seen_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, "1").unwrap();
        let told = Absences::default().judge(scan::read(dir.path()).unwrap(), Instant::now());
        std::fs::remove_file(&path).unwrap();
        let again = async {
            tokio::time::sleep(ABSENCE / 2).await;
            std::fs::write(&path, "2").unwrap();
        };
        let (found, ()) = tokio::join!(read_settled(dir.path(), Arc::default(), Some(&told)), again);
        assert_eq!(found.unwrap().files.into_values().collect::<Vec<_>>(), [Ok("2".into())]);
        std::fs::remove_file(&path).unwrap();
        let found = read_settled(dir.path(), Arc::default(), Some(&told)).await;
        assert_eq!(found.unwrap().files, Scan::new(), "what stays away is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_is_swapped_is_never_told_as_gone_and_one_that_is_gone_is_told_a_moment_later() {
        let parent = tempfile::tempdir().unwrap();
        let (mesh, away) = (parent.path().join("mesh"), parent.path().join("away"));
        std::fs::create_dir(&mesh).unwrap();
        std::fs::write(mesh.join("a.yaml"), "1").unwrap();
        let (changes, mut told) = mpsc::channel(64);
        let mut state = State::new(mesh.clone(), Known::new());
        let mut look = async |meanwhile: &dyn Fn()| {
            let began = Instant::now();
            let meanwhile = async {
                tokio::time::sleep(ABSENCE / 2).await;
                meanwhile();
            };
            let looking = async {
                state.look(&changes).await.ok().expect("somebody listens");
                began.elapsed()
            };
            let (took, ()) = tokio::join!(looking, meanwhile);
            let told: Vec<Change> = std::iter::from_fn(|| told.try_recv().ok()).collect();
            (took, told.len(), told.iter().any(|step| matches!(step, Change::Unavailable { .. })))
        };
        let swap = |from: &Path, to: &Path| std::fs::rename(from, to).unwrap();
        let at_once = Duration::ZERO;
        assert_eq!(look(&|| {}).await, (at_once, 2, false), "what is there is told at once");
        swap(&mesh, &away);
        assert_eq!(look(&|| swap(&away, &mesh)).await, (ABSENCE, 0, false), "it was back in a moment");
        swap(&mesh, &away);
        assert_eq!(look(&|| {}).await, (ABSENCE, 2, true), "it stays away");
        assert_eq!(look(&|| {}).await, (at_once, 0, false), "which is told, and waited for no more");
        swap(&away, &mesh);
        assert_eq!(look(&|| {}).await, (at_once, 1, false), "it is back");
    }
}
