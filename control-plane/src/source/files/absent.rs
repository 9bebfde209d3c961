//! Tells a file that was deleted from one that is absent by accident.
//!
//! A full disk, a mount that is not there or a copy that broke off leaves empty files and empty folders; taking them at
//! their word would open what a policy closed. So what is empty or cannot be read, and what is gone together with its
//! folder or with every file of it, is held as it last was. Guarantees: no time and no restart ends that, only content
//! or a [confirmation](crate::source::Confirm). Two things are certainly meant: a file that is removed where others
//! stay, or that holds only comments, is gone at once, and a single empty file that is then removed where others stay is
//! gone after [`DELETED_AFTER`].

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{scan::Scan, yaml};
use crate::source::{Held, Unread};

/// After how long a single empty file that was removed too is taken for deleted.
pub const DELETED_AFTER: Duration = Duration::from_secs(60);
/// How many deleted files may wait for being confirmed.
const MAX_DELETED: usize = 1000;

/// The files with objects in force, and how those are held that are.
pub type Known = BTreeMap<Arc<str>, Option<Held>>;

/// What is told of a directory: files and folders by path, each with its text or why it has none.
pub(super) type Told = BTreeMap<Arc<str>, Result<Arc<str>, Unread>>;

/// The files that have had something to say.
#[derive(Debug, Default)]
pub(super) struct Absences {
    files: BTreeMap<Arc<str>, Option<Hold>>,
    /// Those that were taken for deleted.
    deleted: BTreeSet<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    held: Held,
    /// When a file that was empty was first missing where others stay.
    removed: Option<Instant>,
}

impl Absences {
    pub(super) fn new(known: Known) -> Self {
        let hold = |held| Hold { held, removed: None };
        let files = known.into_iter().map(|(file, held)| (file, held.map(hold))).collect();
        Self { files, deleted: BTreeSet::new() }
    }

    /// What is to be told of a directory that was found like this.
    pub(super) fn judge(&mut self, found: Scan, now: Instant) -> Told {
        self.note(&found);
        let missing: Vec<Arc<str>> = self.files.keys().filter(|file| !found.contains_key(*file)).cloned().collect();
        let missing: Told = missing
            .into_iter()
            .filter_map(|file| Some((file.clone(), Err(self.missing(&file, &found, now)?))))
            .collect();
        let told = |(file, text): (Arc<str>, Result<Arc<str>, Arc<str>>)| {
            let told = match text {
                Ok(text) if yaml::is_empty(&text) && self.files.contains_key(&file) => Err(emptied(&file)),
                Ok(text) => Ok(text),
                Err(why) if self.files.contains_key(&file) => Err(Unread { why: hold(&why, &file), held: Held::Lost }),
                Err(why) => Err(Unread { why, held: Held::Lost }),
            };
            (file, told)
        };
        let mut told: Told = found.into_iter().map(told).collect();
        told.extend(missing);
        told
    }

    /// Learns from the files that are there.
    fn note(&mut self, found: &Scan) {
        for (file, text) in found {
            let held = match text {
                Ok(text) if yaml::is_empty(text) => Held::Emptied,
                Err(_) => Held::Lost,
                Ok(text) => {
                    if yaml::is_blank(text) {
                        self.delete(file);
                    } else {
                        self.deleted.remove(file);
                        self.files.insert(file.clone(), None);
                    }
                    continue;
                }
            };
            if let Some(known) = self.files.get_mut(file) {
                known.get_or_insert(Hold { held, removed: None }).removed = None;
            }
        }
    }

    /// Why a file that is not there is held; `None` when it is deleted.
    fn missing(&mut self, file: &Arc<str>, found: &Scan, now: Instant) -> Option<Unread> {
        let (others, is_single) = (has_others(file, found), self.emptied() == 1);
        let known = self.files.get_mut(file)?;
        match known {
            Some(Hold { held: Held::Emptied, removed }) if others && is_single => {
                if now.duration_since(*removed.get_or_insert(now)) >= DELETED_AFTER {
                    self.delete(file);
                    return None;
                }
                let seconds = DELETED_AFTER.as_secs();
                return Some(Unread {
                    why: format!("the file was empty and is removed now; it is taken for deleted after {seconds} s")
                        .into(),
                    held: Held::Emptied,
                });
            }
            Some(Hold { removed, .. }) => *removed = None,
            None if others => {
                self.delete(file);
                return None;
            }
            None => *known = Some(Hold { held: Held::Lost, removed: None }),
        }
        let held = known.map_or(Held::Lost, |hold| hold.held);
        let what = if others {
            "the file is missing since its folder was"
        } else {
            "its folder is gone or has no files any more"
        };
        Some(Unread { why: hold(what, file), held })
    }

    /// Takes files that have something in them, and no others that changed; false when that may not be all there is to say.
    pub(super) fn glance(&mut self, found: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
        let is_calm = self.files.values().all(Option::is_none) && found.values().all(|text| !yaml::is_blank(text));
        if is_calm {
            for file in found.keys() {
                self.deleted.remove(file);
                self.files.insert(file.clone(), None);
            }
        }
        is_calm
    }

