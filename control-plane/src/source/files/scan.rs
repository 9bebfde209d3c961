//! Reads a directory once: every YAML file below it, by path, as they were at one instant. Of a file that is what it was
//! when it was read last ([`Seen`]) the text is not read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, FileType},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use super::seen::{Identity, Seen, Stamp, Text, identity};

/// Files by path, each with its text or why it has none. A path that ends with a slash is a folder, with why its files
/// are not known.
pub type Scan = BTreeMap<Arc<str>, Text>;

/// A larger file is refused: no document of the mesh is that long, and reading it would stop everything else.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Folders below the directory are followed this deep.
const MAX_DEPTH: usize = 16;
/// How often a directory is read again that changes while it is read, and after which pause.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(25);

/// Folders by their real paths.
pub(super) type Folders = BTreeMap<PathBuf, Identity>;

/// What a directory has.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) files: Scan,
    /// Every folder in which a change may be one of the files.
    pub(super) folders: Folders,
    /// True when a path in it may be another path's file or folder.
    pub(super) has_links: bool,
    /// What was read, for the next time.
    pub(super) seen: Arc<Seen>,
}

/// Reads the directory on a thread that may wait for the disk. `seen` is what was read of it the last time.
pub(super) async fn find_blocking(dir: PathBuf, seen: Arc<Seen>) -> Result<Found, Arc<str>> {
    match tokio::task::spawn_blocking(move || find(&dir, &seen)).await {
        Ok(found) => found,
        Err(_) => Err("reading it failed; please report this defect".into()),
    }
}

/// Reads every `.yaml`, `.yml` and `.json` file below `dir`, in any case, also through symbolic links. Hidden files and
/// folders (`.name`) and editors' copies (`name~`) are passed over. Where a link or folder is swapped or a file vanishes
/// meanwhile, everything is read again: what belongs together is told together.
///
/// # Errors
/// Why the directory cannot be listed.
pub fn read(dir: &Path) -> Result<Scan, Arc<str>> {
    find(dir, &Seen::default()).map(|found| found.files)
}

fn find(dir: &Path, before: &Seen) -> Result<Found, Arc<str>> {
    for _ in 0..TRIES {
        let mut walk = Walk::after(before);
        walk.folder(dir, 0).map_err(|error| format!("{} cannot be listed: {error}", dir.display()))?;
        if walk.is_at_rest() {
            let (folders, has_links) = (walk.folders(), walk.has_links);
            return Ok(Found { folders, has_links, files: walk.found, seen: walk.seen.into() });
        }
        thread::sleep(PAUSE);
    }
    Err(format!("{} changes faster than it can be read", dir.display()).into())
}

struct Walk<'a> {
    before: &'a Seen,
    seen: Seen,
    found: Scan,
    visited: BTreeSet<Identity>,
    /// Every folder and link passed, and where it led.
    passed: Vec<(PathBuf, Identity)>,
    /// True when something that may be one of the files, or have some, was listed and then not there.
    vanished: bool,
    has_links: bool,
}

impl<'a> Walk<'a> {
    fn after(before: &'a Seen) -> Self {
        let (found, visited, passed) = (Scan::new(), BTreeSet::new(), Vec::new());
        Self { before, seen: Seen::now(), found, visited, passed, vanished: false, has_links: false }
    }

    /// True when all that was passed is still what it was.
    fn is_at_rest(&self) -> bool {
        let is_same = |(path, was): &(PathBuf, Identity)| fs::metadata(path).is_ok_and(|now| identity(&now) == *was);
        !self.vanished && self.passed.iter().all(is_same)
    }

    /// The folders passed, and those that links lead into.
    fn folders(&self) -> Folders {
        let folder = |(path, _): &(PathBuf, Identity)| {
            let real = path.canonicalize().ok()?;
            let folder = if real.is_dir() { real } else { real.parent()?.to_owned() };
            let identity = identity(&fs::metadata(&folder).ok()?);
            Some((folder, identity))
        };
        self.passed.iter().filter_map(folder).collect()
    }

