//! The kernel's watch on the folders of a directory, and where it says that something happened.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use notify::{
    EventKind, Watcher,
    event::{ModifyKind, RenameMode},
};
use tokio::sync::mpsc;

use super::scan::{self, Folders};
use crate::guarded::Guarded;

/// At more paths than this something happened everywhere.
const MAX_PATHS: usize = 256;

/// The kernel's watch on the folders of the directory. It is tied to inodes, so it is made anew when another folder has
/// come, also in the place of one of the same name.
pub(super) struct Watch {
    wake: Wake,
    folders: Folders,
    /// Those of the folders that are not watched, and are tried again whenever the directory is read.
    unwatched: Vec<PathBuf>,
    watcher: Option<notify::RecommendedWatcher>,
}

impl Watch {
    pub(super) fn new(wake: Wake) -> Self {
        Self { wake, folders: Folders::new(), unwatched: Vec::new(), watcher: None }
    }

    /// Watches these folders and no others. One that cannot be watched keeps no other from being watched.
    pub(super) fn renew(&mut self, folders: Folders) {
        let is_new = self.folders != folders;
        if is_new {
            // What it watches counts towards the limits of the kernel, so it goes before the next comes.
            self.watcher = None;
            self.unwatched = folders.keys().cloned().collect();
            self.folders = folders;
        }
        let before = self.unwatched.len();
        let problems = self.watch();
        if is_new {
            for (path, error) in problems {
                tracing::warn!(path = %path.display(), %error, "the folder cannot be watched; it is polled");
            }
        }
        if self.unwatched.len() < before {
            // What happened since they were read was not watched.
            self.wake.everywhere();
        }
    }

    /// Watches what is not watched yet, as far as that is possible, and returns what is in the way of the rest.
    fn watch(&mut self) -> Vec<(PathBuf, notify::Error)> {
        if self.unwatched.is_empty() {
            return Vec::new();
        }
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            none => match notify::recommended_watcher(on_event(self.wake.clone())) {
                Ok(watcher) => none.insert(watcher),
                Err(error) => return vec![(PathBuf::new(), error)],
            },
        };
        let watch = |folder: &PathBuf| {
            let watched = watcher.watch(folder, notify::RecursiveMode::NonRecursive);
            watched.err().map(|error| (folder.clone(), error))
        };
        let problems: Vec<_> = self.unwatched.iter().filter_map(watch).collect();
        self.unwatched = problems.iter().map(|(folder, _)| folder.clone()).collect();
        problems
    }
}

fn on_event(wake: Wake) -> impl Fn(notify::Result<notify::Event>) {
    move |event| match event {
        // Reading a file is an event too; answering it with a read would never end.
        Ok(event) if event.kind.is_access() => {}
        Ok(event) if !event.need_rescan() => match event.kind {
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => wake.at(event.paths, What::Arrived),
            // That follows what tells of either.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {}
            _ => wake.at(event.paths, What::Anything),
        },
        _ => wake.everywhere(),
    }
}

/// Where something happened since it was last asked.
#[derive(Debug, Default)]
pub(super) enum Where {
    /// At these paths at the most, in folders that are watched.
    At(BTreeMap<PathBuf, What>),
    /// Anywhere.
    #[default]
    Everywhere,
}

/// What happened at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// Something that was written elsewhere was moved there.
    Arrived,
    /// Anything else too, such as that it is being written.
    Anything,
}

/// Wakes whoever follows the directory, and says where something happened.
#[derive(Clone, Debug)]
pub(super) struct Wake {
    sender: mpsc::Sender<()>,
    happened: Arc<Guarded<Where>>,
}

