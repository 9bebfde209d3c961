//! Files only their owner can read, that are there whole or not at all, also after a power cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::IdentityError;

/// What the extension of a file begins with that is being written.
const DRAFT: &str = "draft-";
/// A draft this old, in seconds, is of a process that ended while it wrote.
const LEFT: u64 = 3600;

/// Creates `path` with `content` and mode 0600. False, with nothing changed, when it exists already.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<bool, IdentityError> {
    let failed = |source| IdentityError::File { action: "writing", path: path.to_owned(), source };
    let draft = draft(path);
    let linked = write_new(&draft, content).and_then(|()| match fs::hard_link(&draft, path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    });
    let removed = fs::remove_file(&draft);
    let created = linked.map_err(failed)?;
    removed.and_then(|()| sync_name(path)).map_err(failed)?;
    Ok(created)
}

/// Puts a file with `content` and mode 0600 in place of the one at `path`.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    put(path, content).map_err(|source| IdentityError::File { action: "writing", path: path.to_owned(), source })
}

/// The same for whoever has other errors. A failure leaves nothing behind, and the file as it was or whole as it is now.
pub(crate) fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = draft(path);
    let written = write_new(&draft, content).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        fs::remove_file(&draft).ok();
    }
    written.and_then(|()| sync_name(path))
}

/// Waits until the disk has what became of the name `path`: a file that is synced can still be lost with its name.
pub(crate) fn sync_name(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

/// Removes drafts in `directory` that were left by a process that ended while it wrote; one can hold a key.
pub(super) fn sweep(directory: &Path, now: u64) -> io::Result<()> {
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
    path.with_extension(format!("{DRAFT}{:016x}", fastrand::u64(..)))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    adopt(&file, directory(path))?;
    file.write_all(content)?;
    file.sync_all()
}

/// What root makes belongs to the owner of the directory it is in, or the control plane could not read it.
fn adopt(file: &File, directory: &Path) -> io::Result<()> {
    let (made, home) = (file.metadata()?, fs::metadata(directory)?);
    if made.uid() == 0 && home.uid() != 0 {
        fchown(file, Some(home.uid()), Some(home.gid()))?;
    }
    Ok(())
}

/// Makes `path` a directory only its owner can enter, unless it exists.
pub(super) fn create_dir(path: &Path) -> Result<(), IdentityError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| IdentityError::File { action: "creating", path: path.to_owned(), source })
}

/// Opens the directory at `path`, and no other: the owner of the one it is in could put a link in its place, and be given
/// what the link leads to.
fn open_dir(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed()).open(path)
}

/// The directory `name` in `parent`, made when there is none yet, for the owner of `parent`.
pub(super) fn subdirectory(parent: &Path, name: &str) -> Result<PathBuf, IdentityError> {
    let path = parent.join(name);
    if !path.is_dir() {
        create_dir(&path)?;
        let settled = open_dir(&path).and_then(|made| adopt(&made, parent)).and_then(|()| sync_name(&path));
        settled.map_err(|source| IdentityError::File { action: "creating", path: path.clone(), source })?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_link_in_the_place_of_a_directory_gives_nothing_away() {
        let (state, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let link = state.path().join("tokens");
        symlink(other.path(), &link).unwrap();
        open_dir(&link).unwrap_err();
        assert!(open_dir(other.path()).unwrap().metadata().unwrap().is_dir());
        open_dir(&state.path().join("missing")).unwrap_err();
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_directory_it_is_in() {
        let state = TempDir::new().unwrap();
        if chown(state.path(), Some(12_345), Some(12_345)).is_err() {
            return println!("skipped: only root can give a directory away");
        }
        let made = subdirectory(state.path(), "tokens").unwrap();
        let metadata = fs::metadata(made).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (12_345, 12_345));
    }
}
