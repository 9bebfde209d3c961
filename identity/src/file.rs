//! Files that are there whole or not at all, also after a power cut.
//!
//! Guarantees: the content is on the disk before it has the name of the file, and the name is on the disk before a
//! function returns; a failure leaves the file as it was and no draft; writers of one file do not disturb one another.
//! All but [`publish`] write what only its owner can read. What root makes belongs to the owner of the directory it is
//! in, or the process that runs as that owner could not read it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// What the extension of a file begins with that is being written.
const DRAFT: &str = "draft";
/// A draft this old, in seconds, is of a process that ended while it wrote.
const LEFT: u64 = 3600;

/// For the owner alone.
const PRIVATE: u32 = 0o600;
/// For everybody whom the umask does not keep out.
const PUBLIC: u32 = 0o666;

/// Creates `path` with `content` and mode 0600. False, with nothing changed, when it exists already: of two processes
/// that create it at once one does.
///
/// # Errors
/// The directory or the disk does not take the file.
pub fn create(path: &Path, content: &[u8]) -> io::Result<bool> {
    let draft = draft(path);
    let linked = write_new(&draft, content, PRIVATE).and_then(|()| match fs::hard_link(&draft, path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    });
    let removed = fs::remove_file(&draft);
    let created = linked?;
    removed.and_then(|()| sync_name(path))?;
    Ok(created)
}

/// Puts a file with `content` and mode 0600 in place of the one at `path`, if there is one.
///
/// # Errors
/// The directory or the disk does not take the file, or does not say that it keeps its name.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    put(path, content, PRIVATE)
}

/// [`replace`] for what others may read, such as the ports a process listens on.
///
/// # Errors
/// Those of [`replace`].
pub fn publish(path: &Path, content: &[u8]) -> io::Result<()> {
    put(path, content, PUBLIC)
}

fn put(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let draft = draft(path);
    let written = write_new(&draft, content, mode).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        fs::remove_file(&draft).ok();
    }
    written.and_then(|()| sync_name(path))
}

/// Waits until the disk has what became of the name `path`: a file that is synced can still be lost with its name.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_name(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

/// Removes drafts in `directory` that were left by a process that ended while it wrote; one can hold a key. `now` is in
/// seconds since the Unix epoch: what was written within the hour before it may still be written to.
///
/// # Errors
/// The directory cannot be listed, or a draft cannot be removed.
pub fn sweep(directory: &Path, now: u64) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        let path = entry.path();
        let is_draft =
            path.extension().is_some_and(|extension| extension.as_encoded_bytes().starts_with(DRAFT.as_bytes()));
        let age = |modified: i64| now.saturating_sub(u64::try_from(modified).unwrap_or(0));
        if is_draft && entry.metadata().is_ok_and(|metadata| age(metadata.mtime()) > LEFT) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn draft(path: &Path) -> PathBuf {
    path.with_extension(format!("{DRAFT}-{:016x}", fastrand::u64(..)))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    adopt(&file, directory(path))?;
    file.write_all(content)?;
    file.sync_all()
}

fn adopt(file: &File, directory: &Path) -> io::Result<()> {
    let (made, home) = (file.metadata()?, fs::metadata(directory)?);
    if made.uid() == 0 && home.uid() != 0 {
        fchown(file, Some(home.uid()), Some(home.gid()))?;
    }
    Ok(())
}

/// Makes `path`, and what is missing above it, a directory only its owner can enter, unless it exists.
///
/// # Errors
/// It cannot be made, or is no directory.
pub fn create_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens the directory at `path`, and no other: the owner of the one it is in could put a link in its place, and be given
/// what the link leads to.
fn open_dir(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed()).open(path)
}