impl Wake {
    pub(super) fn new() -> (Self, mpsc::Receiver<()>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self { sender, happened: Arc::default() }, receiver)
    }

    fn at(&self, paths: Vec<PathBuf>, what: What) {
        self.happened.with(|happened| match happened {
            Where::At(known) if known.len() < MAX_PATHS => {
                for path in paths {
                    let known = known.entry(path).or_insert(what);
                    *known = what.max(*known);
                }
            }
            known => *known = Where::Everywhere,
        });
        self.sender.try_send(()).ok();
    }

    fn everywhere(&self) {
        self.happened.with(|happened| *happened = Where::Everywhere);
        self.sender.try_send(()).ok();
    }

    /// Where something happened since this was last asked.
    pub(super) fn take(&self) -> Where {
        self.happened.with(|happened| std::mem::replace(happened, Where::At(BTreeMap::new())))
    }

    /// The path that something was moved to, when that is all that happened since it was last asked where, hidden paths
    /// apart.
    pub(super) fn arrived(&self) -> Option<PathBuf> {
        self.happened.with(|happened| {
            let Where::At(paths) = happened else { return None };
            let mut visible = paths.iter().filter(|(path, _)| !scan::is_hidden(path));
            match (visible.next(), visible.next()) {
                (Some((path, What::Arrived)), None) => Some(path.clone()),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::source::files::scan::find_blocking;

    #[tokio::test]
    async fn a_folder_that_could_not_be_watched_is_tried_again_and_the_others_are_watched_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let (there, later) = (dir.path().join("there"), dir.path().join("later"));
        std::fs::create_dir(&there).unwrap();
        std::fs::create_dir(&later).unwrap();
        let folders = find_blocking(dir.path().to_owned(), Arc::default()).await.unwrap().folders;
        let (wake, mut woken) = Wake::new();
        let mut watch = Watch::new(wake);
        // No watch on what is not there, as when the kernel allows no more of them.
        std::fs::rename(&later, dir.path().join("moved")).unwrap();
        watch.renew(folders.clone());
        assert!(woken.try_recv().is_ok(), "the others are read again");
        watch.renew(folders.clone());
        assert!(woken.try_recv().is_err(), "trying in vain is no reason to read again");
        std::fs::write(there.join("a.yaml"), "1").unwrap();
        let event = tokio::time::timeout(Duration::from_secs(30), woken.recv()).await;
        assert_eq!(event, Ok(Some(())));

        std::fs::rename(dir.path().join("moved"), &later).unwrap();
        watch.renew(folders);
        quiet(&mut woken).await;
        std::fs::write(later.join("a.yaml"), "1").unwrap();
        let event = tokio::time::timeout(Duration::from_secs(30), woken.recv()).await;
        assert_eq!(event, Ok(Some(())), "an event tells, for nothing is polled");
    }

    #[tokio::test]
    async fn only_what_was_moved_to_one_place_has_arrived() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let real = dir.path().canonicalize().unwrap();
        let folders = find_blocking(dir.path().to_owned(), Arc::default()).await.unwrap().folders;
        let (wake, mut woken) = Wake::new();
        let mut watch = Watch::new(wake.clone());
        watch.renew(folders);
        let file = |name: &str| real.join(name);
        let arrives = |from: PathBuf, to: &str| {
            std::fs::write(&from, "1").unwrap();
            std::fs::rename(from, file(to)).unwrap();
        };
        let happens: [(&dyn Fn(), Option<&str>); 5] = [
            (&|| arrives(elsewhere.path().join("draft"), "a.yaml"), Some("a.yaml")),
            (&|| arrives(file(".draft"), "a.yaml"), Some("a.yaml")),
            (&|| std::fs::write(file("a.yaml"), "2").unwrap(), None),
            (&|| arrives(file("draft"), "a.yaml"), None),
            (
                &|| ["a.yaml", "b.yaml"].map(|to| arrives(elsewhere.path().join("draft"), to)).into_iter().collect(),
                None,
            ),
        ];
        for (n, (happens, arrived)) in happens.into_iter().enumerate() {
            quiet(&mut woken).await;
            wake.take();
            happens();
            quiet(&mut woken).await;
            assert_eq!(wake.arrived(), arrived.map(file), "case {n}");
        }
    }

    /// Until what happened before has been told.
    async fn quiet(woken: &mut mpsc::Receiver<()>) {
        while tokio::time::timeout(Duration::from_millis(300), woken.recv()).await.is_ok() {}
    }
}
