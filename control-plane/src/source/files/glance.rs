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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_files_with_something_in_them_are_read_alone() {
        let parent = tempfile::tempdir().unwrap();
        let real = parent.path().canonicalize().unwrap().join("mesh");
        fs::create_dir_all(real.join("team")).unwrap();
        symlink(&real, parent.path().join("link")).unwrap();
        for (file, text) in [("a.yaml", "1"), ("team/b.json", "2"), ("empty.yaml", ""), ("notes.txt", "x")] {
            fs::write(real.join(file), text).unwrap();
        }
        fs::write(real.join("binary.yaml"), [0xff]).unwrap();
        let dir = parent.path().join("link");
        let plain = |dir: &Path| {
            let found = scan::find_blocking(dir.to_owned(), Arc::default());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = runtime.block_on(found).unwrap();
            Plain::new(dir, &found.folders, found.has_links)
        };
        let glance = |plain: &Plain, names: &[&str]| {
            let found = plain.glance(&dir, &names.iter().map(|name| real.join(name)).collect())?;
            let name = |file: &Arc<str>| file.rsplit_once("link/").map(|(_, name)| name.to_owned());
            Some(found.iter().map(|(file, text)| (name(file).unwrap(), text.to_string())).collect::<Vec<_>>())
        };
        let now = plain(&dir);
        let texts = |all: &[(&str, &str)]| Some(all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect());
        assert_eq!(glance(&now, &["a.yaml", "team/b.json"]), texts(&[("a.yaml", "1"), ("team/b.json", "2")]));
        assert_eq!(glance(&now, &["a.yaml", ".a.yaml.swp", "a.yaml~", "notes.txt"]), texts(&[("a.yaml", "1")]));
        for name in ["empty.yaml", "binary.yaml", "gone.yaml", "gone", "team", "", "new/c.yaml", "../c.yaml"] {
            assert_eq!(glance(&now, &["a.yaml", name]), None, "{name}: the whole directory is read");
        }
        fs::create_dir(real.join("new")).unwrap();
        symlink("a.yaml", real.join("link.yaml")).unwrap();
        for name in ["new", "link.yaml"] {
            assert_eq!(glance(&now, &[name]), None, "{name}");
        }
        assert_eq!(glance(&plain(&dir), &["a.yaml"]), None, "with a link in it no path is certain to be one file");
        assert_eq!(glance(&Plain::default(), &["a.yaml"]), None, "nothing is known yet");
    }
}
