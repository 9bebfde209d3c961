//! Files only their owner can read, that are there whole or not at all.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use super::IdentityError;

/// Creates `path` with `content` and mode 0600. False, with nothing changed, when it exists already.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<bool, IdentityError> {
    let failed = |source| IdentityError::File { action: "writing", path: path.to_owned(), source };
    let draft = path.with_extension(format!("draft-{:016x}", fastrand::u64(..)));
    let linked = write_new(&draft, content).and_then(|()| match fs::hard_link(&draft, path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    });
    let removed = fs::remove_file(&draft);
    let created = linked.map_err(failed)?;
    removed.map_err(failed)?;
    Ok(created)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes `path` a directory only its owner can enter, unless it exists.
pub(super) fn create_dir(path: &Path) -> Result<(), IdentityError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| IdentityError::File { action: "creating", path: path.to_owned(), source })
}
