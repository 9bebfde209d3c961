//! Reads only the files at which something happened, where that is certain to be all.
//!
//! Guarantees: what is found this way is what reading the whole directory would find. That is so where no links are in it,
//! so that a path is a file and no other, where nothing is held, and where the files are there and have something in them.
//! Whatever else happened, the whole directory is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::scan::{self, Folders};

/// What a directory is like, as it was last read.
#[derive(Debug, Default)]
pub(super) struct Plain {
    /// Its real path; nothing when there are links in it.
    root: Option<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Plain {
    /// The directory `dir` with these folders in it.
    pub(super) fn new(dir: &Path, folders: &Folders, has_links: bool) -> Self {
        let root = if has_links { None } else { dir.canonicalize().ok() };
        Self { root, folders: folders.keys().cloned().collect() }
    }

    /// The files of `dir` among `paths`, each with its text; nothing when the whole directory has to be read.
    pub(super) fn glance(&self, dir: &Path, paths: &BTreeSet<PathBuf>) -> Option<BTreeMap<Arc<str>, Arc<str>>> {
        let mut found = BTreeMap::new();
        for path in paths {
            let root = self.root.as_ref()?;
            if self.folders.contains(path) || !self.folders.contains(path.parent()?) {
                return None;
            }
            if scan::is_hidden(path) {
                continue;
            }
            // What is no file of ours may be a folder that came or went.
            let what = fs::symlink_metadata(path).ok();
            if !scan::is_yaml(path) && what.as_ref().is_some_and(|what| what.is_file()) {
                continue;
            }
            if !what?.is_file() || !scan::is_yaml(path) {
                return None;
            }
            let text = scan::read_text(fs::File::open(path).ok()?).ok()?.ok().filter(|text| !text.is_empty())?;
            found.insert(scan::name(&dir.join(path.strip_prefix(root).ok()?)), text);
        }
        Some(found)
    }
}