/// The directory `name` in `parent`, made when there is none yet, for the owner of `parent`.
///
/// # Errors
/// It cannot be made, or something else has its name, such as a link.
pub fn subdirectory(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let path = parent.join(name);
    match open_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_dir(&path)?;
            open_dir(&path).and_then(|made| adopt(&made, parent)).and_then(|()| sync_name(&path))?;
        }
        found => drop(found?),
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use tempfile::TempDir;

    use super::*;

    fn names(directory: &TempDir) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_private_file_is_private_also_in_place_of_one_that_was_not() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("key.pem");
        assert!(create(&path, b"first").unwrap());
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"first".to_vec()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"second".to_vec()));
        assert_eq!(names(&directory), ["key.pem"]);
    }

    #[test]
    fn what_exists_is_not_created_and_stays_as_it_was() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("token");
        assert!(create(&path, b"first").unwrap());
        assert!(!create(&path, b"second").unwrap());
        assert_eq!((names(&directory), fs::read(&path).unwrap()), (vec!["token".to_owned()], b"first".to_vec()));
    }

    #[test]
    fn what_is_published_has_the_mode_of_any_new_file() {
        let directory = TempDir::new().unwrap();
        let (published, plain) = (directory.path().join("ports.json"), directory.path().join("plain"));
        publish(&published, b"{}").unwrap();
        fs::write(&plain, "").unwrap();
        assert_eq!((mode(&published), names(&directory)), (mode(&plain), vec!["plain".into(), "ports.json".into()]));
    }

    #[test]
    fn a_failure_leaves_the_file_as_it_was_and_no_draft() {
        let directory = TempDir::new().unwrap();
        let taken = directory.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        for write in [replace, publish] {
            write(&taken, b"no file can take the place of a directory").unwrap_err();
        }
        assert!(!create(&taken, b"nor this").unwrap());
        replace(&directory.path().join("missing/file"), b"").unwrap_err();
        assert_eq!(names(&directory), ["taken"]);
        assert!(taken.join("inside").is_dir());
    }

    #[test]
    fn writers_of_one_file_leave_one_whole_file() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("state");
        let content = |letter: u8| vec![letter; 100_000];
        std::thread::scope(|scope| {
            for letter in *b"ab" {
                let path = &path;
                scope.spawn(move || (0..50).for_each(|_| replace(path, &content(letter)).unwrap()));
            }
        });
        let found = fs::read(&path).unwrap();
        assert!(found == content(b'a') || found == content(b'b'), "{} bytes", found.len());
        assert_eq!(names(&directory), ["state"]);
    }

    #[test]
    fn drafts_are_swept_once_nobody_can_be_writing_them() {
        let directory = TempDir::new().unwrap();
        let left = draft(&directory.path().join("credentials.json"));
        for path in [&left, &directory.path().join("credentials.json")] {
            fs::write(path, "key").unwrap();
        }
        let written = u64::try_from(fs::metadata(&left).unwrap().mtime()).unwrap();
        sweep(directory.path(), written + LEFT).unwrap();
        assert!(left.exists(), "somebody may be writing it");
        sweep(directory.path(), written + LEFT + 1).unwrap();
        assert_eq!(names(&directory), ["credentials.json"]);
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_gives_nothing_away() {
        let (state, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let link = state.path().join("tokens");
        symlink(other.path(), &link).unwrap();
        open_dir(&link).unwrap_err();
        subdirectory(state.path(), "tokens").unwrap_err();
        assert_eq!(names(&other), [""; 0]);
        assert!(open_dir(other.path()).unwrap().metadata().unwrap().is_dir());
        open_dir(&state.path().join("missing")).unwrap_err();
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_directory_it_is_in() {
        let state = TempDir::new().unwrap();
        if chown(state.path(), Some(12_345), Some(12_345)).is_err() {
            // Past the capture of the test harness, so that a run that passes shows it.
            let name = "what_root_makes_belongs_to_the_owner_of_the_directory_it_is_in";
            let _ = writeln!(io::stderr(), "skipped: {name}: only root can give a directory away");
            return;
        }
        let file = state.path().join("key.pem");
        replace(&file, b"key").unwrap();
        for made in [subdirectory(state.path(), "tokens").unwrap(), file] {
            let metadata = fs::metadata(&made).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (12_345, 12_345), "{}", made.display());
        }
    }
}