    /// True while anything is held.
    pub(super) fn is_holding(&self) -> bool {
        self.files.values().any(Option::is_some)
    }

    fn emptied(&self) -> usize {
        self.files.values().flatten().filter(|hold| hold.held == Held::Emptied).count()
    }

    fn delete(&mut self, file: &Arc<str>) {
        if self.files.remove(file).is_some() && self.deleted.len() < MAX_DELETED {
            self.deleted.insert(file.clone());
        }
    }

    /// Holds everything, because the directory cannot be listed.
    pub(super) fn lose(&mut self) {
        for known in self.files.values_mut() {
            known.get_or_insert(Hold { held: Held::Lost, removed: None }).removed = None;
        }
    }

    /// When the next file is taken for deleted.
    pub(super) fn due(&self) -> Option<Instant> {
        self.files.values().flatten().filter_map(|hold| Some(hold.removed? + DELETED_AFTER)).min()
    }

    /// Forgets what is held or was deleted at or below one of `paths`, and returns it.
    pub(super) fn confirm(&mut self, paths: &[PathBuf]) -> Vec<Arc<str>> {
        let held = self.files.iter().filter(|(_, hold)| hold.is_some()).map(|(file, _)| file);
        let confirmed: Vec<Arc<str>> =
            held.chain(&self.deleted).filter(|file| is_within(file, paths)).cloned().collect();
        for file in &confirmed {
            self.files.remove(file);
            self.deleted.remove(file);
        }
        confirmed
    }
}

/// True when the folder of `file` has another file with something in it.
fn has_others(file: &str, found: &Scan) -> bool {
    let folder = &file[..file.rfind('/').map_or(0, |slash| slash + 1)];
    let from = (Bound::Included(folder), Bound::Unbounded);
    let mut within = found.range::<str, _>(from).take_while(|(other, _)| other.starts_with(folder));
    let is_sibling = |other: &str| !other[folder.len()..].contains('/') && other != file;
    within.any(|(other, text)| is_sibling(other) && text.as_ref().is_ok_and(|text| !yaml::is_empty(text)))
}

/// True when `origin` lies at or below one of `paths`. A relative one counts as the origin is spelt: whoever wrote it may be
/// in another directory than this process, so below one that names nothing (`.`, `..`) there is nothing.
pub(super) fn is_within(origin: &str, paths: &[PathBuf]) -> bool {
    let origin = Path::new(origin);
    let is_below = |path: &Path| {
        let names_something = path.components().any(|part| matches!(part, Component::Normal(_)));
        if path.is_absolute() {
            std::path::absolute(origin).is_ok_and(|origin| origin.starts_with(path))
        } else {
            names_something && undotted(origin).starts_with(undotted(path))
        }
    };
    paths.iter().any(|path| is_below(path))
}

/// The path without a leading `./`.
fn undotted(path: &Path) -> &Path {
    path.strip_prefix(".").unwrap_or(path)
}

fn emptied(file: &str) -> Unread {
    Unread { why: hold("the file is empty, without even a comment", file), held: Held::Emptied }
}

fn hold(what: &str, file: &str) -> Arc<str> {
    format!(
        "{what}, so what it said last stays in force: expected content, or `selvedge confirm {file}` when that is meant"
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_what_a_finding_calls_it_and_never_where_the_control_plane_runs() {
        let here = std::env::current_dir().unwrap();
        let below = |path: &str| here.join(path).to_str().unwrap().to_owned();
        let absolute = below("mesh/a.yaml");
        for (origin, path, is_meant) in [
            ("mesh/a.yaml", "mesh/a.yaml", true),
            ("mesh/a.yaml", "mesh/", true),
            ("mesh/a.yaml", "./mesh", true),
            ("./mesh/a.yaml", "mesh", true),
            ("../mesh/a.yaml", "../mesh", true),
            ("mesh/a.yaml", &below("mesh"), true),
            ("./mesh/a.yaml", &absolute, true),
            (&absolute, &absolute, true),
            (&absolute, &below(""), true),
            ("mesh/a.yaml", "", false),
            ("mesh/a.yaml", ".", false),
            ("./a.yaml", ".", false),
            ("../mesh/a.yaml", "..", false),
            ("mesh/a.yaml", "mes", false),
            ("mesh/a.yaml", "a.yaml", false),
            (&absolute, "", false),
            (&absolute, ".", false),
            (&absolute, "..", false),
            (&absolute, "mesh", false),
            (&absolute, "mesh/a.yaml", false),
        ] {
            let mut absences = Absences::new(Known::from([(origin.into(), Some(Held::Emptied))]));
            let confirmed = absences.confirm(&[path.into()]);
            assert_eq!(confirmed.len(), usize::from(is_meant), "{origin} by '{path}'");
        }
    }
}