    fn folder(&mut self, dir: &Path, depth: usize) -> io::Result<()> {
        let identity = identity(&fs::metadata(dir)?);
        if !self.visited.insert(identity) {
            return Ok(());
        }
        let entries = fs::read_dir(dir)?;
        self.passed.push((dir.to_owned(), identity));
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if is_hidden(&path) {
                continue;
            }
            let listed = entry.file_type().ok();
            self.has_links |= listed.is_some_and(|what| what.is_symlink());
            match fs::metadata(&path) {
                Ok(what) if what.is_dir() => self.below(&path, depth + 1),
                Ok(what) if what.is_file() && is_yaml(&path) => self.file(&path, &what, listed),
                Ok(_) => {}
                Err(error) => self.lost(&path, listed, &error),
            }
        }
        Ok(())
    }

    /// A folder that cannot be listed hides its own files only.
    fn below(&mut self, dir: &Path, depth: usize) {
        let result = if depth > MAX_DEPTH {
            Err(format!("the folder lies more than {MAX_DEPTH} folders deep and is not read: expected it further up"))
        } else {
            self.folder(dir, depth).map_err(|error| {
                self.vanished |= error.kind() == ErrorKind::NotFound;
                unlistable(dir, &error)
            })
        };
        if let Err(why) = result {
            self.found.insert(folder_name(dir), Err(why.into()));
        }
    }

    fn file(&mut self, path: &Path, what: &fs::Metadata, listed: Option<FileType>) {
        let name = name(path);
        let known = self.before.get(&name, &Stamp::of(what));
        let read = match known {
            Some(text) => Ok((Stamp::of(what), text)),
            None => fs::File::open(path).and_then(|file| Ok((Stamp::of(&file.metadata()?), read_text(file)?))),
        };
        match read {
            Ok((stamp, text)) => {
                if listed.is_none_or(|listed| listed.is_symlink()) && path.is_symlink() {
                    self.passed.push((path.to_owned(), stamp.identity()));
                }
                let text = self.seen.note(self.before, &name, stamp, text);
                self.found.insert(name, text);
            }
            Err(error) => self.lost(path, listed, &error),
        }
    }

    /// Notes what was listed and cannot be looked at. `listed` is what its folder says it is, which is known also where
    /// nothing in the folder may be looked at; what is not known may be a folder.
    fn lost(&mut self, path: &Path, listed: Option<FileType>, error: &io::Error) {
        let is_gone = error.kind() == ErrorKind::NotFound;
        let is_folder = listed.is_some_and(|listed| listed.is_dir());
        let may_be_folder = listed.is_none_or(|listed| listed.is_dir() || listed.is_symlink());
        if !is_yaml(path) && !may_be_folder {
            return;
        }
        if is_gone && !path.is_symlink() {
            self.vanished = true;
            return;
        }
        let (name, why) = match (is_yaml(path) && !is_folder, is_gone) {
            (true, true) => (name(path), format!("the link leads nowhere: {error}")),
            (true, false) => (name(path), format!("the file cannot be read: {error}")),
            (false, true) => (folder_name(path), dangling(path, error)),
            (false, false) => (folder_name(path), unlistable(path, error)),
        };
        self.found.insert(name, Err(why.into()));
    }
}

fn dangling(path: &Path, error: &io::Error) -> String {
    format!(
        "the link leads nowhere: {error}; what was read through it stays in force: expected a link to something that is \
         there, a name that begins with a dot, which is passed over, or `selvedge confirm {}` when it is gone for good",
        path.display()
    )
}

fn unlistable(path: &Path, error: &io::Error) -> String {
    format!(
        "the folder cannot be listed: {error}; what was read from it stays in force: expected one that the control \
         plane's user may read and enter, a name that begins with a dot, which is passed over, or `selvedge confirm {}` when \
         what it had is to go",
        path.display()
    )
}

pub(super) fn read_text(file: impl Read) -> io::Result<Text> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = MAX_FILE_BYTES / (1024 * 1024);
        return Ok(Err(format!("the file is larger than {limit} MiB: split it into several").into()));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Ok(text.into()),
        Err(error) => Err(format!("the file is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()).into()),
    })
}

pub(super) fn name(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}

fn folder_name(path: &Path) -> Arc<str> {
    format!("{}/", path.display()).into()
}

pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| {
        let name = name.to_string_lossy();
        name.starts_with(['.', '#']) || name.ends_with('~')
    })
}

pub(super) fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|found| ["yaml", "yml", "json"].iter().any(|known| found.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_what_may_be_configuration_makes_a_directory_restless() {
        let dir = tempfile::tempdir().unwrap();
        let inside = |name: &str| dir.path().join(name);
        for name in ["a.tmp", "a.yaml"] {
            fs::write(inside(name), "").unwrap();
        }
        fs::create_dir(inside("sub")).unwrap();
        let listed: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
        let types: Vec<_> = listed.iter().map(|entry| (entry.path(), entry.file_type().unwrap())).collect();
        fs::remove_dir_all(dir.path()).unwrap();
        for (path, listed) in types {
            let seen = Seen::default();
            let mut walk = Walk::after(&seen);
            walk.lost(&path, Some(listed), &io::Error::from(ErrorKind::NotFound));
            assert_eq!(walk.vanished, !path.ends_with("a.tmp"), "{}", path.display());
            assert_eq!(walk.found, Scan::new(), "{}", path.display());
        }
    }

    #[test]
    fn a_folder_that_is_made_anew_is_another_one_whatever_its_inode() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sub");
        fs::create_dir(&folder).unwrap();
        let made = |folder: &Path| fs::metadata(folder).unwrap().created();
        let (before, first) = (find(dir.path(), &Seen::default()).unwrap().folders, made(&folder));
        let Ok(first) = first else {
            // Past the capture of the test harness, so that a run that passes shows it.
            let why = "this file system does not know when a folder was made";
            let _ =
                writeln!(io::stderr(), "skipped: a_folder_that_is_made_anew_is_another_one_whatever_its_inode: {why}");
            return;
        };
        // The clock of a file system has ticks of some milliseconds.
        for _ in 0..1000 {
            fs::remove_dir(&folder).unwrap();
            fs::create_dir(&folder).unwrap();
            if made(&folder).unwrap() != first {
                assert_ne!(find(dir.path(), &Seen::default()).unwrap().folders, before);
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("the clock of the file system stands still");
    }
}
